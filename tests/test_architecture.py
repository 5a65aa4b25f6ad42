"""The law of the layout, read from the imports: cli -> indexer -> retrieval, and each heavy library behind one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("retrieval", "indexer", "cli")
LINES = 470

# Who may import what: patterns of module paths. Everyone else gets at it through them.
DOORS = {
    "sqlalchemy": ["indexer/catalog/*"],
    "alembic": ["indexer/catalog/database.py", "indexer/catalog/migrations/*"],
    "faiss": ["indexer/vectors/*"],
    "open_clip": ["retrieval/encoders/model_source.py", "retrieval/encoders/clip.py", "retrieval/training/*"],
    "torch": [
        "retrieval/encoders/model_source.py",
        "retrieval/encoders/clip.py",
        "retrieval/encoders/faster.py",
        "retrieval/encoders/image_tower.py",
        "retrieval/encoders/lanes.py",
        "retrieval/training/*",
    ],
    "pydicom": ["indexer/*", "cli/medlens_commands/demo.py"],
    "matplotlib": ["cli/medlens_output/plots.py", "retrieval/evaluation/plots.py"],
    "typer": ["cli/*"],
    "rich": ["cli/*"],
    "medlens": [],  # the distribution's name is no module
    "medlens_data": [],  # a folder of files, found by retrieval.resources
    "tests": [],
    "benchmarks": [],
}
# Imported only where a function runs: they take a second or more, and `medlens --help` must not wait for them.
LAZY = {
    "torch": [
        "retrieval/training/*",
        *(f"retrieval/encoders/{name}.py" for name in ("faster", "image_tower", "lanes")),
    ],
    "open_clip": ["retrieval/training/*"],
    "transformers": ["retrieval/training/*"],
    "faiss": [],
    "matplotlib": [],
    "bm25s": [],
}


@dataclass(frozen=True)
class Import:
    module: str  # the importing file, relative to the root
    line: int
    name: str  # what is imported, absolute
    at_top: bool  # runs when the module is imported

    @property
    def library(self) -> str:
        return self.name.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.name}"


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for path in modules() for found in imports_of(path.read_text("utf-8"), path.relative_to(ROOT)))


def imports_of(source: str, module: Path) -> Iterator[Import]:
    """Every import in a source text, with relative ones made absolute; not those for the type checker alone."""
    parts = module.with_suffix("").parts
    pending: list[tuple[ast.AST, bool]] = [(ast.parse(source), True)]
    while pending:
        node, at_top = pending.pop()
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            whole = ".".join(filter(None, (base, node.module)))
            # `from . import x` and `from indexer import x` name modules by their last part.
            names = [whole, *(f"{whole}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("import_module", "importlib.import_module"):
            first = node.args[0] if node.args else None
            names = [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
        line = getattr(node, "lineno", 0)
        yield from (Import(module.as_posix(), line, name, at_top) for name in names)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            pending += [(child, at_top) for child in node.orelse]
            continue
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        pending += [(child, at_top and not inside) for child in ast.iter_child_nodes(node)]


def may(module: str, patterns: list[str]) -> bool:
    return any(fnmatch(module, pattern) for pattern in patterns)


def listed(found: list[Import]) -> str:
    return "\n" + "\n".join(sorted({str(one) for one in found}))


def test_the_reader_of_imports_sees_them_all() -> None:
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import torch\nelse:\n    import faiss\n"
        "from . import store\nfrom ..training import loop\n"
        "def f():\n    import open_clip.factory\n    from indexer.catalog import sql_catalog\n"
        "    import_module('sqlalchemy.orm')\n"
        "class C:\n    import yaml\n"
    )
    found = {(one.name, one.at_top) for one in imports_of(source, Path("retrieval/deep/x.py"))}
    assert {("faiss", True), ("retrieval.deep.store", True), ("retrieval.training.loop", True)} <= found
    assert {("open_clip.factory", False), ("indexer.catalog.sql_catalog", False), ("sqlalchemy.orm", False)} <= found
    assert ("yaml", True) in found
    assert not any(name == "torch" for name, _ in found)


def test_there_is_something_to_judge() -> None:
    seen = {one.module.partition("/")[0] for one in imports()}
    assert seen >= {"retrieval", "indexer"}
    assert {"faiss", "sqlalchemy", "torch", "open_clip"} <= {one.library for one in imports()}


@pytest.mark.parametrize(("below", "above"), [("retrieval", "indexer"), ("retrieval", "cli"), ("indexer", "cli")])
def test_imports_never_go_up(below: str, above: str) -> None:
    wrong = [one for one in imports() if one.module.startswith(f"{below}/") and one.library == above]
    assert not wrong, listed(wrong)


@pytest.mark.parametrize("library", DOORS)
def test_a_library_has_its_doors(library: str) -> None:
    wrong = [one for one in imports() if one.library == library and not may(one.module, DOORS[library])]
    assert not wrong, listed(wrong)


@pytest.mark.parametrize("library", LAZY)
def test_slow_libraries_are_imported_where_they_are_used(library: str) -> None:
    wrong = [one for one in imports() if one.library == library and one.at_top and not may(one.module, LAZY[library])]
    assert not wrong, listed(wrong)


def test_search_sees_protocols_only() -> None:
    """retrieval's query side runs without torch, SQL and FAISS, in whoever's hands."""
    heavy = {"torch", "open_clip", "faiss", "sqlalchemy", "transformers"}
    plain = [
        "retrieval/types.py",
        "retrieval/errors.py",
        "retrieval/resources.py",
        "retrieval/search/*",
        "retrieval/zeroshot/*",
        "retrieval/evaluation/*",
    ]
    plain += ["retrieval/encoders/spec.py", "retrieval/encoders/preprocess.py"]
    wrong = [one for one in imports() if may(one.module, plain) and one.library in heavy]
    assert not wrong, listed(wrong)


def test_nothing_imports_training_but_the_task_that_trains() -> None:
    """And that module only while the command runs: training imports torch as it is imported."""
    doors = ("retrieval/training/*", "indexer/tasks/training.py")
    wrong = [
        one
        for one in imports()
        if one.at_top
        and f"{one.name}.".startswith(("retrieval.training.", "indexer.tasks.training."))
        and not may(one.module, [*doors])
    ]
    assert not wrong, listed(wrong)


def test_output_knows_no_command() -> None:
    wrong = [
        one for one in imports() if may(one.module, ["cli/medlens_output/*"]) and "cli.medlens_commands" in one.name
    ]
    assert not wrong, listed(wrong)


def test_only_the_command_line_configures_logging() -> None:
    calls = ("logging.basicConfig", "logging.config.dictConfig", "logging.config.fileConfig", "logging.disable")
    wrong = []
    for path in modules():
        tree = ast.parse(path.read_text("utf-8"))
        at_import = set(ast.walk(tree)) - {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in calls:
                continue
            if node in at_import or path.parent.name != "cli":
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node.func)}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_generic_package_names_stay_harmless() -> None:
    """Other wheels ship a `cli/main.py` too; a package tests/cli would shadow the real one."""
    assert (ROOT / "cli" / "__init__.py").read_bytes() == b""
    there = {path.relative_to(ROOT / "cli").parts[0] for path in (ROOT / "cli").rglob("*.py")}
    assert there == {"__init__.py", "medlens_app.py", "medlens_commands", "medlens_output"}
    packages = [p.relative_to(ROOT).as_posix() for p in (ROOT / "tests").rglob("__init__.py")]
    assert not packages, f"tests are flat: {packages}"
    shadows = [name for name in PACKAGES if (ROOT / "tests" / name).exists()]
    assert not shadows, f"tests/ has folders that shadow packages: {shadows}"


def test_modules_stay_readable() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in modules()}
    wrong = {name: lines for name, lines in lengths.items() if lines > LINES}
    assert not wrong, f"over {LINES} lines, to be split: {wrong}"
