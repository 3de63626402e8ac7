"""The saved view of an experiment: sections, charts, and how it is renewed."""

from __future__ import annotations

import base64
import json
import zlib
from types import SimpleNamespace
from typing import Any

import pytest

from boxscore.keys import parse
from boxscore.loggers.mlflow_view import VIEW, first_keys, renew_view, view_fragment

TAG = f"mlflow.sharedViewState.{VIEW}"
SET = "metric bccd-test 7f3a2c"
GROUP = "RetinaNet 640x640"
KEYS = [
    f"loss {GROUP}/total.train",
    f"loss {GROUP}/total.test",
    f"loss {GROUP}/total.test-night",
    f"loss {GROUP}/classification.train",
    "loss FCOS 640x640/total.train",
    f"{SET}/box_AP50",
    f"{SET}/box_AP",
    "metric bccd-test-night 0aa0bb/box_AP",
    "per class bccd-test 7f3a2c/box_AP RBC",
    "progress/epoch",
    f"native {GROUP}/loss_dfl.train",
    "accuracy of another library",
]


class Client:
    """Stands for an `MlflowClient` with one experiment."""

    def __init__(self, **tags: str) -> None:
        self.tags = tags

    def get_experiment(self, experiment_id: str) -> Any:
        assert experiment_id == "7"
        return SimpleNamespace(tags=dict(self.tags))

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        assert experiment_id == "7"
        self.tags[key] = value


def state(client: Client) -> dict[str, Any]:
    text = json.loads(client.tags[TAG])["state"].removeprefix("deflate;")
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
    return found


def charts(client: Client, section: str) -> dict[str, list[str]]:
    """The keys of each chart that a person sees in ``section``, by title."""
    view = state(client)
    (uuid,) = (s["uuid"] for s in view["compareRunSections"] if s["name"] == section)
    return {
        chart["displayName"]: chart["selectedMetricKeys"]
        for chart in view["compareRunCharts"]
        if chart["metricSectionId"] == uuid and not chart["deleted"] and chart["type"] == "LINE"
    }


def test_metrics_by_set_then_losses_by_group() -> None:
    client = Client()
    assert renew_view(client, "7", KEYS)
    sections = [(s["name"], s["display"]) for s in state(client)["compareRunSections"]]
    assert sections == [
        ("overview", True),
        (SET, True),
        ("metric bccd-test-night 0aa0bb", True),
        ("differences", True),
        ("loss FCOS 640x640", True),
        (f"loss {GROUP}", True),
        (f"native {GROUP}", False),
        ("per class bccd-test 7f3a2c", False),
        ("progress", False),
    ]
    assert charts(client, SET) == {"box_AP": [f"{SET}/box_AP"], "box_AP50": [f"{SET}/box_AP50"]}
    of_group = charts(client, f"loss {GROUP}")
    assert list(of_group) == ["total", "classification"]
    assert of_group["total"] == [f"loss {GROUP}/total.{s}" for s in ("test", "train", "test-night")]
    assert list(charts(client, "overview")) == [
        "box_AP bccd-test 7f3a2c",
        "box_AP bccd-test-night 0aa0bb",
        "total FCOS 640x640",
        f"total {GROUP}",
    ]


def test_no_chart_mixes_groups_or_sets() -> None:
    client = Client()
    renew_view(client, "7", KEYS)
    for chart in state(client)["compareRunCharts"]:
        assert len({parse(key).scope for key in chart["selectedMetricKeys"]}) <= 1
    uuids = [chart["uuid"] for chart in state(client)["compareRunCharts"]]
    assert len(set(uuids)) == len(uuids)


def test_a_view_grows_and_is_written_only_then() -> None:
    client = Client(**{"mlflow.sharedViewState.mine": "a user's"})
    for place, key in enumerate(KEYS[:-1]):
        assert renew_view(client, "7", [key]), place
        assert not renew_view(client, "7", [key, KEYS[-1]])
    whole = Client()
    renew_view(whole, "7", KEYS)
    assert state(client) == state(whole)
    assert client.tags["mlflow.sharedViewState.mine"] == "a user's"


@pytest.mark.parametrize("stored", ["", "no JSON", '{"state": "deflate;AAAA"}', '{"state": 3}'])
def test_a_view_that_cannot_be_read_is_replaced(stored: str) -> None:
    client = Client(**{TAG: stored})
    assert renew_view(client, "7", KEYS[:2])
    assert list(charts(client, f"loss {GROUP}")) == ["total"]


def test_many_groups_fit_into_a_tag() -> None:
    client = Client()
    names = ("total", "classification", "localization", "regularization")
    keys = [
        f"loss Model{n} {n}00x{n}00/{name}.{split}"
        for n in range(300)
        for name in names
        for split in ("train", "test")
    ]
    renew_view(client, "7", [*keys, KEYS[6]])
    assert len(client.tags[TAG]) <= 20_000
    assert charts(client, SET)
    assert len(state(client)["compareRunSections"]) > 20


def test_columns_are_what_runs_are_compared_by() -> None:
    client = Client()
    renew_view(client, "7", KEYS)
    columns = state(client)["selectedColumns"]
    assert {"params.`algorithm`", "params.`learning_rate`"} < set(columns)
    assert columns[-1] == "metrics.`summary/best_box_AP`"


def test_a_new_run_shows_its_group() -> None:
    keys = first_keys({"boxscore.group": GROUP})
    assert keys == [f"loss {GROUP}/total.test", f"loss {GROUP}/total.train"]
    assert f"viewStateShareKey={VIEW}" in view_fragment("7")
