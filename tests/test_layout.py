"""The house rules, read from the files themselves; and doctests under their true names."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
MODULES = {
    ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(
        ".__init__"
    ): path
    for package, folder in FOLDERS.items()
    for path in sorted((ROOT / folder).rglob("*.py"))
}
FILES = pytest.mark.parametrize(
    "path", MODULES.values(), ids=lambda path: str(path.relative_to(ROOT))
)
PACKAGES = {folder: package for package, folder in FOLDERS.items()}
DOORS = ("boxscore.cli", "boxscore.demo")
MAY_NOT_IMPORT = {
    "plugin": ("boxscore.loggers", "boxscore.callbacks"),
    "loggers": ("boxscore.callbacks", "boxscore.run"),
    "callbacks": (
        "boxscore.loggers.durable",
        "boxscore.loggers.mlflow",
        "boxscore.loggers.tensorboard",
        "boxscore.loggers.memory",
        "mlflow",
        "tensorboard",
    ),
}
TOP_LEVEL = {
    *("pyproject.toml", "README.md", "LICENSE"),
    *("plugin", "loggers", "callbacks", "tests", "examples"),
}


def imports(path: Path) -> list[str]:
    """The absolute names that a file imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.append(node.module or "")
    return found


def room(path: Path) -> str:
    """The package that a file belongs to: ``boxscore.detection``, ``boxscore.loggers``."""
    folder, *inner = path.relative_to(ROOT).parent.parts
    return ".".join([PACKAGES[folder], *inner])


@FILES
def test_floors(path: Path) -> None:
    """The core knows no logger and no callback; these know no more than they may."""
    if room(path) in DOORS or path.stem == "__main__":
        return
    never = MAY_NOT_IMPORT[path.relative_to(ROOT).parts[0]]
    assert [name for name in imports(path) if name.startswith(never)] == []


@FILES
def test_loggers_know_only_the_protocol_and_names(path: Path) -> None:
    if room(path) == "boxscore.loggers":
        known = [f"boxscore.{name}" for name in ("records", "keys", "logger", "catalogue")]
        assert [n for n in imports(path) if n.startswith("boxscore") and n not in known] == []


@FILES
def test_nobody_enters_through_a_door_from_inside(path: Path) -> None:
    if room(path) not in DOORS and path.stem != "__main__":
        assert [name for name in imports(path) if name.startswith(DOORS)] == []


@FILES
def test_neighbours_are_imported_relatively(path: Path) -> None:
    """Inside a folder relative, across folders absolute: one look tells which it is."""
    here = room(path)
    names = [name for name in imports(path) if name == here or name.rpartition(".")[0] == here]
    assert [name for name in names if name in MODULES and room(MODULES[name]) == here] == []


def test_no_folder_holds_too_much() -> None:
    """Who looks for a thing opens one folder, and sees it at a glance."""
    counts = Counter(room(path) for path in MODULES.values())
    assert {name: count for name, count in counts.items() if count > 17} == {}


@FILES
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_every_package_is_listed() -> None:
    """Under a mapping setuptools finds nothing by itself: what is unlisted is not in the wheel."""
    found = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_top_level_is_as_promised() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


@pytest.mark.parametrize("module", MODULES)
def test_docs(module: str) -> None:
    """What the docstrings show is so."""
    if module == "boxscore.__main__":
        return
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("boxscore"):
            raise
        pytest.skip(f"{error.name} is not installed")
    assert doctest.testmod(found).failed == 0


def test_the_face_is_light() -> None:
    """A training script's first import loads none of the heavy libraries."""
    heavy = "{'numpy', 'torch', 'mlflow', 'tensorboard', 'rich', 'click', 'pycocotools'}"
    code = f"import sys, boxscore, boxscore.loggers; print({heavy} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_keys_are_spelled_in_one_file() -> None:
    """Changing how a key is spelled touches keys.py alone."""
    spelled = re.compile(
        r"""f?["'](loss|metric|per\ class|native)\ [{"'] | ["'](summary|progress)/
        | ["']boxscore\.(group|algorithm|input_size|backbone|task|dataset|run|fingerprint)\b""",
        re.VERBOSE,
    )
    found = {
        name: spelled.findall(_without_docstrings(path))
        for name, path in MODULES.items()
        if name != "boxscore.keys"
    }
    assert {name: hits for name, hits in found.items() if hits} == {}


def _without_docstrings(path: Path) -> str:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""
    return ast.unparse(tree)
