"""What is built is what works: the wheel, installed in an environment of its own, run from another folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "data" / "models"
DEFAULT_WEIGHTS = MODELS / "medlens-base" / "open_clip_model.safetensors"
SOURCES = (
    *("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "Makefile"),
    *("CITATION.cff", "CONTRIBUTING.md", "SECURITY.md"),
)
FOLDERS = ("retrieval", "indexer", "cli", "data", "tests", "benchmarks", "medlens", "docs", "examples")

pytestmark = pytest.mark.skipif(find_spec("build") is None, reason="the package build is not installed")


def clean_environment() -> dict[str, str]:
    """Nothing of ours leads Python back to the checkout."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {k: v for k, v in os.environ.items() if k not in hidden and not k.startswith("MEDLENS_")}
    return kept | {"COLUMNS": "200"}


def run(*command: str | Path, cwd: Path, timeout: float = 300) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that building leaves nothing in the checkout and finds no old build there."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.work", "_build"))
    return copy


def build(kind: str, sources: Path, out: Path) -> Path:
    # Without isolation nothing is fetched; it needs the setuptools that pyproject.toml asks for, 77 or newer.
    try:
        recent = int(version("setuptools").partition(".")[0]) >= 77
    except PackageNotFoundError:
        recent = False
    isolation = ["--no-isolation"] if recent else []
    run(sys.executable, "-m", "build", f"--{kind}", *isolation, "--outdir", out, sources, cwd=out, timeout=600)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", sources, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment that has the wheel, and the dependencies of the one that tests run in.

    The dependencies come by a .pth file: downloading gigabytes again would prove nothing. Should medlens itself be
    there (an editable installation), the wheel still wins: its folder comes first, and a finder hooked in by the other
    environment's own .pth files is never read, since a .pth file adds folders without reading those in them.
    """
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    command = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*command, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed), encoding="utf-8")
    return folder / "bin"


def test_the_wheel_holds_what_runs_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("retrieval", "indexer", "cli", "medlens")
        for path in (ROOT / package).rglob("*.py")
    }
    data = {f"medlens_data/labels/{path.name}" for path in (ROOT / "data" / "labels").glob("*.yaml")}
    for model in (path for path in MODELS.glob("*") if (path / "open_clip_config.json").is_file()):
        data |= {f"medlens_data/models/{model.name}/{path.name}" for path in model.iterdir() if path.is_file()}
    data |= {f"medlens_data/terms/{path.name}" for path in (ROOT / "data" / "terms").iterdir()}
    data.add("medlens_data/public_models.yaml")
    if (ROOT / "data" / "README.md").exists():
        data.add("medlens_data/README.md")
    other = {"indexer/catalog/migrations/script.py.mako", "indexer/py.typed", "medlens/py.typed", "retrieval/py.typed"}
    expected = modules | data | other
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == expected, f"missing {sorted(expected - packed)}, too much {sorted(packed - expected)}"
    assert data, "no label sets in data/labels"
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)


def test_the_source_distribution_builds_and_carries_the_tests(sources: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", sources, tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "Makefile", "tests/conftest.py", "tests/test_packaging.py", "benchmarks/render.py"}
    wanted |= {
        "data/training/medlens-base.yaml",
        "data/labels/modality.yaml",
        "docs/conf.py",
        "examples/build_a_cohort.py",
        "medlens/__init__.py",
        "indexer/catalog/migrations/script.py.mako",
    }
    assert wanted <= names, f"missing {sorted(wanted - names)}"


def test_the_installed_program_runs_elsewhere(installed: Path, tmp_path: Path) -> None:
    help_text = run(installed / "medlens", "--help", cwd=tmp_path)
    for command in ("index", "search", "describe", "classify", "train", "info", "models"):
        assert re.search(rf"\b{command}\b", help_text), f"{command} is not in --help"
    sets = [
        json.loads(line)
        for line in run(installed / "medlens", "labels", "list", "--format", "jsonl", cwd=tmp_path).splitlines()
    ]
    assert {s["name"] for s in sets} == {path.stem for path in (ROOT / "data" / "labels").glob("*.yaml")}
    models = run(installed / "medlens", "models", "--format", "jsonl", cwd=tmp_path).splitlines()
    shipped = {path.parent.name for path in MODELS.glob("*/open_clip_config.json")}
    assert {row["name"] for row in map(json.loads, models) if row["place"] is None} == shipped


def test_what_runs_is_the_wheel_and_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = (
        "import medlens, cli.medlens_app, indexer.catalog.sql_catalog, indexer.catalog.migrations\n"
        "import retrieval.search.searcher, retrieval.resources, sys\n"
        "print(retrieval.resources.data_folder())\n"
        "for name in sorted(sys.modules):\n"
        "    if name.partition('.')[0] in ('cli', 'indexer', 'retrieval'):\n"
        "        print(sys.modules[name].__file__)\n"
    )
    lines = [Path(line) for line in run(installed / "python", "-c", code, cwd=tmp_path).splitlines()]
    assert len(lines) > 8
    outside = [str(path) for path in lines if not path.resolve().is_relative_to(installed.parent.resolve())]
    assert not outside, f"not from the wheel: {outside}"


def test_a_store_is_made_by_the_installed_package(installed: Path, tmp_path: Path) -> None:
    """The migrations travel, and are found from anywhere."""
    code = (
        "from pathlib import Path\nfrom indexer.store.store import Store\n"
        "Store.create(Path('store'), {'name': 'x', 'weights_sha256': 'y', 'embed_dim': 4}).close()\n"
        "with Store.open(Path('store')) as store: print(store.catalog.counts().instances)\n"
    )
    assert run(installed / "python", "-c", code, cwd=tmp_path).strip() == "0"


def test_the_readme_of_data_names_the_weights_that_are_there() -> None:
    if not DEFAULT_WEIGHTS.exists():
        pytest.skip("the default model is not in this checkout")
    digest = hashlib.sha256(DEFAULT_WEIGHTS.read_bytes()).hexdigest()
    named = re.findall(r"\b[0-9a-f]{64}\b", (ROOT / "data" / "README.md").read_text("utf-8"))
    assert named == [digest], f"data/README.md says {named}, the weights' SHA-256 is {digest}"


def test_the_changelog_knows_this_version() -> None:
    found = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert found is not None
    assert f"## [{found[1]}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
