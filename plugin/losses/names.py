"""The loss names of every framework, and their names in the catalogue.

Two tables: `PREFIXES` changes the measure by a name's prefix or suffix, `SYNONYMS` has bare names.
The names were read off torchvision 0.29, Ultralytics 8.4, Transformers 5.24, RF-DETR 1.11,
MMDetection and MMSegmentation 3/1, Detectron2, Keras Hub, the TF Model Garden and the TF Object
Detection API.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

PREFIXES: tuple[tuple[str, str | None], ...] = (
    # a prefix or suffix that is cut off, and the measure of the name then (None: that of the rest)
    (r"_dn_\d+$|^d\d+\.dn_|^dn_|_dn$", "denoising"),
    (r"_aux_\d+$|_enc(_\d+)?$|^enc_|^aux(iliary)?(_head)?\.|^d\d+\.|_\d+$", "auxiliary"),
    (
        r"^s\d+\.|^(rpn|roi|bbox|mask|decode)_head\.|^decode\.|^(train|val|valid|test|eval)[/_]",
        None,
    ),
)
"""In this order. ``s0.`` are the stages of Cascade, which sum; ``d0.`` earlier decoder layers."""

SYNONYMS: dict[str, str] = {
    "total": "loss total_loss loss/total_loss total model_loss normalized_total_loss",
    "classification": """
        classification loss_classifier cls_loss classification_loss loss_cls loss_ce loss_vfl
        loss_mal loss_focal loss_bce loss_cross_entropy loss_class cls_logits_loss frcnn_cls_loss
        class_loss loss_label loss_labels object_center""",
    "localization": """
        localization bbox_regression loss_box_reg box_loss dfl_loss l1_loss giou_loss
        localization_loss loss_bbox loss_giou loss_iou loss_dfl loss_l1 loss_fgl loss_ddf loss_xy
        loss_wh bbox_regression_loss frcnn_box_loss bbox_loss box/scale box/offset iou_loss
        angle_loss loss_angle""",
    "regularization": "regularization regularization_loss l2_loss weight_decay_loss",
    "mask": "mask loss_mask seg_loss mask_loss loss_dice loss_mask_ce loss_mask_dice loss_mask_bce",
    "rpn_localization": """
        rpn_localization loss_rpn_box_reg loss_rpn_bbox loss_rpn_loc rpn_box_loss
        rpnloss/localization_loss""",
    "rpn_objectness": """
        rpn_objectness loss_objectness loss_rpn_cls rpn_score_loss rpnloss/objectness_loss""",
    "keypoint": """
        keypoint loss_keypoint pose_loss rle_loss keypoint_loss loss_keypoints_l1
        loss_keypoints_findable loss_keypoints_visible loss_keypoints_nll""",
    "centerness": "centerness bbox_ctrness loss_centerness centerness_loss",
    "objectness": "objectness loss_obj loss_conf obj_loss objectness_loss kobj_loss",
    "auxiliary": "auxiliary aux_loss aux loss_aux",
    "denoising": "denoising",
    "other": "other sem_loss dis_loss loss_contrastive dlog_loss dgrad_loss",
    "focal": "focal focal_loss decode.loss_focal",
    "cross_entropy": "cross_entropy ce_loss cross_entropy_loss loss_sem_seg decode.loss_ce",
    "dice": "dice dice_loss decode.loss_dice",
}
"""Measure → bare framework names, lower case."""

SEMANTIC_SYNONYMS: dict[str, str] = {
    "cross_entropy": "loss_ce loss_cross_entropy",
    "focal": "loss_focal",
    "dice": "loss_dice",
}
"""For semantic models, of which these are terms of the criterion."""

DIAGNOSTICS = re.compile(
    r"(^|[._/])(acc|accuracy|acc_seg|class_error|cardinality_error|grad_norm|lr|learning_rate"
    r"|num_\w+|cls_accuracy|fg_\w+|false_negative|time|data_time|epoch|memory)(_\d+)?$"
)
"""Numbers that frameworks report beside the losses."""


@cache
def canonical(name: str, task: str = "detection") -> str | None:
    """The catalogue's name for a framework's loss name.

    Args:
        name: as the framework writes it: ``"loss_rpn_box_reg"``, ``"decode.loss_ce"``,
            ``"Loss/BoxClassifierLoss/mask_loss"``; the catalogue's own names stay as they are.
        task: in ``"semantic-segmentation"`` a cross-entropy is over pixels, not objects.

    Returns:
        the measure; ``"other"`` for an unknown loss (see `known`); ``None`` for a diagnostic, which
        is no loss (``"acc"``, ``"cardinality_error"``, ``"lr"``).

    >>> canonical("loss_box_reg"), canonical("s1.loss_cls"), canonical("d3.loss_bbox")
    ('localization', 'classification', 'auxiliary')
    >>> canonical("decode.loss_ce", task="semantic-segmentation")
    'cross_entropy'
    """
    if DIAGNOSTICS.search(name.lower()):
        return None
    return _synonym(name, task) or "other"


def known(name: str, task: str = "detection") -> bool:
    """Whether ``name`` is in the tables, or is no loss."""
    return canonical(name, task) is None or _synonym(name, task) is not None


def unknown(names: Iterable[str], task: str) -> list[str]:
    """Those of ``names`` that are not `known`."""
    return [name for name in names if not known(name, task)]


def _synonym(name: str, task: str) -> str | None:
    bare = name.lower()
    if bare in _by_name(task):
        return _by_name(task)[bare]
    for prefix in ("loss/boxclassifierloss/", "loss/"):
        bare = bare.removeprefix(prefix)
    for pattern, measure in PREFIXES:
        rest = re.sub(pattern, "", bare)
        if rest != bare and rest not in ("", "loss"):
            if measure:
                return measure if _synonym(rest, task) else None
            bare = rest
    return _by_name(task).get(bare)


@cache
def _by_name(task: str) -> dict[str, str]:
    semantic = SEMANTIC_SYNONYMS if task == "semantic-segmentation" else {}
    return {
        name: measure
        for table in (SYNONYMS, semantic)
        for measure, names in table.items()
        for name in names.split()
    }
