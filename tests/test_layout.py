"""The house rules, read from the files themselves; and doctests under their true names."""

import ast
import doctest
import importlib
import subprocess
import sys
import tomllib
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
DOORS = {"cli", "demo", "view", "shapes", "zoo", "folders", "offline", "__main__"}
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


def neighbours(path: Path) -> set[str]:
    """The modules of its own folder that a file imports."""
    nodes = ast.walk(ast.parse(path.read_text()))
    relative = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
    return {node.module or alias.name for node in relative for alias in node.names}


@FILES
def test_floors(path: Path) -> None:
    """The core knows no logger and no callback; these know no more than they may."""
    if path.parent.name == "plugin" and path.stem in DOORS:
        return
    never = MAY_NOT_IMPORT[path.relative_to(ROOT).parts[0]]
    assert [name for name in imports(path) if name.startswith(never)] == []


@FILES
def test_loggers_know_items_and_the_protocol_only(path: Path) -> None:
    if path.parent.name == "loggers":
        known = ("boxscore.items", "boxscore.logger")
        assert [n for n in imports(path) if n.startswith("boxscore") and n not in known] == []


@FILES
def test_nobody_enters_through_a_door_from_inside(path: Path) -> None:
    if path.stem not in DOORS:
        assert neighbours(path) & DOORS == set()


@FILES
def test_neighbours_are_imported_relatively(path: Path) -> None:
    """Else type checkers see every class twice."""
    folder = path.relative_to(ROOT).parts[0]
    own = next(package for package, where in FOLDERS.items() if where == folder)
    others = tuple(package for package in FOLDERS if package.startswith(own) and package != own)
    absolute = [name for name in imports(path) if name == own or name.startswith(f"{own}.")]
    assert [name for name in absolute if not (others and name.startswith(others))] == []


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
