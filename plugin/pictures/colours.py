"""Colours of classes that colour-blind people can tell apart.

The first seven are those of Okabe and Ito, Color Universal Design (2008). Further ones take their
hue at the golden angle and alternate in lightness; names beside them tell classes apart.
"""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]

_FIRST: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
_LIGHTNESS = (0.45, 0.75, 0.6)


def colour_of(place: int) -> Colour:
    """The colour, RGB in bytes, of the class at ``place`` in the list of classes."""
    if place < len(_FIRST):
        return _FIRST[place]
    further = place - len(_FIRST)
    hue = (0.55 + further * 0.6180339887) % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, _LIGHTNESS[further % len(_LIGHTNESS)], 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)
