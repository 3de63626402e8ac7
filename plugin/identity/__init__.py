"""What was trained: parent algorithm, input size, backbone; and the group that follows from it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from boxscore.keys import legal

SIZE = re.compile(r"([1-9][0-9]{0,4})(?:\s*[xX\u00d7]\s*([1-9][0-9]{0,4}))?")
Size = str | int | Iterable[int]
EXAMPLE = 'identity=Identity(algorithm="RetinaNet", input_size="640x640")'


@dataclass(frozen=True, slots=True, init=False)
class Identity:
    """What must agree for losses to be comparable, and what the run is called.

    Attributes:
        algorithm: the parent algorithm in its one spelling, ``"RetinaNet"``; ``"retina_net"`` meets
            it. A name that `families` does not hold is kept as typed.
        input_size: ``"<height>x<width>"`` in pixels, or the short and long limit where a model
            resizes within limits (``"800x1333"``). Given as text, as one number (a square) or as a
            pair.
        backbone: ``"ResNet-50"``, kept as typed; ``""`` where there is none to name.

    Raises:
        ValueError: no algorithm, or an input size that is none.
    """

    algorithm: str
    input_size: str
    backbone: str

    def __init__(self, algorithm: str, input_size: Size, backbone: str = "") -> None:
        typed = _line(algorithm)
        if not typed:
            raise ValueError(f"Identity: no algorithm. Pass {EXAMPLE}")
        self._set(spelling(typed) or typed, sized(input_size), _line(backbone))

    def _set(self, algorithm: str, input_size: str, backbone: str) -> None:
        """Fill the fields, once, of a frozen value."""
        object.__setattr__(self, "algorithm", algorithm)
        object.__setattr__(self, "input_size", input_size)
        object.__setattr__(self, "backbone", backbone)

    def __str__(self) -> str:
        """As the run is called: ``RetinaNet 640x640 ResNet-50``."""
        return " ".join(filter(None, (self.algorithm, self.input_size, self.backbone)))

    @property
    def missing(self) -> tuple[str, ...]:
        """The fields that a parsed name did not say, of those that every training needs."""
        return tuple(name for name in ("algorithm", "input_size") if not getattr(self, name))

    @property
    def group(self) -> str:
        """Losses are comparable within it; legal in MLflow and TensorBoard.

        Raises:
            ValueError: the identity was parsed from a name that does not say enough.

        >>> Identity("RetinaNet", "640x640").group
        'RetinaNet 640x640'
        >>> Identity("deeplabv3+", 512).group
        'DeepLabV3Plus 512x512'
        """
        if self.missing:
            raise ValueError(f"Identity {str(self)!r} says no {self.missing[0]}. Pass {EXAMPLE}")
        # no other name can meet "DeepLabV3Plus": the constructor has read it as DeepLabV3+
        spelled = self.algorithm.replace("+", "Plus")
        same = spelling(spelled) == self.algorithm
        return f"{legal(spelled if same else self.algorithm)} {self.input_size}"

    @classmethod
    def of(cls, model: Any, **known: Any) -> Identity:
        """What a live model, or the configuration of one, says of itself.

        Args:
            model: a torchvision, Transformers, Ultralytics, segmentation-models-pytorch, Keras or
                Lightning model, any module around one of these, or an MMEngine configuration.
            **known: fields that the caller knows; they are believed before the model.

        Raises:
            ValueError: the algorithm or the input size is unknown or ambiguous.
        """
        from .models import infer

        unknown = known.keys() - set(cls.__slots__)
        if unknown:
            raise TypeError(f"Identity.of knows {', '.join(cls.__slots__)}; not {min(unknown)!r}")
        found = {name: value for name, (value, _) in infer(model).items()}
        fields = {**found, **{name: value for name, value in known.items() if value}}
        if "input_size" in fields:
            fields["input_size"] = sized(fields["input_size"])
        lacking = [name for name in ("algorithm", "input_size") if name not in fields]
        if lacking:
            raise ValueError(_question(model, fields, lacking))
        return cls(**fields)

    @classmethod
    def parse(cls, name: str) -> Identity:
        """What the name of a model says, as people write them.

        Never raises: a field that the name does not say, or says in two ways, is ``""``
        (`missing`), and such an identity has no `group`; ``dataclasses.replace`` adds the rest.

        >>> Identity.parse("ssd_mobilenet_v2_640x640")
        Identity(algorithm='SSD', input_size='640x640', backbone='MobileNetV2')
        >>> Identity.parse("our best one").missing
        ('algorithm', 'input_size')
        """
        from .parse import parse

        identity = object.__new__(cls)  # past the constructor, which insists on both fields
        identity._set(**parse(name))
        return identity


def spelling(algorithm: str) -> str:
    """An algorithm's one spelling; "" where the table has no line for it."""
    from . import algorithms  # the tables are not loaded before they are needed

    return algorithms.algorithm(algorithm)


def sized(size: Size) -> str:
    """A size as ``"<height>x<width>"``.

    Args:
        size: ``"640x480"``, ``"640"``, 640 or a pair (height, width), in pixels.

    Raises:
        ValueError: it is none of these.

    >>> sized(640), sized((480, 640)), sized("800X1333")
    ('640x640', '480x640', '800x1333')
    """
    typed = size
    if isinstance(size, Iterable) and not isinstance(size, str):
        size = "x".join(str(side) for side in size)
    matched = SIZE.fullmatch(str(size).strip())
    if not matched:
        raise ValueError(
            f"Identity: input_size {typed!r} is no size in pixels. Pass the height and width that "
            'the model is trained at, input_size="640x640" or input_size=640'
        )
    height, width = matched[1], matched[2] or matched[1]
    return f"{height}x{width}"


def _line(text: object) -> str:
    return " ".join(str(text or "").split())


def _question(model: object, fields: dict[str, Any], lacking: list[str]) -> str:
    """What was found, what was not, and what to type."""
    read = " and ".join(f"{name} {value}" for name, value in fields.items())
    example = {"algorithm": "RetinaNet", "input_size": "640x640"}
    typed = ", ".join(
        f'{name}="{fields.get(name, "…" if name == "algorithm" else example[name])}"'
        for name in example
    )
    return (
        f"cannot tell the {' or the '.join(name.replace('_', ' ') for name in lacking)} of "
        f"{type(model).__name__}{f' (found {read})' if read else ''}. "
        f"Pass identity=Identity({typed})"
    )
