"""The report: one self-contained page with tables and plots, and the figures as JSON beside it."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Mapping, Sequence

from retrieval.evaluation import plots
from retrieval.evaluation.evaluate import Comparison, Evaluation, RetrievalResult
from retrieval.evaluation.label_sets import ZeroShot
from retrieval.evaluation.results import SHOWN, document, held_out_rows, one_figure, signed, with_interval, wording_rows
from retrieval.evaluation.zero_shot import ACCURACY, AUROC, BINS
from retrieval.neutral import neutral, neutral_values
from retrieval.statistics.bootstrap import Estimate

METRICS, REPORT = "metrics.json", "report.html"
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 74rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; } h3 { font-size: 1rem; }
p.about, .small { color: #555; font-size: .9rem; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; vertical-align: bottom; }
td small { color: #666; } .plots { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.plots img { max-width: 100%; } li { margin: .2rem 0; } .differs { font-weight: 600; }
"""


def report_files(evaluation: Evaluation, comparison: Comparison | None = None) -> dict[str, str]:
    """The contents of metrics.json and report.html, by file name. Raises EvaluationError without matplotlib."""
    plots.require_matplotlib()
    figures = neutral_values(document(evaluation, comparison))
    text = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
    return {METRICS: text, REPORT: report_page(evaluation, comparison)}


def report_page(evaluation: Evaluation, comparison: Comparison | None = None) -> str:
    """The whole page, which loads nothing from elsewhere."""
    rows = evaluation.rows
    title = f"{evaluation.model} on {rows.name}"
    against = f" against {comparison.second.model}" if comparison else ""
    facts = ", ".join(
        f"{name.replace('_', ' ')} {str(value)[: 16 if name == 'sha256' else None]}"
        for name, value in rows.facts.items()
        if value not in (None, "", 0)
    )
    sections = [
        f"<h1>{_text(title + against)}</h1>",
        f'<p class="about">{len(rows)} images of {len(set(rows.groups))} patients or cases; {_text(facts)}.</p>',
        _summary(evaluation),
        *(_notes(evaluation.notes)),
    ]
    if comparison:
        sections += _comparison(comparison)
    sections += _retrieval(evaluation)
    for found in evaluation.zero_shot:
        sections += _zero_shot(found)
    sections += _wordings(evaluation)
    sections.append(_how_to_read(evaluation))
    body = "\n".join(sections)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="medlens evaluation">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>medlens: {_text(title)}</title><style>{_STYLE}</style></head>
