"""The command `describe`: from an image to text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors
from cli.medlens_commands._options import (
    DEFAULT_STORE,
    DeviceOption,
    FormatOption,
    FrameOption,
    KOption,
    ModelOption,
    StoreOption,
    open_store,
)
from cli.medlens_output.formats import Format, write_rows


def describe(
    image: Annotated[
        str,
        typer.Argument(
            metavar="REF",
            help="The image: a file (DICOM, PNG or JPEG), the ref of a search result, or a SOP Instance UID.",
        ),
    ],
    frame: FrameOption = 1,
    k: KOption = 5,
    phrases: Annotated[
        Path | None,
        typer.Option(
            help="Compare the image with the lines of this text file instead of the sentences of the reports."
        ),
    ] = None,
    borrow: Annotated[
        int,
        typer.Option(
            min=0,
            help="Also show the nearest sentence from the reports of this many studies whose images look most alike.",
        ),
    ] = 0,
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    style: FormatOption = None,
) -> None:
    """Show the report sentences of a store that are nearest to an image.

    The sentences were written about other patients. They are not a diagnosis.
    """
    from cli.medlens_output.hits import sentence_row
    from indexer.store.own_model import StoreEncoder
    from retrieval.search.describe import read_phrases
    from retrieval.search.query import ImagePart
    from retrieval.search.refs import parse_ref

    with reporting_errors(style) as chosen, open_store(store) as opened:
        ref = parse_ref(image)
        hits = opened.describe(
            ImagePart(ref, frame_number=frame),
            k=k,
            phrases=read_phrases(phrases) if phrases is not None else (),
            borrow=borrow,
            encoder=StoreEncoder(opened, model, device),
        )
        short = chosen is Format.TABLE
        rows = [sentence_row(hit, short=short, phrases=phrases is not None) for hit in hits]
        write_rows(
            rows, chosen, head={"image": ref.name if isinstance(ref, Path) else str(ref), "model": opened.model["name"]}
        )
