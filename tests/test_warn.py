import logging
import warnings

import pytest

from boxscore.warn import Warnings


def test_an_error_is_logged_once_per_kind_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    run = Warnings()
    _fail(run, "evaluation", "image 7:\n score is nan")
    assert caplog.messages == [
        "boxscore: evaluation: ValueError: image 7: score is nan; training continues"
    ]
    _fail(run, "evaluation", "image 8: score is nan")
    _fail(run, "recording", "something else")
    assert len(caplog.messages) == 2
    assert run.counts == {"evaluation": 2, "recording": 1}
    run.report()
    assert caplog.messages[2:] == ["boxscore: evaluation: 2 times in this run"]


def test_a_second_run_of_the_process_is_warned_again(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        run = Warnings()
        run.warn_once("leak", "2 images are in both sets")
        run.warn_once("leak", "3 images are in both sets")
    assert caplog.messages == ["boxscore: 2 images are in both sets"] * 2


def test_a_warning_never_raises_and_shows_no_source(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Warnings().warn_once("kind", "one\nline")
    assert "warn.py" not in capsys.readouterr().err


def test_the_logger_can_be_silenced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="boxscore")
    Warnings().warn_once("kind", "text")
    assert not caplog.messages


def test_errors_can_be_raised() -> None:
    with pytest.raises(ValueError, match="wrong"):
        _fail(Warnings("raise"), "evaluation", "wrong")


def test_an_interrupt_passes() -> None:
    with pytest.raises(KeyboardInterrupt), Warnings().catch("evaluation"):
        raise KeyboardInterrupt


def test_no_other_mode() -> None:
    with pytest.raises(ValueError, match="neither"):
        Warnings("ignore")  # type: ignore[arg-type]


def _fail(run: Warnings, kind: str, message: str) -> None:
    with run.catch(kind):
        raise ValueError(message)
