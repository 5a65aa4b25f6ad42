"""One model, or two, on one set of rows: figures, baselines, controls, labels, and the report."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, roc_auc_score

from retrieval.errors import EvaluationError, NonFiniteEmbedding
from retrieval.evaluation.evaluate import (
    DENSE,
    HYBRID,
    IMAGE_TO_TEXT,
    SECOND_TEXT_TO_IMAGE,
    TEXT,
    TEXT_TO_IMAGE,
    Evaluation,
    Options,
    compare,
    evaluate,
)
from retrieval.evaluation.plots import confusion_matrix as confusion_matrix_plot
from retrieval.evaluation.plots import recall_curves
from retrieval.evaluation.report import METRICS, REPORT, report_files
from retrieval.evaluation.results import difference_rows, document, figure_rows, tables
from retrieval.evaluation.retrieval import CosineScores, Grades, Pairing, PrecomputedScores, judge_direction
from retrieval.evaluation.rows import EvaluationRows
from retrieval.evaluation.text_ranking import bm25_scores, fused
from retrieval.evaluation.zero_shot import ExclusiveScores, judge_exclusive
from retrieval.search.bm25 import build_report_index
from retrieval.search.hybrid import HybridRanking, ReportScores, UsualScores
from retrieval.search.query import Query
from retrieval.statistics.reliability import calibration_floor, reliability
from retrieval.types import Embeddings, Lineage
from retrieval.zeroshot.classify import ZeroShotClassifier
from retrieval.zeroshot.fitting import LabelledRows, fit_calibration
from retrieval.zeroshot.labels import LabelSet, load_labels
from tests.fake_encoder import DIM, FakeEncoder

QUICK = Options(resamples=60, shuffles=4, grade_by=("modality",))
N = 48


class Scaled(FakeEncoder):
    """Texts as `FakeEncoder` has them; what is in `said` is encoded as it says. Counts the texts encoded."""

    logit_scale = 10.0

    def __init__(self, name: str = "fake", said: dict[str, np.ndarray] | None = None) -> None:
        super().__init__(name)
        self.said = said or {}
        self.texts_encoded: list[str] = []

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        self.texts_encoded += texts
        plain = super().encode_text(texts)
        return np.stack([self.said.get(t, v) for t, v in zip(texts, plain, strict=True)])


def unit(rows: np.ndarray) -> Embeddings:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def modality_vectors() -> dict[str, np.ndarray]:
    """Every prompt of a label, and its bare name, points along the label's axis."""
    return {
        text: np.eye(DIM, dtype=np.float32)[i]
        for i, label in enumerate(load_labels("modality").labels)
        for text in (*label.prompts, label.name)
    }


