"""The shape of the code: who imports whom, what an import loads, what is documented."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [path for name in ("data", "model", "search") for path in (ROOT / name).glob("**/*.py")]
# Each heavy package, and the only files of search/ that may name it.
MAY_NAME = {
    "ray": {"cluster.py", "tuner.py", "worker.py"},
    "mlflow": {"lab_book.py", "lab_runs.py", "served.py", "writer.py"},
}
HEAVY = ("ray", "mlflow", "optuna")


@pytest.mark.parametrize("package", ["data", "model"])
def test_data_and_model_import_neither_each_other_nor_the_search(package: str) -> None:
    others = {"data", "model", "search", *HEAVY} - {package}
    for path in (ROOT / package).glob("**/*.py"):
        assert not imported(path) & others, path.name


@pytest.mark.parametrize("package", sorted(MAY_NAME))
def test_a_heavy_package_is_named_only_where_it_may_be(package: str) -> None:
    named = {path.name for path in FILES if package in imported(path)}
    assert named <= MAY_NAME[package]


def test_no_file_of_search_carries_the_name_of_a_module() -> None:
    # `python search/run.py` puts search/ first on the import path.
    taken = sys.stdlib_module_names | packages_distributions().keys() - {"search"}
    assert not {path.stem for path in (ROOT / "search").iterdir()} - {"__init__"} & taken


def test_training_loads_no_part_of_the_search_machinery() -> None:
    assert not loaded_by("import model.train, search.training") & set(HEAVY)


def test_the_data_alone_loads_no_torch() -> None:
    assert "torch" not in loaded_by("import data")


def test_help_answers_without_the_heavy_imports() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv[1:] = ['--help']\n"
        "try: runpy.run_path('search/run.py', run_name='__main__')\n"
        "except SystemExit: pass"
    )
    assert not loaded_by(code) & {"torch", "ray", "mlflow"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path.name} has no docstring"
    missing = [node.name for node in public(tree) if not ast.get_docstring(node)]
    assert not missing


def public(node: ast.AST) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Functions, classes and methods that anyone may use; not overloads nor protocols' stubs."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.ClassDef) or child.name.startswith("_"):
            continue
        is_stub = isinstance(child, ast.FunctionDef) and ast.unparse(child.body[-1]) == "..."
        if not is_stub:
            yield child
        if isinstance(child, ast.ClassDef):
            yield from public(child)


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running `code`."""
    code += "\nimport sys; print('\\n'.join(sys.modules), file=sys.stderr)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return {name.partition(".")[0] for name in result.stderr.split()}
