"""The command line. Exit code 0; 1 for a refused comparison; 2 for a usage or input error."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from .catalogue import CATALOGUE, TASKS

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, exists=True, path_type=Path)


class InputError(click.ClickException):
    """One clear line, and exit code 2."""

    exit_code = 2


@contextmanager
def one_line() -> Iterator[None]:
    """Say what is wrong with the input in one line, without a traceback."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        raise InputError(" ".join(str(error).split())) from error


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
@click.option("--backbone", help="resnet18, resnet34, resnet50, mobilenet_v3_large.")
@click.option("--input-size", type=click.IntRange(32, 2048), default=128, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=180, show_default=True)
@click.option("--data", type=FOLDER, help="Your pictures instead of the made ones (see README).")
@click.option("--out", type=FOLDER, default="boxscore-demo", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def demo(**options: object) -> None:
    """Train a small real model for two to three minutes and log all of it."""
    with one_line():
        from rich.console import Console

        from .demo import Plan, report
        from .demo import demo as train

        plan, console = Plan(**options), Console()  # type: ignore[arg-type]
        report(train(plan, console), plan, console)


@main.command()
@click.argument("folder", type=FOLDER, default="boxscore-demo")
def view(folder: Path) -> None:
    """Open TensorBoard and MLflow on what lies in FOLDER, until Ctrl-C."""
    with one_line():
        from .view import servers

        try:
            with servers(folder) as links:
                for name, link in (("TensorBoard", links.tensorboard), ("MLflow", links.mlflow)):
                    if link:
                        click.echo(f"{name:12}{link}")
                click.echo("Ctrl-C ends both.")
                threading.Event().wait()
        except KeyboardInterrupt:
            click.echo()


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def catalogue(as_json: bool) -> None:
    """List every documented loss and metric with its definition."""
    if as_json:
        rows = {
            measure.name: {
                "definition": measure.definition,
                "kind": measure.kind,
                "better": measure.better,
                "scope": measure.scope,
                "unit": measure.unit,
                "tasks": measure.tasks,
                "part": measure.part,
                "source": measure.source,
            }
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
