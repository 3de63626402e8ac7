import pytest

from boxscore import CATALOGUE, canonical
from boxscore.losses.names import SYNONYMS, known

NAMES = {
    "classification": "classification loss_classifier cls_loss loss_ce loss_vfl loss_mal "
    "loss_focal "
    "loss_bce loss_cls s0.loss_cls s2.loss_cls cls_logits_loss frcnn_cls_loss "
    "Loss/classification_loss "
    "Loss/BoxClassifierLoss/classification_loss Loss/object_center train/cls_loss",
    "localization": "bbox_regression loss_box_reg box_loss dfl_loss l1_loss giou_loss loss_bbox "
    "loss_giou loss_iou loss_dfl loss_l1 loss_fgl loss_ddf loss_xy loss_wh bbox_regression_loss "
    "frcnn_box_loss Loss/localization_loss Loss/BoxClassifierLoss/localization_loss Loss/box/scale "
    "Loss/box/offset s1.loss_bbox angle_loss val/box_loss",
    "regularization": "Loss/regularization_loss",
    "mask": "loss_mask seg_loss mask_loss loss_mask_ce loss_mask_dice loss_dice "
    "Loss/BoxClassifierLoss/mask_loss s0.loss_mask",
    "rpn_localization": "loss_rpn_box_reg loss_rpn_bbox loss_rpn_loc rpn_box_loss "
    "Loss/RPNLoss/localization_loss",
    "rpn_objectness": "loss_objectness loss_rpn_cls rpn_score_loss Loss/RPNLoss/objectness_loss",
    "keypoint": "loss_keypoint pose_loss rle_loss loss_keypoints_l1 loss_keypoints_nll",
    "centerness": "bbox_ctrness loss_centerness",
    "objectness": "loss_obj loss_conf kobj_loss",
    "auxiliary": "aux_loss aux.loss_ce d0.loss_cls d4.loss_iou loss_ce_0 loss_bbox_4 "
    "loss_vfl_aux_0 loss_giou_enc enc_loss_cls loss_keypoints_findable_0 loss_keypoints_l1_enc",
    "denoising": "dn_loss_cls d1.dn_loss_bbox loss_bbox_dn_1 loss_vfl_dn_0",
    "other": "sem_loss loss_contrastive",
    "total": "loss total_loss Loss/total_loss",
    "cross_entropy": "ce_loss decode.loss_ce",
    "focal": "decode.loss_focal",
    "dice": "dice_loss decode.loss_dice",
}
NO_LOSS = (
    "acc cardinality_error cardinality_error_3 decode.acc_seg s1.acc class_error learning_rate lr "
    "fast_rcnn/cls_accuracy rpn/num_pos_anchors mask_rcnn/accuracy grad_norm"
)


@pytest.mark.parametrize(
    ("name", "measure"), [(n, measure) for measure, names in NAMES.items() for n in names.split()]
)
def test_a_native_name_means_one_measure(name: str, measure: str) -> None:
    assert canonical(name) == measure
    assert known(name)


@pytest.mark.parametrize("name", NO_LOSS.split())
def test_diagnostics_are_no_losses(name: str) -> None:
    assert canonical(name) is None


def test_an_unknown_loss_is_other_and_known_as_such() -> None:
    assert canonical("loss_of_my_own") == "other"
    assert not known("loss_of_my_own")


def test_where_pixels_are_classified_cross_entropy_is_the_criterion() -> None:
    assert canonical("loss_ce") == "classification"
    assert canonical("loss_ce", task="semantic-segmentation") == "cross_entropy"


def test_no_name_means_two_measures() -> None:
    names = [name for table in SYNONYMS.values() for name in table.split()]
    assert len(names) == len(set(names))
    assert set(SYNONYMS) <= set(CATALOGUE)
