import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from boxscore.losses.window import FULL, WeightedSums, Window


def test_the_mean_of_every_name_over_the_steps_that_had_it() -> None:
    window = Window()
    window.add({"a": torch.tensor(1.0), "b": 3.0}, 1)
    window.add({"a": torch.tensor(2.0)}, 2)
    assert window.take().means() == {"a": 1.5, "b": 3.0}
    assert len(window) == 0
    assert window.take().means() == {}


def scalars(value: float) -> Any:
    return value


def tensors(value: float) -> Any:
    return torch.tensor(value)


def replicas(value: float) -> Any:
    """One value per replica, as under DataParallel; the first replica has the NaN."""
    return torch.tensor([value, 1.0])


@pytest.mark.parametrize("make", [scalars, tensors, replicas])
@pytest.mark.parametrize(
    ("rows", "per_step", "nans"),
    [
        (4, 1, [1, 3]),
        (3000, 1, [10]),
        (3000, 1, [FULL - 1]),
        (3000, 1, [FULL, 2999]),
        (3000, 21, [1500, 2500]),
        (10, 5, [0]),
    ],
)
def test_the_first_nan_has_its_step_in_windows_of_any_length(
    make: Callable[[float], Any], rows: int, per_step: int, nans: list[int]
) -> None:
    window = Window()
    for row in range(rows):
        value = math.nan if row in nans else 1.0
        window.add({"a": make(1.0), "b": make(value)}, row // per_step + 1)
    sums = window.take()
    assert sums.means()["a"] == 1.0
    assert math.isnan(sums.means()["b"])
    assert sums.first_nan == ("b", nans[0] // per_step + 1)
    window.add({"b": make(1.0)}, rows)
    assert window.take() == WeightedSums({"b": 1.0}, {"b": 1.0}, None, window_epsilon(make))


def window_epsilon(make: Callable[[float], Any]) -> float:
    return 0.0 if make is scalars else torch.finfo(torch.float32).eps


def test_the_first_of_several_nans_is_the_earliest() -> None:
    window = Window()
    window.add({"a": torch.tensor(1.0), "b": math.nan}, 1)
    window.add({"a": torch.tensor(math.nan)}, 2)
    assert window.take().first_nan == ("b", 1)


def test_infinity_is_no_nan() -> None:
    window = Window()
    window.add({"a": torch.tensor(math.inf)}, 1)
    sums = window.take()
    assert sums.means() == {"a": math.inf}
    assert sums.first_nan is None


def test_adding_reads_no_value_off_the_device() -> None:
    """Meta tensors have no values: whatever would make a GPU wait raises on them."""
    window = Window()
    for step in range(FULL - 1):
        window.add({"a": torch.empty((), device="meta")}, step)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_coarsest_dtype_of_the_values_is_known(dtype: torch.dtype) -> None:
    window = Window()
    window.add({"a": torch.tensor(1.0, dtype=dtype), "b": torch.tensor(1.0), "c": 1.0}, 1)
    later = Window()
    later.restore(window.sums())
    for each in (window.take(), WeightedSums.of([later.take(), WeightedSums()])):
        assert each.epsilon == torch.finfo(dtype).eps


def test_values_let_go_of_the_graph() -> None:
    window = Window()
    weight = torch.ones(1, requires_grad=True)
    window.add({"a": weight * 2}, 1)
    assert all(not value.requires_grad for _, row in window._rows for value in row.values())


def test_a_window_without_end_does_not_grow() -> None:
    window = Window()
    for step in range(3 * FULL + 5):
        window.add({"a": torch.tensor(float(step % 2))}, step)
        assert len(window) < FULL
    means = window.take().means()
    assert means["a"] == pytest.approx(0.5, abs=1e-3)


def test_small_values_do_not_drown_in_float32() -> None:
    window = Window()
    for step in range(1000):
        window.add({"a": torch.tensor(1e-4 if step else 1e4)}, step)
    assert window.take().means()["a"] == pytest.approx((1e4 + 999e-4) / 1000, rel=1e-9)


def test_several_elements_are_their_mean_as_dataparallel_gives_one_for_each_replica() -> None:
    window = Window()
    window.add({"a": torch.tensor([1.0, 3.0])}, 1)
    window.add({"a": torch.tensor(4.0)}, 2)
    assert window.take().means() == {"a": 3.0}


def test_a_value_that_cannot_be_summed_costs_one_window() -> None:
    window = Window()
    window.add({"a": "nonsense"}, 1)
    with pytest.raises(ValueError, match="nonsense"):
        window.take()
    window.add({"a": 2.0}, 2)
    assert window.take().means() == {"a": 2.0}


def test_sums_of_several_processes_and_of_an_earlier_life() -> None:
    windows = [Window(), Window()]
    for number, window in enumerate(windows):
        for step in range(3 + number):
            window.add({"a": float(step), **({"b": math.nan} if number else {})}, step + 1)
    whole = WeightedSums.of([window.take() for window in windows])
    assert whole.means()["a"] == pytest.approx((0 + 1 + 2 + 0 + 1 + 2 + 3) / 7)
    assert whole.first_nan == ("b", 1)
    window = Window()
    window.add({"a": torch.tensor(1.0)}, 1)
    later = Window()
    later.restore(window.sums())
    later.add({"a": torch.tensor(2.0)}, 2)
    assert later.take().means() == {"a": 1.5}


def test_the_first_nan_is_known_after_a_look_at_the_sums() -> None:
    window = Window()
    for step, value in enumerate([1.0, math.nan, 1.0], 1):
        window.add({"a": value}, step)
    later = Window()
    later.restore(window.sums())
    for each in (window, later):
        each.add({"a": 2.0}, 4)
        assert each.take().first_nan == ("a", 2)
        assert each.take().first_nan is None
