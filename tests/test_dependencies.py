"""What the code imports is what pyproject.toml declares, and what is missing or can't be is told in a sentence."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

from retrieval.errors import CalibrationError, MedlensError
from retrieval.optional import EXTRAS, missing, require_optional

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("retrieval", "indexer", "cli", "medlens", "server")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
# Declared and imported by nothing of ours: open_clip imports torchvision, with looser bounds, and transformers imports
# the other two for SigLIP's tokenizer.
FOR_OTHERS = {"torchvision", "sentencepiece", "protobuf"}


class Import(NamedTuple):
    place: str
    module: str  # top level
    at_top: bool  # runs when the file is imported


@cache
def imports() -> tuple[Import, ...]:
    return tuple(_imports())


def _imports() -> Iterator[Import]:
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.Import):
                    names = [alias.name for alias in child.names]
                elif isinstance(child, ast.ImportFrom) and not child.level:
                    names = [str(child.module)]
                else:
                    continue
                for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {*PACKAGES}:
                    yield Import(path.relative_to(ROOT).as_posix(), name, node is tree)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]) for requirement in requirements}


CORE = declared(PROJECT["dependencies"])
INSTALLED = packages_distributions()


def distributions(module: str) -> set[str]:
    return {normal(name) for name in INSTALLED.get(module, [])}


def test_every_package_that_is_imported_is_declared() -> None:
    found = imports()
    assert {"numpy", "sqlalchemy", "typer", "scipy", "sklearn"} <= {each.module for each in found}
    undeclared = {
        f"{each.place}: {each.module}"
        for each in found
        if not distributions(each.module) & CORE and each.module not in EXTRAS
    }
    assert undeclared == set(), "declare it in pyproject.toml; an extra's package in retrieval/optional.py too"


def test_every_package_that_is_declared_is_imported() -> None:
    needed = {name for each in imports() for name in distributions(each.module)}
    needed |= {name for name in CORE if name.startswith("faiss-")}  # which of the two depends on the machine
    assert CORE - needed == FOR_OTHERS


def test_an_extra_brings_what_is_asked_for_and_is_imported_late() -> None:
    extras = {name: declared(requirements) for name, requirements in PROJECT["optional-dependencies"].items()}
    for module, (package, extra) in EXTRAS.items():
        assert normal(package) in extras[extra], f"{module}: {package} is not in the extra {extra}"
        assert normal(package) not in CORE, f"{module}: {package} comes with medlens itself"
        assert distributions(module) & {normal(package), f"{normal(package)}-binary"}
    early = [each for each in imports() if each.module in EXTRAS and each.at_top]
    assert early == []


def test_the_tests_have_every_extra_that_the_code_asks_for() -> None:
    (every,) = (line for line in PROJECT["optional-dependencies"]["test"] if line.startswith("medlens["))
    assert {extra for _, extra in EXTRAS.values()} <= set(re.findall(r"[a-z]+", every))


@pytest.mark.parametrize("module", sorted(EXTRAS))
def test_a_missing_package_is_named_with_its_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_optional(module, "this test")
    assert missing(module, "this test") is None
    monkeypatch.setitem(sys.modules, module, None)
    package, extra = EXTRAS[module]
    with pytest.raises(CalibrationError) as caught:
        require_optional(module, "this test", CalibrationError)
    assert str(caught.value) == f"this test needs the package {package}, which is not installed"
    assert caught.value.hint == f"Install it with: pip install 'medlens[{extra}]'"
    assert isinstance(missing(module, "this test"), MedlensError)


def program(code: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_calibrate_on_a_plain_install_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("file,label\na.png,CT\nb.png,MR\n")
    plain = "".join(f"sys.modules[{module!r}] = None\n" for module in EXTRAS)
    done = program(
        f"{plain}from cli.medlens_app import main\nmain()",
        *("calibrate", "--truth", "truth.csv", "--labels", "modality", "--output", "out.json", "--device", "cpu"),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "a calibration needs the package" in done.stderr, done.stderr
    assert "pip install 'medlens[calibration]'" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_on_windows_it_ends_with_one_sentence() -> None:
    no_posix = "sys.modules.update(fcntl=None, resource=None)\nfrom cli.medlens_app import main\n"
    done = program(f"{no_posix}sys.platform = 'win32'\nmain()", "index", ".")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "medlens does not run on Windows itself: run it in WSL2 or in a Linux container.\n"
