"""The command line. Exit code 0; 1 where nothing could be measured; 2 for wrong usage or input."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from boxscore.catalogue import CATALOGUE, TASKS, markdown

BACKBONES = ("resnet18", "resnet34", "resnet50", "mobilenet_v3_large")


class ExpandedPath(click.Path):
    """A path in which ``~`` is the home folder, also in ``--out=~/x``, which no shell expands."""

    def convert(self, value: Any, *context: Any) -> Any:
        """As click does it, after the expansion."""
        return super().convert(os.path.expanduser(value), *context)


FOLDER = ExpandedPath(file_okay=False, path_type=Path)
FILE = ExpandedPath(dir_okay=False, exists=True, path_type=Path)


class InputError(click.ClickException):
    """One line on the wrong input, and exit code 2."""

    exit_code = 2


def store_uri(folder: Path) -> str:
    """MLflow's address of ``folder/mlflow.db``.

    Raises:
        ValueError: the path has characters that MLflow takes for the address's own.
    """
    store = str((folder / "mlflow.db").resolve())
    if {"?", "%"} & {*store}:
        raise ValueError(f"{folder}: MLflow opens no path with '?' or '%'; choose another folder")
    return f"sqlite:///{store}"


@contextmanager
def one_line() -> Iterator[None]:
    """Turn an error of the input into one line without a traceback."""
    try:
        yield
    except ModuleNotFoundError as error:
        text = f"{error.name} is not installed: pip install 'boxscore[torchvision]'"
        raise InputError(text) from error
    except (ValueError, OSError, RuntimeError) as error:
        raise InputError(" ".join(str(error).split()) or type(error).__name__) from error


@contextmanager
def processes() -> Iterator[bool]:
    """Join the process group that torchrun set up, if any; yields whether this is rank 0.

    Rank 0 alone shows an input error, before any process ends: torchrun then ends all others.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" or "MASTER_ADDR" not in os.environ:
        yield True
        return
    from torch import distributed

    own = not distributed.is_initialized()
    if own:
        distributed.init_process_group("gloo")
    is_first = distributed.get_rank() == 0
    try:
        yield is_first
    except InputError as error:
        if is_first:
            error.show()
        distributed.barrier()
        raise SystemExit(error.exit_code) from None
    finally:
        if own:
            distributed.destroy_process_group()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="boxscore")
def main() -> None:
    """The scorekeeper of computer-vision training: losses and metrics that compare."""


