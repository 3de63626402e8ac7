"""COCO's box and mask metrics, exact to the last bit of pycocotools."""

from .metrics import DetectionMetrics
from .rle import BrokenRLE, Size, decode, run_areas, to_rle

__all__ = ["BrokenRLE", "DetectionMetrics", "Size", "decode", "run_areas", "to_rle"]
