"""Pages that are made from the code: commands, configuration keys, errors, extras, licences.

Each is written into `docs/reference/` when the site is built, so it can't say anything but what the code does. The
functions return Markdown and are what the tests ask; `setup` is Sphinx's hook.
"""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"

COMMAND_GROUPS = {
    "Build a store": ("index", "import", "migrate", "optimize"),
    "Search": ("search", "describe", "select", "info", "render"),
    "Label": ("classify", "calibrate", "labels"),
    "Train and judge": ("train", "evaluate", "models"),
    "Look after a store": ("verify", "delete", "export", "reembed"),
}


def commands_page() -> str:
    """The help of every command, in the order of a person's work; commands without a group come last."""
    from cli.medlens_app import COMMANDS

    grouped = [name for names in COMMAND_GROUPS.values() for name in names if name in COMMANDS]
    groups = {**COMMAND_GROUPS, "More": tuple(name for name in COMMANDS if name not in grouped)}
    parts = ["# Commands\n", "Every option of every command. `medlens COMMAND --help` prints the same.\n"]
    for title, names in groups.items():
        present = [name for name in names if name in COMMANDS]
        if present:
            parts += [f"## {title}\n", *(_command(name) for name in present)]
    return "\n".join(parts)


def _command(name: str) -> str:
    import typer

    from cli.medlens_app import app

    group: Any = typer.main.get_command(app)
    context = group.make_context("medlens", ["--help"], resilient_parsing=True)
    command = group.get_command(context, name)
    lines = [f"### medlens {name}\n", f"{_prose(command.help)}\n"]
    lines += list(_parameters(command))
    for sub_name, sub in getattr(command, "commands", {}).items():
        lines += [f"#### medlens {name} {sub_name}\n", f"{_prose(sub.help)}\n", *_parameters(sub)]
    return "\n".join(lines)


def _parameters(command: Any) -> Iterator[str]:
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        names = (
            [parameter.human_readable_name]
            if parameter.param_type_name == "argument"
            else [*parameter.opts, *parameter.secondary_opts]
        )
        shown = ", ".join(f"`{name}`" for name in names)
        default = parameter.default
        told = "" if default is None or callable(default) or default in (False, ()) else f" Default: `{default}`."
        environment = f" Environment: `{parameter.envvar}`." if isinstance(parameter.envvar, str) else ""
        rows.append(f"| {shown} | {_cell(getattr(parameter, 'help', '') or '')}{told}{environment} |")
    if rows:
        yield "| option | meaning |\n|---|---|"
        yield from rows
        yield ""


def configuration_page() -> str:
    """Every key of a training configuration: type, default, and what its part says of it."""
    from retrieval.training import config

    parts: dict[str, type[BaseModel]] = {"The file": config.TrainingConfig}
    for name, field in config.TrainingConfig.model_fields.items():
        for kind in _models_in(field.annotation):
            parts[f"`{name}`" + (" (each entry)" if name == "data" else "")] = kind
    lines = [
        "# Training configuration\n",
        "A training run is described by one YAML file; {doc}`../train` explains how to use it. "
        "A key that is not listed here is refused by name.\n",
    ]
    for title, kind in parts.items():
        lines += [f"## {title}\n", f"{_prose(kind.__doc__)}\n", "| key | type | default |\n|---|---|---|"]
        for name, field in kind.model_fields.items():
            if title == "The file" and any(True for _ in _models_in(field.annotation)) and name != "data":
                continue  # has a section of its own
            required = field.default is PydanticUndefined and field.default_factory is None
            default = "required" if required else _default(field.get_default(call_default_factory=True))
            lines.append(f"| `{name}` | {_type(field.annotation)} | {default} |")
        lines.append("")
    return "\n".join(lines)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(_type(argument) for argument in arguments if argument is not type(None))
    if str(origin).endswith("Literal"):
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin is tuple:
        inner = [argument for argument in arguments if argument is not Ellipsis]
        return f"list of {_type(inner[0])}" if Ellipsis in arguments else f"{len(inner)} of {_type(inner[0])}"
    if origin is dict:
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(value: Any) -> str:
    if value is None or value in ("", (), {}) or isinstance(value, BaseModel):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def errors_page() -> str:
    """Every error that medlens raises on purpose, with its standard hint."""
    from retrieval import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MedlensError)]
    lines = [
        "# Errors\n",
        "Every error that medlens raises on purpose is a `MedlensError`. On the command line it is one line with a "
        "hint and exit code 1 (2 where an option can't be used); with `--format json` or `jsonl` it is an object with "
        "`error`, `type` and `hint`. Files that can't be indexed become rejections, counted by `code`.\n",
        "| error | a kind of | code | meaning | standard hint |\n|---|---|---|---|---|",
    ]
    for kind in kinds:
        parent = kind.__bases__[0].__name__ if kind is not errors.MedlensError else ""
        code = f"`{kind.code}`" if issubclass(kind, errors.DicomError) else ""
        meaning = _cell((kind.__doc__ or "").strip().split("\n\n")[0]) if kind.__dict__.get("__doc__") else ""
        lines.append(f"| `{kind.__name__}` | `{parent}` | {code} | {meaning} | {_cell(kind.default_hint)} |")
    return "\n".join(lines) + "\n"


