"""Which images of an evaluated set are drawn."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxscore.pictures import Sample, Samples, counts_of

IMAGE = np.zeros((2, 2, 3), np.uint8)
MAP = np.zeros((2, 2), np.int64)


def sample(image_id: str, error: float) -> Sample:
    return Sample(image_id, error, IMAGE, (2, 2), MAP, MAP)


def measured(images: list[tuple[str, float]], fixed: int = 3, worst: int = 2) -> Samples:
    """The samples of batches of four, which only get what they want."""
    samples = Samples(fixed, worst)
    for start in range(0, len(images), 4):
        ids, errors = zip(*images[start : start + 4], strict=True)
        for place in samples.wanted(ids, errors):
            samples.add(sample(ids[place], errors[place]))
    return samples


def names(samples: Samples) -> tuple[list[str], list[str]]:
    fixed, worst = samples.chosen()
    return [one.image_id for one in fixed], [one.image_id for one in worst]


errors = st.lists(st.floats(0, 1), min_size=1, max_size=40, unique=True)


@given(errors, st.randoms(use_true_random=False))
def test_the_choice_depends_on_neither_order_nor_processes(
    given_errors: list[float], numbers: random.Random
) -> None:
    images = [(str(n), error) for n, error in enumerate(given_errors)]
    wanted = names(measured(images))
    shuffled = numbers.sample(images, len(images))
    assert names(measured(shuffled)) == wanted
    merged = measured(shuffled[::2])
    if shuffled[1::2]:
        merged.merge(measured(shuffled[1::2]))
    assert names(merged) == wanted


def test_the_fixed_choice_is_the_same_whatever_was_predicted() -> None:
    one = measured([(str(n), n / 100) for n in range(100)])
    other = measured([(str(n), 1 - n / 100) for n in range(100)])
    assert names(one)[0] == names(other)[0]
    assert len(names(one)[0]) == 3
    rest = [str(n) for n in range(99, 0, -1) if str(n) not in names(one)[0]]
    assert names(one)[1] == rest[:2]


def test_an_image_without_an_error_is_none_of_the_worst() -> None:
    assert names(measured([(str(n), 0.0) for n in range(20)]))[1] == []


@pytest.mark.parametrize("pictures", [(8,), (8, -1), (1, 2, 3), -1, ("8", 4)])
def test_other_requests_are_errors(pictures: object) -> None:
    with pytest.raises(ValueError, match=r"pictures: .* is neither True nor False"):
        counts_of(pictures)  # type: ignore[arg-type]
