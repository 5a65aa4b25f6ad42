"""Truth files, good and bad."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from retrieval.errors import CalibrationError
from retrieval.zeroshot.ground_truth import GroundTruth, read_truth
from retrieval.zeroshot.labels import Label, LabelSet

MODALITY = LabelSet(
    name="m", labels=(Label(name="CT", prompts=("a",)), Label(name="MR", values=("MRI",), prompts=("b",)))
)
FINDINGS = LabelSet(
    name="f",
    kind="independent",
    labels=(Label(name="effusion", prompts=("a",)), Label(name="mass", values=("Lung Mass",), prompts=("b",))),
)


def truth(folder: Path, text: str, labels: LabelSet = MODALITY) -> GroundTruth:
    (folder / "truth.csv").write_text(text, encoding="utf-8")
    return read_truth(folder / "truth.csv", labels)


def test_a_choice_by_uid_and_by_file(tmp_path: Path) -> None:
    found = truth(tmp_path, "sop_instance_uid,label,patient,age\n1.2,ct,p,60\n1.3,MRI,,\n1.4,,q,\n")
    assert [(r.uid, r.values, r.patient, r.line) for r in found.rows] == [("1.2", 0, "p", 2), ("1.3", 1, None, 3)]
    assert not found.by_file and len(found.sha256) == 64
    found = truth(tmp_path, '{"image": "a/b.png", "label": "MR", "group": 7}\n\n{"image": "c.png", "label": ["CT"]}\n')
    assert [(r.file, r.values, r.patient) for r in found.rows] == [("a/b.png", 1, "7"), ("c.png", 0, None)]
    assert found.by_file


def test_findings_as_a_list_and_as_columns(tmp_path: Path) -> None:
    found = truth(tmp_path, "file,labels\na,effusion;Lung Mass\nb,\nc,mass\n", FINDINGS)
    assert [r.values for r in found.rows] == [(1, 1), (0, 0), (0, 1)]
    found = truth(tmp_path, "file,Effusion,Lung Mass,View\na,1.0,0,AP\nb,-1,1,PA\nc,,,PA\n", FINDINGS)
    assert found.rows[0].values == (1, 0)
    effusion, mass = found.rows[1].values  # type: ignore[misc]
    assert math.isnan(effusion) and mass == 1
    assert len(found.rows) == 2


def test_frames(tmp_path: Path) -> None:
    found = truth(tmp_path, "sop_instance_uid,frame_number,label\n1.2,1,CT\n1.2,2,MR\n")
    assert [r.frame for r in found.rows] == [1, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no rows"),
        ("file,label\n", "no rows"),
        ("file,label\na,\n", "no row of the truth file"),
        ("path,label\na,CT\n", "no column sop_instance_uid or file"),
        ("file,modality\na,CT\n", "no column label"),
        ("file,label\na,CT\nb,ultrasound\nc,ultrasound\n", "'ultrasound' (2 rows)"),
        ("file,label\na,CT\na,MR\n", "lines 2 and 3"),
        ("file,label\na,CT\n,MR\n", "line 3"),
        ("file,label\na,CT;MR\n", "2 labels"),
        ("file,label\na\n", "number of cells"),
        ("file,label\na,CT,x\n", "number of cells"),
        ("sop_instance_uid,frame_number,label\n1.2,0,CT\n", "frame_number"),
        ('{"file": "a", "label": "CT"\n', "is not JSON"),
        ('{"file": "a", "label": "CT"}\n[1]\n', "not a JSON object"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError) as caught:
        truth(tmp_path, text)
    assert said in str(caught.value) and "truth.csv" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_cell_that_is_neither_yes_nor_no(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="'perhaps' in column 'mass'"):
        truth(tmp_path, "file,mass\na,perhaps\n", FINDINGS)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="can't be read"):
        read_truth(tmp_path / "missing.csv", MODALITY)
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CalibrationError, match="not UTF-8"):
        read_truth(tmp_path / "x.csv", MODALITY)


def test_a_message_does_not_grow_with_what_a_stranger_wrote(tmp_path: Path) -> None:
    for text in (
        "file,labels\na.png," + "x" * 100_000 + "\n",
        ",".join(f"c{n}" for n in range(20_000)) + "\n",
        "file,effusion" + "y" * 100_000 + ",effusion\na.png,1,maybe\n",
    ):
        (tmp_path / "truth.csv").write_text(text, encoding="utf-8")
        with pytest.raises(CalibrationError) as caught:
            read_truth(tmp_path / "truth.csv", FINDINGS)
        assert len(str(caught.value)) < 1000
