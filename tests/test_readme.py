"""What README says is so."""

import re
import shlex
from pathlib import Path
from typing import Literal

import click
import pytest

from boxscore.catalogue import markdown
from boxscore.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("kind", ["loss", "metric"])
def test_the_tables_are_the_catalogue(kind: Literal["loss", "metric"]) -> None:
    """`boxscore catalogue --markdown` writes them."""
    mark = "losses" if kind == "loss" else "metrics"
    found = re.search(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", README, re.DOTALL)
    assert found
    assert found[1] == markdown(kind)


def test_every_command_and_option_exists() -> None:
    commands = re.findall(r"`boxscore (\w+)", README)
    assert set(commands) >= {"demo", "view", "evaluate", "sync", "catalogue"}
    options = {
        name
        for command in main.commands.values()
        for parameter in command.params
        for name in parameter.opts
        if isinstance(parameter, click.Option)
    }
    of_others = {"--no-dev", "--extra", "--nproc-per-node"}
    assert set(re.findall(r"--[a-z][a-z-]+", README)) <= options | of_others
    assert set(commands) <= set(main.commands)


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_set_up_is_two_commands() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    first, second = (shlex.split(block.strip()) for block in blocks[:2])
    assert first[:5] == ["python3", "-m", "pip", "install", "uv"]
    assert second == ["python3", "-m", "uv", "run", "pytest"]
