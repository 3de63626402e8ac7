"""Semantic segmentation with MMEngine's Runner, in MMSegmentation's conventions.

Run it:  python examples/mmengine_runner.py      then:  boxscore view example
"""

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, PixelData
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from boxscore.callbacks.mmengine import BoxscoreHook
from boxscore.demo.shapes import Shapes
from boxscore.losses import cross_entropy_loss


class Packed(Shapes):
    def __getitem__(self, index):
        image, labels = super().__getitem__(index)
        sample = BaseDataElement(gt_sem_seg=PixelData(data=labels[None]))
        return {"inputs": image, "data_samples": sample}


class Segmentor(BaseModel):
    def __init__(self):
        super().__init__()
        self.net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        logits = self.net(torch.stack(inputs))["out"]
        if mode == "loss":
            labels = torch.cat([sample.gt_sem_seg.data for sample in data_samples])
            return {"loss_ce": cross_entropy_loss(logits, labels)}
        for sample, found in zip(data_samples, logits, strict=True):
            sample.seg_logits = PixelData(data=found)
        return data_samples


def batches(split):
    data, sampler = Packed(split, "semantic-segmentation"), {"type": "DefaultSampler"}
    data.metainfo = {"classes": list(data.classes.values())}
    return {"dataset": data, "batch_size": 8, "sampler": sampler}


def main(steps=200, log_every=10, evaluate_every=50):
    tracked = {"log_dir": "example/runs", "tracking_uri": "sqlite:///example/mlflow.db"}
    score = BoxscoreHook(dataset="shapes", log_every=log_every, **tracked)
    best = {"type": "CheckpointHook", "save_best": "IoU", "rule": "greater", "by_epoch": False}
    Runner(
        Segmentor(), "example", batches("train"), batches("test"), val_cfg={}, val_evaluator=[],
        train_cfg={"by_epoch": False, "max_iters": steps, "val_interval": evaluate_every},
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 1e-3}}, custom_hooks=[score],
        default_hooks={"checkpoint": best}, randomness={"seed": 0},
    ).train()  # fmt: skip
    print({name: round(value, 3) for name, value in score.best.items()})


if __name__ == "__main__":
    main()
