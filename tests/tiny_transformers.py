"""Tiny random models of Transformers, from configs; no downloads. See `tiny_batches`."""

from __future__ import annotations

from typing import Any

import transformers

tf: Any = transformers  # whose configs take more keywords than their types say

CLASSES = 3
SIZE = 64
"""Of the images' sides, in pixels."""

LABELS = {"num_labels": CLASSES}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
RESNET = {"embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4, "layer_type": "basic"}
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIZE}


def resnet(*stages: str, kind: str = "ResNet") -> Any:
    return getattr(tf, f"{kind}Config")(**RESNET, out_features=list(stages))


def swin() -> Any:
    return tf.SwinConfig(
        image_size=SIZE, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=2,
        out_features=STAGES,
    )  # fmt: skip


def vit(kind: str, **options: Any) -> Any:
    config = getattr(tf, f"{kind}Config")
    return config(**VIT, patch_size=8, out_features=STAGES[:2], **options)


def last_stage() -> Any:
    return resnet("stage4")


def pyramid() -> Any:
    return resnet(*STAGES[1:])


def real_time_pyramid() -> Any:
    return resnet(*STAGES[1:], kind="RTDetrResNet")


def windowed() -> Any:
    return vit("RfDetrDinov2", num_windows=1)


def _feed_forward(width: int, *names: str) -> dict[str, int]:
    return dict.fromkeys(names, width)


DETR: dict[str, Any] = {
    "num_queries": 6, "d_model": 16, "encoder_layers": 1, "decoder_layers": 3, **LABELS,
    **_feed_forward(16, "encoder_ffn_dim", "decoder_ffn_dim"),
    **_feed_forward(2, "encoder_attention_heads", "decoder_attention_heads"),
}  # fmt: skip
REAL_TIME: dict[str, Any] = {
    "encoder_hidden_dim": 16, "encoder_in_channels": [8] * 3, "decoder_in_channels": [16] * 3,
    "feat_strides": [8, 16, 32], "num_denoising": 4,
    **{k: v for k, v in DETR.items() if k != "encoder_layers"} | {"num_queries": 8},
}  # fmt: skip
WINDOWED: dict[str, Any] = {
    "num_queries": 6, "decoder_layers": 3, "group_detr": 2, **LABELS,
    **_feed_forward(2, "decoder_self_attention_heads", "decoder_cross_attention_heads"),
    "decoder_ffn_dim": 16,
}  # fmt: skip
MASKED: dict[str, Any] = {
    "encoder_layers": 1, "decoder_layers": 3, "num_attention_heads": 2, "num_queries": 6,
    "train_num_points": 50, "hidden_dim": 32, **LABELS,
    **_feed_forward(16, "encoder_feedforward_dim", "dim_feedforward"),
}  # fmt: skip

Row = tuple[str, str, Any, dict[str, Any]]
"""Prefix of the config's class, end of the model's, a function of the trunk, the config."""

MODELS: dict[str, Row] = {
    "detr": ("Detr", "ObjectDetection", last_stage, DETR),
    "detr_segmentation": (
        "Detr", "Segmentation", lambda: resnet(*STAGES),
        {**DETR, "d_model": 64} | _feed_forward(8, *(k for k in DETR if k.endswith("heads"))),
    ),
    "table_transformer": ("TableTransformer", "ObjectDetection", last_stage, DETR),
    "conditional_detr": ("ConditionalDetr", "ObjectDetection", last_stage, DETR),
    "dab_detr": (
        "DabDetr", "ObjectDetection", last_stage,
        {k: v for k, v in DETR.items() if k != "d_model"} | {"hidden_size": 16},
    ),
    "deformable_detr": (
        "DeformableDetr", "ObjectDetection", pyramid,
        DETR | {"d_model": 32, "num_feature_levels": 3},
    ),
    "yolos": (
        "Yolos", "ObjectDetection", None,
        VIT | LABELS
        | {"intermediate_size": 16, "image_size": [SIZE] * 2, "num_detection_tokens": 6},
    ),
    "rt_detr": ("RTDetr", "ObjectDetection", real_time_pyramid, REAL_TIME),
    "rt_detr_v2": ("RTDetrV2", "ObjectDetection", real_time_pyramid, REAL_TIME),
    "d_fine": ("DFine", "ObjectDetection", real_time_pyramid, REAL_TIME),
    "deimv2": ("Deimv2", "ObjectDetection", real_time_pyramid, REAL_TIME),
    "lw_detr": (
        "LwDetr", "ObjectDetection", lambda: vit("LwDetrViT"),
        WINDOWED | {"d_model": 16, "projector_scale_factors": [1.0]},
    ),
    "rf_detr": (
        "RfDetr", "ObjectDetection", windowed,
        WINDOWED | {"d_model": 32},
    ),
    "rf_detr_segmentation": (
        "RfDetr", "InstanceSegmentation", windowed,
        WINDOWED | {"d_model": 32},
    ),
    "grounding_dino": (
        "GroundingDino", "ObjectDetection", pyramid,
        DETR | {"d_model": 32, "num_feature_levels": 3, "max_text_len": 16},
    ),
    "mask2former": (
        "Mask2Former", "UniversalSegmentation", swin,
        MASKED | {"feature_size": 32, "mask_feature_size": 32},
    ),
    "maskformer": (
        "MaskFormer", "InstanceSegmentation", swin,
        LABELS | {"fpn_feature_size": 32, "mask_feature_size": 32},
    ),
    "oneformer": (
        "OneFormer", "UniversalSegmentation", swin,
        MASKED | {"conv_dim": 32, "mask_dim": 32, "query_dec_layers": 1, "task_seq_len": 4}
        | {"is_training": False},
    ),
    "eomt": (
        "Eomt", "UniversalSegmentation", None,
        VIT | LABELS | {
            "num_hidden_layers": 3, "num_blocks": 2, "num_queries": 6, "patch_size": 8,
            "num_upscale_blocks": 1, "train_num_points": 50,
        },
    ),
    "segformer": (
        "Segformer", "SemanticSegmentation", None,
        LABELS | {
            "depths": [1] * 4, "hidden_sizes": [8] * 4, "num_attention_heads": [1] * 4,
            "decoder_hidden_size": 8,
        },
    ),
    "upernet": (
        "UperNet", "SemanticSegmentation", lambda: resnet(*STAGES),
        LABELS | _feed_forward(8, "hidden_size", "auxiliary_in_channels", "auxiliary_channels"),
    ),
    "beit": (
        "Beit", "SemanticSegmentation", None,
        VIT | LABELS | {
            "num_hidden_layers": 4, "intermediate_size": 16, "patch_size": 16,
            "out_indices": [1, 2, 3, 4], "auxiliary_channels": 8,
        },
    ),
}  # fmt: skip


def model(name: str, **options: Any) -> Any:
    """A model of `MODELS`; ``options`` are entries of its config."""
    kind, task, trunk, settings = MODELS[name]
    further: dict[str, Any] = {} if trunk is None else {"backbone_config": trunk()}
    if name == "grounding_dino":  # the full stop's id is 1012
        words = {k: v for k, v in VIT.items() if k != "image_size"} | {"num_hidden_layers": 1}
        further["text_config"] = tf.BertConfig(**words, intermediate_size=16, vocab_size=1024)
    if name == "maskformer":
        further["decoder_config"] = tf.DetrConfig(**DETR | {"d_model": 32})
    config = getattr(tf, f"{kind}Config")(**settings | further | options)
    return getattr(tf, f"{kind}For{task}")(config)
