"""As torchgeo's tasks of detection and instances: batches of lists under names."""

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import MaskRCNN

from boxscore.callbacks.lightning import BoxscoreCallback  # boxscore
from tests.tiny import CLASSES, Pictures, fcos, two_stage


def collate(samples):
    return {
        "image": torch.stack([image for image, _ in samples]),
        "bbox_xyxy": [target["boxes"] for _, target in samples],
        "label": [target["labels"] for _, target in samples],
        "mask": [target["masks"].to(torch.uint8) for _, target in samples],
    }


class ObjectDetectionTask(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = two_stage(MaskRCNN) if is_instances else fcos()
        self.metric = MeanAveragePrecision(
            iou_type=("bbox", "segm") if is_instances else "bbox", backend="pycocotools"
        )

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)

    def unpacked(self, batch):
        rows = zip(batch["bbox_xyxy"], batch["label"], batch["mask"], strict=True)
        return batch["image"], [{"boxes": b, "labels": c, "masks": m} for b, c, m in rows]

    def training_step(self, batch, batch_idx):
        x, y = self.unpacked(batch)
        loss = sum(self(x, y).values())
        printed.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = self.unpacked(batch)
        found = [{n: v[o["labels"] > 0] for n, v in o.items()} for o in self(x)]
        for one in found if is_instances else ():
            one["masks"] = (one["masks"] > 0.5).squeeze(1).to(torch.uint8)
        self.metric.update(found, y)

    def on_validation_epoch_end(self):
        found = self.metric.compute()
        for key, value in found.items():
            kind, _, name = key.partition("_") if is_instances else ("bbox", "", key)
            if name in ("map", "map_50"):
                figure = {"bbox": "box", "segm": "mask"}[kind] + "_AP" + name.removeprefix("map").strip("_")
                own[figure] = value.item()
        self.metric.reset()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


own, printed, is_instances = {}, [], kind == "instances"
train_loader, val_loader = DataLoader(Pictures(6), 2, collate_fn=collate), DataLoader(Pictures(4, 100), 2, collate_fn=collate)
score = BoxscoreCallback(classes=CLASSES, **options)  # boxscore
trainer = pl.Trainer(
    callbacks=[score],  # the argument of a Trainer that has callbacks anyway
    max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
    enable_model_summary=False, num_sanity_val_steps=0,
)
trainer.fit(ObjectDetectionTask(), train_loader, val_loader)
own_losses = {"total": printed}
