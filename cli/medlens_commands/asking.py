"""search, describe, render: questions to a store, and what the encoder sees of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands.common import (
    DEFAULT_STORE,
    BodyPartOption,
    CohortOption,
    CopyOption,
    DeviceOption,
    FormatOption,
    KOption,
    ModalityOption,
    ModelOption,
    StoreOption,
    WhereOption,
    answering,
    destination,
    open_store,
    pass_on,
    selection,
    usage,
)
from cli.medlens_output import Format, require_suffixes, write_rows

FrameOption = Annotated[int, typer.Option("--frame", min=1, help="Frame number, from 1.")]


def register(app: typer.Typer) -> None:
    app.command()(search)
    app.command()(describe)
    app.command()(render)


def search(
    query: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="More words to look for; repeatable.")] = None,
    image: Annotated[
        list[Path] | None, typer.Option("--image", help="An image to look for: DICOM, PNG or JPEG; repeatable.")
    ] = None,
    frame: Annotated[
        list[int] | None,
        typer.Option(help="Frame number, from 1, of the image; repeatable: of the first image, the second ..."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--not", help="Words that the answers should not be like; repeatable.")
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(help="NAME=NUMBER: how much a part counts (text, text2, image, not ...), if not 1; repeatable."),
    ] = None,
    fusion: Annotated[
        str, typer.Option(help="How parts become one score: embedding, average, sum, max or rrf.")
    ] = "embedding",
    ranker: Annotated[
        str | None,
        typer.Option(help="dense (pictures), text (reports) or hybrid. Default: hybrid if there are reports."),
    ] = None,
    level: Annotated[str, typer.Option(help="What an answer is: frame, instance, series or study.")] = "frame",
    pooling: Annotated[
        str, typer.Option(help="The score of a series or study: its best frame (max), mean of its best, or late.")
    ] = "max",
    best: Annotated[int, typer.Option(help="Of how many frames the mean is taken.")] = 3,
    one_per: Annotated[str | None, typer.Option(help="At most one answer per patient, study or series.")] = None,
    exclude_same_patient: Annotated[
        bool, typer.Option("--exclude-same-patient", help="No answers of the patient whose image is in the query.")
    ] = False,
    fold: Annotated[
        float | None, typer.Option(help="Fold answers whose similarity to a better one is at least this: 0.99.")
    ] = None,
    literal: Annotated[
        bool, typer.Option("--literal", help='Take "no", "without", "left" and "right" as words, not as conditions.')
    ] = False,
    k: KOption = 10,
    offset: Annotated[int, typer.Option(help="Skip so many answers: the next page.")] = 0,
    depth: Annotated[int, typer.Option(help="How far rrf and hybrid look into each ranking.")] = 1000,
    where: WhereOption = None,
    modality: ModalityOption = None,
    body_part: BodyPartOption = None,
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    style: FormatOption = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write here instead of to stdout.")] = None,
    montage: Annotated[Path | None, typer.Option(help="Also write a contact sheet of the hits: .png.")] = None,
    cohort: CohortOption = None,
    copy_to: CopyOption = None,
) -> None:
    """Find frames, series or studies by words, by images, or by both, and by what they should not be like."""
    from cli.medlens_asking import SPARE_COLUMNS, hit_columns, hit_rows
    from cli.medlens_searching import parts_of
    from indexer.store.questions import StoreEncoder
    from retrieval.search.query import Fusion, Holder, Level, Pooling, Query, Ranker, choice

    with answering(style, pages=True) as chosen, destination(output) as out:
        only = selection(where, modality, body_part)
        with usage(style):
            require_suffixes(montage=montage, cohort=cohort)
            asked = Query(
                parts_of(query, text or [], image or [], without or [], weight or [], frame or []),
                fusion=choice(Fusion, fusion, "fusion"),
                ranker=choice(Ranker, ranker, "ranker") if ranker is not None else None,
                where=only,
                level=choice(Level, level, "level"),
                pooling=choice(Pooling, pooling, "pooling"),
                best=best,
                one_per=choice(Holder, one_per, "one-per") if one_per is not None else None,
                exclude_same_patient=exclude_same_patient,
                fold=fold,
                k=k,
                offset=offset,
                depth=depth,
                literal=literal,
            )
        with open_store(store) as opened:
            encoder = StoreEncoder(opened, model, device)
            results = opened.search(asked, encoder=encoder)
            head = {"query": results.query, "where": where, "model": results.model, "ranker": results.ranker}
            head |= {"score": results.score, "searched": results.searched}
            for note in results.notes:
                typer.echo(note, err=True)
            pass_on([hit.attributes for hit in results.hits], cohort, copy_to, head)
            if montage is not None and not results.hits:
                typer.echo(f"no hits: {montage.name} is not written", err=True)
            elif montage is not None:
                from cli.medlens_answers import write_montage

                write_montage(opened, results, montage)
            if chosen is Format.HTML:
                from cli.medlens_answers import html_page

                wanted = [part.text for part in asked.texts if part.weight > 0]
                out.write(html_page(opened, results, encoder.encode_text(wanted) if wanted else None))
                return
        rows = hit_rows(results, short=chosen is Format.TABLE)
        write_rows(rows, chosen, head=head, out=out, columns=hit_columns(), spare=SPARE_COLUMNS)


def describe(
    image: Annotated[Path, typer.Argument(help="A DICOM file, PNG or JPEG.")],
    frame: FrameOption = 1,
    k: KOption = 5,
    phrases: Annotated[
        Path | None, typer.Option(help="Match against the lines of this file instead of the reports.")
    ] = None,
    borrow: Annotated[
        int, typer.Option(min=0, help="Also a sentence of each of so many studies that look most like the image.")
    ] = 0,
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    style: FormatOption = None,
) -> None:
    """Image to text: the nearest sentences of the store's reports. They are other patients' words, not a diagnosis."""
    from cli.medlens_searching import sentence_row, sentences_for
    from retrieval.search.query import ImagePart

    with answering(style) as chosen, open_store(store) as opened:
        hits = sentences_for(opened, model, device, ImagePart(image, frame_number=frame), k, phrases, borrow)
        short = chosen is Format.TABLE
        rows = [sentence_row(hit, short=short, phrases=phrases is not None) for hit in hits]
        write_rows(rows, chosen, head={"image": image.name, "model": opened.model["name"]})


def render(
    file: Annotated[Path, typer.Argument(help="A DICOM file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture to write: .png or .jpg.")],
    frame: FrameOption = 1,
    window: Annotated[
        str | None, typer.Option(help="lung, soft tissue, bone, brain, stroke, or one of the file's own.")
    ] = None,
    model: ModelOption = None,
) -> None:
    """Write what the encoder sees of a file: the first thing to look at when a result seems odd."""
    from cli.medlens_asking import picture_kind, render_file

    with answering(None):
        with usage(None):
            kind = picture_kind(output)
        render_file(file, output, kind, frame, window, model)
