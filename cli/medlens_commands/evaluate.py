"""The command `evaluate`: how good a model is, with intervals and the level of chance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors, usage
from cli.medlens_commands._options import (
    DEFAULT_STORE,
    DeviceOption,
    ForceOption,
    FormatOption,
    ModelOption,
    StoreOption,
    open_store,
)
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.lines import say
from cli.medlens_output.progress import progress_bar
from retrieval.errors import QueryError


def evaluate(
    pairs: Annotated[
        Path | None,
        typer.Argument(help="A pairs file, or the folder that holds one. Default: the store with its own reports."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The rows of the pairs file to use: train, dev, or all. Default: dev.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(help="The field of the pairs file with the text that belongs to the image. Default: text."),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(
            help="A field of the pairs file with another text about the image. It is used as the query, "
            "and the model is compared with BM25 on the --text field."
        ),
    ] = None,
    ranker: Annotated[
        list[str] | None,
        typer.Option(
            help="The ranker to evaluate with --query: dense, text or hybrid. Repeat the option for "
            "several. Default: all three."
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels",
            help="A label set to evaluate, as SET or SET=FIELD, where FIELD holds the true label. Repeat "
            "the option for several.",
        ),
    ] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            help="A calibration file of `medlens calibrate` whose probabilities are evaluated too. Repeat "
            "the option for several. Default: the calibrations of the store."
        ),
    ] = None,
    zero_shot: Annotated[
        bool, typer.Option("--zero-shot", help="Evaluate only the zero-shot labels, not retrieval.")
    ] = False,
    trained_on: Annotated[
        list[Path] | None,
        typer.Option(
            help="A pairs file that the model was trained on. Its rows are compared with the evaluated "
            "rows to find leaks. Repeat the option for several."
        ),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(help="A second model to evaluate on the same rows and compare with the first.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, so that figures are the same on every machine; bf16; auto, as indexing chooses.")
    ] = "fp32",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write metrics.json and report.html to this folder.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Use at most this many images, drawn as whole patients. Default: all rows of a pairs "
            "file, 5000 frames of a store.",
        ),
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="The number of bootstrap resamples for the intervals.")] = 2000,
    seed: Annotated[int, typer.Option(help="Random seed for the bootstrap and for --limit.")] = 0,
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    style: FormatOption = None,
    force: ForceOption = False,
) -> None:
    """Measure how good a model is: retrieval in both directions over a whole gallery, and zero-shot labels.

    Every figure has a 95 % interval and the figure that guessing would give.
    """
    from indexer.tasks.evaluating import EvaluationSettings, evaluate_pairs, evaluate_store
    from retrieval.evaluation.results import difference_rows, document, figure_rows, tables

    with reporting_errors(style) as chosen:
        of_pairs = {"--split": split, "--text": text, "--query": query, "--trained-on": trained_on}
        given = [name for name, value in of_pairs.items() if value]
        with usage(style):
            if pairs is None and given:
                raise QueryError(
                    f"{', '.join(given)} can only be used with a pairs file, and no pairs file was named",
                    hint="Name a pairs file as the argument. Without one, the store is evaluated by its own reports.",
                )
        settings = EvaluationSettings(
            labels=tuple(labels or ()),
            calibrations=tuple(calibration or ()),
            rankers=tuple(ranker or ()),
            retrieval=not zero_shot,
            compare=compare,
            precision=precision,
            limit=limit,
            resamples=resamples,
            seed=seed,
            report=output,
            force=force,
        )
        with progress_bar("evaluating") as update:

            def report_progress(what: str, done: int, total: int) -> None:
                update(done, total, what)

            if pairs is None:
                with open_store(store) as opened:
                    judged = evaluate_store(opened, settings, model=model, device=device, on_progress=report_progress)
            else:
                judged = evaluate_pairs(
                    pairs,
                    settings,
                    model=model,
                    device=device,
                    split=split or "dev",
                    text=text or "text",
                    query=query,
                    trained_on=tuple(trained_on or ()),
                    on_progress=report_progress,
                )
        first, comparison = judged.evaluation, judged.comparison
        if chosen is Format.JSON:
            write_rows([document(first, comparison)], chosen)
            return
        if chosen is Format.TABLE:
            for title, rows in tables(first, comparison):
                say(title)
                write_rows(rows, chosen)
                say()
        else:
            write_rows(difference_rows(comparison) if comparison else figure_rows(first), chosen)
        for note in first.notes:
            say(f"medlens: {note}", err=True)
        if output and chosen is Format.TABLE:
            say(f"The report is {output.name}/report.html; its figures are in {output.name}/metrics.json.", err=True)
