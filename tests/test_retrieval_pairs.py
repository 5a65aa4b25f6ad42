"""Rows out of a pairs file: what is read, what is refused, what is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval.errors import EvaluationError
from retrieval.evaluation.pairs import evaluation_rows, read_pairs
from retrieval.evaluation.rows import EvaluationRows, draw_groups
from retrieval.training.config import Source
from retrieval.training.data import read_corpus
from retrieval.zeroshot.labels import load_labels


def picture(path: Path, seed: int) -> None:
    """Blobs of grey that differ from seed to seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC).save(path)


def write(folder: Path, rows: list[dict[str, Any]], *, pictures: bool = True) -> Path:
    for i, row in enumerate(rows):
        if pictures and "image" in row and not (folder / row["image"]).exists():
            picture(folder / row["image"], i)
    folder.mkdir(exist_ok=True)
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(i: int, group: str, split: str | None = "dev", **more: Any) -> dict[str, Any]:
    values = {"image": f"images/{i}.png", "text": f"text  {i}\n", "group": group, "split": split, **more}
    return {k: v for k, v in values.items() if v is not None}


def test_rows_of_a_split_with_their_fields(tmp_path: Path) -> None:
    write(
        tmp_path,
        [
            row(0, "p", modality="CT"),
            row(1, "q", "train"),
            row(2, "r", modality="MR", age=61, tags=["x", "y"], title="second"),
        ],
    )
    rows, paths = evaluation_rows(read_pairs(tmp_path), query="title")
    assert rows.texts == (("text 0",), ("text 2",))  # blanks made single
    assert rows.groups == ("p", "r")
    assert rows.fields == {"modality": ("CT", "MR"), "age": (None, "61"), "tags": (None, "x|y")}
    assert rows.queries == (None, "second")
    assert [p.name for p in paths] == ["0.png", "2.png"]
    assert rows.facts["training_images_compared"] == 1
    assert rows.truth(load_labels("modality"), "modality").tolist() == [0, 1]
    assert not rows.notes


def test_every_row_where_asked_for_and_a_file_without_splits(tmp_path: Path) -> None:
    write(tmp_path, [row(0, "p", None), row(1, "q", None)])
    assert len(evaluation_rows(read_pairs(tmp_path / "pairs.jsonl"), split="all")[0]) == 2
    with pytest.raises(EvaluationError, match="no row of the split 'dev'; its splits are: none") as caught:
        evaluation_rows(read_pairs(tmp_path))
    assert "--split all" in caught.value.hint


def test_a_row_without_a_split_is_for_training(tmp_path: Path) -> None:
    write(tmp_path, [row(0, "p", None), row(1, "q", ""), row(2, "r", "train"), row(3, "s")])
    pairs = read_pairs(tmp_path)
    assert [pair.group for pair in pairs.of_split("train")] == ["p", "q", "r"]
    assert evaluation_rows(pairs)[0].facts["training_images_compared"] == 3
    source = Source(pairs=tmp_path / "pairs.jsonl", texts={"text": 1.0})
    assert [one.split for one in read_corpus([source], []).rows] == ["train", "train", "train", "dev"]


def test_patients_on_both_sides_are_refused_without_naming_them(tmp_path: Path) -> None:
    write(tmp_path, [row(0, "SECRET-7"), row(1, "q"), row(2, "SECRET-7", "train")])
    with pytest.raises(EvaluationError, match=r"1 of the 2 groups .* lines 1 and 3") as caught:
        evaluation_rows(read_pairs(tmp_path))
    assert "SECRET" not in str(caught.value) + caught.value.hint


def test_patients_in_another_file_that_was_trained_on_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "test", [row(0, "a", None), row(1, "b", None)])
    write(tmp_path / "train", [row(2, "b", None), row(3, "c", None)])
    with pytest.raises(EvaluationError, match=r"training rows of train/pairs.jsonl"):
        evaluation_rows(read_pairs(tmp_path / "test"), split="all", trained_on=[read_pairs(tmp_path / "train")])


def test_equal_files_are_refused_and_pictures_that_look_alike_are_said(tmp_path: Path) -> None:
    rows = [row(0, "p"), row(1, "q"), row(2, "r", "train")]
    write(tmp_path, rows)
    Image.open(tmp_path / "images/1.png").convert("L").save(tmp_path / "images/2.png", compress_level=0)
    found, _ = evaluation_rows(read_pairs(tmp_path))
    assert len(found.notes) == 1 and "1 of 2 images look like a training image" in found.notes[0]
    assert "lines 2" in found.notes[0]
    shutil.copy(tmp_path / "images/1.png", tmp_path / "images/2.png")
    with pytest.raises(EvaluationError, match=r"1 images .* also training images, the first in line 2"):
        evaluation_rows(read_pairs(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("not json\n", "line 1 is not JSON"),
        ("[" * 100_000 + "\n", "line 1 is not JSON: it is nested too deeply"),
        ("[1]\n", "line 1 is not a JSON object but of type list"),
        ('{"image": "a.png"}\n', "line 1 has no group"),
        ('{"text": "x"}\n', "no image and no group"),
    ],
)
def test_a_malformed_file_is_refused_by_line(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "pairs.jsonl").write_text(content)
    with pytest.raises(EvaluationError, match=said):
        read_pairs(tmp_path)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"'pairs.jsonl' can't be read: No such file"):
        read_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(EvaluationError, match=r"has no pairs file, expected pairs.jsonl"):
        read_pairs(tmp_path)
    write(tmp_path, [row(0, "p"), row(1, "q")])
    (tmp_path / "images/1.png").unlink()
    with pytest.raises(EvaluationError, match=r"1 of 2 images .* missing, the first in line 2"):
        evaluation_rows(read_pairs(tmp_path))
    picture(tmp_path / "images/1.png", 1)
    for option, name in (("text", "caption"), ("query", "title")):
        with pytest.raises(EvaluationError, match=f"field '{name}'") as caught:
            evaluation_rows(read_pairs(tmp_path), **{option: name})
        assert f"--{option}" in caught.value.hint


def test_whole_groups_are_drawn_and_the_same_again() -> None:
    groups = [f"g{i // 3}" for i in range(30)]
    kept = draw_groups(groups, 10, seed=1)
    assert kept == draw_groups(groups, 10, seed=1) == sorted(kept)
    assert len(kept) == 9  # three groups of three; a fourth does not fit
    assert all(groups.count(groups[i]) == sum(groups[j] == groups[i] for j in kept) for i in kept)
    assert draw_groups(groups, 30, seed=1) == list(range(30))
    assert any(draw_groups(groups, 10, seed=s) != kept for s in range(2, 6))
    with pytest.raises(EvaluationError, match="every patient has more than 2 images"):
        draw_groups(groups, 2, seed=0)


def test_columns_of_different_lengths_are_a_wrong_call() -> None:
    with pytest.raises(ValueError, match=r"\[1, 2\] rows"):
        EvaluationRows("x", (("a",), ("b",)), ("p",))
