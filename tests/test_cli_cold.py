"""What a search in words imports from cold, and what the help does. Never how long it takes: that is a benchmark's."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from catalog_factory import indexed
from tiny_models import write_clip

from cli.medlens_app import COMMANDS, command_of
from indexer.store.store import Store
from retrieval.encoders.known_models import remember_model
from retrieval.encoders.model_source import resolve_model
from retrieval.encoders.numpy_text.encoder import open_encoder

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import atexit, sys
atexit.register(lambda: print(*sorted({n.partition(".")[0] for n in sys.modules}), file=sys.stderr))
from cli.medlens_app import main
main()
"""
NEVER = {
    "torch",
    "open_clip",
    "transformers",
    "torchvision",
    "timm",
    "huggingface_hub",
    "PIL",
    "pydicom",
    "imagecodecs",
}
NEVER |= {"scipy", "pandas", "sklearn", "matplotlib", "alembic", "yaml", "bm25s", "numba", "jax"}


def run(*arguments: str) -> tuple[str, set[str]]:
    """stdout, and the top-level modules that the process had at its end."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, set(done.stderr.splitlines()[-1].split())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_clip(tmp_path_factory.mktemp("cold") / "model"))


@pytest.fixture(scope="module", params=["no reports", "reports"])
def store(request: pytest.FixtureRequest, model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cold")
    encoder = open_encoder(model)
    remember_model(encoder.spec, resolve_model(model))
    vectors = encoder.encode_text(["a knee", "a chest"])
    with Store.create(place / "store", encoder.spec.to_json()) as made:
        archive = made.catalog.files.archive_id(place)
        files = []
        for number, modality in enumerate(("MR", "CR")):
            file = indexed(f"{number}.dcm", f"1.2.{number}", frames=1, modality=modality)
            files.append(replace(file, frame_vectors=vectors[[number]]))
        if request.param == "reports":
            said = indexed("sr.dcm", "1.2.9", frames=0, sentences=("A chest.",), study_instance_uid="1.2.1.study")
            files.append(replace(said, frame_vectors=None, sentence_vectors=vectors[[1]]))
        made.catalog.files.commit(archive, files, [])
        made.refresh()
    return place / "store"


@pytest.mark.parametrize("arguments", [[], ["--modality", "CR"]])
def test_a_search_in_words_imports_no_model_library(
    store: Path, arguments: list[str], request: pytest.FixtureRequest
) -> None:
    out, imported = run("search", "a chest", "--store", str(store), "--format", "jsonl", *arguments)
    assert '"sop_instance_uid": "1.2.1"' in out.splitlines()[0]
    assert ('"report": ' in out) == ("[no reports" not in request.node.name)  # hybrid where there are reports
    assert not imported & (NEVER | {"rich", "faiss"})
    assert {"numpy", "sqlalchemy"} <= imported  # the net does catch


def test_the_catalog_of_a_folder_imports_nothing_of_postgresql() -> None:
    program = "import sys, indexer.catalog.sql_catalog; print('sqlalchemy.dialects.postgresql' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_info_needs_neither_models_nor_faiss(store: Path) -> None:
    _, imported = run("info", "--store", str(store), "--format", "jsonl")
    assert not imported & (NEVER | {"faiss", "tokenizers", "rich"})


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_are_found_where_they_are_said_to_be(name: str) -> None:
    assert command_of(name).name == name


def test_each_command_has_a_module_and_each_module_a_command() -> None:
    modules = {path.stem.rstrip("_") for path in (ROOT / "cli" / "medlens_commands").glob("[a-z]*.py")}
    assert modules == set(COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["index", "--help"]])
def test_help_imports_next_to_nothing(arguments: list[str]) -> None:
    out, imported = run(*arguments)
    assert "Usage" in out
    assert not imported & (NEVER | {"numpy", "faiss", "sqlalchemy", "tokenizers", "rich"})
    if arguments == ["--help"]:
        assert "pydantic" not in imported  # typer from 0.29 on needs it to read a command's arguments
