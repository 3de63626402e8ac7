"""The words of the matching, one at a time; the whole is put to pycocotools in test_detection."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxscore.detection.matching import (
    IN_AREAS,
    IOU_THRESHOLDS,
    Pairs,
    box_overlaps,
    match,
    outside,
    pair,
    sort_rows,
)

RANGES = ((0, 1e10), (0, 1024), (1024, 9216), (9216, 1e10))


@pytest.mark.parametrize(
    "area", [0, 1, 1023.9, 1024, 1024.1, 9215, 9216, 9217, 9.9e9, 1e10, 1.1e10, 1e300]
)
def test_area_bits_say_which_ranges_an_area_is_not_in(area: float) -> None:
    bits = int(outside(np.array([area]))[0])
    assert bits == sum((not low <= area <= high) << at for at, (low, high) in enumerate(RANGES))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([0.0, -0.0, -1.5, 0.25, 0.5, 1e-30, 7.0])),
        max_size=40,
    ),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([1, 10**12]),
)
def test_rows_sort_by_group_then_falling_score_then_place(
    rows: list[tuple[int, float]], kind: type, scale: int
) -> None:
    group = np.array([row[0] * scale for row in rows], np.int64)
    score: Any = np.array([row[1] for row in rows], kind)
    expected = sorted(range(len(rows)), key=lambda at: (group[at], -score[at], at))
    assert sort_rows(group, score).tolist() == expected


def test_pairs_are_all_of_one_group() -> None:
    pairs = pair(np.array([0, 0, 2, 2, 5]), np.array([2, 0, 1, 2]))
    found = list(zip(pairs.detection.tolist(), pairs.truth.tolist(), strict=True))
    assert found == [(2, 0), (3, 0), (0, 1), (1, 1), (2, 3), (3, 3)]


def test_a_crowd_is_shared_by_the_detections_own_area() -> None:
    box = np.array([[0.0, 0.0, 2.0, 2.0]]).T
    large = np.array([[0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 4.0, 4.0], [2.0, 0.0, 4.0, 4.0]]).T
    pairs = Pairs(np.zeros(3, int), np.arange(3))
    plain, iou = box_overlaps(pairs, box, large, np.zeros(3, bool))
    _, share = box_overlaps(pairs, box, large, np.ones(3, bool))
    assert plain.truth.tolist() == [0, 1]  # the third touches only
    assert iou.tolist() == [4 / 16, 1 / 19]
    assert share.tolist() == [1.0, 0.25]


def thresholds(word: int, area: int = 0) -> list[float]:
    return [
        round(float(IOU_THRESHOLDS[at]), 2) for at in range(10) if int(word) >> 10 * area + at & 1
    ]


def test_a_later_detection_takes_an_object_where_it_reaches_further() -> None:
    pairs = Pairs(np.array([0, 1, 2]), np.zeros(3, int))
    matches = match(pairs, np.array([0.62, 0.77, 0.7]), np.zeros(1, np.uint8), np.zeros(1, bool))
    assert matches.row.tolist() == [0, 1]
    assert [thresholds(word) for word in matches.counted] == [
        [0.5, 0.55, 0.6],
        [0.65, 0.7, 0.75],
    ]
    assert not matches.ignored.any()


def test_an_iou_of_three_fifths_reaches_the_threshold_0_6() -> None:
    matches = match(
        Pairs(np.zeros(1, int), np.zeros(1, int)),
        np.array([3 / 5]),
        np.zeros(1, np.uint8),
        np.zeros(1, bool),
    )
    assert thresholds(matches.counted[0]) == [0.5, 0.55, 0.6]


def test_of_equal_overlaps_the_last_object_is_taken() -> None:
    """Seen by what the next detection finds: only the first object is left to it."""
    pairs = Pairs(np.array([0, 1, 0]), np.array([0, 0, 1]))
    outside_small = np.array([0, 0b0001], np.uint8)  # the second counts in no "all"
    matches = match(pairs, np.array([0.8, 0.9, 0.8]), outside_small, np.zeros(2, bool))
    assert matches.row.tolist() == [0, 1]
    # what counts comes first: in "all" the first object, elsewhere the last of equals
    assert thresholds(matches.counted[0], 0) == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8]
    assert thresholds(matches.counted[1], 0) == [0.85, 0.9]
    assert thresholds(matches.counted[1], 1)[0] == 0.5


def test_a_crowd_is_never_used_up() -> None:
    pairs = Pairs(np.arange(3), np.zeros(3, int))
    matches = match(pairs, np.full(3, 0.9), np.full(1, 0b1111, np.uint8), np.ones(1, bool))
    assert matches.row.tolist() == [0, 1, 2]
    assert not matches.counted.any()
    assert len(set(matches.ignored.tolist())) == 1


def test_nothing_matches_nothing() -> None:
    none = np.zeros(0, np.int64)
    matches = match(Pairs(none, none), np.zeros(0), np.zeros(0, np.uint8), np.zeros(0, bool))
    assert len(matches.row) == 0
    assert IN_AREAS[0] == 0
