"""As torchgeo's ObjectDetectionTask: a torchvision detector, batches of lists under names."""

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader
from torchmetrics.detection import MeanAveragePrecision

from boxscore.callbacks.lightning import BoxscoreCallback  # boxscore
from tests.tiny import CLASSES, Pictures, fcos


def collate(samples):
    return {
        "image": torch.stack([image for image, _ in samples]),
        "bbox_xyxy": [target["boxes"] for _, target in samples],
        "label": [target["labels"] for _, target in samples],
    }


class ObjectDetectionTask(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model, self.metric = fcos(), MeanAveragePrecision(backend="pycocotools")

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)

    def unpacked(self, batch):
        rows = zip(batch["bbox_xyxy"], batch["label"], strict=True)
        return batch["image"], [{"boxes": boxes, "labels": labels} for boxes, labels in rows]

    def training_step(self, batch, batch_idx):
        x, y = self.unpacked(batch)
        loss = sum(self(x, y).values())
        printed.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = self.unpacked(batch)
        self.metric.update([{n: v[o["labels"] > 0] for n, v in o.items()} for o in self(x)], y)

    def on_validation_epoch_end(self):
        found = self.metric.compute()
        own["box_AP"], own["box_AP50"] = found["map"].item(), found["map_50"].item()
        self.metric.reset()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


own, printed = {}, []
train_loader, val_loader = DataLoader(Pictures(6), 2, collate_fn=collate), DataLoader(Pictures(4, 100), 2, collate_fn=collate)
score = BoxscoreCallback(classes=CLASSES, **options)  # boxscore
trainer = pl.Trainer(
    callbacks=[score],  # the argument of a Trainer that has callbacks anyway
    max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
    enable_model_summary=False, num_sanity_val_steps=0,
)
trainer.fit(ObjectDetectionTask(), train_loader, val_loader)
own_losses = {"total": printed}
