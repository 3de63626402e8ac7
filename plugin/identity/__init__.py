"""The identity of a training: parent algorithm, input size, backbone; and the group they make."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from boxscore.keys import legal

from .algorithms import algorithm as spelling

SIZE = re.compile(r"([1-9][0-9]{0,4})(?:\s*[xX\u00d7]\s*([1-9][0-9]{0,4}))?")
Size = str | int | Iterable[int]
EXAMPLE = 'such as Identity(algorithm="RetinaNet", input_size="640x640")'


@dataclass(frozen=True, slots=True, init=False)
class Identity:
    """The fields that must agree for losses to be comparable, and the name of the run.

    Attributes:
        algorithm: the parent algorithm in its one spelling: ``"retina_net"`` becomes
            ``"RetinaNet"``. A name that `algorithms` does not hold is kept as typed.
        input_size: ``"<height>x<width>"`` in pixels, or the short and long limit where a model
            resizes within limits (``"800x1333"``). Given as text, as one number (a square) or as a
            pair.
        backbone: ``"ResNet-50"``, kept as typed; ``""`` where it is unknown.

    Raises:
        ValueError: the algorithm is empty, or the input size is not a size in pixels.
    """

    algorithm: str
    input_size: str
    backbone: str

    def __init__(self, algorithm: str, input_size: Size, backbone: str = "") -> None:
        typed = _line(algorithm)
        if not typed:
            raise ValueError(f"Identity: algorithm is empty. Pass a name and a size, {EXAMPLE}")
        self._set(spelling(typed) or typed, sized(input_size), _line(backbone))

    def _set(self, algorithm: str, input_size: str, backbone: str) -> None:
        """Fill the fields of a frozen value, once."""
        for name, value in zip(self.__slots__, (algorithm, input_size, backbone), strict=True):
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        """The name of the run: ``RetinaNet 640x640 ResNet-50``."""
        return " ".join(filter(None, (self.algorithm, self.input_size, self.backbone)))

    @property
    def missing(self) -> tuple[str, ...]:
        """The fields that a parsed name leaves open, of those that every training needs."""
        return tuple(name for name in ("algorithm", "input_size") if not getattr(self, name))

    @property
    def group(self) -> str:
        """Losses are comparable within it; a legal name in MLflow and TensorBoard.

        Raises:
            ValueError: the identity was parsed from a name that leaves a field open.

        >>> Identity("RetinaNet", "640x640").group
        'RetinaNet 640x640'
        >>> Identity("deeplabv3+", 512).group
        'DeepLabV3Plus 512x512'
        """
        if self.missing:
            raise ValueError(
                f"Identity {str(self)!r} has no {self.missing[0]}. Pass all fields, {EXAMPLE}"
            )
        # no other name becomes "DeepLabV3Plus": the constructor reads it as DeepLabV3+
        spelled = self.algorithm.replace("+", "Plus")
        same = spelling(spelled) == self.algorithm
        return f"{legal(spelled if same else self.algorithm)} {self.input_size}"

    @classmethod
    def of(cls, model: Any, **known: Any) -> Identity:
        """The identity that a live model or its configuration states.

        Args:
            model: a torchvision, Transformers, Ultralytics, segmentation-models-pytorch, Keras or
                Lightning model, any module around one of these, or an MMEngine configuration.
            **known: fields that the caller knows; they take precedence. A model that takes any size
                needs ``input_size=``.

        Raises:
            ValueError: the algorithm or the input size is unknown or ambiguous.
            TypeError: a field that an identity does not have.
        """
        from .wrappers import infer

        if unknown := known.keys() - set(cls.__slots__):
            raise TypeError(f"Identity.of takes {', '.join(cls.__slots__)}, not {min(unknown)!r}")
        fields = {name: reading.value for name, reading in infer(model).items()}
        fields |= {name: value for name, value in known.items() if value}
        if "input_size" in fields:
            fields["input_size"] = sized(fields["input_size"])
        if {"algorithm", "input_size"} - fields.keys():
            raise ValueError(_missing(model, fields))
        return cls(**fields)

    @classmethod
    def parse(cls, name: str) -> Identity:
        """The identity that the name of a model states, in any usual spelling.

        Never raises: a field that the name does not state, or states in two ways, is ``""``
        (`missing`), and such an identity has no `group`; ``dataclasses.replace`` adds the rest.

        >>> Identity.parse("ssd_mobilenet_v2_640x640")
        Identity(algorithm='SSD', input_size='640x640', backbone='MobileNetV2')
        >>> Identity.parse("our best one").missing
        ('algorithm', 'input_size')
        """
        from .parse import parse

        identity = object.__new__(cls)  # the constructor requires both fields
        identity._set(**parse(name))
        return identity


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
            f"Identity: input_size {typed!r} is not a size in pixels. Pass the height and width in "
            'training, such as input_size="640x640" or input_size=640'
        )
    height, width = matched[1], matched[2] or matched[1]
    return f"{height}x{width}"


def _line(text: object) -> str:
    return " ".join(str(text or "").split())


def _missing(model: object, fields: dict[str, Any]) -> str:
    """The error for a model that leaves a field open: what was read, and what to pass."""
    from .wrappers import network, networks

    unknown = [name for name in ("algorithm", "input_size") if name not in fields]
    inside = [f"{type(net).__name__} at {path}" for path, net in networks(model).items()]
    read = [f"{name} {value}" for name, value in fields.items()] + inside * (len(inside) > 1)
    text = ", ".join(read)
    name = fields.get("algorithm", type(network(model)).__name__)
    size = f'"{fields["input_size"]}"' if "input_size" in fields else "(height, width)"
    return (
        f"Identity: unknown {' and '.join(unknown).replace('_', ' ')} of {type(model).__name__}"
        f"{f' (read: {text})' if text else ''}. Pass "
        f'identity=Identity(algorithm="{name}", input_size={size}); it needs '
        "from boxscore import Identity"
    )
