"""A detector in a LightningModule: one callback, and Lightning's own checkpoints by box_AP50.

Run it:  python examples/lightning_detection.py      then:  boxscore view example
"""

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader
from torchvision.models.detection import fcos_resnet50_fpn

from boxscore.callbacks.lightning import BoxscoreCallback
from boxscore.demo.shapes import Shapes


class Detector(LightningModule):
    def __init__(self, classes):
        super().__init__()
        self.model = fcos_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=classes, min_size=128, max_size=128
        )

    def training_step(self, batch, index):
        return sum(self.model(*batch).values())

    def validation_step(self, batch, index):
        """Nothing is needed here: boxscore knows torchvision's detectors."""

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=5e-4)


def as_lists(batch):
    return [list(side) for side in zip(*batch, strict=True)]


def main(steps=200, log_every=10, evaluate_every=50):
    torch.manual_seed(0)
    train, test = Shapes("train", "detection"), Shapes("test", "detection")
    batches = {"batch_size": 8, "collate_fn": as_lists}
    score = BoxscoreCallback(
        dataset="shapes",
        classes=train.classes,
        log_dir="example/runs",
        tracking_uri="sqlite:///example/mlflow.db",
        log_every=log_every,
        evaluate_every=evaluate_every,
    )
    best = ModelCheckpoint(
        "example", None, "box_AP50", mode="max", every_n_train_steps=evaluate_every
    )
    trainer = Trainer(max_steps=steps, callbacks=[score, best], logger=False, gradient_clip_val=1.0)
    loaders = DataLoader(train, shuffle=True, **batches), DataLoader(test, **batches)
    trainer.fit(Detector(1 + len(train.classes)), *loaders)
    print({name: round(value, 3) for name, value in score.best.items()}, best.best_model_path)


if __name__ == "__main__":
    main()
