"""The README lists every key of a training configuration, with the default that it has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from retrieval.training import config

README = Path(__file__).resolve().parents[1] / "README.md"
PARTS: dict[str, type[BaseModel]] = {
    "(the file)": config.TrainingConfig,
    "`image`": config.ImageTower,
    "`text`": config.TextTower,
    "`data[]`": config.Source,
    "`augmentation`": config.Augmentation,
    "`warm_up`": config.WarmUp,
    "`objective`": config.Objective,
    "`teacher`": config.Teacher,
    "`schedule`": config.Schedule,
    "`gate`": config.Gate,
}


def listed() -> dict[str, str]:
    section = README.read_text(encoding="utf-8").partition("## Train\n")[2].partition("\n## ")[0]
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return {cell[0].strip(): cell[1].strip() for cell in cells}


def number(said: str) -> float | bool:
    return said == "true" if said in ("true", "false") else float(said)


@pytest.mark.parametrize("part", PARTS)
def test_every_key_is_listed_with_its_default(part: str) -> None:
    row, fields = listed()[part], PARTS[part].model_fields
    own = {name for name in fields if f"`{name}`" not in PARTS}  # parts have rows of their own
    own -= {"data"} if part == "(the file)" else set()
    assert set(re.findall(r"`(\w+)`", row)) == own
    for name in own:
        default: Any = fields[name].default
        if isinstance(default, bool | int | float) or (isinstance(default, str) and default):
            said = re.search(rf"`{name}` ([^,|]+)", row)
            assert said is not None, f"{name} has the default {default!r}, and the README does not say so"
            given = said[1].strip()
            assert (given if isinstance(default, str) else number(given)) == default, name


def test_the_default_towers_are_those_of_the_model_that_ships() -> None:
    shipped = config.load_config(README.parent / "data" / "training" / "medlens-base.yaml")
    where_from = {"start", "locked_groups", "vocabulary"}  # the weights to start from, and what of them is kept
    assert shipped.embed_dim == config.TrainingConfig.model_fields["embed_dim"].default
    for tower in (shipped.image, shipped.text):
        fields = type(tower).model_fields
        default = {name: field.default for name, field in fields.items()}
        assert {name: getattr(tower, name) for name in fields.keys() - where_from} == {
            name: default[name] for name in fields.keys() - where_from
        }


def test_every_part_is_one_of_the_files() -> None:
    fields = config.TrainingConfig.model_fields
    kinds = {name: (f.annotation, *get_args(f.annotation)) for name, f in fields.items()}
    nested = {
        name for name, some in kinds.items() if any(isinstance(k, type) and issubclass(k, BaseModel) for k in some)
    }
    assert {f"`{name}`" for name in nested} == PARTS.keys() - {"(the file)", "`data[]`"} | {"`data`"}
