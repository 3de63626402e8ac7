"""As the notebooks that fine-tune DETR: Transformers' model in a LightningModule."""

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from boxscore.callbacks.lightning import BoxscoreCallback  # boxscore
from tests.tiny import Pictures
from tests.tiny_transformers import model


def collate(samples):
    labels = []
    for _, target in samples:
        x1, y1, x2, y2 = (target["boxes"] / 64).unbind(1)
        boxes = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1)
        labels.append({
            "boxes": boxes, "class_labels": target["labels"] - 1, "image_id": target["image_id"],
            "orig_size": torch.tensor([64, 64]), "size": torch.tensor([64, 64]),
        })  # fmt: skip
    return {"pixel_values": torch.stack([image for image, _ in samples]), "labels": labels}


class Detr(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = model("detr")

    def forward(self, pixel_values, pixel_mask):
        return self.model(pixel_values=pixel_values, pixel_mask=pixel_mask)

    def common_step(self, batch):
        labels = [dict(target) for target in batch["labels"]]
        return self.model(pixel_values=batch["pixel_values"], labels=labels)

    def training_step(self, batch, batch_idx):
        loss = self.common_step(batch).loss
        printed.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        validated.append(self.common_step(batch).loss.item())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


printed, validated = [], []
torch.manual_seed(0)
train_loader, val_loader = DataLoader(Pictures(6), 2, collate_fn=collate), DataLoader(Pictures(2, 100), 2, collate_fn=collate)
score = BoxscoreCallback(classes=["disc", "square", "none"], **options)  # boxscore
trainer = pl.Trainer(
    callbacks=[score],  # the argument of a Trainer that has callbacks anyway
    max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
    enable_model_summary=False, num_sanity_val_steps=0, gradient_clip_val=0.1,
)
trainer.fit(Detr(), train_loader, val_loader)
own = {"total": validated[-1]}
own_losses = {"total": printed}
