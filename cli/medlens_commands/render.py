"""render: what the encoder sees of a file, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.medlens_commands._errors import answering, usage
from cli.medlens_commands._options import ForceOption, FrameOption, ModelOption
from retrieval.errors import QueryError

_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def render(
    file: Annotated[Path, typer.Argument(help="A DICOM file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture to write: .png or .jpg.")],
    frame: FrameOption = 1,
    window: Annotated[
        str | None, typer.Option(help="lung, soft tissue, bone, brain, stroke, or one of the file's own.")
    ] = None,
    model: ModelOption = None,
    force: ForceOption = False,
) -> None:
    """Write what the encoder sees of a file: the first thing to look at when a result seems odd."""
    with answering(None):
        with usage(None):
            if output.suffix.lower() not in _KINDS:
                raise QueryError(f"the output ends in {output.suffix!r}, expected .png or .jpg")
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        from indexer.output_formats import picture
        from indexer.outputs import Output
        from indexer.tasks.rendering import render_file

        rendered = Output(output, picture("a picture", "render"), force)
        rendered.require()
        pixels = render_file(file, frame_number=frame, window=window, model=model)
        mark = PngInfo()
        mark.add_text("Software", "medlens render")
        with rendered.whole() as temporary:
            kind = _KINDS[output.suffix.lower()]
            Image.fromarray(pixels).save(temporary, kind, pnginfo=mark, comment=b"medlens render")
