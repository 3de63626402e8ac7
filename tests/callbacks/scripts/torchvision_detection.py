"""As torchvision's reference training of detectors."""

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxscore.callbacks.loop import LoopCallback  # boxscore
from tests.tiny import CLASSES, fcos, loader


def train_one_epoch(model, optimizer, data_loader):
    model.train()
    for images, targets in data_loader:
        loss_dict = model(images, targets)
        losses = sum(loss for loss in loss_dict.values())
        printed.append(losses.item())
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        score.step(loss_dict)  # boxscore


@torch.inference_mode()
def evaluate(model, data_loader):
    model.eval()
    found, truth, images_seen = [], [], []
    for images, targets in data_loader:
        for output, target in zip(model(images), targets, strict=True):
            image = int(target["image_id"])
            images_seen.append({"id": image})
            for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
                x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
                truth.append({
                    "id": len(truth) + 1, "image_id": image, "category_id": label,
                    "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0,
                })  # fmt: skip
            rows = zip(output["boxes"].tolist(), output["labels"].tolist(), output["scores"].tolist(), strict=True)
            for box, label, confidence in rows:
                x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
                found.append({"image_id": image, "category_id": label, "bbox": [x, y, w, h], "score": confidence})
    coco = COCO()
    coco.dataset = {"images": images_seen, "annotations": truth, "categories": [{"id": n} for n in CLASSES]}
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes([f for f in found if f["category_id"] in CLASSES]), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


printed = []
train_loader, test_loader = loader(8), loader(4, 100)
model = fcos()
optimizer = torch.optim.SGD(model.parameters(), lr=0.005, weight_decay=0.0)
score = LoopCallback(model, optimizer, test_loader, train_loader=train_loader, classes=CLASSES, **options)  # boxscore
for epoch in range(2):
    train_one_epoch(model, optimizer, train_loader)
    stats = evaluate(model, test_loader)

own = {"box_AP": stats[0], "box_AP50": stats[1], "box_AR100": stats[8]}
own_losses = {"total": printed}
