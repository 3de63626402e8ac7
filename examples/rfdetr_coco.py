"""An RF-DETR Nano of random weights in its own training, on the demo's images in COCO's format.

Run it:  python examples/rfdetr_coco.py      then:  boxscore view example
"""

import json
from pathlib import Path

from PIL import Image
from rfdetr import RFDETRNano

from boxscore.callbacks.rfdetr import BoxscoreCallback
from boxscore.demo.shapes import CLASSES, SIDE, Shapes


def write(folder):
    """The images and annotations as RF-DETR reads them."""
    for split in ("train", "test"):
        place = folder / split.replace("test", "valid")
        place.mkdir(parents=True, exist_ok=True)
        content = {"images": [], "annotations": []}
        content["categories"] = [{"id": n, "name": name} for n, name in CLASSES.items()]
        for number, (image, target) in enumerate(Shapes(split, "detection")):
            pixels = (image.permute(1, 2, 0) * 255).byte().numpy()
            Image.fromarray(pixels).save(place / f"{number}.png")
            entry = {"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE}
            content["images"].append(entry)
            for (x, y, right, low), label in zip(
                target["boxes"].tolist(), target["labels"].tolist(), strict=True
            ):
                box = {"bbox": [x, y, right - x, low - y], "area": (right - x) * (low - y)}
                known = {"id": len(content["annotations"]) + 1, "image_id": number}
                content["annotations"].append({**known, **box, "category_id": label, "iscrowd": 0})
        (place / "_annotations.coco.json").write_text(json.dumps(content))
    return folder


def main(epochs=3, log_every=10, evaluate_every=40):
    model = RFDETRNano(
        pretrain_weights=None, num_classes=len(CLASSES), resolution=SIDE,
        num_queries=48, num_select=48, group_detr=4,  # for few objects, on a CPU
    )  # fmt: skip
    score = BoxscoreCallback(
        log_dir="example/runs",
        tracking_uri="sqlite:///example/mlflow.db",
        log_every=log_every,
        evaluate_every=evaluate_every,  # without it, whenever RF-DETR validates
    ).attach(model)
    model.train(
        dataset_dir=str(write(Path("example/shapes"))), output_dir="example/trained", epochs=epochs,
        batch_size=4, grad_accum_steps=2, multi_scale=False, tensorboard=False, num_workers=0,
    )  # fmt: skip
    print({name: round(value, 3) for name, value in score.best.items()}, "example/trained")


if __name__ == "__main__":
    main()
