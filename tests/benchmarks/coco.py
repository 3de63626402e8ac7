"""The cost of COCO's metrics, ours against the peers, interleaved; medians.

Run ``uv run --with hotcoco==1.3 python tests/benchmarks/coco.py {boxes,rle,dense} [--images N]
[--rounds N] [--slow]``: RF-DETR holds hotcoco at 1.0.1, which does not stream.

Workload (synthetic, as large as COCO's val2017): 640x480, 80 classes with gaps between their ids,
7 objects and 100 detections per image, nearly half of them near an object, scores of four decimals
with many ties. Every engine starts from the same dicts of torch tensors, one per image, as a
training loop has them (RLE masks: from dicts); what it makes of them for itself is counted.
"hotcoco, truth given" is handed the ground truth as annotation dicts, free of charge.

CPU seconds are the column to trust; wall times on shared cores are not. ``--slow`` adds
pycocotools, faster-coco-eval and torchmetrics.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Literal

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table

BATCH = 16
HEIGHT, WIDTH = 480, 640
FIGURES = [
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
]
Json = dict[str, Any]
Dicts = list[Json]


class Workload:
    """Images, their objects and what a detector says of them; masks are ellipses in the boxes."""

    def __init__(self, images: int, kind: str) -> None:
        rng = np.random.default_rng(0)
        self.kind = kind
        self.labels = np.sort(rng.choice(np.arange(1, 91), 80, replace=False))
        self.ids = np.sort(rng.choice(np.arange(1, 581930), images, replace=False)).tolist()
        prior = 1 / np.arange(1, 81) ** 0.75
        prior[0] *= 4
        prior /= prior.sum()
        self.predictions, self.targets = [], []
        for image_id in self.ids:
            target = self._objects(rng, prior)
            self.predictions.append(self._found(rng, prior, target))
            self.targets.append(target | {"image_id": image_id})
        self.categories = [{"id": int(label), "name": f"c{label}"} for label in self.labels]
        self.images = [{"id": one, "height": HEIGHT, "width": WIDTH} for one in self.ids]

    def _objects(self, rng: np.random.Generator, prior: Any) -> Json:
        count = int(min(rng.negative_binomial(1.1, 1.1 / 8.45), 60))
        size = rng.choice(3, count, p=[0.41, 0.34, 0.25])
        low, high = np.array([80, 1024, 9216])[size], np.array([1024, 9216, 150000])[size]
        area = np.exp(rng.uniform(np.log(low), np.log(high)))
        shape = np.exp(rng.normal(0, 0.5, count))
        sides = np.stack([np.sqrt(area * shape), np.sqrt(area / shape)], 1) / 0.85
        sides = np.minimum(sides, [WIDTH * 0.98, HEIGHT * 0.98])
        corner = rng.uniform(0, 1, (count, 2)) * ([WIDTH, HEIGHT] - sides)
        boxes = np.concatenate([corner, corner + sides], 1).round(2)
        kinds = rng.choice(80, 4, replace=False, p=prior)
        labels = self.labels[kinds[rng.integers(0, 4, count)]]
        target = {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.from_numpy(labels),
            "iscrowd": torch.from_numpy((rng.random(count) < 0.011).astype(np.int64)),
            "area": torch.from_numpy(area),
        }
        return target | self._masks(boxes)

    def _found(self, rng: np.random.Generator, prior: Any, target: Json) -> Json:
        objects, labels = target["boxes"].numpy(), target["labels"].numpy()
        near = 45 if len(objects) else 0
        source = rng.integers(0, max(len(objects), 1), near)
        spread = np.abs(rng.normal(0, 1, near)) * rng.choice([0.02, 0.06, 0.15, 0.3], near)
        sides = np.tile(objects[source, 2:] - objects[source, :2], 2) if near else np.zeros((0, 4))
        close = objects[source] + rng.normal(0, 1, (near, 4)) * spread[:, None] * sides
        far = np.exp(rng.uniform(np.log(6), np.log(400), (100 - near, 2)))
        corner = rng.uniform(0, 1, far.shape) * np.maximum([WIDTH, HEIGHT] - far, 1)
        boxes = np.concatenate([close, np.concatenate([corner, corner + far], 1)])
        boxes[:, :2] = np.clip(boxes[:, :2], 0, [WIDTH - 2, HEIGHT - 2])
        boxes[:, 2:] = np.clip(boxes[:, 2:], boxes[:, :2] + 1, [WIDTH, HEIGHT])
        guess = self.labels[rng.choice(80, 100, p=prior)]
        same: Any = np.where(rng.random(near) < 0.85, labels[source], guess[:near]) if near else []
        label = np.concatenate([same, guess[near:]])
        logit = np.concatenate(
            [rng.normal(0.6, 1.3, near) - 4 * spread, rng.normal(-2.2, 1.2, 100 - near)]
        )
        score = (1 / (1 + np.exp(-logit))).round(4)
        order = rng.permutation(100) if rng.random() < 0.5 else np.argsort(-score)
        boxes = boxes[order].astype(np.float32)
        prediction = {
            "boxes": torch.from_numpy(boxes),
            "scores": torch.from_numpy(score[order].astype(np.float32)),
            "labels": torch.from_numpy(label.astype(np.int64)[order]),
        }
        return prediction | self._masks(boxes)

    def _masks(self, boxes: Any) -> Json:
        if self.kind == "boxes":
            return {}
        if self.kind == "rle":
            return {"masks": [encode(one) for one in ellipses(boxes)]}
        return {"masks": torch.from_numpy(ellipses(boxes))}

    def batches(self) -> Iterator[tuple[Dicts, Dicts]]:
        """As a loader would give them."""
        for start in range(0, len(self.ids), BATCH):
            here = slice(start, start + BATCH)
            yield self.predictions[here], self.targets[here]


def ellipses(boxes: Any) -> Any:
    """Dense masks, shape (n, HEIGHT, WIDTH)."""
    masks = np.zeros((len(boxes), HEIGHT, WIDTH), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        x = (np.arange(WIDTH) + 0.5 - (left + right) / 2) / max((right - left) / 2, 0.5)
        y = (np.arange(HEIGHT) + 0.5 - (top + bottom) / 2) / max((bottom - top) / 2, 0.5)
        np.less(x**2 + y[:, None] ** 2, 1, out=mask)
    return masks


def encode(mask: Any) -> Json:
    """A dense mask as pycocotools' RLE."""
    from pycocotools import mask as coco

    return dict(coco.encode(np.asfortranarray(mask, np.uint8)))


