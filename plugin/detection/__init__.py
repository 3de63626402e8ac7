"""COCO's box and mask metrics, exact to the last bit of pycocotools."""

from .metrics import DetectionMetrics

__all__ = ["DetectionMetrics"]
