"""Tiny random models of Transformers, from configs; no downloads. See `tiny_batches`."""

from __future__ import annotations

from typing import Any

import transformers

tf: Any = transformers  # whose configs take more keywords than their types say

CLASSES = 3
SIZE = 64
"""Of the images' sides, in pixels."""


def resnet(*stages: str) -> Any:
    return tf.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=list(stages),
    )


def swin() -> Any:
    return tf.SwinConfig(
        image_size=SIZE,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


SMALL = {
    "num_queries": 6,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 3,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_labels": CLASSES,
}
"""Of the DETR family."""

REAL_TIME = {
    "encoder_hidden_dim": 16,
    "d_model": 16,
    "encoder_in_channels": [8, 8, 8],
    "decoder_in_channels": [16, 16, 16],
    "feat_strides": [8, 16, 32],
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "decoder_layers": 3,
    "decoder_attention_heads": 2,
    "encoder_attention_heads": 2,
    "num_queries": 8,
    "num_denoising": 4,
    "num_labels": CLASSES,
}
"""Of the RT-DETR family."""


def detr(**options: Any) -> Any:
    config = tf.DetrConfig(backbone_config=resnet("stage4"), **SMALL | options)
    return tf.DetrForObjectDetection(config)


def detr_segmentation(**options: Any) -> Any:
    config = tf.DetrConfig(
        backbone_config=resnet("stage1", "stage2", "stage3", "stage4"),
        **SMALL
        | {"d_model": 64, "encoder_attention_heads": 8, "decoder_attention_heads": 8}
        | options,
    )
    return tf.DetrForSegmentation(config)


def table_transformer(**options: Any) -> Any:
    config = tf.TableTransformerConfig(backbone_config=resnet("stage4"), **SMALL | options)
    return tf.TableTransformerForObjectDetection(config)


def conditional_detr(**options: Any) -> Any:
    config = tf.ConditionalDetrConfig(backbone_config=resnet("stage4"), **SMALL | options)
    return tf.ConditionalDetrForObjectDetection(config)


def dab_detr(**options: Any) -> Any:
    small = {key: value for key, value in SMALL.items() if key != "d_model"}
    config = tf.DabDetrConfig(backbone_config=resnet("stage4"), hidden_size=16, **small | options)
    return tf.DabDetrForObjectDetection(config)


def deformable_detr(**options: Any) -> Any:
    config = tf.DeformableDetrConfig(
        backbone_config=resnet("stage2", "stage3", "stage4"),
        num_feature_levels=3,
        **SMALL | {"d_model": 32} | options,
    )
    return tf.DeformableDetrForObjectDetection(config)


def yolos(**options: Any) -> Any:
    config = tf.YolosConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[SIZE, SIZE],
        num_detection_tokens=6,
        num_labels=CLASSES,
        **options,
    )
    return tf.YolosForObjectDetection(config)


def _trunk() -> Any:
    return tf.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )


def rt_detr(**options: Any) -> Any:
    config = tf.RTDetrConfig(backbone_config=_trunk(), **REAL_TIME | options)
    return tf.RTDetrForObjectDetection(config)


def rt_detr_v2(**options: Any) -> Any:
    config = tf.RTDetrV2Config(backbone_config=_trunk(), **REAL_TIME | options)
    return tf.RTDetrV2ForObjectDetection(config)


def d_fine(**options: Any) -> Any:
    config = tf.DFineConfig(backbone_config=_trunk(), **REAL_TIME | options)
    return tf.DFineForObjectDetection(config)


def deimv2(**options: Any) -> Any:
    config = tf.Deimv2Config(backbone_config=_trunk(), **REAL_TIME | options)
    return tf.Deimv2ForObjectDetection(config)


def _vit_trunk(kind: Any) -> Any:
    return kind(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=8,
        out_features=["stage1", "stage2"],
    )


