"""Ultralytics' network in a loop of one's own: `predict=` says what a batch gives.

Run it:  python examples/yolo_in_a_loop.py      then:  boxscore view example
"""

from itertools import islice

import torch
from torch.utils.data import DataLoader
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.nms import non_max_suppression

from boxscore.callbacks.loop import LoopCallback
from boxscore.demo.shapes import Shapes


def collate(samples):
    images, targets = torch.stack([image for image, _ in samples]), [t for _, t in samples]
    boxes = torch.cat([t["boxes"] for t in targets]) / images.shape[-1]
    size, counts = boxes[:, 2:] - boxes[:, :2], torch.tensor([len(t["boxes"]) for t in targets])
    return {
        "img": images, "targets": targets,
        "cls": torch.cat([t["labels"] for t in targets])[:, None] - 1.0,
        "bboxes": torch.cat([boxes[:, :2] + size / 2, size], 1),
        "batch_idx": torch.arange(len(samples)).repeat_interleave(counts),
    }  # fmt: skip


def predict(model, batch):
    rows = non_max_suppression(model(batch["img"]), 0.001, 0.7, max_det=100)
    found = [{"boxes": r[:, :4], "scores": r[:, 4], "labels": r[:, 5].long() + 1} for r in rows]
    return model.loss(batch)[1], found, batch["targets"]


def main(steps=200, log_every=10, evaluate_every=50):
    train = Shapes("train", "detection")
    loader = DataLoader(train, 8, shuffle=True, collate_fn=collate)
    test_loader = DataLoader(Shapes("test", "detection"), 8, collate_fn=collate)
    model = DetectionModel("yolov8n.yaml", nc=3, verbose=False)
    model.args = get_cfg()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    score = LoopCallback(
        model, optimizer, test_loader, train_loader=loader, predict=predict, task="detection",
        dataset="shapes", classes=train.classes, log_dir="example/runs", log_every=log_every,
        tracking_uri="sqlite:///example/mlflow.db", evaluate_every=evaluate_every,
    )  # fmt: skip
    for batch in islice((batch for _ in range(steps) for batch in loader), steps):
        loss, items = model.train()(batch)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        score.step(items)
    score.close()
    print(score.best)


if __name__ == "__main__":
    main()