@pytest.fixture(scope="module")
def rows() -> EvaluationRows:
    """Two images a patient, captions shared by the pair of every third patient; findings that share words with them."""
    said = [i // 2 if i % 6 < 2 else 100 + i for i in range(N)]
    captions = [f"finding{number} of organ{number % 5}" for number in said]
    return EvaluationRows(
        name="made",
        texts=tuple((c,) for c in captions),
        groups=tuple(f"patient{i // 2}" for i in range(N)),
        fields={"modality": tuple(("CT", "MR")[(i // 2) % 2] if i % 7 else None for i in range(N))},
        queries=tuple(f"asking about {c.split()[0]}" if i % 4 else None for i, c in enumerate(captions)),
        documents=tuple(captions),
    )


def vectors(rows: EvaluationRows, encoder: Scaled, noise: float, seed: int = 0) -> Embeddings:
    texts = encoder.encode_text([own[0] for own in rows.texts])
    return unit(texts + noise * np.random.default_rng(seed).normal(size=texts.shape))


@pytest.fixture(scope="module")
def judged(rows: EvaluationRows) -> Evaluation:
    encoder = Scaled(said=modality_vectors())
    labels = [(load_labels("modality"), "modality")]
    return evaluate(rows, encoder, vectors(rows, encoder, 0.3), label_sets=labels, options=QUICK)


def test_every_task_is_there_with_interval_chance_and_control(judged: Evaluation) -> None:
    assert [(w.name, w.ranker) for w in judged.retrieval] == [
        (IMAGE_TO_TEXT, DENSE),
        (TEXT_TO_IMAGE, DENSE),
        (SECOND_TEXT_TO_IMAGE, DENSE),
        (SECOND_TEXT_TO_IMAGE, TEXT),
        (SECOND_TEXT_TO_IMAGE, HYBRID),
    ]
    texts = len(set(judged.rows.texts))
    assert texts < N
    forth, back = judged.retrieval[0].direction, judged.retrieval[1].direction
    assert (forth.queries, forth.gallery, back.queries, back.gallery) == (N, texts, texts, N)
    for result in judged.retrieval:
        for name in ("R@1", "R@5", "R@10", "MRR", "mAP", "median rank"):
            found, control = result.estimates[name], result.control[name]
            assert found.low <= found.value <= found.high
            assert control.least <= control.mean <= control.greatest
        assert result.control["R@10"].mean == pytest.approx(result.estimates["R@10"].chance, abs=0.12)
    assert judged.retrieval[0].estimates["R@5"].low > judged.retrieval[0].estimates["R@5"].chance
    assert "nDCG@10" in judged.retrieval[0].estimates


def test_bm25_finds_the_shared_word_where_the_model_knows_nothing(judged: Evaluation) -> None:
    by = {w.ranker: w.estimates["R@5"] for w in judged.retrieval if w.name == SECOND_TEXT_TO_IMAGE}
    assert by[TEXT].value == 1
    assert by[DENSE].value < 0.5  # the queries' vectors are random
    assert by[DENSE].value < by[HYBRID].value


def test_equal_texts_are_one_entry_both_ways() -> None:
    pairing = Pairing.of([["a", "b"], ["a"], []], ["p", "q", "q"])
    assert pairing.texts == ("a", "b") and pairing.text_groups == ("p", "p")
    assert pairing.relevant(slice(0, 3)).tolist() == [[True, True], [True, False], [False, False]]
    assert pairing.turned().relevant(slice(0, 2)).tolist() == [[True, True, False], [True, False, False]]
    mixed = Pairing.of([[f"t{i}"] for i in range(30)], ["p"] * 30).shuffled(0)
    assert sorted(mixed.text_of) == list(range(30)) and (mixed.text_of != np.arange(30)).any()


def test_galleries_of_any_size_are_judged_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = unit(rng.normal(size=(50, 8))), unit(rng.normal(size=(50, 8)))
    pairing = Pairing.of([[str(i)] for i in range(50)], [str(i // 2) for i in range(50)])
    grades = Grades.of({"x": [("u", "v", None)[i % 3] for i in range(50)]}, pairing)
    whole = judge_direction(CosineScores(a, b), pairing, grades=grades)
    monkeypatch.setattr("retrieval.evaluation.retrieval.CELLS", 330)
    parts = judge_direction(PrecomputedScores(a.astype(float) @ b.T.astype(float)), pairing, grades=grades)
    for name, values in whole.figures.named().items():
        assert parts.figures.named()[name].tolist() == pytest.approx(values.tolist(), nan_ok=True)
    assert whole.judgement.chance == pytest.approx(parts.judgement.chance)


def test_grades_by_hand() -> None:
    pairing = Pairing.of([["a"], ["a"], ["b"], ["c"]], list("pqrs"))
    fields = {"modality": ["CT", "MR", "ct", None], "plane": ["axial", None, "sagittal", "axial"]}
    grades = Grades.of(fields, pairing)
    assert grades is not None
    # Text a has the values of its two images: CT or MR, axial.
    assert grades.rows(slice(0, 4)).tolist() == [[1, 0.5, 0.5], [1, 0, 0], [0.5, 1, 0], [1, 0, 1]]
    assert grades.turned().rows(slice(0, 1)).tolist() == [[1, 0.5, 0.5, 0.5]]
    assert Grades.of({"x": [None] * 4}, pairing) is None


def test_zero_shot_figures_are_those_of_scikit_learn(judged: Evaluation, rows: EvaluationRows) -> None:
    encoder = Scaled(said=modality_vectors())
    labels = load_labels("modality")
    truth = rows.truth(labels, "modality")
    known = np.flatnonzero(truth >= 0)
    scores = ZeroShotClassifier(labels, encoder, 10.0).scores(vectors(rows, encoder, 0.3)[known])
    found = judged.zero_shot[0]
    assert found.rows == len(known) < N
    answer = scores.argmax(axis=1)
    assert found.estimates["accuracy"].value == pytest.approx(accuracy_score(truth[known], answer))
    assert found.estimates["accuracy"].chance == pytest.approx(1 / 3)  # radiograph is offered too
    expected = np.mean([(answer == label)[truth[known] == label].mean() for label in (0, 1)])
    assert found.estimates["balanced accuracy"].value == pytest.approx(expected)
    areas = [roc_auc_score(truth[known] == label, scores[:, label]) for label in (0, 1)]
    assert found.estimates["macro AUROC"].value == pytest.approx(np.mean(areas))
    assert [one.auroc.value for one in found.per_label if one.auroc] == pytest.approx(areas)
    assert found.per_label[2].auroc is None and found.per_label[2].rows == 0
    assert found.confusion.tolist() == confusion_matrix(truth[known], answer, labels=[0, 1, 2]).tolist()
    assert sum(one.rows for one in found.reliability) == len(known)
    # All prompts and the bare names have the same vectors here: the wording changes nothing.
    assert found.changed == 0
    assert found.plain_estimates["accuracy"] == found.estimates["accuracy"]
    assert found.phrasings["accuracy"].least == found.phrasings["accuracy"].greatest


def test_findings_are_judged_each_alone() -> None:
    labels = LabelSet.model_validate(
        {
            "name": "found",
            "kind": "independent",
            "labels": [
                {"name": name, "prompts": [name], "absent": ["clear"]} for name in ("mass", "effusion", "fracture")
            ],
        }
    )
    said = {"mass": np.eye(DIM)[0], "effusion": np.eye(DIM)[1], "fracture": np.eye(DIM)[2], "clear": np.eye(DIM)[3]}
    values = ["mass|effusion", "mass", "Effusion", "No Finding", "normal", "cough", None, "effusion| mass"]
    rng = np.random.default_rng(0)
    images = unit(rng.normal(size=(len(values), DIM)))
    rows = made([["t"]] * len(values), fields={"findings": tuple(values)})
    found = evaluate(
        rows,
        Scaled(said=said),
        images,
        label_sets=[(labels, "findings")],
        retrieval=False,
        options=Options(resamples=9),
    ).zero_shot[0]
    known = [0, 1, 2, 3, 4, 7]  # of "cough" the set knows nothing, so nothing is known to be absent either
    truth = np.array([[1, 1], [1, 0], [0, 1], [0, 0], [0, 0], [1, 1]])
    assert found.rows == len(known)
    scores = ZeroShotClassifier(labels, Scaled(said=said), 10.0).scores(images[known])[:, :2]
    assert found.estimates["macro AUROC"].value == pytest.approx(roc_auc_score(truth, scores, average="macro"))
    assert [one.rows for one in found.per_label] == [3, 3, 0]
    assert found.per_label[2].auroc is None and found.confusion is None and found.changed is None
    assert "accuracy" not in found.estimates
    with pytest.raises(EvaluationError, match="none of the findings as both present and absent"):
        evaluate(
            made([["t"]] * 2, fields={"findings": ("fracture", "fracture")}),
            Scaled(said=said),
            images[:2],
            label_sets=[(labels, "findings")],
            retrieval=False,
        )


def test_the_wording_shows_where_it_matters(rows: EvaluationRows) -> None:
    said = {"good ct": np.eye(DIM)[0], "good mr": np.eye(DIM)[1], "bad ct": np.eye(DIM)[1], "bad mr": np.eye(DIM)[0]}
    labels = LabelSet.model_validate(
        {
            "name": "worded",
            "labels": [
                {"name": "CT", "prompts": ["good ct", "bad ct"]},
                {"name": "MR", "prompts": ["good mr", "bad mr"]},
            ],
        }
    )
    truth = rows.truth(labels, "modality")
    images = unit(np.eye(DIM)[np.maximum(truth, 0)] + 0.01)
    found = evaluate(rows, Scaled(said=said), images, label_sets=[(labels, "modality")], retrieval=False, options=QUICK)
    assert not found.retrieval
    spread = found.zero_shot[0].phrasings["accuracy"]
    assert (spread.least, spread.greatest) == (0, 1)
    assert found.zero_shot[0].changed > 0.3


def test_perfect_calibration_is_at_its_floor() -> None:
    rng = np.random.default_rng(0)
    high = rng.uniform(0.5, 1, 400)
    scores = np.stack([high, 1 - high], axis=1)
    truth = (rng.random(400) > high).astype(np.int64)
    labelled = ExclusiveScores.known(["a", "b"], scores, truth, [str(i) for i in range(400)])
    found = judge_exclusive(labelled).estimates(resamples=50)
    assert found["ECE"].value == pytest.approx(found["ECE"].chance, abs=0.03)
    assert found["ECE"].chance == pytest.approx(calibration_floor(high, 15))
    assert "accuracy among occurring" not in found  # both occur
    bins = reliability(high, labelled.right, 15)
    assert all(abs(b.right - b.confidence) < 0.2 for b in bins)
    # The same answers, far too sure of themselves.
    sure = ExclusiveScores.known(["a", "b"], np.array([[0.999, 0.001]] * 400), truth, [str(i) for i in range(400)])
    assert judge_exclusive(sure).point("ECE") > 0.2
    assert balanced_accuracy_score(truth, sure.answer) == pytest.approx(
        judge_exclusive(sure).point("balanced accuracy")
    )


def test_vectors_at_hand_are_not_encoded_again(rows: EvaluationRows) -> None:
    encoder = Scaled()
    images = vectors(rows, encoder, 0.3)
    captions = {own[0] for own in rows.texts}
    known = dict(zip(captions, encoder.encode_text(list(captions)), strict=True))
    encoder.texts_encoded.clear()
    evaluate(rows, encoder, images, known_texts=known, options=QUICK)
    assert not captions & set(encoder.texts_encoded)
    assert len(encoder.texts_encoded) == len(set(encoder.texts_encoded))


def test_two_models_on_the_same_rows(rows: EvaluationRows, judged: Evaluation, tmp_path: Path) -> None:
    encoder = Scaled("worse", modality_vectors())
    labels = [(load_labels("modality"), "modality")]
    worse = evaluate(rows, encoder, vectors(rows, encoder, 9.0), label_sets=labels, options=QUICK)
    comparison = compare(judged, worse)
    found = comparison.differences["image to text, dense"]["R@5"]
    assert found.first == judged.retrieval[0].estimates["R@5"].value
    assert found.value < 0 and found.high < 0 and found.differs
    assert "second text to image, text" not in comparison.differences  # no model has a part in it
    same = compare(judged, judged).differences["zero-shot modality"]["accuracy"]
    assert (same.value, same.low, same.high, same.differs) == (0, 0, 0, False)
    assert {r["figure"] for r in difference_rows(comparison)} >= {"R@1", "R@10", "ECE"}
    assert "worse minus fake" in tables(judged, comparison)[0][0]
    with pytest.raises(ValueError, match="different rows"):
        compare(judged, evaluate(rows, encoder, vectors(rows, encoder, 1.0), options=Options(resamples=5)))
    files = report_files(replace(judged, retrieval=[]), replace(comparison, first=replace(judged, retrieval=[])))
    saved = json.loads(files[METRICS])
    assert saved["compared_with"]["model"] == "worse"
    assert saved["compared_with"]["differences"]["image to text, dense"]["R@5"]["value"] == pytest.approx(found.value)
    assert "worse minus fake" in files[REPORT]


def test_the_report_stands_alone_and_names_no_patient(judged: Evaluation) -> None:
    judged = replace(judged, retrieval=[result for result in judged.retrieval if result.name == SECOND_TEXT_TO_IMAGE])
    files = report_files(judged)
    page = files[REPORT]
    assert "http:" not in page and "https:" not in page and "<script" not in page
    assert len(re.findall(r'<img alt="[^"]+" src="data:image/svg\+xml;base64,', page)) == 2 + 2
    assert "patient0" not in page and "finding0" not in page
    found = judged.retrieval[0].estimates["R@10"]
    assert f"{100 * found.value:.1f} %" in page and f"{100 * found.chance:.1f} %" in page
    saved = json.loads(files[METRICS])
    assert saved == json.loads(json.dumps(document(judged)))
    assert saved["retrieval"][0]["figures"]["R@10"]["value"] == pytest.approx(found.value, abs=1e-6)
    assert saved["zero_shot"][0]["per_label"][2]["recall"] is None  # not a NaN, which is no JSON
    title = "second text to image: recall"
    curves = re.search(rf'alt="{title}" src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert curves is not None  # the same figures give the same picture
    assert base64.b64decode(curves[1]).decode() == recall_curves(title, judged.retrieval)


def test_names_in_a_plot_are_neutral_short_and_never_tex() -> None:
    names = ["$\\frac{$", "a\u202eb\x1b[2J", "two\nlines", "x" * 5000]
    plot = confusion_matrix_plot("title\u200b", names, np.eye(4, dtype=np.int64))
    told = re.findall("<!-- (.*) -->", plot)
    assert told.count("$\\frac{$") == told.count("a\ufffdb\ufffd[2J") == told.count("two lines") == 2
    assert f"{'x' * 80}..." in told and "title\ufffd" in told
    assert not {"\u202e", "\x1b", "\u200b"} & set(plot)


def test_without_matplotlib_the_report_says_what_to_install(judged: Evaluation, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EvaluationError, match="matplotlib") as caught:
        report_files(judged)
    assert "medlens[evaluate]" in caught.value.hint


def test_rows_of_figures_are_plain_values(judged: Evaluation) -> None:
    found = figure_rows(judged)
    assert {"task", "by", "figure", "value", "low", "high", "chance", "control"} == set(found[0])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    titles = [title for title, _ in tables(judged)]
    assert "gallery of" in titles[0] and "zero-shot modality" in titles[-1]


def made(texts: Sequence[Sequence[str]], **more: object) -> EvaluationRows:
    return EvaluationRows("made", tuple(map(tuple, texts)), tuple(map(str, range(len(texts)))), **more)  # type: ignore[arg-type]


def test_rows_that_can_not_be_judged_are_refused(rows: EvaluationRows, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Scaled()
    for texts, said in (
        ([["a"]], "1 images with 1"),
        ([["a"], ["a"]], "2 images with 1"),
        ([[], []], "0 images with 0"),
    ):
        with pytest.raises(EvaluationError, match=f"{said} different texts can't be ranked"):
            evaluate(made(texts), encoder, np.ones((len(texts), DIM), np.float32), options=QUICK)
    images = vectors(rows, encoder, 0.3)
    broken = images.copy()
    broken[3, 2] = np.nan
    with pytest.raises(NonFiniteEmbedding, match="1 of 48 vectors of images by fake"):
        evaluate(rows, encoder, broken, options=QUICK)
    with pytest.raises(NonFiniteEmbedding, match="of texts by fake"):
        evaluate(rows, Scaled(said={rows.texts[0][0]: np.full(DIM, np.nan)}), images, options=QUICK)
    with pytest.raises(ValueError, match="47 vectors for 48 rows"):
        evaluate(rows, encoder, images[1:], options=QUICK)
    silent = made([["a"], ["b"]], fields={"modality": ("CT", None)})
    with pytest.raises(EvaluationError, match=r"has 1 of the labels of 'modality' \(1 of 2") as caught:
        evaluate(silent, encoder, images[:2], label_sets=[(load_labels("modality"), "modality")], options=QUICK)
    assert "--labels modality=FIELD" in caught.value.hint
    monkeypatch.setattr("retrieval.evaluation.evaluate.MOST_ENTRIES", 10)
    with pytest.raises(EvaluationError, match="48 entries, expected at most 10"):
        evaluate(rows, encoder, images, options=QUICK)


def test_images_without_a_text_and_rows_without_queries_are_said(rows: EvaluationRows) -> None:
    encoder = Scaled()
    found = evaluate(made([["a"], ["b"], []]), encoder, unit(np.eye(DIM)[:3]), options=Options(resamples=5))
    assert found.retrieval[0].direction.queries == 2
    assert any("1 of 3 images have no text" in note for note in found.notes)
    assert any("no text baseline" in note for note in found.notes)


class OneFrameStudies:
    """A catalog in which frame i is all of study i."""

    def lineage(self, ids):
        return {i: Lineage(f"i{i}", f"s{i}", f"{i:09d}", f"p{i}") for i in ids}

    def frames_of(self, column, uids):
        return {uid: [int(uid)] for uid in uids}


class DenseRanking:
    additive = True

    def __init__(self, scores: np.ndarray) -> None:
        self.by_id = scores

    def top(self, n):
        return [(int(i), float(self.by_id[i])) for i in np.argsort(-self.by_id, kind="stable")[:n]]

    def scores(self, ids):
        return {i: float(self.by_id[i]) for i in ids}

    def breakdown(self, ids):
        return {i: {"dense": float(self.by_id[i])} for i in ids}


def test_the_hybrid_is_the_one_of_search() -> None:
    documents = [f"word{i % 7} word{i % 4} organ{i}" for i in range(30)]
    question = "word3 with word2 of organ9"
    dense = np.random.default_rng(0).normal(size=30)
    index = build_report_index({f"{i:09d}": text for i, text in enumerate(documents)})
    ranker = DenseRanking(dense)
    usual = UsualScores.of(ranker, np.arange(30))
    ranking = HybridRanking(ranker, ReportScores(Query(question), index), OneFrameStudies(), None, usual)
    expected = ranking.scores(range(30))
    mine = fused(dense[None], bm25_scores([question], documents))[0]
    assert mine.tolist() == pytest.approx([expected[i] for i in range(30)], abs=1e-6)
    unmatched = fused(dense[None], bm25_scores(["nothing alike"], documents))[0]
    assert unmatched.argsort().tolist() == dense.argsort().tolist()


def test_a_calibration_is_judged_beside_the_scores_on_patients_it_has_not_seen() -> None:
    labels = LabelSet.model_validate(
        {"name": "two", "kind": "exclusive", "labels": [{"name": n, "prompts": [n]} for n in ("ct", "mr")]}
    )
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    images = unit(np.eye(DIM)[truth] + rng.normal(size=(400, DIM)))
    encoder = Scaled(said={"ct": np.eye(DIM)[0], "mr": np.eye(DIM)[1]})
    patients = [f"p{i // 2}" for i in range(400)]
    known = LabelledRows(images[:200], truth[:200], patients[:200], "truth.csv", "0" * 64)
    spec = encoder.spec.to_json()
    kept = fit_calibration(ZeroShotClassifier(labels, encoder, encoder.logit_scale), known, spec)
    rows = replace(made([["t"]] * 400, fields={"kind": tuple(labels.names[i] for i in truth)}), groups=tuple(patients))
    settings = {"label_sets": [(labels, "kind")], "retrieval": False, "options": Options(resamples=9)}
    found = evaluate(rows, encoder, images, calibrations={labels.fingerprint: kept}, **settings).zero_shot[0].calibrated
    assert found is not None and found.rows == 200
    ece = {by: estimates["ECE"].value for by, estimates in found.estimates.items()}
    assert ece["calibrated"] < 0.1 < ece["medlens"] == ece["plain softmax"]
    own = evaluate(
        replace(rows, groups=("p0",) * 400), encoder, images, calibrations={labels.fingerprint: kept}, **settings
    )
    assert own.zero_shot[0].calibrated is not None and own.zero_shot[0].calibrated.estimates == {}
    assert any("only 0 of 400 images" in note for note in own.notes)
