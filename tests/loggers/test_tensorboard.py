"""TensorBoardLogger, read back by TensorBoard's own reader."""

from __future__ import annotations

import math
import os
import pickle
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from boxscore.loggers import TensorBoardLogger
from boxscore.records import File, Point, RunStart, Tag
from tests.disks import full_disk

OPENING = RunStart(
    id="0123456789abcdef" * 2,
    name="RetinaNet 640x640 ResNet-50",
    experiment="bccd",
    folder="bccd/RetinaNet/640x640/ResNet-50-01234567",
    tags={"boxscore.group": "RetinaNet 640x640"},
    params={"algorithm": "RetinaNet"},
)
LOSS = "loss RetinaNet 640x640"


def read(folder: Path) -> EventAccumulator:
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    reader.Reload()
    return reader


def text(reader: EventAccumulator, tag: str) -> str:
    return str(reader.Tensors(tag)[0].tensor_proto.string_val[0].decode())


def events(folder: Path) -> list[Any]:
    (file,) = folder.glob("events*")
    return [event for event in EventFileLoader(str(file)).Load() if event.HasField("summary")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / OPENING.folder


def test_train_and_test_share_a_tag_in_two_folders(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    logger.log(
        [
            Point("classification", 0.75, 50, "train", 1000.0, LOSS),
            Point("classification", 0.5, 50, "test", 1001.5, LOSS),
        ]
    )
    logger.close()
    for split, value, wall_time in (("train", 0.75, 1000.0), ("test", 0.5, 1001.5)):
        (scalar,) = read(folder / split).Scalars(f"{LOSS}/classification")
        assert (scalar.step, scalar.value, scalar.wall_time) == (50, value, wall_time)


def test_the_train_folder_comes_first_even_where_a_test_point_does(
    tmp_path: Path, folder: Path
) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    assert [path.name for path in folder.iterdir()] == ["train"]
    logger.log([Point("box_AP", 0.5, 1, "test", scope="metric bccd-test 7f3a2c")])
    logger.close()
    assert sorted(path.name for path in folder.iterdir()) == ["test", "train"]


def test_points_of_one_step_share_an_event(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    names = ("total", "classification", "localization", "regularization")
    logger.log([Point(name, 1.0, 50, "test", 1000.0, LOSS) for name in names])
    logger.close()
    (event,) = events(folder / "test")
    assert [value.tag for value in event.summary.value] == [f"{LOSS}/{name}" for name in names]


def test_a_point_without_split_is_in_the_train_folder(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    logger.log([Point("progress/epoch", 1.5, 50, "")])
    logger.close()
    assert read(folder / "train").Scalars("progress/epoch")[0].value == 1.5


def test_summary_points_are_not_drawn(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    logger.log([Point("summary/box_AP", 0.5, 50, "")])
    logger.close()
    assert read(folder / "train").Tags()["scalars"] == []


def test_nan_and_infinity_are_kept(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    values = (math.nan, math.inf, -math.inf)
    logger.log([Point("total", value, step) for step, value in enumerate(values)])
    logger.close()
    read_back = [scalar.value for scalar in read(folder / "train").Scalars("total")]
    assert [str(value) for value in read_back] == ["nan", "inf", "-inf"]


def test_the_event_files_alone_tell_what_the_run_was(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    logger.log([Tag("boxscore.fingerprint.test", "7f3a2c000000")])
    logger.close()
    reader = read(folder / "train")
    assert text(reader, "tags/boxscore.group") == "RetinaNet 640x640"
    assert text(reader, "tags/algorithm") == "RetinaNet"
    assert text(reader, "tags/boxscore.fingerprint.test") == "7f3a2c000000"


def png(path: Path, width: int, height: int) -> Path:
    """A black picture, written by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\0" * width) * height)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def test_a_png_becomes_an_image_of_its_split(tmp_path: Path, folder: Path) -> None:
    picture = png(tmp_path / "p.png", 30, 20)
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    logger.log([File("pictures/seven.png", str(picture), 50, "test")])
    logger.close()
    (image,) = read(folder / "test").Images("pictures/seven")
    assert (image.step, image.width, image.height) == (50, 30, 20)
    assert image.encoded_image_string == picture.read_bytes()


def test_what_only_calls_itself_png_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_text("no picture")
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    with pytest.raises(ValueError, match=r"p\.png is not a PNG"):
        logger.log([File("p.png", str(tmp_path / "p.png"))])
    logger.close()


def test_a_resumed_run_goes_on_in_its_folder(tmp_path: Path, folder: Path) -> None:
    for steps in (range(3), range(3, 6)):
        logger = TensorBoardLogger(tmp_path)
        logger.open(OPENING)
        logger.log([Point("total", 1.0, step) for step in steps])
        logger.close()
    assert [scalar.step for scalar in read(folder / "train").Scalars("total")] == [*range(6)]


def test_a_folder_that_leaves_the_log_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leaves its folder"):
        TensorBoardLogger(tmp_path / "log").open(RunStart("a", "b", "c", "../elsewhere"))
    assert not (tmp_path / "elsewhere").exists()


def test_points_survive_sigkill_soon_after(tmp_path: Path, folder: Path) -> None:
    script = (
        "import sys, time, os, signal\n"
        "from boxscore.items import RunStart, Point\n"
        "from boxscore.loggers import TensorBoardLogger\n"
        "logger = TensorBoardLogger(sys.argv[1])\n"
        "logger.open(RunStart('a', 'b', 'c', sys.argv[2]))\n"
        "logger.log([Point('total', 1.0, step) for step in range(300)])\n"
        "time.sleep(0.5)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), OPENING.folder]
    assert subprocess.run(command, check=False).returncode == -9
    assert len(read(folder / "train").Scalars("total")) == 300


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file is in the way")
    with pytest.raises(OSError, match="log"):
        TensorBoardLogger(tmp_path / "log").open(OPENING)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/events*"))


def test_points_are_on_the_disk_soon_without_a_call(
    tmp_path: Path, folder: Path, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    wait_until(lambda: "tags/algorithm" in read(folder / "train").Tags()["tensors"])
    before, start = size(folder), time.monotonic()
    logger.log([Point("total", 1.0, 1)])
    wait_until(lambda: size(folder) > before)
    assert time.monotonic() - start < 1  # a tenth of a second where the machine is idle
    assert read(folder / "train").Scalars("total")[0].step == 1
    logger.close()


def test_one_thread_writes_all_splits_and_ends(tmp_path: Path) -> None:
    before = threading.active_count()
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    logger.open(OPENING)
    logger.log([Point("total", 1.0, 1, split) for split in ("train", "test", "test-night")])
    assert threading.active_count() == before + 1
    logger.close()
    assert threading.active_count() == before


def test_a_full_disk_costs_nothing_while_the_process_lives(
    tmp_path: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    monkeypatch.setattr("boxscore.loggers.tensorboard._PAUSE", 0.02)
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    logger.log([Point("total", 1.0, step) for step in range(100)])
    wait_until(lambda: "total" in read(folder / "train").Tags()["scalars"])
    with full_disk(size(folder) + 10):
        for step in range(100, 200):
            logger.log([Point("total", 1.0, step)])
        wait_until(lambda: bool(caplog.records))
        whole = [scalar.step for scalar in read(folder / "train").Scalars("total")]
        assert whole == [*range(100)]  # nothing half written
    logger.log([Point("total", 1.0, 200)])
    logger.close()
    assert [scalar.step for scalar in read(folder / "train").Scalars("total")] == [*range(201)]
    (said,) = caplog.messages
    assert "takes nothing" in said


def test_memory_is_bounded_when_the_disk_is_full(
    tmp_path: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    monkeypatch.setattr("boxscore.loggers.tensorboard._PAUSE", 0.02)
    monkeypatch.setattr("boxscore.loggers.tensorboard.MEMORY", 20_000)
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    wait_until(lambda: "tags/algorithm" in read(folder / "train").Tags()["tensors"])
    with full_disk(size(folder) + 10):
        logger.log([Point("total", 1.0, 0)])
        wait_until(lambda: bool(caplog.records))
        for step in range(1, 1000):
            logger.log([Point("total", 1.0, step)])
    logger.close()
    steps = [scalar.step for scalar in read(folder / "train").Scalars("total")]
    assert steps[-99:] == [*range(901, 1000)]
    assert len(steps) < 110
    assert "the oldest points for TensorBoard are lost" in caplog.text


def test_what_a_disk_never_took_is_told_at_the_end(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    with full_disk(10):
        logger.log([Point("total", 1.0, 0)])
        logger.close()  # returns all the same
    assert "did not take is lost" in caplog.messages[-1]


def test_faster_than_the_disk_nothing_is_lost(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxscore.loggers.tensorboard.MEMORY", 20_000)
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    for step in range(5000):
        logger.log([Point("total", 1.0, step)])
    logger.close()
    assert [scalar.step for scalar in read(folder / "train").Scalars("total")] == [*range(5000)]


def test_one_item_that_cannot_be_shown_costs_no_other(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    bad = [Point("total", 1.0, 2**70), Point("total", 1.0, 3, "../elsewhere")]
    logger.log([Point("total", 1.0, 1), *bad, Point("total", 1.0, 4)])
    logger.close()
    assert [scalar.step for scalar in read(folder / "train").Scalars("total")] == [1, 4]
    assert len(caplog.messages) == 1
    assert not (folder.parent / "elsewhere").exists()


def test_a_forked_worker_neither_writes_nor_hangs(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    logger.log([Point("total", 1.0, 1)])
    child = os.fork()
    if child == 0:
        logger.log([Point("total", 1.0, 100)])
        logger.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    logger.log([Point("total", 1.0, 2)])
    logger.close()
    assert [scalar.step for scalar in read(folder / "train").Scalars("total")] == [1, 2]


def test_a_copy_of_an_open_logger_is_unopened(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    copy = pickle.loads(pickle.dumps(logger))
    with pytest.raises(RuntimeError, match="open"):
        copy.log([Point("total", 1.0, 1)])
    logger.close()


def test_a_training_that_forgets_to_close_loses_nothing(tmp_path: Path, folder: Path) -> None:
    script = (
        "import sys\n"
        "from boxscore.items import RunStart, Point\n"
        "from boxscore.loggers import TensorBoardLogger\n"
        "logger = TensorBoardLogger(sys.argv[1])\n"
        "logger.open(RunStart('a', 'b', 'c', sys.argv[2]))\n"
        "logger.log([Point('total', 1.0, 1)])\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path), OPENING.folder], check=True)
    assert len(read(folder / "train").Scalars("total")) == 1


def test_it_tells_the_last_step_of_every_split_by_the_points_key(
    tmp_path: Path, folder: Path
) -> None:
    metric = "metric bccd-test 7f3a2c"
    points = [
        *(Point("total", 1.0, step, "train", scope=LOSS) for step in (10, 20)),
        Point("total", 1.0, 5, "test", scope=LOSS),
        Point("total", 1.0, 7, "test-night", scope=LOSS),
        Point("dfl_loss", 1.0, 10, "train", scope="native RetinaNet 640x640"),
        Point("box_AP", 0.5, 5, "test", scope=metric),
        Point("progress/epoch", 0.5, 20, ""),
        Point("plain", 0.5, 3, "test"),
    ]
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    assert logger.recorded() == {}
    logger.log(points)
    logger.close()
    assert logger.recorded() == {}  # as it is not open
    logger.open(OPENING)
    assert logger.recorded() == {point.key: point.step for point in points}
    logger.close()


@pytest.mark.parametrize("tail", [b"\x20\0\0\0\0\0\0\0\1\2\3\4torn", b"\x20", b"\xff" * 40])
def test_a_torn_last_record_is_no_trouble(tmp_path: Path, folder: Path, tail: bytes) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(OPENING)
    logger.log([Point("total", 1.0, step) for step in range(50)])
    logger.close()
    (file,) = (folder / "train").glob("events*")
    with file.open("ab") as records:
        records.write(tail)
    logger.open(OPENING)
    assert logger.recorded() == {"total": 49}
    logger.log([Point("total", 1.0, 50)])
    logger.close()
    assert [scalar.step for scalar in read(folder / "train").Scalars("total")] == [*range(51)]
