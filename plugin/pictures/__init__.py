"""Pictures of predictions beside the ground truth, of a few images of an evaluated set."""

from .draw import draw
from .drawing import DrawingThread, drawn
from .samples import Sample, Samples, counts_of

__all__ = ["DrawingThread", "Sample", "Samples", "counts_of", "draw", "drawn"]
