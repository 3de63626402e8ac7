"""Two algorithms with two backbones each, in one experiment: what may be compared shares a chart.

The losses of the two RetinaNets meet, those of the two FCOS meet, and the figures of all four.

Run it:  python examples/compare_four.py      then:  boxscore view four
"""

from itertools import product
from pathlib import Path

from rich.console import Console

from boxscore.demo import Plan, demo


def main(out=Path("four"), steps=120, input_size=128):
    best = {}
    for algorithm, backbone in product(("retinanet", "fcos"), ("resnet18", "mobilenet_v3_large")):
        plan = Plan(
            algorithm=algorithm, backbone=backbone, input_size=input_size, steps=steps, out=out
        )
        score = demo(plan, Console())
        best[str(score.run.identity)] = score.best.get("box_AP50", 0.0)
    for name, figure in sorted(best.items(), key=lambda item: -item[1]):
        print(f"{name:40} box_AP50 {figure:.3f}")


if __name__ == "__main__":
    main()
