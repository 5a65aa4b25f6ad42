"""`import medlens`: the public names are the documented ones, and importing them is cheap."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import medlens
from indexer.store.store import Store

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "python.md").read_text("utf-8")


def test_the_public_names_are_the_documented_ones() -> None:
    table = PAGE.partition("## The names")[2]
    documented = [
        name
        for line in re.findall(r"^\| [a-z ]+ \| (.*) \|$", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", line)
    ]
    assert len(documented) == len(set(documented))
    assert sorted(medlens.__all__) == medlens.__all__ == sorted(documented)
    assert all(hasattr(medlens, name) for name in medlens.__all__)


def test_the_package_holds_no_logic() -> None:
    assert medlens.open == Store.open and medlens.migrate == Store.upgrade
    tree = ast.parse(Path(medlens.__file__).read_text("utf-8"))
    assert {type(node) for node in tree.body} == {ast.Expr, ast.ImportFrom, ast.Assign}


def test_importing_it_loads_no_torch() -> None:
    code = "import medlens, sys; print([name for name in ('torch', 'open_clip', 'faiss') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