def truth_dicts(targets: Dicts) -> Dicts:
    """COCO's annotation dicts of some targets."""
    made: Dicts = []
    for target in targets:
        boxes = target["boxes"].clone()
        boxes[:, 2:] -= boxes[:, :2]
        columns = (boxes, target["labels"], target["iscrowd"], target["area"])
        masks = target.get("masks", [None] * len(boxes))
        rows = zip(*(column.tolist() for column in columns), masks, strict=True)
        for box, label, crowd, area, mask in rows:
            one = {"id": len(made) + 1, "image_id": target["image_id"], "category_id": label}
            one |= {"bbox": box, "iscrowd": crowd, "area": area}
            made.append(one if mask is None else one | {"segmentation": rle_of(mask)})
    return made


def rle_of(mask: Any) -> Json:
    """A mask as RLE, encoded by hotcoco where it is dense."""
    import hotcoco

    if isinstance(mask, dict):
        return mask
    return dict(hotcoco.mask.encode(np.asfortranarray(mask.numpy().view(np.uint8))))


def result_dicts(predictions: Dicts, targets: Dicts) -> Dicts:
    """COCO's result dicts of some predictions."""
    made: Dicts = []
    for prediction, target in zip(predictions, targets, strict=True):
        boxes = prediction["boxes"].clone()
        boxes[:, 2:] -= boxes[:, :2]
        columns = (boxes.tolist(), prediction["labels"].tolist(), prediction["scores"].tolist())
        masks = prediction.get("masks", [None] * len(boxes))
        for box, label, score, mask in zip(*columns, masks, strict=True):
            one = {"image_id": target["image_id"], "category_id": label, "score": score}
            made.append(one | ({"bbox": box} if mask is None else {"segmentation": rle_of(mask)}))
    return made


def rows(predictions: Dicts, targets: Dicts) -> Any:
    """hotcoco's result array, (n, 7)."""
    boxes = torch.cat([one["boxes"] for one in predictions])
    boxes[:, 2:] -= boxes[:, :2]
    counts = [len(one["scores"]) for one in predictions]
    ids = np.repeat([target["image_id"] for target in targets], counts)
    score = torch.cat([one["scores"] for one in predictions]).numpy()
    label = torch.cat([one["labels"] for one in predictions]).numpy()
    return np.column_stack([ids, boxes.numpy().astype(float), score.astype(float), label])


Outcome = tuple[list[float], float]
"""The twelve figures, -1 where undefined, and the bytes of the state (0 where there is none)."""


def ours(workload: Workload, *, fingerprint: bool = False) -> Outcome:
    """boxscore, perhaps with the fingerprint of the set, as in a training."""
    from boxscore.detection import DetectionMetrics

    masks = workload.kind != "boxes"
    names = {int(label): f"c{label}" for label in workload.labels}
    metrics = DetectionMetrics(names, boxes=not masks, masks=masks)
    for predictions, targets in workload.batches():
        metrics.update(predictions, targets)
    size, figures = metrics.nbytes, metrics.compute()
    kind = "mask" if masks else "box"
    if fingerprint:
        metrics.evaluated.digest(metrics.protocol)
    return [figures.get(f"{kind}_{name}", -1.0) for name in FIGURES], size


