"""Every documented loss and metric, once.

README's tables, ``boxscore catalogue`` and the names in the trackers come from here. A new measure
is one more entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Task = Literal["detection", "instance-segmentation", "semantic-segmentation"]

DETECTION: tuple[Task, ...] = ("detection", "instance-segmentation")
INSTANCE: tuple[Task, ...] = ("instance-segmentation",)
SEMANTIC: tuple[Task, ...] = ("semantic-segmentation",)
TASKS: tuple[Task, ...] = (*DETECTION, *SEMANTIC)


@dataclass(frozen=True, slots=True)
class Measure:
    """A documented loss or metric.

    Attributes:
        name: the one name that it has from every framework and in every tracker.
        definition: what it measures, in one or two sentences.
        kind: ``"loss"`` or ``"metric"``.
        better: the direction of improvement.
        scope: within what values may be compared: one ``"group"`` (parent algorithm and input
            size), or one ``"fingerprint"`` (evaluated set).
        unit: of the value.
        range: lowest and highest possible value.
        tasks: where it applies.
        part: whether it is a weighted contribution to the objective, so that `total` sums it.
        per_class: whether the trackers show it for each class too.
        source: who defines it.
    """

    name: str
    definition: str
    kind: Literal["loss", "metric"]
    better: Literal["lower", "higher"]
    scope: Literal["group", "fingerprint"]
    unit: str
    range: tuple[float, float]
    tasks: tuple[Task, ...]
    part: bool
    source: str
    per_class: bool = False


_PER_CLASS = ("box_AP", "mask_AP", "IoU", "F1")
"""Further ones for each class would make an experiment too large for MLflow."""


def _loss(
    name: str,
    definition: str,
    *,
    tasks: tuple[Task, ...] = DETECTION,
    part: bool = True,
    unit: str = "loss as weighted in the objective",
    high: float = float("inf"),
    source: str = "the framework's own criterion",
) -> Measure:
    return Measure(
        name, definition, "loss", "lower", "group", unit, (0.0, high), tasks, part, source
    )


def _metric(name: str, definition: str, tasks: tuple[Task, ...], source: str) -> Measure:
    return Measure(
        name, definition, "metric", "higher", "fingerprint", "fraction", (0.0, 1.0), tasks, False,
        source, per_class=name in _PER_CLASS,
    )  # fmt: skip


_LOSSES = (
    _loss(
        "total",
        "The sum of the run's parts, always.",
        tasks=TASKS,
        part=False,
        source="documentation of the mission: the sum of all losses used",
    ),
    _loss(
        "classification",
        "Deviation of the predicted class from the true one; for semantic models the criterion on "
        "the main output.",
        tasks=TASKS,
    ),
    _loss(
        "localization",
        "Deviation of the predicted box from the true one; IoU, L1, DFL and similar terms fold in.",
    ),
    _loss(
        "regularization",
        "Half the squared norm of the weights times their decay, ½ Σ weight_decay·‖w‖², over the "
        "optimizer's parameter groups. A part where the decay is coupled (SGD, Adam); nominal and "
        "not summed where it is decoupled (AdamW), since it is no loss used there.",
        tasks=TASKS,
        source="Goodfellow et al., Deep Learning (2016), 7.1.1; its gradient is SGD's weight_decay",
    ),
    _loss(
        "mask",
        "Deviation of predicted from true mask pixels within the regions that hold an object.",
        tasks=INSTANCE,
        source="He et al., Mask R-CNN (2017), section 3",
    ),
    _loss(
        "rpn_localization",
        "How closely the region proposals match the boxes of the objects that they hold.",
        source="Ren et al., Faster R-CNN (2015), section 3.1.2",
    ),
    _loss(
        "rpn_objectness",
        "How right the proposal network's probability is that a region holds an object at all.",
        source="Ren et al., Faster R-CNN (2015), section 3.1.2",
    ),
    _loss("keypoint", "Deviation of predicted from true keypoints."),
    _loss("centerness", "Deviation of a location's predicted from its true centredness (FCOS)."),
    _loss("objectness", "Whether a location holds an object, in detectors without proposals."),
    _loss(
        "auxiliary", "Losses of auxiliary heads and of intermediate decoder layers.", tasks=TASKS
    ),
    _loss("denoising", "Losses of denoising queries; they exist in training only (DINO, RT-DETR)."),
    _loss(
        "other",
        "What the framework's objective holds beyond the parts above; may be negative.",
        tasks=TASKS,
    ),
    _loss(
        "focal",
        "Cross-entropy weighted down where the model is right with confidence: mean over the valid "
        "pixels of (1-p)^2 · CE.",
        tasks=SEMANTIC,
        part=False,
        unit="nats per pixel",
        source="Lin et al., Focal Loss for Dense Object Detection (2017), equation 4",
    ),
    _loss(
        "cross_entropy",
        "Mean over the valid pixels of -log p(true class).",
        tasks=SEMANTIC,
        part=False,
        unit="nats per pixel",
        source="torch.nn.functional.cross_entropy",
    ),
    _loss(
        "dice",
        "1 - soft Dice per class over the batch, averaged over the classes present in the target; "
        "0 is perfect overlap, 1 none.",
        tasks=SEMANTIC,
        part=False,
        unit="fraction",
        high=1.0,
        source="Milletari et al., V-Net (2016), section 3",
    ),
)

_COCO = "COCO detection evaluation, pycocotools.cocoeval stats[{}]"
_COCO_FIGURES = (
    ("AP", "Average precision, mean over IoU 0.50:0.05:0.95 and classes"),
    ("AP50", "Average precision at IoU 0.50"),
    ("AP75", "Average precision at IoU 0.75"),
    ("AP_small", "Average precision of objects up to 32² px"),
    ("AP_medium", "Average precision of objects from 32² to 96² px"),
    ("AP_large", "Average precision of objects from 96² px"),
    ("AR1", "Recall, mean over IoU and classes, with 1 detection per image"),
    ("AR10", "Recall, mean over IoU and classes, with 10 detections per image"),
    ("AR100", "Recall, mean over IoU and classes, with 100 detections per image"),
    ("AR_small", "Recall of objects up to 32² px"),
    ("AR_medium", "Recall of objects from 32² to 96² px"),
    ("AR_large", "Recall of objects from 96² px"),
)

_BOXES, _MASKS = (
    tuple(
        _metric(f"{what}_{name}", f"{text}; {what} IoU.", tasks, _COCO.format(index))
        for index, (name, text) in enumerate(_COCO_FIGURES)
    )
    for what, tasks in (("box", DETECTION), ("mask", INSTANCE))
)

_SEMANTIC = (
    _metric(
        "AP",
        "Area under the pixel precision-recall curve, Σ(Rₙ-Rₙ₋₁)Pₙ, one class against the rest, "
        "mean over the classes with ground truth.",
        SEMANTIC,
        "sklearn.metrics.average_precision_score, over fixed thresholds dense at both ends",
    ),
    _metric(
        "AR",
        "Pixel recall averaged over the thresholds k/256, mean over the classes with ground truth.",
        SEMANTIC,
        "documentation of the mission: recall over several confidence thresholds",
    ),
    _metric(
        "IoU",
        "Intersection over union (Jaccard), mean over the classes present in truth or prediction.",
        SEMANTIC,
        "sklearn.metrics.jaccard_score, average='macro'",
    ),
    _metric(
        "pixel_accuracy",
        "Share of the valid pixels with the right class; misleading where one class prevails.",
        SEMANTIC,
        "sklearn.metrics.accuracy_score",
    ),
    _metric(
        "F1",
        "Harmonic mean of pixel precision and recall, mean over the classes as in IoU.",
        SEMANTIC,
        "sklearn.metrics.f1_score, average='macro'",
    ),
)

CATALOGUE: Mapping[str, Measure] = {
    measure.name: measure for measure in (*_LOSSES, *_BOXES, *_MASKS, *_SEMANTIC)
}
"""Every measure by its name, in the order of the documentation."""


def documented(task: Task) -> Iterator[Measure]:
    """The measures that apply to ``task``.

    >>> [m.name for m in documented("semantic-segmentation") if m.kind == "metric"]
    ['AP', 'AR', 'IoU', 'pixel_accuracy', 'F1']
    """
    return (measure for measure in CATALOGUE.values() if task in measure.tasks)


def markdown(kind: Literal["loss", "metric"]) -> str:
    """README's table of the losses or of the metrics."""
    rows = [
        f"| `{measure.name}` | {measure.definition} | {', '.join(map(_short, measure.tasks))} |"
        for measure in CATALOGUE.values()
        if measure.kind == kind
    ]
    return "\n".join([f"| {kind} | what it is | tasks |", "|---|---|---|", *rows]) + "\n"


def _short(task: Task) -> str:
    return task.removesuffix("-segmentation")
