"""TensorBoardLogger, read back by TensorBoard's own reader."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from boxscore.items import File, Opening, Point, Tag
from boxscore.loggers import TensorBoardLogger

OPENING = Opening(
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
        TensorBoardLogger(tmp_path / "log").open(Opening("a", "b", "c", "../elsewhere"))
    assert not (tmp_path / "elsewhere").exists()


def test_points_survive_sigkill_soon_after(tmp_path: Path, folder: Path) -> None:
    script = (
        "import sys, time, os, signal\n"
        "from boxscore.items import Opening, Point\n"
        "from boxscore.loggers import TensorBoardLogger\n"
        "logger = TensorBoardLogger(sys.argv[1])\n"
        "logger.open(Opening('a', 'b', 'c', sys.argv[2]))\n"
        "logger.log([Point('total', 1.0, step) for step in range(300)])\n"
        "time.sleep(2)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), OPENING.folder]
    assert subprocess.run(command, check=False).returncode == -9
    assert len(read(folder / "train").Scalars("total")) == 300


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file is in the way")
    with pytest.raises(OSError, match="log"):
        TensorBoardLogger(tmp_path / "log").open(OPENING)
