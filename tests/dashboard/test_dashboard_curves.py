"""Curves lose no extreme when they are thinned out, and are smoothed as TensorBoard does."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from boxscore.dashboard.curves import in_steps, numbers, points_per_curve, sample, smooth, within

VALUES = arrays.arrays(
    np.float64, st.integers(0, 3000), elements=st.floats(width=32, allow_infinity=False)
)


@given(VALUES)
def test_first_last_lowest_and_highest_stay(values: np.ndarray) -> None:
    kept = sample(values, 100)
    assert len(kept) <= 100
    assert sorted(set(kept.tolist())) == kept.tolist()
    if len(values):
        assert (kept[0], kept[-1]) == (0, len(values) - 1)
        if not np.isnan(values).all():
            assert np.nanmin(values[kept]) == np.nanmin(values)
            assert np.nanmax(values[kept]) == np.nanmax(values)


def test_a_spike_in_every_bucket_stays() -> None:
    values = np.zeros(10_000)
    spikes = np.arange(50, 10_000, 400)
    values[spikes] = np.tile([5.0, -5.0], 13)[: len(spikes)]
    assert set(spikes) <= set(sample(values, 100).tolist())


def test_curves_share_the_points_of_a_chart() -> None:
    assert [points_per_curve(n) for n in (0, 1, 20, 1000)] == [800, 800, 400, 100]


def test_smoothing_is_tensorboards() -> None:
    """Debiased moving average; what is not finite stays, and does not spread."""
    values = np.array([2.0, 4.0, np.nan, 8.0])
    first, second = 2.0, (2 * 0.5 * 0.5 + 4 * 0.5) / 0.75
    fourth = ((2 * 0.25 + 4 * 0.5) * 0.5 + 8 * 0.5) / 0.875
    np.testing.assert_allclose(smooth(values, 0.5), [first, second, np.nan, fourth])


def test_of_a_repeated_step_the_last_value_counts() -> None:
    points = [SimpleNamespace(step=s, value=v) for s, v in [(1, 1.0), (3, 3.0), (2, 2.0), (3, 9.0)]]
    steps, values = in_steps(points)
    assert (steps.tolist(), values.tolist()) == ([1, 2, 3], [1.0, 2.0, 9.0])
    assert [len(part) for part in in_steps([])] == [0, 0]


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(None, None, [1, 2, 3, 4, 5]), (3, 3, [2, 3, 4]), (2.5, None, [2, 3, 4, 5]), (9, 10, [5])],
)
def test_a_window_has_a_neighbour_on_either_side(
    first: float | None, last: float | None, expected: list[int]
) -> None:
    steps = np.arange(1, 6)
    assert steps[within(steps, first, last)].tolist() == expected


def test_numbers_are_those_that_were_logged() -> None:
    logged = np.array([0.1, np.nan, np.inf, 1e-30, 3.0], np.float32).astype(np.float64)
    assert numbers(logged) == [0.1, None, None, 1e-30, 3.0]
