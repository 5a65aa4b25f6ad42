"""The law of the layout, read from the imports: cli -> indexer -> retrieval, no circle, each heavy library behind one
door. Imports for the type checker alone count too, but where loading time is at stake."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("retrieval", "indexer", "cli", "medlens")
LINES = 400

# Who may import what: patterns of module paths. Everyone else gets at it through them.
DOORS = {
    "sqlalchemy": ["indexer/catalog/*"],
    "alembic": ["indexer/catalog/database.py", "indexer/catalog/migrations/*"],
    "faiss": ["indexer/vectors/*"],
    "open_clip": [
        "retrieval/encoders/model_source.py",
        "retrieval/encoders/model_parts.py",
        "retrieval/encoders/torch_model.py",
        "retrieval/encoders/original_library.py",
    ],
    "torch": [
        "retrieval/encoders/original_library.py",
        "retrieval/encoders/transformers_model.py",
        "retrieval/encoders/torch_model.py",
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
    "medlens": [],  # for users: nothing of ours imports it
    "medlens_data": [],  # a folder of files, found by retrieval.resources
    "tests": [],
    "benchmarks": [],
}
# Imported only where a function runs: they take a second or more, and `medlens --help` must not wait for them.
LAZY = {
    "torch": [
        "retrieval/training/*",
        *(f"retrieval/encoders/{name}.py" for name in ("faster", "image_tower", "lanes", "transformers_model")),
    ],
    "open_clip": [],
    "transformers": [],
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
    for_types: bool = False  # under TYPE_CHECKING: never runs

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
    """Every import in a source text, with relative ones made absolute."""
    parts = module.with_suffix("").parts
    pending: list[tuple[ast.AST, bool, bool]] = [(ast.parse(source), True, False)]
    while pending:
        node, at_top, for_types = pending.pop()
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
        yield from (Import(module.as_posix(), line, name, at_top, for_types) for name in names)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            pending += [(child, False, True) for child in node.body]
            pending += [(child, at_top, for_types) for child in node.orelse]
            continue
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        pending += [(child, at_top and not inside, for_types) for child in ast.iter_child_nodes(node)]


def runs() -> list[Import]:
    """The imports that load something."""
    return [one for one in imports() if not one.for_types]


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
    seen = list(imports_of(source, Path("retrieval/deep/x.py")))
    found = {(one.name, one.at_top) for one in seen}
    assert {("faiss", True), ("retrieval.deep.store", True), ("retrieval.training.loop", True)} <= found
    assert {("open_clip.factory", False), ("indexer.catalog.sql_catalog", False), ("sqlalchemy.orm", False)} <= found
    assert ("yaml", True) in found
    assert [(one.name, one.at_top) for one in seen if one.for_types] == [("torch", False)]


def test_there_is_something_to_judge() -> None:
    seen = {one.module.partition("/")[0] for one in imports()}
    assert seen >= {"retrieval", "indexer"}
    assert {"faiss", "sqlalchemy", "torch", "open_clip"} <= {one.library for one in imports()}


ORDER = ("retrieval", "indexer", "cli")


@pytest.mark.parametrize(
    ("below", "above"), [(below, above) for i, below in enumerate(ORDER) for above in ORDER[i + 1 :]]
)
def test_imports_never_go_up(below: str, above: str) -> None:
    wrong = [one for one in imports() if one.module.startswith(f"{below}/") and one.library == above]
    assert not wrong, listed(wrong)


def module_names() -> dict[str, str]:
    """A module's dotted name by its file; a package goes by its folder's."""
    return {
        path.relative_to(ROOT).as_posix(): ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
            ".__init__"
        )
        for path in modules()
    }


def graph(depth: int | None = None) -> dict[str, set[str]]:
    """Who imports whom: modules, or at a depth the folders so many levels down (and modules that lie no deeper)."""
    names = module_names()
    known = set(names.values())
    edges: dict[str, set[str]] = {}
    for one in imports():
        target = one.name if one.name in known else one.name.rpartition(".")[0]
        if target not in known:
            continue
        left, right = (".".join(name.split(".")[:depth]) for name in (names[one.module], target))
        if left != right and not right.startswith(f"{left}.") and not left.startswith(f"{right}."):
            edges.setdefault(left, set()).add(right)
    return edges


def circles(edges: dict[str, set[str]]) -> set[tuple[str, ...]]:
    """The sets of two and more names that all reach one another (Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: set[tuple[str, ...]] = set()

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        path.append(name)
        for other in sorted(edges.get(name, ())):
            if other not in number:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in path:
                lowest[name] = min(lowest[name], number[other])
        if lowest[name] == number[name]:
            circle = path[path.index(name) :]
            del path[path.index(name) :]
            if len(circle) > 1:
                found.add(tuple(sorted(circle)))

    for name in sorted(edges):
        if name not in number:
            visit(name)
    return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"d"}}) == set()
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "x": {"y"}, "y": {"z"}, "z": {"x", "a"}}) == {
        ("b", "c"),
        ("x", "y", "z"),
    }


def test_there_is_no_circle_at_any_level() -> None:
    deepest = max(name.count(".") for name in module_names().values()) + 1
    found = circles(graph()).union(*(circles(graph(depth)) for depth in range(1, deepest + 1)))
    assert not found, f"modules or folders that import one another in a circle: {found}"


@pytest.mark.parametrize("library", DOORS)
def test_a_library_has_its_doors(library: str) -> None:
    wrong = [one for one in runs() if one.library == library and not may(one.module, DOORS[library])]
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
    wrong = [one for one in runs() if may(one.module, plain) and one.library in heavy]
    assert not wrong, listed(wrong)


def test_nothing_imports_training_but_the_task_that_trains() -> None:
    """It does so while a run goes on: training imports torch as it is imported."""
    doors = ("retrieval/training/*", "indexer/tasks/training.py", "medlens/__init__.py")
    wrong = [
        one
        for one in imports()
        if one.at_top
        and f"{one.name}.".startswith("retrieval.training.")
        and one.name.removeprefix("retrieval.training.").partition(".")[0] != "config"  # which needs no torch
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


def test_the_second_text_encoder_keeps_to_its_budget() -> None:
    """The lines that its docstring allows."""
    folder = ROOT / "retrieval" / "encoders" / "numpy_text"
    lines = sum(len(path.read_text("utf-8").splitlines()) for path in folder.glob("*.py") if path.stem != "__init__")
    assert lines <= 900, f"{lines} lines: let torch do what is rare"
