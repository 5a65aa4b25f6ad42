"""The documentation: its code blocks run, its generated pages are complete, and the site builds without a warning."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from command_line import copied, medlens

from cli.medlens_app import COMMANDS
from retrieval import errors
from retrieval.training.config import TrainingConfig
from retrieval.zeroshot.labels import LabelSet

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.parent.name != "reference" and "_build" not in path.parts)
NOT_RUN = re.compile(r"^# not run here: \S.*")
FILES = ("CT_small.dcm", "MR_small.dcm", "examples_rgb_color.dcm", "reportsi.dcm", "test-SR.dcm", "rtplan.dcm")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str

    @property
    def not_run(self) -> bool:
        return bool(NOT_RUN.match(self.text))

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page that hold code; MyST's directives, in braces, are none."""
    fence = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    text = page.read_text("utf-8")
    for match in fence.finditer(text):
        indent = len(match[1])
        body = "\n".join(line[indent:] for line in match[3].splitlines())
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[2], body)


BLOCKS = [block for page in (*PAGES, ROOT / "README.md") for block in blocks_of(page)]


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages suppose it: an archive, a store of it, and a file to ask with."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "archive").mkdir()
    copied(FILES, folder / "archive")
    shutil.copy(folder / "archive" / "CT_small.dcm", folder / "prior.dcm")
    medlens("index", folder / "archive", "--store", folder / "medlens-store")
    return folder


@pytest.fixture
def world(indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working folder."""
    shutil.copytree(indexed, tmp_path / "world")
    monkeypatch.chdir(tmp_path / "world")
    return tmp_path / "world"


def commands_in(block: Block) -> list[list[str]]:
    joined = block.text.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


# The tutorial starts from nothing and is run by a script of its own, whose output it shows.
TUTORIAL = DOCS / "tutorial.md"
SHELL_PAGES = sorted({block.page for block in BLOCKS if block.language == "sh" and not block.not_run} - {TUTORIAL})


@pytest.mark.parametrize("page", SHELL_PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_one_after_another(page: Path, world: Path) -> None:
    for block in blocks_of(page):
        if block.language != "sh" or block.not_run:
            continue
        for words in commands_in(block):
            assert words[0] == "medlens", f"{block}: {words[0]!r} is not medlens; say why it is not run"
            medlens(*words[1:])


def test_the_tutorial_runs(tmp_path: Path) -> None:
    page = tmp_path / "tutorial.md"
    shutil.copy(TUTORIAL, page)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(DOCS / "_ext" / "run_tutorial.py"), str(page)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = page.read_text("utf-8")
    assert re.search(r"^rejected files +not-dicom 1$", shown, re.MULTILINE) and "3 instances in cohort.csv" in shown
    assert (tmp_path / "_static" / "tutorial" / "montage.png").stat().st_size > 10_000


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python" and not b.not_run], ids=str)
def test_a_python_block_runs(block: Block, world: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", block.text], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{block}: {done.stderr}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml"], ids=str)
def test_a_yaml_block_is_what_the_program_accepts(block: Block) -> None:
    values = yaml.safe_load(block.text)
    if "labels" in values:
        LabelSet.model_validate(values)
    elif "text" in values:
        TrainingConfig.model_validate(values)
    else:  # a part of a configuration
        assert values.keys() <= TrainingConfig.model_fields.keys()


def test_every_block_is_of_a_kind_that_is_tried_or_read() -> None:
    odd = {
        str(block): block.language for block in BLOCKS if block.language not in ("sh", "python", "yaml", "json", "text")
    }
    assert not odd
    for block in BLOCKS:
        if block.language == "json":
            assert all(isinstance(json.loads(line), dict) for line in block.text.splitlines())


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        import generated_reference
    finally:
        sys.path.remove(str(DOCS / "_ext"))
    return {name: page() for name, page in generated_reference.PAGES.items()}


def test_every_command_and_option_has_its_help(reference: dict[str, str]) -> None:
    page = reference["commands"]
    assert re.findall(r"^### medlens (\S+)$", page, re.MULTILINE) == sorted(
        COMMANDS, key=[*re.findall(r"^### medlens (\S+)$", page, re.MULTILINE)].index
    )
    silent = re.findall(r"^\| (`[^|]+`) \|\s+\|$", page, re.MULTILINE)
    assert not silent, f"no help: {silent}"


def test_every_key_of_a_configuration_is_listed(reference: dict[str, str]) -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", reference["configuration"], re.MULTILINE))
    nested = {"image", "text", "augmentation", "warm_up", "objective", "teacher", "schedule", "gate"}
    assert TrainingConfig.model_fields.keys() - nested <= listed
    assert {"timm_model", "vocabulary", "hard_negatives", "chunk_size", "most_lost"} <= listed


def test_every_error_is_listed(reference: dict[str, str]) -> None:
    kinds = [kind.__name__ for kind in vars(errors).values() if isinstance(kind, type)]
    assert all(f"| `{name}` |" in reference["errors"] for name in kinds)


def test_licences_of_what_is_installed_are_known(reference: dict[str, str]) -> None:
    assert "| pydicom | " in reference["licences"] and "| torch | " in reference["licences"]
    assert not re.findall(r"^\| (\S+) \| \S+ \| [^|]*\bGPL", reference["licences"], re.MULTILINE)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    offline = os.environ | {"MEDLENS_DOCS_OFFLINE": "1"}
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path)], env=offline, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reference" / "commands.html").exists()
    own = {"search", "genindex", "py-modindex"}  # Sphinx's: a page of that name would be overwritten
    assert not own & {page.stem for page in PAGES}