def extras_page() -> str:
    """What each extra brings, with the licence and size of what is installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [
        "# Extras\n",
        "`pip install 'medlens[NAME]'` adds an optional feature. Sizes are those of the packages themselves, "
        "installed, on Linux x86-64, without what they share with medlens.\n",
        "| extra | brings | licence | MB |\n|---|---|---|---|",
    ]
    for extra, wanted in project["optional-dependencies"].items():
        names = [_name_of(requirement) for requirement in wanted]
        found = [(name, *_licence_and_size(name)) for name in names]
        licences = "; ".join(dict.fromkeys(licence for _, licence, _ in found))
        size = sum(size for *_, size in found)
        lines.append(f"| `{extra}` | {', '.join(names)} | {_cell(licences)} | {size:.0f} |")
    return "\n".join(lines) + "\n"


def licences_page() -> str:
    """Every package that a plain installation brings, with the licence that its metadata states."""
    lines = [
        "# Licences\n",
        "medlens itself is licensed under Apache-2.0. The weights that ship with it have terms of their own: "
        "{doc}`../models`. A plain installation brings these packages; the licence is what each states of itself.\n",
        "| package | version | licence |\n|---|---|---|",
    ]
    for name in sorted(_closure("medlens"), key=str.casefold):
        if name != "medlens":
            licence, _ = _licence_and_size(name)
            lines.append(f"| {name} | {distribution(name).version} | {_cell(licence)} |")
    return "\n".join(lines) + "\n"


def public_models_page() -> str:
    """Public models of medical images, from the table in data/: what each has seen, terms, size, speed, command."""
    from retrieval.encoders.public_models import checked_on, public_models

    found = public_models()
    lines = [
        "# Public models\n",
        f"`medlens models --known` prints the same. The facts were read on {checked_on()} on the pages that are named; "
        "an empty cell could not be checked. **Nobody has run these published weights with medlens yet**: their "
        "layouts are tested with random weights against the libraries they come from ({doc}`../models`). Run "
        "`medlens models check MODEL` after the download.\n",
        "| model | for | licence | gated | MB to download | MB in memory | pixels | tokens | images a second | speed |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        cells = (
            one.name,
            one.subject,
            one.licence,
            "yes" if one.gated else "no",
            f"{one.megabytes:g}" if one.megabytes else "",
            f"{one.float32_megabytes:g}" if one.float32_megabytes else "",
            one.side or "",
            one.context or "",
            one.images_per_second or "",
            one.speed or "",
        )
        lines.append(f"| {' | '.join(_cell(str(cell)) for cell in cells)} |")
    lines.append(
        "\nGated: its makers give the weights to those who accept their terms on its page. Accept them, then run "
        "`hf auth login` once. Speed is that of the architecture with random weights in float32 "
        "(`benchmarks/model_speed.py`): fast from 5 images a second of one CPU core, slow below one in two seconds.\n"
    )
    for one in found:
        lines += [f"## {one.name}\n", f"Has seen: {one.seen}. Licence: {one.licence}.\n"]
        lines += [f"```text\n{one.command}\n```\n" if one.command else f"medlens does not load it: {one.why}.\n"]
        lines += [f"Read on: {', '.join(f'<{source}>' for source in one.sources)}\n"]
    return "\n".join(lines)


def _closure(name: str) -> set[str]:
    """A distribution and all that it requires here, extras left out."""
    from packaging.requirements import Requirement

    seen: set[str] = set()
    pending = [name]
    while pending:
        current = pending.pop()
        try:
            wanted = requires(current) or []
            canonical = distribution(current).metadata["Name"]
        except PackageNotFoundError:
            continue  # of another platform
        if canonical in seen:
            continue
        seen.add(canonical)
        for text in wanted:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                pending.append(requirement.name)
    return seen


def _name_of(requirement: str) -> str:
    from packaging.requirements import Requirement

    return Requirement(requirement).name


def _licence_and_size(name: str) -> tuple[str, float]:
    """The stated licence and the installed megabytes; ("not installed here", 0) where it is not."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return "not installed here", 0.0
    metadata = found.metadata
    classified = [
        line.rpartition("::")[2].strip() for line in metadata.get_all("Classifier") or [] if "License" in line
    ]
    stated = metadata.get("License-Expression") or ", ".join(c for c in classified if c != "OSI Approved")
    text = (metadata.get("License") or "").strip()
    licence = stated or (text.splitlines()[0] if text else "not stated")
    size = sum(file.size or 0 for file in found.files or ()) / 1e6
    return licence[:80], size


def _prose(text: str | None) -> str:
    return "\n".join(line.strip() for line in (text or "").replace("\f", "").strip().splitlines())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES = {
    "commands": commands_page,
    "configuration": configuration_page,
    "errors": errors_page,
    "extras": extras_page,
    "licences": licences_page,
    "public-models": public_models_page,
}


def write_pages(folder: Path = FOLDER) -> None:
    """Write every generated page whose text has changed, so that an unchanged one is not built again."""
    folder.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        path, text = folder / f"{name}.md", page()
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def setup(app: Any) -> dict[str, bool]:
    importlib.invalidate_caches()
    app.connect("config-inited", lambda *_: write_pages())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
