import warnings

import pytest

from boxscore.warn import Guard


def test_trouble_is_told_once_per_kind_and_counted() -> None:
    guard = Guard()
    with pytest.warns(UserWarning, match="evaluation: ValueError: image 7: score is nan"):
        _fail(guard, "evaluation", "image 7:\n score is nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _fail(guard, "evaluation", "image 8: score is nan")
    with pytest.warns(UserWarning, match="recording"):
        _fail(guard, "recording", "something else")
    assert guard.counts == {"evaluation": 2, "recording": 1}
    with pytest.warns(UserWarning, match="evaluation: 2 times in this run"):
        guard.report()


def test_tests_can_have_it_raised() -> None:
    with pytest.raises(ValueError, match="wrong"):
        _fail(Guard("raise"), "evaluation", "wrong")


def test_the_end_of_a_training_passes() -> None:
    guard = Guard()
    with pytest.raises(KeyboardInterrupt), guard("evaluation"):
        raise KeyboardInterrupt


def test_no_third_way() -> None:
    with pytest.raises(ValueError, match="neither"):
        Guard("ignore")  # type: ignore[arg-type]


def _fail(guard: Guard, what: str, message: str) -> None:
    with guard(what):
        raise ValueError(message)
