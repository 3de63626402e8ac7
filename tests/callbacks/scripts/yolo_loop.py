"""A loop of one's own around Ultralytics' network; the script's validation has its own decoding."""

import torch
from torch.utils.data import DataLoader
from torchmetrics.detection import MeanAveragePrecision
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.nms import non_max_suppression

from boxscore.callbacks.loop import LoopCallback  # boxscore
from tests.tiny import Pictures


def collate(samples):
    boxes = torch.cat([target["boxes"] for _, target in samples]) / 64
    corner, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    counts = torch.tensor([len(target["boxes"]) for _, target in samples])
    return {
        "img": torch.stack([image for image, _ in samples]),
        "cls": torch.cat([target["labels"] for _, target in samples])[:, None] - 1.0,
        "bboxes": torch.cat([corner + size / 2, size], 1),
        "batch_idx": torch.arange(len(samples)).repeat_interleave(counts),
    }


def decode(model, batch):
    rows = non_max_suppression(model(batch["img"]), 0.001, 0.7, max_det=100)
    found = [{"boxes": r[:, :4], "scores": r[:, 4], "labels": r[:, 5].long()} for r in rows]
    x, y, w, h = (batch["bboxes"] * 64).unbind(1)
    xyxy, owner = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1), batch["batch_idx"]
    labels = batch["cls"][:, 0].long()
    return found, [{"boxes": xyxy[owner == n], "labels": labels[owner == n]} for n in range(len(rows))]


torch.manual_seed(0)
model = DetectionModel("yolov8n.yaml", nc=2, verbose=False)
model.args = get_cfg()
train_loader, val_loader = DataLoader(Pictures(8), 4, collate_fn=collate), DataLoader(Pictures(4, 100), 4, collate_fn=collate)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
predict = lambda model, batch: (model.loss(batch)[1], *decode(model, batch))  # boxscore
score = LoopCallback(model, optimizer, val_loader, train_loader=train_loader, predict=predict, task="detection", classes=["disc", "square"], **options)  # boxscore
printed = []
for epoch in range(2):
    model.train()
    for batch in train_loader:
        loss, items = model(batch)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        printed.append(sum(items.values()).item())
        score.step(items)  # boxscore
    model.eval()
    metric = MeanAveragePrecision(backend="pycocotools")
    with torch.no_grad():
        for batch in val_loader:
            metric.update(*decode(model, batch))

found = metric.compute()
own = {"box_AP": found["map"].item(), "box_AP50": found["map_50"].item()}
own_losses = {"total": printed}
images_per_step = 4
