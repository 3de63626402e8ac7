"""What must agree for losses to be comparable, and what to type when it is unknown."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxscore import Identity
from boxscore.identity.models import Reading, sources
from boxscore.identity.wrappers import infer

LEGAL = re.compile(r"[\w\-. :]+")
"""MLflow's rule for keys, less the slash that divides sections."""


@pytest.mark.parametrize(
    ("typed", "size"),
    [
        (640, "640x640"),
        ("640", "640x640"),
        ("640x480", "640x480"),
        ("640X480", "640x480"),
        ("640 x 480", "640x480"),
        ("640\u00d7480", "640x480"),
        ((480, 640), "480x640"),
        ([800, 1333], "800x1333"),
        ((320,), "320x320"),
        (" 512 ", "512x512"),
    ],
)
def test_one_spelling_of_a_size(typed: Any, size: str) -> None:
    assert Identity("RetinaNet", typed).input_size == size


@pytest.mark.parametrize(
    "typed", ["", None, 0, "0x640", "big", (), (1, 2, 3), "640x", "-1", 1.5, "640x480x3", "9" * 6]
)
def test_no_size(typed: Any) -> None:
    with pytest.raises(ValueError, match=r"input_size .* Pass .*640x640"):
        Identity("RetinaNet", typed)


@pytest.mark.parametrize("typed", ["", "  ", None, "\n"])
def test_no_algorithm(typed: Any) -> None:
    with pytest.raises(ValueError, match=r"algorithm is empty. Pass .*Identity\(algorithm="):
        Identity(typed, "640x640")


def test_an_alias_meets_the_one_spelling() -> None:
    assert Identity("faster_rcnn", 640) == Identity("Faster R-CNN", "640x640")


def test_an_own_algorithm_and_a_backbone_are_kept_as_typed() -> None:
    identity = Identity("My  Net\n2", 64, "our resnet50")
    assert (identity.algorithm, identity.backbone) == ("My Net 2", "our resnet50")


def test_it_reads_as_a_run_is_called() -> None:
    assert str(Identity("RetinaNet", 640, "ResNet-50")) == "RetinaNet 640x640 ResNet-50"
    assert str(Identity("RetinaNet", 640)) == Identity("RetinaNet", 640).group


def test_it_is_a_value() -> None:
    identity = Identity("RetinaNet", 640, "ResNet-50")
    assert pickle.loads(pickle.dumps(identity)) == identity
    assert Identity(**asdict(identity)) == identity
    assert len({identity, replace(identity)}) == 1


@given(st.text().filter(str.strip), st.integers(1, 99999), st.text())
def test_a_group_is_legal_in_both_trackers(algorithm: str, size: int, backbone: str) -> None:
    try:
        group = Identity(algorithm, size, backbone).group
    except UnicodeEncodeError:  # pragma: no cover - would be a fault
        pytest.fail("a group must be text that can be written")
    assert LEGAL.fullmatch(group)
    assert len(group) <= 100
    assert group.splitlines() == [group]


@given(st.text().filter(str.strip), st.text().filter(str.strip))
def test_two_algorithms_do_not_meet_in_one_group(one: str, other: str) -> None:
    first, second = Identity(one, 640), Identity(other, 640)
    assert (first.group == second.group) == (first.algorithm == second.algorithm)


def test_the_group_of_a_plus() -> None:
    assert Identity("DeepLabV3+", 512).group == "DeepLabV3Plus 512x512"
    assert Identity("Mine+", 512).group != Identity("MinePlus", 512).group


# parsed


def test_parse_says_what_the_name_says() -> None:
    assert Identity.parse("ssd_mobilenet_v2_640x640") == Identity("SSD", 640, "MobileNetV2")


def test_a_name_that_leaves_a_field_open_has_no_group() -> None:
    identity = Identity.parse("retinanet_r50")
    assert identity.missing == ("input_size",)
    with pytest.raises(ValueError, match=r"has no input_size. Pass .*Identity\("):
        _ = identity.group
    assert replace(identity, input_size="640").group == "RetinaNet 640x640"


# of a model


class UNet:
    """A class that is called as an algorithm."""


class Mine:
    """A class that says nothing."""


def test_what_the_caller_knows_is_believed_first() -> None:
    assert Identity.of(UNet(), input_size=(480, 640)) == Identity("U-Net", "480x640")
    assert Identity.of(UNet(), input_size=64, algorithm="Mine").algorithm == "Mine"
    assert Identity.of(UNet(), input_size=64, backbone="own").backbone == "own"


def test_what_the_caller_does_not_know_is_left_to_the_model() -> None:
    assert Identity.of(UNet(), input_size=64, algorithm=None, backbone="").algorithm == "U-Net"


def pasted(message: str, **variables: Any) -> Identity:
    """The identity of an error's advice, pasted as it stands."""
    call, imports = re.search(r"Pass identity=(.*); it needs (.*)$", message).groups()  # type: ignore[union-attr]
    exec(imports, variables)
    return eval(call, variables)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "known", "unknown", "identity"),
    [
        (UNet(), {}, "unknown input size of UNet", Identity("U-Net", "48x64")),
        (Mine(), {}, "unknown algorithm and input size of Mine", Identity("Mine", "48x64")),
        (Mine(), {"input_size": 32}, "unknown algorithm of Mine", Identity("Mine", "32x32")),
    ],
)
def test_the_error_can_be_pasted(
    model: Any, known: dict[str, Any], unknown: str, identity: Identity
) -> None:
    with pytest.raises(ValueError, match=unknown) as error:
        Identity.of(model, **known)
    assert pasted(str(error.value), height=48, width=64) == identity


def test_the_error_has_what_was_read() -> None:
    with pytest.raises(ValueError, match=r"\(read: algorithm U-Net\)"):
        Identity.of(UNet())


def test_a_misspelt_field_is_no_field() -> None:
    with pytest.raises(TypeError, match="not 'size'"):
        Identity.of(UNet(), size=64)


def test_what_was_read_has_its_source() -> None:
    assert infer(UNet()) == {"algorithm": Reading("U-Net", "class UNet")}
    assert sources(infer(UNet())) == "algorithm from class UNet"


def test_identity_is_light() -> None:
    code = (
        "import sys, boxscore.identity; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"
