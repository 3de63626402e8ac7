"""Detectron2: a hook on LoopCallback, for the default trainer and those made of its parts.

    mapper = DatasetMapper(cfg, is_train=True, augmentations=[ResizeShortestEdge(800, 1333)])
    test_loader = build_detection_test_loader(cfg, cfg.DATASETS.TEST[0], mapper=mapper)
    classes = dict(enumerate(MetadataCatalog.get(cfg.DATASETS.TEST[0]).thing_classes))
    identity = Identity("FasterRCNN", "800x1333", "ResNet-50")
    hook = BoxscoreHook(trainer, test_loader, identity=identity, classes=classes, dataset="bccd")
    trainer.register_hooks([hook])  # before resume_or_load

``is_train`` makes the mapper keep the ground truth, which the test losses and metrics need.
"""

import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage

from boxscore.callbacks.loop import LoopCallback


def target(one):
    """The ground truth of an image, in the frame of the original."""
    truth, (height, width) = one["instances"], one["image"].shape[-2:]
    scale = torch.tensor([one["width"] / width, one["height"] / height] * 2)
    boxes = truth.gt_boxes.tensor.cpu() * scale
    return {"boxes": boxes, "labels": truth.gt_classes.cpu(), "image_id": one["image_id"]}


def pair(batch):
    return [one["image"] for one in batch], [target(one) for one in batch]


def predict(model, batch):
    """Losses in train mode but for batch norm; predictions, in the original frame, in eval mode."""
    found = [one["instances"].to("cpu") for one in model.eval()(batch)]
    predictions = [
        {"boxes": f.pred_boxes.tensor, "scores": f.scores, "labels": f.pred_classes} for f in found
    ]
    for part in model.modules():
        part.training = "BatchNorm" not in type(part).__name__
    with EventStorage():  # the model's diagnostics are not those of the training
        return model(batch), predictions, pair(batch)[1]


class BoxscoreHook(HookBase):
    def __init__(self, trainer, test_loader, **options):
        options = {"task": "detection", "predict": predict, "batch": pair, **options}
        self.score = LoopCallback(trainer.model, trainer.optimizer, test_loader, **options)
        self.state_dict, self.load_state_dict = self.score.state_dict, self.score.load_state_dict

    def after_step(self):
        latest = self.trainer.storage.latest().items()
        self.score.step({name: value for name, (value, _) in latest if "loss" in name})

    def after_train(self):
        self.score.close()  # FAILED where an exception ends the training
