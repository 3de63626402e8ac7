"""TensorBoardLogger, read back by TensorBoard's own reader."""

from __future__ import annotations

import json
import math
import os
import pickle
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams.metadata import (
    parse_experiment_plugin_data,
    parse_session_start_info_plugin_data,
)
from tensorboard.util.tensor_util import make_ndarray

from boxscore.logger import Status
from boxscore.loggers import (
    DurableLogger,
    MemoryLogger,
    Refused,
    TensorBoardLogger,
    standard,
)
from boxscore.loggers.event_files import events as events_of
from boxscore.loggers.event_files import table_of
from boxscore.records import File, Point, RunStart, Tag
from tests.disks import full_disk

RUN = RunStart(
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
    return tmp_path / RUN.folder


def test_train_and_test_share_a_tag_in_two_folders(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(RUN)
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
    logger.open(RUN)
    assert [path.name for path in folder.iterdir()] == ["train"]
    logger.log([Point("box_AP", 0.5, 1, "test", scope="metric bccd-test 7f3a2c")])
    logger.close()
    assert sorted(path.name for path in folder.iterdir()) == ["test", "train"]


def test_points_of_one_step_share_an_event(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(RUN)
    names = ("total", "classification", "localization", "regularization")
    logger.log([Point(name, 1.0, 50, "test", 1000.0, LOSS) for name in names])
    logger.close()
    (event,) = events(folder / "test")
    assert [value.tag for value in event.summary.value] == [f"{LOSS}/{name}" for name in names]


def test_a_point_without_split_is_in_the_train_folder(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(RUN)
    logger.log([Point("progress/epoch", 1.5, 50, "")])
    logger.close()
    assert read(folder / "train").Scalars("progress/epoch")[0].value == 1.5


def test_summary_points_are_not_drawn(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(RUN)
    logger.log([Point("summary/box_AP", 0.5, 50, "")])
    logger.close()
    assert read(folder / "train").Tags()["scalars"] == []


def test_nan_and_infinity_are_kept(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(RUN)
    values = (math.nan, math.inf, -math.inf)
    logger.log([Point("total", value, step) for step, value in enumerate(values)])
    logger.close()
    read_back = [scalar.value for scalar in read(folder / "train").Scalars("total")]
    assert [str(value) for value in read_back] == ["nan", "inf", "-inf"]


def test_the_event_files_alone_tell_what_the_run_was(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(RUN)
    logger.log([Tag("boxscore.fingerprint.test", "7f3a2c000000")])
    logger.close()
    reader = read(folder / "train")
    assert text(reader, "tags/boxscore.group") == "RetinaNet 640x640"
    assert text(reader, "tags/algorithm") == "RetinaNet"
    assert text(reader, "tags/boxscore.fingerprint.test") == "7f3a2c000000"


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_the_status_is_running_until_the_run_ends(
    tmp_path: Path, folder: Path, status: Status
) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(RUN)
    assert text(read(folder / "train"), "tags/boxscore.status") == "RUNNING"
    logger.close(status)
    logger.close("FINISHED")
    written = read(folder / "train").Tensors("tags/boxscore.status")
    assert [one.tensor_proto.string_val[0].decode() for one in written] == ["RUNNING", status]


HPARAMS = "_hparams_/session_start_info"


@pytest.mark.parametrize(
    ("task", "metrics"),
    [
        ("detection", ["box_AP", "box_AP50", "box_AP75", "box_AP_small"]),
        ("instance-segmentation", ["box_AP", "mask_AP", "box_AP50", "box_AP75"]),
        ("semantic-segmentation", ["AP", "AR", "IoU", "pixel_accuracy"]),
    ],
)
def test_params_stand_beside_the_first_test_figures(
    tmp_path: Path, folder: Path, task: str, metrics: list[str]
) -> None:
    params = {"learning_rate": "0.01", "backbone": "ResNet-50", "note": "nan"}
    run = replace(RUN, tags={**RUN.tags, "boxscore.task": task}, params=params)
    logger = TensorBoardLogger(tmp_path)
    logger.open(run)
    figures = [Point("AP", 0.5, step, "test", scope="metric bccd-test 7f3a2c") for step in (1, 2)]
    for figure in figures:
        logger.log([Point("total", 1.0, figure.step), figure])
    logger.close()
    assert HPARAMS not in read(folder / "train").Tags()["tensors"]
    reader = read(folder / "test")
    assert len(reader.Tensors(HPARAMS)) == 1
    start = parse_session_start_info_plugin_data(content(reader, HPARAMS))
    assert start.group_name == "01234567 RetinaNet 640x640 ResNet-50"
    assert start.hparams["learning_rate"].number_value == 0.01
    assert start.hparams["backbone"].string_value == "ResNet-50"
    assert start.hparams["note"].string_value == "nan"
    shown = parse_experiment_plugin_data(content(reader, "_hparams_/experiment"))
    assert {info.name for info in shown.hparam_infos} == set(params)
    tags = [info.name.tag for info in shown.metric_infos]
    assert tags[:5] == [
        *(f"metric bccd-test 7f3a2c/{name}" for name in metrics), f"{LOSS}/total",
    ]  # fmt: skip


def test_only_success_is_an_end_for_the_tab_of_params(tmp_path: Path, folder: Path) -> None:
    """TensorBoard keeps the first one, and a run that failed may be resumed."""
    figure = Point("box_AP", 0.5, 1, "test", scope="metric bccd-test 7f3a2c")
    ended: list[tuple[Status, bool]] = [("FAILED", False), ("FINISHED", True)]
    for status, ends in ended:
        logger = TensorBoardLogger(tmp_path)
        logger.open(replace(RUN, resumed=status == "FINISHED"))
        logger.log([figure])
        logger.close(status)
        tags = read(folder / "test").Tags()["tensors"]
        assert ("_hparams_/session_end_info" in tags) == ends


def content(reader: EventAccumulator, tag: str) -> bytes:
    """What a tag's metadata holds for its tab."""
    return bytes(reader.SummaryMetadata(tag).plugin_data.content)


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
    logger.open(RUN)
    logger.log([File("pictures/seven.png", str(picture), 50, "test")])
    logger.close()
    (image,) = read(folder / "test").Images("pictures/seven")
    assert (image.step, image.width, image.height) == (50, 30, 20)
    assert image.encoded_image_string == picture.read_bytes()


def table(path: Path, **counted: Any) -> File:
    """The curves of one class, at three confidences."""
    one = {"name": "RBC", "tp": [3, 2, 0], "fp": [1, 0, 0], "truths": 4} | counted
    content = {
        "set": "bccd-test 7f3a2c",
        "note": "box at IoU 0.5",
        "classes": [{"name": "RBC", "recall": [0, 1], "precision": [1, 0.25]}],
        "names": ["RBC", "background"],
        "confusion": [[3, 1], [1, 0]],
        "counts": {"note": "box at IoU 0.5, counted", "classes": [{**one, "name": ""}, one]},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return File("curves/test.json", str(path), 50, "test")


@pytest.mark.parametrize(
    ("counted", "rows"),
    [
        ({}, [[3, 2, 0], [1, 0, 0], [0, 0, 0], [1, 2, 4], [0.75, 1, 0], [0.75, 0.5, 0]]),
        (
            {"tp": [2**24 + 1], "fp": [1], "truths": 2**24 + 1, "others": 3},
            [[2**24 + 1], [1], [2], [0], [(2**24 + 1) / (2**24 + 2)], [1]],
        ),
    ],
    ids=["detections", "more pixels than float32 counts"],
)
def test_a_table_of_curves_is_on_tensorboards_own_tab_and_on_boxscores(
    tmp_path: Path, folder: Path, counted: dict[str, Any], rows: list[list[float]]
) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(RUN)
    logger.log([table(tmp_path / "t.json", **counted)])
    logger.close()
    reader = read(folder / "test")
    for name in ("all", "class RBC"):
        (tensor,) = reader.Tensors(f"PR bccd-test 7f3a2c/{name}")
        assert tensor.step == 50
        assert make_ndarray(tensor.tensor_proto).tolist() == rows
    metadata = reader.SummaryMetadata("PR bccd-test 7f3a2c/class RBC")
    assert metadata.plugin_data.plugin_name == "pr_curves"
    (tensor,) = reader.Tensors("curves bccd-test 7f3a2c/all")
    kept = table_of(tensor.tensor_proto)
    assert kept["confusion"] == [[3, 1], [1, 0]]
    assert "counts" not in kept


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (File("curves/test.json", "text.png", 50, "test"), "Expecting value"),
        (File("curves/test.json", "empty.json", 50, "test"), "empty.json is no table of curves"),
        (Point("total", 1.0, 2**70), "int64|out of range|too large"),
        (Point("total", 1.0, 3, "../elsewhere"), "leaves its folder"),
        (File("text.png", "text.png"), "not a PNG"),
        (File("gone.png", "gone.png"), "No such file"),
    ],
)
def test_an_item_that_cannot_be_shown_is_refused_and_costs_no_other(
    tmp_path: Path, folder: Path, item: Point | File, reason: str
) -> None:
    Path("text.png").write_text("no picture")
    Path("empty.json").write_text("{}")
    logger = TensorBoardLogger(tmp_path)
    logger.open(RUN)
    with pytest.raises(Refused, match=reason) as refusal:
        logger.log([Point("total", 1.0, 1), item, Point("total", 1.0, 4)])
    logger.close()
    assert refusal.value.items == (item,)
    assert [scalar.step for scalar in read(folder / "train").Scalars("total")] == [1, 4]
    assert not (folder.parent / "elsewhere").exists()


def test_a_full_disk_loses_what_it_does_not_take_and_no_more(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(RUN)
    logger.log([Point("total", 1.0, step) for step in range(10)])
    lost = [Point("total", 1.0, step) for step in range(10, 20)]
    with full_disk(sum(path.stat().st_size for path in folder.glob("*/events*")) + 10):
        with pytest.raises(OSError, match="space"):
            logger.log(lost)
        assert len(read(folder / "train").Scalars("total")) == 10  # nothing half written
    logger.log(lost)  # repeating is possible
    logger.close()
    assert [scalar.step for scalar in read(folder / "train").Scalars("total")] == [*range(20)]


@pytest.mark.parametrize("log_dir", ["s3://bucket/runs", "gs://b/r", "hdfs://h/r", "http://h/r"])
def test_a_bucket_is_refused_with_the_way_out(log_dir: str) -> None:
    for make in (TensorBoardLogger, standard, lambda path: DurableLogger(MemoryLogger(), path)):
        with pytest.raises(ValueError, match="no folder of this machine"):
            make(log_dir)
        with pytest.raises(ValueError, match="no folder of this machine"):
            make(Path(log_dir))


def test_a_home_folder_and_a_file_uri_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for log_dir in ("~/my runs", f"file://{tmp_path}/my%20runs", f"{tmp_path}/my runs"):
        for logger in standard(log_dir, "sqlite:///~/mlflow.db")[:1]:
            logger.open(replace(RUN, id=log_dir))
            logger.close()
    assert len([*(tmp_path / "my runs" / RUN.folder / "train").glob("events*")]) == 3


def test_a_resumed_run_goes_on_in_its_folder(tmp_path: Path, folder: Path) -> None:
    for steps in (range(3), range(3, 6)):
        logger = TensorBoardLogger(tmp_path)
        logger.open(RUN)
        logger.log([Point("total", 1.0, step) for step in steps])
        logger.close()
    assert [scalar.step for scalar in read(folder / "train").Scalars("total")] == [*range(6)]


def test_a_folder_that_leaves_the_log_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leaves its folder"):
        TensorBoardLogger(tmp_path / "log").open(RunStart("a", "b", "c", "../elsewhere"))
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file is in the way")
    with pytest.raises(OSError, match="log"):
        TensorBoardLogger(tmp_path / "log").open(RUN)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/events*"))


def test_a_forked_worker_neither_writes_nor_hangs(tmp_path: Path, folder: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.open(RUN)
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
    logger.open(RUN)
    copy = pickle.loads(pickle.dumps(logger))
    with pytest.raises(RuntimeError, match="open"):
        copy.log([Point("total", 1.0, 1)])
    logger.close()


@pytest.mark.parametrize("tail", [b"", b"\x20\0\0\0\0\0\0\0\1\2\3\4torn", b"\x20", b"\xff" * 40])
def test_a_resumed_run_repeats_no_step_of_any_series(
    tmp_path: Path, folder: Path, tail: bytes
) -> None:
    """Also where a crash tore off the last record."""
    series = [
        ("total", "train", LOSS),
        ("total", "test", LOSS),
        ("total", "test-night", LOSS),
        ("dfl_loss", "train", "native RetinaNet 640x640"),
        ("box_AP", "test", "metric bccd-test 7f3a2c"),
        ("plain", "test", ""),
    ]
    for resumed, steps in ((False, range(1, 8)), (True, range(5, 11)), (True, range(4, 15))):
        logger = TensorBoardLogger(tmp_path)
        logger.open(replace(RUN, resumed=resumed))
        for step in steps:
            logger.log(
                [Point(name, 1.0, step, split, scope=scope) for name, split, scope in series]
            )
        logger.close()
        for file in folder.glob("train/events*"):
            with file.open("ab") as records:
                records.write(tail)
    for name, split, scope in series:
        tag = f"{scope}/{name}" if scope else name
        seen = [step for e in files_of(folder / split) for step, tags in e if tag in tags]
        assert seen == [*range(1, 15)], (name, split)


def test_a_resumed_run_repeats_no_picture_and_no_curves(tmp_path: Path, folder: Path) -> None:
    picture, curves = png(tmp_path / "p.png", 30, 20), table(tmp_path / "t.json")
    for resumed, steps in ((False, range(1, 5)), (True, range(3, 7))):
        logger = TensorBoardLogger(tmp_path)
        logger.open(replace(RUN, resumed=resumed))
        for step in steps:
            files = [File("pictures/seven.png", str(picture), step, "test")]
            logger.log([*files, replace(curves, step=step)])
            logger.log([*files, replace(curves, step=step)])
        logger.close()
    for tag in ("pictures/seven", "PR bccd-test 7f3a2c/all", "curves bccd-test 7f3a2c/all"):
        steps_seen = [step for e in files_of(folder / "test") for step, tags in e if tag in tags]
        assert steps_seen == [*range(1, 7)], tag


def files_of(folder: Path) -> list[list[tuple[int, list[str]]]]:
    """Step and tags of each event, by file; a torn file ends early for TensorBoard's reader too."""
    return [
        [(event.step, [value.tag for value in event.summary.value]) for event in events_of(file)]
        for file in sorted(folder.glob("events*"))
    ]
