"""A YOLO11 of random weights in Ultralytics' own trainer, on the demo's images as files.

Run it:  python examples/ultralytics_yolo.py      then:  boxscore view example
"""

from pathlib import Path

from PIL import Image
from ultralytics import YOLO

from boxscore.callbacks.ultralytics import BoxscoreCallback
from boxscore.demo.shapes import CLASSES, SIDE, Shapes


def write(folder):
    """The images and labels as Ultralytics reads them; returns the path of their YAML."""
    for split in ("train", "test"):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for image, target in Shapes(split, "detection"):
            pixels = (image.permute(1, 2, 0) * 255).byte().numpy()
            Image.fromarray(pixels).save(images / f"{target['image_id']}.png")
            boxes = target["boxes"] / SIDE
            centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            (labels / f"{target['image_id']}.txt").write_text("".join(
                f"{int(label) - 1} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n"
                for label, (x, y), (w, h) in zip(target["labels"], centers, sizes, strict=True)
            ))  # fmt: skip
    names = "".join(f"  {label - 1}: {name}\n" for label, name in CLASSES.items())
    path = folder / "shapes.yaml"
    path.write_text(
        f"path: {folder.resolve()}\ntrain: images/train\nval: images/test\nnames:\n{names}"
    )
    return path


def main(epochs=20, log_every=10, evaluate_every=50):
    model = YOLO("yolo11n.yaml")
    score = BoxscoreCallback(
        log_dir="example/runs",
        tracking_uri="sqlite:///example/mlflow.db",
        log_every=log_every,
        evaluate_every=evaluate_every,  # without it, whenever the trainer validates
    ).attach(model)
    model.train(
        data=write(Path("example/shapes")), epochs=epochs, imgsz=SIDE, batch=8, nbs=8,
        project=str(Path("example/trained").resolve()), plots=False, device="cpu",
    )  # fmt: skip
    best = {name: round(value, 3) for name, value in score.best.items()}
    print(best, model.trainer.best)


if __name__ == "__main__":
    main()