@main.command()
@click.option("--task", type=click.Choice(TASKS), default="detection", show_default=True)
@click.option(
    "--algorithm",
    help="detection: retinanet, fcos, fasterrcnn, ssdlite; instances: maskrcnn; semantic: unet, "
    "deeplabv3.  [default: the task's first]",
)
@click.option("--backbone", type=click.Choice(BACKBONES), help="[default: resnet18 if it can be]")
@click.option("--input-size", type=click.IntRange(32, 2048), default=128, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=100, show_default=True)
@click.option("--data", type=FOLDER, help="Your images instead of the made ones.")
@click.option("--out", type=FOLDER, default="boxscore-demo", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def demo(**options: object) -> None:
    """Train two small real models, or the one that is named, and log all of it.

    Takes two to three minutes.

    \b
    --data takes COCO's usual layout:
      annotations/instances_train.json, instances_test.json or _val.json
      images/                 sub-folders are searched, EXIF turns are heeded
    For semantic segmentation:
      images/
      masks_semantic/         PNG label maps of the same stem
      classes.json            {"classes": [name of label 0, ...], "ignore_index": 255}
      splits/train.txt, test.txt or val.txt     an image's name in each line
    """  # noqa: D301  # click reads the backspace
    with one_line():
        from rich import get_console

        from boxscore.demo import Plan, report, what_to_look_at
        from boxscore.demo import demo as train

        plans, console = Plan(**options).models(), get_console()  # type: ignore[arg-type]
        measured = [report(train(plan, console), plan, console) for plan in plans]
        if len(plans) > 1 and all(measured):
            console.print(what_to_look_at(plans), soft_wrap=True)
    if not all(measured):
        raise click.ClickException("no metric of the test set was measured: see the warnings")


@main.command()
@click.argument("run", metavar="RUN|DIR")
@click.option("--tracking-uri", help="MLflow's, of a RUN.  [default: MLflow's own]")
@click.option("--html", type=ExpandedPath(dir_okay=False, path_type=Path), help="The file.")
def report(run: str, tracking_uri: str | None, html: Path | None) -> None:
    """Write a run as one HTML file: curves, figures, classes, pictures.

    RUN is the id of a run in MLflow, DIR a folder with its event files.
    """
    with one_line():
        from .report import write_report

        click.echo(write_report(run, tracking_uri, html))


@main.command()
@click.argument("folder", type=FOLDER, default="boxscore-demo")
@click.option("--tracking-uri", help="MLflow's, instead of FOLDER/mlflow.db.")
@click.option("--open", "opens", is_flag=True, help="Open both pages in the browser.")
def view(folder: Path, tracking_uri: str | None, *, opens: bool) -> None:
    """Open TensorBoard and MLflow on the logs in FOLDER, until Ctrl-C."""
    with one_line():
        from .view import servers

        try:
            with servers(folder, tracking_uri) as links:
                board = links.tensorboard and f"{links.tensorboard}#boxscore"
                pages = [("TensorBoard", board), ("MLflow", links.mlflow)]
                further = list(links.experiments.items())[1:]
                for name, link in [*pages, *((f"  {name}", link) for name, link in further)]:
                    if link:
                        click.echo(f"{name:12}{link}")
                for _, link in pages if opens else ():
                    if link:
                        click.launch(link)
                click.echo("\n".join([*links.absent, "Ctrl-C ends the command."]))
                threading.Event().wait()
        except KeyboardInterrupt:
            click.echo()


@main.command()
@click.option("--annotations", type=FILE, required=True, help="COCO's instances file.")
@click.option("--predictions", type=FILE, required=True, help="COCO's results file.")
@click.option("--masks", is_flag=True, help="Measure masks as well as boxes.")
@click.option("--per-class", is_flag=True, help="The metrics of each class too.")
@click.option("--max-detections", type=click.IntRange(1), default=100, show_default=True)
@click.option("--ignore-unknown", is_flag=True, help="Drop results of unknown categories.")
@click.option(
    "--pycocotools-areas",
    is_flag=True,
    help="Mask metrics by size use the area of a result's box, as in pycocotools, and not of its "
    "mask, as in COCO's server.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, by the catalogue's names.")
@click.option("--log-dir", help="Log to TensorBoard in this folder too.")
@click.option("--tracking-uri", help="Log to MLflow too.")
@click.option("--model", help="The model of the predictions: 'RetinaNet 640x640 ResNet-50'.")
@click.option("--dataset", help="The data's name.  [default: the annotations' file name]")
@click.option("--step", type=click.IntRange(0), default=0, help="Optimizer steps of the model.")
def evaluate(annotations: Path, predictions: Path, **options: Any) -> None:
    """Measure detections in COCO's format against ground truth.

    Exit code 1 if no metric is defined. torchrun --nproc-per-node 4 -m boxscore evaluate … shares
    the images over four processes.
    """
    with processes() as is_first, one_line():
        from rich.console import Console

        from .evaluate import as_json, show
        from .evaluate import evaluate as measure

        metric = measure(
            annotations,
            predictions,
            masks=options["masks"],
            max_detections=options["max_detections"],
            ignore_unknown=options["ignore_unknown"],
            pycocotools_areas=options["pycocotools_areas"],
            destination=_destination(annotations, options),
        )
        if not is_first:
            return
        if options["as_json"]:
            click.echo(json.dumps(as_json(metric, per_class=options["per_class"]), indent=2))
        else:
            show(metric, Console(), per_class=options["per_class"])
        if not metric.compute():
            raise SystemExit(1)


def _destination(annotations: Path, options: dict[str, Any]) -> Any:
    if not (options["log_dir"] or options["tracking_uri"]):
        return None
    from boxscore.identity import Identity

    from .evaluate import Destination

    identity = Identity.parse(options["model"] or "")
    if identity.missing:
        raise ValueError(
            f"--model {options['model'] or ''!r} has no {' and no '.join(identity.missing)}; "
            "pass algorithm, input size and backbone, such as 'RetinaNet 640x640 ResNet-50'"
        )
    return Destination(
        identity,
        options["dataset"] or annotations.stem,
        options["log_dir"],
        options["tracking_uri"],
        options["step"],
    )


@main.command()
@click.argument("folder", type=FOLDER)
@click.option("--tracking-uri", help="MLflow's.  [default: the training's own]")
@click.option(
    "--host-gone",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="A host that will not return, such as a deleted pod: its trainings ended. Repeatable.",
)
def sync(folder: Path, tracking_uri: str | None, hosts: tuple[str, ...]) -> None:
    """Deliver the undelivered records of trainings below FOLDER; safe to repeat."""
    with one_line():
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder")
        from rich.progress import Progress

        from boxscore.loggers import sync as deliver

        with Progress(transient=True) as bar:
            task = bar.add_task("delivering", total=None)
            results = deliver(
                folder,
                tracking_uri,
                lambda done, total: bar.update(task, completed=done, total=total),
                gone=hosts,
            )
        for result in results:
            ending = f"stays: {result.left}" if result.left else f"{result.status}, all delivered"
            click.echo(f"{result.run}: {result.items} items delivered; {ending}")
        if not results:
            click.echo(f"Nothing is left to deliver in {folder}.")
        if any(result.left for result in results):
            raise SystemExit(InputError.exit_code)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--markdown", "as_markdown", is_flag=True, help="As README's two tables.")
def catalogue(as_json: bool, as_markdown: bool) -> None:
    """List every documented loss and metric with its definition."""
    if as_markdown:
        click.echo(markdown("loss") + "\n" + markdown("metric"), nl=False)
        return
    if as_json:
        columns = ("definition", "kind", "better", "scope", "unit", "tasks", "part", "source")
        rows = {
            measure.name: {column: getattr(measure, column) for column in columns}
            for measure in CATALOGUE.values()
        }
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "kind", "better", "compared within", "definition", show_lines=False)
    for measure in CATALOGUE.values():
        within = "algorithm and input size" if measure.scope == "group" else "evaluated set"
        table.add_row(measure.name, measure.kind, measure.better, within, measure.definition)
    Console().print(table)