def lw_detr(**options: Any) -> Any:
    config = tf.LwDetrConfig(
        backbone_config=_vit_trunk(tf.LwDetrViTConfig),
        d_model=16,
        num_queries=6,
        decoder_layers=3,
        decoder_ffn_dim=16,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        group_detr=2,
        projector_scale_factors=[1.0],
        num_labels=CLASSES,
        **options,
    )
    return tf.LwDetrForObjectDetection(config)


def rf_detr(kind: Any = tf.RfDetrForObjectDetection, **options: Any) -> Any:
    trunk = tf.RfDetrDinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=8,
        num_windows=1,
        out_features=["stage1", "stage2"],
    )
    config = tf.RfDetrConfig(
        backbone_config=trunk,
        d_model=32,
        num_queries=6,
        decoder_layers=3,
        decoder_ffn_dim=16,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        group_detr=2,
        num_labels=CLASSES,
        **options,
    )
    return kind(config)


def rf_detr_segmentation(**options: Any) -> Any:
    return rf_detr(tf.RfDetrForInstanceSegmentation, **options)


def grounding_dino(**options: Any) -> Any:
    words = tf.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=1024,  # the full stop's id is 1012
    )
    config = tf.GroundingDinoConfig(
        backbone_config=resnet("stage2", "stage3", "stage4"),
        text_config=words,
        num_feature_levels=3,
        max_text_len=16,
        **SMALL | {"d_model": 32} | options,
    )
    return tf.GroundingDinoForObjectDetection(config)


MASKED = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 16,
    "dim_feedforward": 16,
    "encoder_layers": 1,
    "decoder_layers": 3,
    "num_attention_heads": 2,
    "num_queries": 6,
    "num_labels": CLASSES,
    "train_num_points": 50,
}


def mask2former(**options: Any) -> Any:
    config = tf.Mask2FormerConfig(backbone_config=swin(), **MASKED | options)
    return tf.Mask2FormerForUniversalSegmentation(config)


def maskformer(**options: Any) -> Any:
    config = tf.MaskFormerConfig(
        backbone_config=swin(),
        decoder_config=tf.DetrConfig(**SMALL | {"d_model": 32}),
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=CLASSES,
        **options,
    )
    return tf.MaskFormerForInstanceSegmentation(config)


def oneformer(**options: Any) -> Any:
    config = tf.OneFormerConfig(
        backbone_config=swin(),
        hidden_dim=32,
        conv_dim=32,
        mask_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=3,
        query_dec_layers=1,
        num_attention_heads=2,
        num_queries=6,
        num_labels=CLASSES,
        train_num_points=50,
        task_seq_len=4,
        is_training=False,
        **options,
    )
    return tf.OneFormerForUniversalSegmentation(config)


def eomt(**options: Any) -> Any:
    config = tf.EomtConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_blocks=2,
        num_attention_heads=2,
        num_queries=6,
        image_size=SIZE,
        patch_size=8,
        num_upscale_blocks=1,
        num_labels=CLASSES,
        train_num_points=50,
        **options,
    )
    return tf.EomtForUniversalSegmentation(config)


def segformer(**options: Any) -> Any:
    config = tf.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 8, 8],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
        num_labels=CLASSES,
        **options,
    )
    return tf.SegformerForSemanticSegmentation(config)


def upernet(**options: Any) -> Any:
    config = tf.UperNetConfig(
        backbone_config=resnet("stage1", "stage2", "stage3", "stage4"),
        hidden_size=8,
        auxiliary_in_channels=8,
        auxiliary_channels=8,
        num_labels=CLASSES,
        **options,
    )
    return tf.UperNetForSemanticSegmentation(config)


def beit(**options: Any) -> Any:
    config = tf.BeitConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=SIZE,
        patch_size=16,
        out_indices=[1, 2, 3, 4],
        auxiliary_channels=8,
        num_labels=CLASSES,
        **options,
    )
    return tf.BeitForSemanticSegmentation(config)
