"""The command `search`: find frames, series or studies.

Modules are imported where they are used, so that a search in words starts within a third of a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.medlens_commands._errors import reporting_errors, usage
from cli.medlens_commands._instances import cohort_output, pass_on
from cli.medlens_commands._options import (
    DEFAULT_STORE,
    BodyPartOption,
    CohortOption,
    CopyOption,
    DeviceOption,
    ForceOption,
    FormatOption,
    KOption,
    ModalityOption,
    ModelOption,
    NoBurnedInOption,
    OutputOption,
    StoreOption,
    WhereOption,
    filter_of,
    open_store,
)
from cli.medlens_output.files import destination, require_suffix, rows_format
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.lines import say

_HEAD = ("query", "understood", "where", "model", "ranker", "score")  # of the results in JSON, in this order


def search(
    query: Annotated[str | None, typer.Argument(help="What to search for, in words.")] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="More words to search for. Repeat the option to add several texts."),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like",
            "--image",
            metavar="REF",
            help="An example image to search for: a file, the ref of a search result, or a SOP Instance "
            "UID (UID#FRAME). Repeat the option to add several images.",
        ),
    ] = None,
    frame: Annotated[
        list[int] | None,
        typer.Option(
            help="The frame of the example image to use, counted from 1. Repeat the option for a second "
            "image, a third, and so on."
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--not", help="Words that results should not resemble. Repeat the option to add several texts."),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            help="How much one part of the query counts, as NAME=NUMBER. The parts are named text, text2, "
            "image, image2, not and so on. Default: 1. Repeat the option for several parts."
        ),
    ] = None,
    fusion: Annotated[
        str, typer.Option(help="How the parts of the query become one score: embedding, average, sum, max or rrf.")
    ] = "embedding",
    ranker: Annotated[
        str | None,
        typer.Option(
            help="What is compared: dense (pictures), text (words of reports) or hybrid (both). Default: "
            "hybrid if the store has reports, else dense."
        ),
    ] = None,
    level: Annotated[
        str, typer.Option(help="What one result is: a frame, an instance, a series or a study.")
    ] = "frame",
    pooling: Annotated[
        str,
        typer.Option(
            help="How a series or study is scored from its frames: max (the best frame), mean (the mean "
            "of the best --best frames) or late."
        ),
    ] = "max",
    best: Annotated[int, typer.Option(help="The number of frames that --pooling mean averages.")] = 3,
    one_per: Annotated[str | None, typer.Option(help="At most one result per patient, study or series.")] = None,
    exclude_same_patient: Annotated[
        bool,
        typer.Option("--exclude-same-patient", help="Leave out results of the patient whose image is in the query."),
    ] = False,
    fold: Annotated[
        float | None,
        typer.Option(
            help="Hide a result whose similarity to a better result is at least this number, such as "
            "0.99. The better result says how many it hides."
        ),
    ] = None,
    literal: Annotated[
        bool,
        typer.Option(
            "--literal",
            help='Read all words as plain words. Otherwise "no" and "left" are conditions on the results, and '
            '"chest x-ray" prefers images whose header says so.',
        ),
    ] = False,
    k: KOption = 10,
    offset: Annotated[int, typer.Option(help="Skip this many results, to get the next page.")] = 0,
    depth: Annotated[int, typer.Option(help="How many results of each ranking rrf combines.")] = 1000,
    where: WhereOption = None,
    modality: ModalityOption = None,
    body_part: BodyPartOption = None,
    no_burned_in: NoBurnedInOption = False,
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    style: FormatOption = None,
    output: OutputOption = None,
    montage: Annotated[Path | None, typer.Option(help="Also write a contact sheet of the results: .png.")] = None,
    cohort: CohortOption = None,
    copy_to: CopyOption = None,
    force: ForceOption = False,
) -> None:
    """Find frames, series or studies by words, by example images, or by both."""
    from cli.medlens_output.hits import SPARE_COLUMNS, hit_columns, hit_rows
    from indexer.output_formats import picture
    from indexer.outputs import Output, require_folder, require_not_of_archive, require_outputs
    from indexer.store.own_model import StoreEncoder
    from retrieval.search.parts import query_parts
    from retrieval.search.query import Fusion, Level, OnePer, Pooling, Query, Ranker, choice
    from retrieval.search.refs import parse_ref

    with reporting_errors(style, pages=True) as chosen:
        only = filter_of(where, modality, body_part, no_burned_in)
        with usage(style):
            require_suffix("montage", montage, ".png")
            members = cohort_output(cohort, _HEAD, force)
            asked = Query(
                query_parts(
                    ([query] if query is not None else []) + (text or []),
                    [parse_ref(ref) for ref in like or []],
                    not_like=without or [],
                    weights=weight or [],
                    frame_numbers=frame or [],
                ),
                fusion=choice(Fusion, fusion, "fusion"),
                ranker=choice(Ranker, ranker, "ranker") if ranker is not None else None,
                where=only,
                level=choice(Level, level, "level"),
                pooling=choice(Pooling, pooling, "pooling"),
                best=best,
                one_per=choice(OnePer, one_per, "one-per") if one_per is not None else None,
                exclude_same_patient=exclude_same_patient,
                fold=fold,
                k=k,
                offset=offset,
                depth=depth,
                literal=literal,
            )
        answers = sheet = None
        if output is not None:
            answers = Output(output, rows_format("hits", chosen, hit_columns(), _HEAD), force)
        if montage is not None:
            sheet = Output(montage, picture("a montage", "montage"), force)
        require_outputs(answers, sheet, members)
        if copy_to is not None:
            require_folder(copy_to)
        with open_store(store) as opened, destination(answers) as out:
            require_not_of_archive(opened, answers, sheet, members)
            encoder = StoreEncoder(opened, model, device)
            results = opened.search(asked, encoder=encoder)
            head: dict[str, Any] = {
                "query": results.query,
                "understood": results.understood,
                "where": where,
                "model": results.model,
                "ranker": results.ranker,
                "score": results.score,
                "searched": results.searched,
                "good_match": results.good_match,
                "notes": results.notes,
            }
            if chosen is Format.TABLE:  # the head of a table is one line; the terminal shows these above it
                for name in ("understood", "good_match", "notes"):
                    del head[name]
            for note in (results.understood, *results.notes):
                say(note, err=True)
            pass_on([hit.attributes for hit in results.hits], members, copy_to, head)
            if sheet is not None and not results.hits:
                say(f"no results, so {sheet.path.name} was not written", err=True)
            elif sheet is not None:
                from cli.medlens_output.montage import write_montage

                write_montage(opened, results, sheet)
            if chosen is Format.HTML:
                from cli.medlens_output.page import html_page
                from retrieval.search.long_texts import encode_whole

                wanted = [part.text for part in asked.texts if part.weight > 0]
                out.write(html_page(opened, results, encode_whole(encoder, wanted)[0] if wanted else None))
                return
            rows = hit_rows(results, short=chosen is Format.TABLE)
            write_rows(rows, chosen, head=head, out=out, columns=hit_columns(), spare=SPARE_COLUMNS)
