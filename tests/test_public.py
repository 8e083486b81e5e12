from __future__ import annotations

import ast
import importlib
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import paretrim

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(paretrim.__file__).parent
PARTS = ("evaluators", "search", "spaces", "tracking")
# Modules of the package, by dotted name; the example is a user's code.
MODULES = sorted(
    [f"paretrim.{path.stem}" for path in PACKAGE.glob("*.py")]
    + [f"paretrim.{part}.{path.stem}" for part in PARTS for path in (PACKAGE / part).glob("*.py")]
    + [f"paretrim.search.sources.{path.stem}" for path in (PACKAGE / "search" / "sources").glob("*.py")]
)
# Distributions whose modules have other names.
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "torch_pruning": "torch-pruning",
    "pynvml": "nvidia-ml-py",
}

IMPORT_ALL = """
import importlib, json, sys
failed = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed[name] = repr(error)
print(json.dumps(failed))
"""


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sources(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        # A folder may be a link, into which a search does not always go.
        yield from sorted(folder.resolve().rglob("*.py"))


def package_sources() -> Iterator[Path]:
    yield from sorted(PACKAGE.glob("*.py"))
    yield from sources(*(PACKAGE / part for part in PARTS))


def imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports anywhere, but for those that only a type checker sees."""
    found: set[str] = set()
    for node in _run_time_nodes(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)}
    return found


def _run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from _run_time_nodes(node)


def top_levels(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = set(python("import sys, paretrim; print(*{n.split('.')[0] for n in sys.modules})").split())
    assert "paretrim" in loaded
    assert not loaded & {"torch", "ray", "mlflow", "optuna", "onnxruntime", "pydantic", "numpy", "pytest"}


def test_search_is_a_function_and_a_package() -> None:
    assert callable(paretrim.search)
    assert isinstance(paretrim.search, ModuleType)
    assert importlib.import_module("paretrim.search.job").Job is paretrim.Job


@pytest.mark.parametrize("first", ["import paretrim.search.job", "from paretrim import search", "import paretrim"])
def test_search_can_be_called_whatever_was_imported_first(first: str) -> None:
    code = f"{first}; import paretrim; print(callable(paretrim.search), hasattr(paretrim.search, '__path__'))"
    assert python(code) == "True True\n"


@pytest.mark.parametrize("name", paretrim.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(paretrim, name) is not None


def test_public_names_are_sorted_and_stand_once() -> None:
    assert len(set(paretrim.__all__)) == len(paretrim.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'paretrim' has no attribute 'serch'"):
        _ = paretrim.serch


def test_the_version_is_that_of_the_project_and_of_what_is_installed() -> None:
    assert paretrim.__version__ == pyproject()["project"]["version"]
    assert paretrim.__version__ == importlib.metadata.version("paretrim")


def test_every_module_of_the_package_imports() -> None:
    assert len(MODULES) > 40
    assert json.loads(python(IMPORT_ALL, *MODULES).splitlines()[-1]) == {}


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


@pytest.mark.parametrize("group", ["techniques", "targets", "evaluators"])
def test_every_plug_in_of_the_package_loads(group: str) -> None:
    points = list(importlib.metadata.entry_points(group=f"paretrim.{group}"))
    assert {point.name: point.value for point in points} == pyproject()["project"]["entry-points"][f"paretrim.{group}"]
    assert all(isinstance(point.load(), type) for point in points)


def test_no_file_imports_a_part_of_the_package_by_its_bare_name() -> None:
    files = [*package_sources(), *sources(ROOT / "tests", ROOT / "benchmarks")]
    assert {str(path): top_levels(path) & set(PARTS) for path in files if top_levels(path) & set(PARTS)} == {}


@pytest.mark.parametrize("part", ["spaces", "evaluators", "tracking"])
def test_a_part_knows_nothing_of_the_search(part: str) -> None:
    files = list(sources(PACKAGE / part))
    assert files
    knowing = [path.name for path in files if any(f"{name}.".startswith("paretrim.search.") for name in imports(path))]
    assert knowing == []


@pytest.mark.parametrize("name", ["onnxruntime", "optuna", "mlflow", "ray"])
def test_each_heavy_library_is_known_to_one_part(name: str) -> None:
    home = {"onnxruntime": "evaluators", "mlflow": "tracking"}.get(name, "search")
    users = {
        path.relative_to(PACKAGE.parent).as_posix() for path in package_sources() if name in top_levels(path)
    } - {"tracking/predict.py"}  # fmt: skip
    assert users
    assert {user.split("/")[0] for user in users} == {home}


def test_no_file_of_the_package_needs_pytest() -> None:
    assert [path.name for path in package_sources() if top_levels(path) & {"pytest", "hypothesis"}] == []


def test_everything_that_is_imported_is_a_declared_dependency() -> None:
    project = pyproject()["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "test" for line in lines]
    declared = {re.split(r"[\[<>=!~ ]", line)[0].lower() for line in [*project["dependencies"], *extras]}
    imported = {name for path in package_sources() for name in top_levels(path)}
    others = imported - set(sys.stdlib_module_names) - {"paretrim"}
    assert {DISTRIBUTIONS.get(name, name) for name in others} - declared == set()
