"""The command `render`: write the picture that the model sees."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands._errors import reporting_errors, usage
from cli.medlens_commands._options import DEFAULT_STORE, ForceOption, FrameOption, ModelOption, StoreOption, open_store
from cli.medlens_output.lines import say
from retrieval.errors import QueryError

_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def render(
    image: Annotated[
        str,
        typer.Argument(
            metavar="REF",
            help="The image: a file (DICOM, PNG or JPEG), the ref of a search result, or a SOP Instance UID.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture file to write: .png or .jpg.")],
    frame: FrameOption = 1,
    window: Annotated[
        str | None,
        typer.Option(
            help="The display window: lung, soft tissue, bone, brain, stroke, or the name of a window in "
            "the file. Default: the window of the model."
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    force: ForceOption = False,
) -> None:
    """Write an image as the model sees it. Use this first when a result looks wrong."""
    with reporting_errors(None):
        with usage(None):
            if output.suffix.lower() not in _KINDS:
                raise QueryError(f"the output file ends in {output.suffix!r}; expected .png or .jpg")
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        from indexer.output_formats import picture
        from indexer.outputs import Output
        from indexer.tasks.rendering import render_file, render_stored
        from retrieval.search.refs import parse_ref

        rendered = Output(output, picture("a picture", "render"), force)
        rendered.require()
        ref = parse_ref(image)
        if isinstance(ref, Path):
            pixels = render_file(ref, frame_number=frame, window=window, model=model, warn=_warn)
        else:
            with open_store(store) as opened:
                rendered.require_not_of_archive(opened)
                pixels = render_stored(opened, ref, window=window, warn=_warn)
        mark = PngInfo()
        mark.add_text("Software", "medlens render")
        with rendered.whole() as temporary:
            kind = _KINDS[output.suffix.lower()]
            Image.fromarray(pixels).save(temporary, kind, pnginfo=mark, comment=b"medlens render")


def _warn(message: str) -> None:
    say(f"medlens: {message}", err=True)
