"""The best evaluation of each run in MLflow's models tab, read back with MLflow's own search."""

from typing import Any

import pytest
from mlflow import MlflowClient

from boxscore.loggers import MLflowLogger
from boxscore.records import Item, Point, RunStart, Tag
from tests.loggers.test_mlflow import run_start, runs

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload``")

SLOW = [pytest.param(store, marks=pytest.mark.slow) for store in ("server", "postgres")]
NIGHT, DAY = "7f3a2c000000", "a41b2e000000"


@pytest.fixture(params=["sqlite", *SLOW])
def uri(request: pytest.FixtureRequest) -> str:
    """Each store in turn."""
    store = request.getfixturevalue(request.param)
    return store if isinstance(store, str) else str(store.uri)


def start_of(name: str) -> RunStart:
    return run_start(name=name, tags={"boxscore.dataset": "bccd", "boxscore.task": "detection"})


def evaluation(step: int, values: dict[str, float], *, best: bool, on: str = NIGHT) -> list[Item]:
    """What a run logs of one."""
    scope = f"metric bccd-test {on[:6]}"
    items: list[Item] = [Tag("boxscore.fingerprint.test", on)]
    items += [Point(name, value, step, "test", scope=scope) for name, value in values.items()]
    items += [Point(f"summary/{name}", value, step, "") for name, value in values.items()]
    if best:
        items.append(Point("summary/best_box_AP", values["box_AP"], step, ""))
    return items


def models(uri: str, on: str, *starts: RunStart) -> list[Any]:
    """The models of ``starts`` as MLflow ranks them by AP on one evaluated set."""
    client = MlflowClient(uri)
    order = {"field_name": "metrics.summary/box_AP", "ascending": False}
    order |= {"dataset_name": f"bccd-test {on[:6]}", "dataset_digest": on}
    experiments = [one.experiment_id for one in client.search_experiments()]
    ranked = client.search_logged_models(experiments, order_by=[order])
    return [one for one in ranked if one.tags["boxscore.run"] in {start.id for start in starts}]


def test_mlflow_ranks_the_best_evaluations_on_one_set(uri: str) -> None:
    figures = {"RetinaNet": (0.3, 0.5), "FCOS v1.5": (0.4, 0.1), "SSD": (0.9, 0.8)}
    starts = {name: start_of(name) for name in figures}
    for name, (first, second) in figures.items():
        logger = MLflowLogger(uri)
        logger.open(starts[name])
        on = DAY if name == "SSD" else NIGHT
        logger.log(evaluation(10, {"box_AP": first, "box_AP50": 0.6}, best=True, on=on))
        later = {"box_AP": second, "box_AP50": 0.7}
        logger.log(evaluation(20, later, best=second > first, on=on))
        logger.close()
    ranked = models(uri, NIGHT, *starts.values())
    assert [one.name for one in ranked] == ["RetinaNet", "FCOS v1_5", "SSD"]
    assert models(uri, DAY, *starts.values())[0].name == "SSD"
    best = {m.key: (m.value, m.step, m.dataset_digest) for m in ranked[0].metrics}
    assert best == {"summary/box_AP": (0.5, 20, NIGHT), "summary/box_AP50": (0.7, 20, NIGHT)}
    assert {m.step for m in ranked[1].metrics} == {10}
    assert ranked[0].status == "READY"
    assert ranked[0].params["algorithm"] == "RetinaNet"
    (run,) = runs(uri, starts["RetinaNet"])
    assert ranked[0].source_run_id == run.info.run_id
    keys = {"summary/box_AP", "summary/box_AP50", "summary/best_box_AP"}
    assert {key for key in run.data.metrics if not key.startswith("metric ")} == keys


def test_resumed_repeated_and_parted_deliveries_leave_one_model(sqlite: str) -> None:
    start = start_of("RetinaNet")
    items = evaluation(10, {"box_AP": 0.3}, best=True)
    for more in (items, items, evaluation(20, {"box_AP": 0.4}, best=True)):
        logger = MLflowLogger(sqlite)
        logger.open(start)
        for part in (more[:2], more[2:], more):
            logger.log(part)
        logger.close()
    (model,) = models(sqlite, NIGHT, start)
    assert [(m.value, m.step) for m in model.metrics] == [(0.4, 20)]


def test_a_server_without_logged_models_loses_no_point(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(MlflowClient, "search_logged_models", missing)
    start = start_of("RetinaNet")
    logger = MLflowLogger(sqlite)
    logger.open(start)
    logger.log(evaluation(10, {"box_AP": 0.3}, best=True))
    logger.close()
    (run,) = runs(sqlite, start)
    assert run.data.metrics["summary/box_AP"] == 0.3
