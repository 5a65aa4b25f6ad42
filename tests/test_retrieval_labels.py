"""Label sets: what ships loads; what is wrong is said by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval.errors import LabelSetError
from retrieval.zeroshot.labels import load_labels, shipped_label_sets


def written(folder: Path, text: str) -> str:
    path = folder / "set.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


GOOD = """name: s
labels:
  - {name: CT, values: [CT, PT/CT], prompts: [a CT image]}
  - {name: MR, prompts: [an MR image]}
"""


def test_the_shipped_sets_load_and_know_their_values() -> None:
    assert {"modality", "plane", "body_region"} <= set(shipped_label_sets())
    for name in shipped_label_sets():
        labels = load_labels(name)
        assert labels.name == name
        assert labels.title
        assert len(labels.labels) >= 2
        for index, label in enumerate(labels.labels):
            assert label.prompts
            for value in (label.name, *label.values):
                assert labels.label_of(value) == labels.label_of(value.upper()) == index


def test_attribute_values_find_their_label() -> None:
    modality = load_labels("modality")
    names = [label.name for label in modality.labels]
    assert names[modality.label_of("DX") or 0] == names[modality.label_of("cr") or 0] == "radiograph"
    assert modality.label_of("US") is None
    assert modality.label_of(None) is None


def test_a_file_loads(tmp_path: Path) -> None:
    labels = load_labels(written(tmp_path, GOOD))
    assert [label.name for label in labels.labels] == ["CT", "MR"]
    assert labels.label_of("pt/ct") == 0


def test_a_file_without_yamls_suffix_and_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text(GOOD, encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_labels("~/mine") == load_labels(str(tmp_path / "mine"))


def test_inline_labels_are_their_own_prompts() -> None:
    labels = load_labels(" pneumothorax,  normal ,")
    assert [(label.name, label.prompts) for label in labels.labels] == [
        ("pneumothorax", ("pneumothorax",)),
        ("normal", ("normal",)),
    ]


def test_a_list_longer_than_any_path_is_inline() -> None:
    names = [f"finding number {i}" for i in range(400)]
    assert [label.name for label in load_labels(", ".join(names)).labels] == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "tilte: x\n", "tilte: unknown key"),
        (GOOD.replace("values:", "valeus:"), "labels.0.valeus: unknown key"),
        (GOOD.replace("name: MR", "name: ct"), "these labels occur twice: ct"),
        (GOOD.replace("name: MR,", "name: MR, values: [pt/ct],"), "means both 'CT' and 'MR'"),
        (GOOD.replace("prompts: [an MR image]", "prompts: []"), "labels.1.prompts"),
        (GOOD.replace("prompts: [an MR image]", "prompts: ['  ']"), "labels.1.prompts.0"),
        (GOOD.replace("name: MR", "name: no"), "labels.1.name"),  # YAML reads a boolean
        ("name: s\nlabels:\n  - {name: CT, prompts: [a]}\n", "labels: "),
        ("name: s\nlabels: []\n", "labels: "),
        ("name: s\n", "labels: "),
        ("[1, 2]\n", "contains a list"),
        ("", "contains a NoneType"),
        ("{", "not valid YAML"),
        ("when: 2001-13-01\n", "not valid YAML"),
        ("1: 2\n", "set.yaml"),
    ],
)
def test_a_bad_file_is_refused_with_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LabelSetError) as caught:
        load_labels(written(tmp_path, text))
    assert said in str(caught.value)
    assert "set.yaml" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_invalid_labels_are_not_reported_as_missing_too(tmp_path: Path) -> None:
    text = "name: s\nlabels:\n  - {name: CT, prompts: [a], absnt: [b]}\n  - {name: MR, prompts: [a], absnt: [b]}\n"
    with pytest.raises(LabelSetError) as caught:
        load_labels(written(tmp_path, text))
    assert str(caught.value) == "set.yaml: labels.0.absnt: unknown key; labels.1.absnt: unknown key"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "set.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabelSetError, match="not valid YAML"):
        load_labels(str(tmp_path / "set.yaml"))


@pytest.mark.parametrize("name", ["missing.yaml", "~nobody-by-this-name/x.yaml"])
def test_a_missing_file(name: str) -> None:
    with pytest.raises(LabelSetError, match="can't be read"):
        load_labels(name)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").mkdir()
    with pytest.raises(LabelSetError, match="can't be read"):
        load_labels(str(tmp_path / "x.yaml"))


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(LabelSetError, match="did you mean 'modality'") as caught:
        load_labels("modalty")
    assert "body_region" in str(caught.value)
    assert "--labels" in caught.value.hint


@pytest.mark.parametrize("text", ["", "   ", "xyzzy"])
def test_nothing_like_it(text: str) -> None:
    with pytest.raises(LabelSetError, match="there is no label set") as caught:
        load_labels(text)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("text", ["pneumonia,", " pneumonia ,, "])
def test_one_label_is_no_choice(text: str) -> None:
    with pytest.raises(LabelSetError, match="at least 2"):
        load_labels(text)


def test_an_inline_label_twice() -> None:
    with pytest.raises(LabelSetError, match="these labels occur twice: ct"):
        load_labels("CT, MR, ct")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda p: p.symlink_to("/dev/zero"), "a device"),
        (os.mkfifo, "a pipe"),
        (lambda p: (p.touch(), os.truncate(p, 1 << 40)), "more than 1,000,000 bytes"),
    ],
)
def test_a_label_file_that_has_no_end(tmp_path: Path, made: Callable[[Path], object], said: str) -> None:
    made(tmp_path / "labels.yaml")
    with pytest.raises(LabelSetError, match=said):
        load_labels(str(tmp_path / "labels.yaml"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: &a [x]\nname: m\nlabels: *a\n", r"the alias \*a is not allowed"),
        ("[" * 20_000, "nested too deeply"),
        ("#" * 1_000_001, "more than 1,000,000 bytes"),
    ],
)
def test_a_label_file_is_bounded(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text(content)
    with pytest.raises(LabelSetError, match=said):
        load_labels(str(tmp_path / "labels.yaml"))
