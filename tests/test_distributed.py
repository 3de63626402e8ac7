"""What several processes exchange, in real groups of one, two and three."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from boxscore import distributed
from tests.together import together

SIZES = pytest.mark.parametrize("size", [1, 2, 3])


class Odd(Exception):
    """An error that does not pickle."""

    def __init__(self) -> None:
        super().__init__("odd")
        self.held = lambda: None


def raised(work: Callable[[], Any]) -> str:
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def exchanged() -> dict[str, Any]:
    """Every exchange once, as one process sees it."""
    me, own = distributed.rank(), object()
    others = distributed.gather_to_rank0((me, own if me == 0 else None))

    def fail(error: Exception) -> Any:
        raise error

    tensors = [torch.full((2,), float(me)), torch.tensor(me)]
    distributed.copy_from_rank0(tensors)
    return {
        "place": (me, distributed.size()),
        "gathered": distributed.gathered({"of": me}),
        "to first": [rank for rank, _ in others],
        "own object": bool(others) and others[0][1] is own,
        "from first": distributed.broadcast_from_rank0(lambda: f"made by {me}"),
        "its error": raised(
            lambda: distributed.broadcast_from_rank0(lambda: fail(ValueError(f"of {me}")))
        ),
        "an odd error": raised(lambda: distributed.broadcast_from_rank0(lambda: fail(Odd()))),
        "an odd value": raised(lambda: distributed.broadcast_from_rank0(lambda: lambda: me)),
        "copy": [tensor.tolist() for tensor in tensors],
        "at one topic": distributed.gather_at("a", me, 1),
        "at two topics": distributed.gather_at("b" if me == 0 else "c", me, 2),
        "after all": distributed.gather_at_end("the end", me),
    }


@SIZES
def test_every_exchange(size: int) -> None:
    told = together(size, exchanged)
    everybody = list(range(size))
    for me, seen in enumerate(told):
        assert seen["place"] == (me, size)
        assert seen["gathered"] == [{"of": rank} for rank in everybody]
        assert seen["to first"] == (everybody if me == 0 else [])
        assert seen["own object"] == (me == 0)
        assert seen["from first"] == "made by 0"
        assert seen["its error"] == "ValueError: of 0"
        assert "odd" in seen["an odd error"]
        assert (seen["an odd value"] == "nothing") == (size == 1)
        assert seen["copy"] == [[0.0, 0.0], 0]
        assert seen["at one topic"] == everybody
        assert seen["at two topics"] == ([0] if me == 0 else everybody[1:])
        assert seen["after all"] == everybody


def trained(steps: int) -> list[tuple[int, list[int]]]:
    """A training of ``steps`` steps for each rank, and one of them rank's own topic between."""
    me = distributed.rank()
    met = []
    for step in range(1, steps + me * 2 + 1):
        met.append((step, distributed.gather_at("train", me, step)))
        if step == 1 and me == 0:  # its epoch ends, the others' do not
            met.append((-1, distributed.gather_at("epoch", me, step)))
    met.append((0, distributed.gather_at_end("the end", me)))
    return met


@SIZES
def test_who_is_behind_goes_on_and_who_is_ahead_waits(size: int) -> None:
    """Ranks that come to the end early, and one that meets once more, find each other again."""
    for me, met in enumerate(together(size, trained, 3)):
        everybody = list(range(size))
        seen = dict(met)
        assert seen.get(-1, [0]) == [0]
        assert seen[0] == everybody
        for step in range(1, 3 + me * 2 + 1):
            assert seen[step] == [rank for rank in everybody if step <= 3 + rank * 2], step


def late(seconds: float) -> tuple[float, list[int]]:
    if distributed.rank() == 1:
        time.sleep(seconds)
    start = time.monotonic()
    return time.monotonic() - start, distributed.gather_at_end("the end", distributed.rank())


def test_the_end_is_waited_for() -> None:
    assert [met for _, met in together(2, late, 0.3)] == [[0, 1]] * 2


def begun(*, absent: tuple[int, ...], patience: float, late: int = -1) -> Any:
    """Begin a training, less the ``absent`` ranks; then another with all."""
    me = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    distributed.PATIENCE = patience
    first = None
    if me == late:
        time.sleep(3 * patience)
    if me not in absent:
        first = (
            distributed.all_ranks_present(),
            distributed.rank(),
            distributed.size(),
            distributed.gathered(me),
        )
    else:
        distributed._trainings += 1
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    distributed.PATIENCE = 60
    return first, (
        distributed.all_ranks_present(),
        distributed.rank(),
        distributed.size(),
        distributed.gathered(me),
    )


def begun_by_all() -> Any:
    return begun(absent=(), patience=20)


def begun_by_the_first() -> Any:
    return begun(absent=(1, 2), patience=0.2)


def begun_by_the_others() -> Any:
    return begun(absent=(0,), patience=0.2)


def begun_late() -> Any:
    return begun(absent=(), patience=0.2, late=0)


@SIZES
def test_all_are_here(size: int) -> None:
    together_ = [(True, me, size, list(range(size))) for me in range(size)]
    assert [first for first, _ in together(size, begun_by_all)] == together_


def test_where_not_all_came_each_is_alone_and_one_is_the_first() -> None:
    """And the next training, which all begin, is one of all."""
    everybody = [(True, me, 3, [0, 1, 2]) for me in range(3)]
    for work, alone in (
        (begun_by_the_first, [(False, 0, 1, [0]), None, None]),
        (begun_by_the_others, [None, (False, 0, 1, [1]), (False, 2, 1, [2])]),
        (begun_late, [(False, 1, 1, [0]), (False, 0, 1, [1]), (False, 2, 1, [2])]),
    ):
        told = together(3, work)
        assert [first for first, _ in told] == alone, work.__name__
        assert [second for _, second in told] == everybody, work.__name__


def test_without_torch_nothing_is_imported() -> None:
    code = (
        "import sys\nfrom boxscore import distributed\n"
        "assert distributed.gathered(1) == distributed.gather_to_rank0(1) == [1]\n"
        "assert distributed.gather_at('a', 1, 1) == [1] and distributed.size() == 1\n"
        "assert distributed.broadcast_from_rank0(lambda: 2) == 2\n"
        "assert distributed.all_ranks_present()\n"
        "print([name for name in sys.modules if name.startswith(('torch', 'numpy', 'pickle'))])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_a_single_process_keeps_its_very_objects() -> None:
    own = object()
    assert (
        distributed.gathered(own)[0]
        is distributed.gather_to_rank0(own)[0]
        is distributed.gather_at("a", own, 1)[0]
        is own
    )
    with pytest.raises(ZeroDivisionError):
        distributed.broadcast_from_rank0(lambda: 1 // 0)
