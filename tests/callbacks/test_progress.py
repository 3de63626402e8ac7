"""The bar of a long evaluation; what a training has seen is tested with the callbacks."""

import io
import sys
from collections.abc import Iterator

import pytest
import rich
from rich.console import Console
from tqdm import tqdm

from boxscore import distributed
from boxscore.callbacks import progress
from boxscore.callbacks.progress import with_bar


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal gets, on which bars are shown from the first moment on."""
    shown = io.StringIO()
    monkeypatch.setattr(rich, "get_console", lambda: Console(file=shown, force_terminal=True))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(progress, "SHOWN_AFTER", -1.0)
    return shown


def gone_through(total: int | None = 3) -> list[int]:
    return list(with_bar(iter(range(3)), total, "evaluating test"))


@pytest.mark.parametrize(("total", "expected"), [(3, "2/3"), (None, "2/?")])
def test_a_terminal_shows_a_bar(terminal: io.StringIO, total: int | None, expected: str) -> None:
    assert gone_through(total) == [0, 1, 2]
    assert "evaluating test" in terminal.getvalue()
    assert expected in terminal.getvalue()


def test_a_short_evaluation_shows_none(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SHOWN_AFTER", 60.0)
    assert gone_through() == [0, 1, 2]
    assert terminal.getvalue() == ""


def test_a_file_or_pipe_another_process_and_tqdm_get_none(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tqdm(total=2, file=io.StringIO()):
        assert gone_through() == [0, 1, 2]
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "rank", lambda: 1)
        assert gone_through() == [0, 1, 2]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert gone_through() == [0, 1, 2]
    assert terminal.getvalue() == ""


def test_the_bar_goes_where_an_evaluation_fails(terminal: io.StringIO) -> None:
    def batches() -> Iterator[int]:
        yield 0
        raise ValueError("a broken image")

    with pytest.raises(ValueError, match="broken"):
        list(with_bar(batches(), 3, "evaluating test"))
    assert terminal.getvalue().count("\x1b[?25h") == 1  # the cursor is back