<body>
{body}
</body></html>
"""


def _summary(evaluation: Evaluation) -> str:
    lines = []
    for result in evaluation.retrieval:
        found = result.estimates["R@10"]
        verdict = "above" if found.low > found.chance else "not clearly above"
        lines.append(
            f"{result.name}, {result.ranker}: the right answer is among the first 10 of {result.direction.gallery} for "
            f"{with_interval('R@10', found)} of the queries, {verdict} a random ranking."
        )
    for zero in evaluation.zero_shot:
        if ACCURACY in zero.estimates:
            right = with_interval(ACCURACY, zero.estimates[ACCURACY])
            lines.append(f"zero-shot {zero.labels.name}: {right} of the answers are right.")
        else:
            lines.append(f"zero-shot {zero.labels.name}: macro AUROC {with_interval(AUROC, zero.estimates[AUROC])}.")
    return _list(lines)


def _notes(notes: Sequence[str]) -> list[str]:
    return ["<h2>Notes</h2>", _list(notes)] if notes else []


def _retrieval(evaluation: Evaluation) -> list[str]:
    out = []
    for name in dict.fromkeys(result.name for result in evaluation.retrieval):
        results = [result for result in evaluation.retrieval if result.name == name]
        first = results[0].direction
        out.append(f"<h2>Retrieval: {name}</h2>")
        out.append(f'<p class="small">{first.queries} queries, each against the whole gallery of {first.gallery}.</p>')
        out.append(_retrieval_table(results))
        curves, ranks = f"{name}: recall", f"{name}, {results[0].ranker}: ranks"
        out.append(
            _pictures({curves: plots.recall_curves(curves, results), ranks: plots.rank_histogram(ranks, results[0])})
        )
    return out


def _retrieval_table(results: Sequence[RetrievalResult]) -> str:
    figures = [name for name in SHOWN if name in results[0].estimates]
    head = ["figure", *(result.ranker for result in results), "random ranking", "shuffled pairs"]
    rows = []
    for name in figures:
        control = results[0].control.get(name)
        shuffled = f"{one_figure(name, control.least)} to {one_figure(name, control.greatest)}" if control else ""
        own = [_marked(name, result.estimates[name]) for result in results]
        rows.append([name, *own, one_figure(name, results[0].estimates[name].chance), shuffled])
    return _table(head, rows)


def _zero_shot(found: ZeroShot) -> list[str]:
    name = _text(found.labels.name)
    rows = []
    for figure, value in found.estimates.items():
        phrased = found.phrasings.get(figure)
        spread = f"{one_figure(figure, phrased.least)} to {one_figure(figure, phrased.greatest)}" if phrased else ""
        plain = _marked(figure, found.plain_estimates[figure])
        rows.append([figure, _marked(figure, value), plain, spread, one_figure(figure, value.chance)])
    labels = [
        [
            _text(one.label),
            str(one.rows),
            "" if one.answered is None else str(one.answered),
            one_figure("recall", one.recall),
            one_figure("precision", one.precision),
            _marked("macro AUROC", one.auroc) if one.auroc else "not defined",
        ]
        for one in found.per_label
    ]
    held_out: list[str] = []
    if found.calibrated and found.calibrated.estimates:
        table = held_out_rows(found.calibrated)
        held_out = [
            f'<p class="small">{found.calibrated.rows} images of patients that the calibration (on '
            f"{_text(found.calibrated.calibrated_on)}) has not seen.</p>",
            _table([*table[0]], [[*map(str, row.values())] for row in table]),
        ]
    changed, pictures = "", {}
    if found.changed is not None:
        changed = f"With one prompt per label instead of all, {100 * found.changed:.1f} % of the answers change."
    if found.confusion is not None:
        title = f"{found.labels.name}: {found.rows} images"
        pictures[title] = plots.confusion_matrix(title, found.labels.names, found.confusion)
    pictures[f"{found.labels.name}: reliability"] = plots.reliability_diagram(found)
    return [
        f"<h2>Zero-shot: {name}</h2>",
        f'<p class="small">{found.rows} images; ground truth: the field {_text(repr(found.truth))}. {changed}</p>',
        _table(["figure", "prompts of the set", "plain softmax", "single phrasings", "guessing"], rows),
        *held_out,
        _table(["label", "images", "answers", "recall", "precision", "AUROC"], labels),
        _pictures(pictures),
    ]


def _wordings(evaluation: Evaluation) -> list[str]:
    if not evaluation.wordings:
        return []
    rows = wording_rows(evaluation)
    return [
        "<h2>One changed word</h2>",
        '<p class="small">The share of sentences that lie nearer to their image than the same sentence with left and '
        "right exchanged, or with its first finding negated. Taken apart: embedded as search does it.</p>",
        _table([*rows[0]], [["" if value is None else str(value) for value in row.values()] for row in rows]),
    ]


def _comparison(comparison: Comparison) -> list[str]:
    first, second = _text(comparison.first.model), _text(comparison.second.model)
    out = [f"<h2>{second} minus {first}</h2>"]
    out.append('<p class="small">Paired over the same patients. Bold: the interval excludes 0.</p>')
    pictures = {}
    for task, figures in comparison.differences.items():
        shown = {name: d for name, d in figures.items() if not name.startswith("R@") or name in SHOWN}
        rows = []
        for name, d in shown.items():
            words = f"{signed(name, d.value)} <small>({signed(name, d.low)} to {signed(name, d.high)})</small>"
            words = f'<span class="differs">{words}</span>' if d.differs else words
            rows.append([name, one_figure(name, d.first), one_figure(name, d.second), words])
        out += [f"<h3>{_text(task)}</h3>", _table(["figure", first, second, "difference"], rows)]
        bounded = {name: d for name, d in shown.items() if name != "median rank"}  # it has another unit
        pictures[task] = plots.difference_plot(task, bounded)
    return [*out, _pictures(pictures)]


def _how_to_read(evaluation: Evaluation) -> str:
    lines = [
        f"In brackets: the 95 % interval, a percentile bootstrap over patients or cases "
        f"({evaluation.options.resamples} resamples). The queries are resampled, the gallery stays.",
        "R@k: the share of queries with a right answer among the first k. Equal texts are one entry of the gallery, "
        "and every image with that text is right. MRR: mean reciprocal rank of the first right answer. mAP: mean "
        "average precision over all right answers.",
        "nDCG@10: the gain is the share of known labels in which query and answer agree, so an answer of the right "
        "kind counts although it is not the exact one.",
        "Equal scores have no order: figures are the expectation over all orders of tied items.",
        "Random ranking: the exact expectation. Shuffled pairs: the same scores with randomly assigned texts, the "
        "least and greatest of several runs. They should lie around the random ranking; otherwise something leaks.",
        "Plain softmax: the labels' bare names as prompts. ECE: expected calibration error, "
        f"{BINS} equal bins; its value under guessing is that of a perfectly calibrated model on as few rows.",
        "The figures are valid for these rows. Other hospitals, devices and patients give other figures.",
    ]
    return "<h2>How to read it</h2>" + _list(lines)


def _marked(name: str, value: Estimate) -> str:
    """The figure, with its interval in small letters."""
    figure, _, rest = with_interval(name, value).partition(" (")
    return f"{figure} <small>({rest}</small>" if rest else figure


def _text(text: str) -> str:
    """The text as HTML: neutral and escaped."""
    return html.escape(neutral(text))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def cells(tag: str, values: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{value}</{tag}>" for value in values) + "</tr>"

    return "<table>" + cells("th", head) + "".join(cells("td", row) for row in rows) + "</table>"


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _pictures(svgs: Mapping[str, str]) -> str:
    """The plots, by what they show."""
    images = []
    for name, svg in svgs.items():
        data = base64.b64encode(svg.encode()).decode("ascii")
        images.append(f'<img alt="{_text(name)}" src="data:image/svg+xml;base64,{data}">')
    return '<div class="plots">' + "".join(images) + "</div>"
