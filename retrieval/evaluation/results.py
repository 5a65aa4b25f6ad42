"""Figures as plain values: rows for tables, and one JSON document for a file."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from retrieval.evaluation.evaluate import DENSE, Comparison, Evaluation, RetrievalResult
from retrieval.evaluation.label_sets import OWN, PLAIN, CalibratedFigures, ZeroShot
from retrieval.evaluation.retrieval import MEDIAN, RECALL_AT
from retrieval.evaluation.wording import AS_WRITTEN, TAKEN_APART, Wording
from retrieval.evaluation.zero_shot import AUROC, ECE
from retrieval.statistics.bootstrap import Difference, Estimate

JsonObject = dict[str, Any]
HELD_OUT = ", held out from the calibration"
SHOWN = (*(f"R@{k}" for k in RECALL_AT), "MRR", "mAP", "nDCG@10", MEDIAN)


def figure_rows(evaluation: Evaluation) -> list[JsonObject]:
    """One row per figure. Shares are 0 to 1; the median rank counts from 1."""
    rows = []
    for result in evaluation.retrieval:
        for name in (n for n in SHOWN if n in result.estimates):
            control = result.control.get(name)
            row = _row(result.name, result.ranker, name, result.estimates[name])
            rows.append(row | {"control": _number(control.mean) if control else None})
    for found in evaluation.zero_shot:
        task = f"zero-shot {found.labels.name}"
        for by, estimates in ((OWN, found.estimates), (PLAIN, found.plain_estimates)):
            rows += [_row(task, by, name, value) | {"control": None} for name, value in estimates.items()]
        for by, estimates in (found.calibrated.estimates if found.calibrated else {}).items():
            rows += [_row(task + HELD_OUT, by, name, value) | {"control": None} for name, value in estimates.items()]
    for one in evaluation.wordings:
        rows += [_row(one.name, DENSE, name, value) | {"control": None} for name, value in one.estimates.items()]
    return rows


def difference_rows(comparison: Comparison) -> list[JsonObject]:
    """One row per figure: both models, and the second minus the first."""
    rows = []
    for task, figures in comparison.differences.items():
        for name, d in figures.items():
            if not name.startswith("R@") or name in SHOWN:
                rows.append({"task": task, "figure": name} | _difference(d))
    return rows


def is_share(figure: str) -> bool:
    """Whether a figure is shown in percent."""
    return figure not in (MEDIAN, AUROC, ECE, "MRR", "mAP", "nDCG@10")


def tables(evaluation: Evaluation, comparison: Comparison | None = None) -> list[tuple[str, list[JsonObject]]]:
    """Tables for display: titles, and rows with formatted figures. For two models, the differences."""
    if comparison is not None:
        title = f"{comparison.second.model} minus {comparison.first.model}"
        return [(title, [_words(row) for row in difference_rows(comparison)])]
    out = []
    size = f"{len(evaluation.rows)} images of {len(set(evaluation.rows.groups))} patients or cases"
    for name in dict.fromkeys(result.name for result in evaluation.retrieval):
        results = [result for result in evaluation.retrieval if result.name == name]
        first = results[0]
        rows = []
        for figure in (n for n in SHOWN if n in first.estimates):
            row: JsonObject = {"figure": figure} | {
                result.ranker: with_interval(figure, result.estimates[figure]) for result in results
            }
            control = first.control.get(figure)
            row["chance"] = one_figure(figure, first.estimates[figure].chance)
            rows.append(row | {"shuffled pairs": one_figure(figure, control.mean) if control else None})
        queries, gallery = first.direction.queries, first.direction.gallery
        out.append((f"{evaluation.model}, {size}; {name}: {queries} queries, gallery of {gallery}", rows))
    for found in evaluation.zero_shot:
        rows = [
            {
                "figure": figure,
                "prompts of the set": with_interval(figure, value),
                "plain softmax": with_interval(figure, found.plain_estimates[figure]),
                "chance": one_figure(figure, value.chance),
            }
            for figure, value in found.estimates.items()
        ]
        title = f"{evaluation.model}; zero-shot {found.labels.name}"
        out.append((f"{title}: {found.rows} images", rows))
        if found.calibrated and found.calibrated.estimates:
            out.append((f"{title}{HELD_OUT}: {found.calibrated.rows} images", held_out_rows(found.calibrated)))
    if evaluation.wordings:
        out.append((f"{evaluation.model}; a sentence against itself with one thing changed", wording_rows(evaluation)))
    return out


def wording_rows(evaluation: Evaluation) -> list[JsonObject]:
    """One row per kind of change, one column per method of embedding the sentence."""
    return [
        {"changed": one.name, "sentences": one.sentences}
        | {
            name: with_interval(name, one.estimates[name]) if name in one.estimates else None
            for name in (AS_WRITTEN, TAKEN_APART)
        }
        | {"chance": one_figure(AS_WRITTEN, 0.5)}
        for one in evaluation.wordings
    ]


def held_out_rows(calibrated: CalibratedFigures) -> list[JsonObject]:
    """One row per figure, one column per method."""
    names = dict.fromkeys(name for estimates in calibrated.estimates.values() for name in estimates)
    return [
        {"figure": name} | {by: with_interval(name, found[name]) for by, found in calibrated.estimates.items()}
        for name in names
    ]


def with_interval(figure: str, value: Estimate) -> str:
    """`38.1 % (27.6 % to 50.6 %)`; without the interval if there is none."""
    if not math.isfinite(value.low):
        return one_figure(figure, value.value)
    return f"{one_figure(figure, value.value)} ({one_figure(figure, value.low)} to {one_figure(figure, value.high)})"


def one_figure(figure: str, value: float) -> str:
    """A number in the unit of its figure."""
    if not math.isfinite(value):
        return "none"
    if is_share(figure):
        return f"{100 * value:.1f} %"
    return f"{value:.1f}" if figure == MEDIAN else f"{value:.3f}"


def signed(figure: str, value: float) -> str:
    return ("+" if value > 0 else "") + one_figure(figure, value)


def document(evaluation: Evaluation, comparison: Comparison | None = None) -> JsonObject:
    """Everything except the single queries, as a JSON object. A figure without a value is null."""
    first = evaluation
    out: JsonObject = {
        "model": first.model,
        "rows": {
            "name": first.rows.name,
            "images": len(first.rows),
            "groups": len(set(first.rows.groups)),
            **first.rows.facts,
        },
        "options": asdict(first.options),
        "retrieval": [_retrieval_result(result) for result in first.retrieval],
        "zero_shot": [_zero_shot(found) for found in first.zero_shot],
        "wordings": [_wording(one) for one in first.wordings],
        "notes": first.notes,
    }
    if comparison is not None:
        out["compared_with"] = {
            "model": comparison.second.model,
            "retrieval": [_retrieval_result(result) for result in comparison.second.retrieval],
            "zero_shot": [_zero_shot(found) for found in comparison.second.zero_shot],
            "wordings": [_wording(one) for one in comparison.second.wordings],
            "differences": {
                task: {name: _difference(d) for name, d in figures.items()}
                for task, figures in comparison.differences.items()
            },
        }
    cleaned: JsonObject = _clean(out)
    return cleaned


def _retrieval_result(result: RetrievalResult) -> JsonObject:
    return {
        "task": result.name,
        "ranker": result.ranker,
        "queries": result.direction.queries,
        "gallery": result.direction.gallery,
        "figures": {name: asdict(value) for name, value in result.estimates.items()},
        "shuffled_control": {name: asdict(result.control[name]) for name in SHOWN if name in result.control},
    }


def _zero_shot(found: ZeroShot) -> JsonObject:
    return {
        "labels": found.labels.name,
        "kind": found.labels.kind,
        "truth": found.truth,
        "rows": found.rows,
        "figures": {name: asdict(value) for name, value in found.estimates.items()},
        "plain_softmax": {name: asdict(value) for name, value in found.plain_estimates.items()},
        "single_phrasings": {name: asdict(value) for name, value in found.phrasings.items()},
        "answers_changed_by_phrasing": found.changed,
        "per_label": [asdict(figures) for figures in found.per_label],
        "confusion": None if found.confusion is None else found.confusion.tolist(),
        "reliability": [asdict(one) for one in found.reliability],
        "plain_reliability": [asdict(one) for one in found.plain_reliability],
        "calibrated": None if found.calibrated is None else asdict(found.calibrated),
    }


def _wording(one: Wording) -> JsonObject:
    figures = {name: asdict(value) for name, value in one.estimates.items()}
    return {"changed": one.name, "sentences": one.sentences, "figures": figures}


def _row(task: str, by: str, name: str, value: Estimate) -> JsonObject:
    return {"task": task, "by": by, "figure": name} | {k: _number(v) for k, v in asdict(value).items()}


def _difference(d: Difference) -> JsonObject:
    return {k: _number(v) for k, v in asdict(d).items()}


def _words(row: JsonObject) -> JsonObject:
    name = row["figure"]
    if row["low"] is None:
        difference = signed(name, row["value"])
    else:
        difference = f"{signed(name, row['value'])} ({signed(name, row['low'])} to {signed(name, row['high'])})"
    first, second = (one_figure(name, row[k]) for k in ("first", "second"))
    return {"task": row["task"], "figure": name, "first": first, "second": second, "difference": difference}


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    return _number(value) if isinstance(value, float) else value
