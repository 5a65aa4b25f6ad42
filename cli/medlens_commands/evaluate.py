"""evaluate: how good a model is, with intervals and chance."""

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
        typer.Argument(help="A pairs file, or the folder that holds one. Default: the store and its own reports."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Which rows of a pairs file; all for every one. Default: dev.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="The field of a pairs file with an image's own words. Default: text.")
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(help="A field with another text about the image: it asks, BM25 on --text is set beside."),
    ] = None,
    ranker: Annotated[
        list[str] | None, typer.Option(help="Who answers --query: dense, text or hybrid; repeatable. Default: all.")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels", help="A label set to judge, SET or SET=FIELD (the field that says the truth); repeatable."
        ),
    ] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            help="What `medlens calibrate` wrote, to judge its probabilities, too; repeatable. Default: the "
            "store's own."
        ),
    ] = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="Judge the labels only, no retrieval.")] = False,
    trained_on: Annotated[
        list[Path] | None,
        typer.Option(help="A pairs file that the model was trained on, to look for leaks; repeatable."),
    ] = None,
    compare: Annotated[str | None, typer.Option(help="A second model, judged on the same rows.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A folder for metrics.json and report.html.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="At most so many images, drawn by whole patients.")] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and of --limit.")] = 0,
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    style: FormatOption = None,
    force: ForceOption = False,
) -> None:
    """How good is a model? Retrieval over a whole gallery, both ways, and zero-shot labels, with 95 % intervals."""
    from indexer.tasks.evaluating import EvaluationSettings, evaluate_pairs, evaluate_store
    from retrieval.evaluation.results import difference_rows, document, figure_rows, tables

    with reporting_errors(style) as chosen:
        of_pairs = {"--split": split, "--text": text, "--query": query, "--trained-on": trained_on}
        given = [name for name, value in of_pairs.items() if value]
        with usage(style):
            if pairs is None and given:
                raise QueryError(
                    f"{', '.join(given)}: an option for a pairs file, and none was named",
                    hint="A store is judged by its own reports; a pairs file is the argument.",
                )
        settings = EvaluationSettings(
            labels=tuple(labels or ()),
            calibrations=tuple(calibration or ()),
            rankers=tuple(ranker or ()),
            retrieval=not zero_shot,
            compare=compare,
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
            say(f"The report is {output.name}/report.html, the figures are in metrics.json beside it.", err=True)