def hotcoco_stream(workload: Workload, given: dict[int, Dicts] | None = None) -> Outcome:
    """hotcoco's StreamingEval, batch by batch."""
    stream = import_module("hotcoco").StreamingEval(workload.categories, iou_type(workload))
    for place, (predictions, targets) in enumerate(workload.batches()):
        images = workload.images[place * BATCH : (place + 1) * BATCH]
        truth = truth_dicts(targets) if given is None else given[place]
        found = rows if workload.kind == "boxes" else result_dicts
        stream.update(images, truth, found(predictions, targets))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = stream.finalize()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats), 0


def iou_type(workload: Workload) -> Literal["bbox", "segm"]:
    return "bbox" if workload.kind == "boxes" else "segm"


def in_one_go(*classes: tuple[str, str]) -> Callable[[Workload], Outcome]:
    """A peer with pycocotools' interface, all images at once."""

    def run(workload: Workload) -> Outcome:
        coco, evaluator = (getattr(import_module(home), name) for home, name in classes)
        content = {
            "info": {},
            "images": workload.images,
            "categories": workload.categories,
            "annotations": truth_dicts(workload.targets),
        }
        with contextlib.redirect_stdout(io.StringIO()):
            if classes[0][0] == "hotcoco":
                truth = coco(content)
            else:
                truth = coco()
                truth.dataset = content
                truth.createIndex()
            found = truth.loadRes(result_dicts(workload.predictions, workload.targets))
            evaluation = evaluator(truth, found, iou_type(workload))
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return [float(value) for value in evaluation.stats[:12]], 0

    return run


def torchmetrics_map(workload: Workload) -> Outcome:
    """torchmetrics over faster-coco-eval."""
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(iou_type=iou_type(workload), backend="faster_coco_eval")
    metric.warn_on_many_detections = False
    for predictions, targets in workload.batches():
        metric.update(predictions, targets)
    found = metric.compute()
    names = "map map_50 map_75 map_small map_medium map_large mar_1 mar_10 mar_100"
    names += " mar_small mar_medium mar_large"
    return [float(found[name]) for name in names.split()], 0


def engines(workload: Workload, *, slow: bool) -> dict[str, Callable[[Workload], Outcome]]:
    """What is compared, by name; the first is ours, the second the reference."""
    given = {place: truth_dicts(targets) for place, (_, targets) in enumerate(workload.batches())}
    chosen: dict[str, Callable[[Workload], Outcome]] = {
        "boxscore": ours,
        "boxscore, fingerprint": lambda work: ours(work, fingerprint=True),
        "hotcoco streaming": hotcoco_stream,
        "hotcoco streaming, truth given": lambda work: hotcoco_stream(work, given),
        "hotcoco batch": in_one_go(("hotcoco", "COCO"), ("hotcoco", "COCOeval")),
    }
    if slow:
        chosen["faster-coco-eval"] = in_one_go(
            ("faster_coco_eval", "COCO"), ("faster_coco_eval", "COCOeval_faster")
        )
        chosen["pycocotools"] = in_one_go(
            ("pycocotools.coco", "COCO"), ("pycocotools.cocoeval", "COCOeval")
        )
        chosen["torchmetrics"] = torchmetrics_map
    return chosen


class Peak:
    """The most memory that the process held meanwhile, beyond what it held before, in MB."""

    def __enter__(self) -> Peak:
        gc.collect()
        self._process, self._over = psutil.Process(), threading.Event()
        self._before = self.most = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.001):
            self.most = max(self.most, self._process.memory_info().rss)

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self.megabytes = (self.most - self._before) / 2**20


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("boxes", "rle", "dense"))
    parser.add_argument("--images", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slow", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = options.images or {"boxes": 5000, "rle": 500, "dense": 32}[options.kind]
    workload = Workload(images, options.kind)
    chosen = engines(workload, slow=options.slow)
    memory, outcomes = {}, {}
    for name, run in chosen.items():  # also warms up
        with Peak() as peak:
            outcomes[name] = run(workload)
        memory[name] = peak.megabytes
    cpu: dict[str, list[float]] = {name: [] for name in chosen}
    wall: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(options.rounds):
        for name, run in chosen.items():
            gc.collect()
            begun, started = time.process_time(), time.perf_counter()
            run(workload)
            cpu[name].append(time.process_time() - begun)
            wall[name].append(time.perf_counter() - started)
    table = Table("engine", title=f"COCO {options.kind}, {images} images, 100 detections each")
    for column in ("CPU s", "wall s", "ours / it (CPU)", "peak MB", "B/image", "same figures"):
        table.add_column(column, justify="right")
    mine = statistics.median(cpu["boxscore"])
    for name, (figures, size) in outcomes.items():
        own = statistics.median(cpu[name])
        off = max(abs(a - b) for a, b in zip(figures, outcomes["boxscore"][0], strict=True))
        table.add_row(
            name,
            f"{own:.3f}",
            f"{statistics.median(wall[name]):.3f}",
            f"{mine / own:.3f}",
            f"{memory[name]:.0f}",
            f"{size / images:.0f}" if size else "",
            "yes" if off == 0 else f"off by {off:.1e}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
