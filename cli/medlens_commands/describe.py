"""describe: image to text."""

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
        str, typer.Argument(metavar="REF", help="A file (DICOM, PNG or JPEG), a hit's ref, or a SOP Instance UID.")
    ],
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
