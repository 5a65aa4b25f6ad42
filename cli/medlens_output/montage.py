"""A contact sheet: the results of a search as one picture, for a slide, a message or a notebook."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from indexer.burned_in import warning
from indexer.outputs import Output
from indexer.store.store import Store
from indexer.tasks.answers import HitPicture, hit_pictures
from retrieval.errors import QueryError
from retrieval.neutral import neutral
from retrieval.types import Hit, SearchResults

CELL = 256  # pixels, the longest edge of a picture
KIND = "montage"
_GAP, _LINE, _MARGIN = 12, 18, 16
_LEAST_COLUMNS = 3
_BACK, _TEXT, _SOFT = (17, 18, 20), (232, 234, 237), (170, 170, 170)


def write_montage(store: Store, results: SearchResults, target: Output) -> None:
    """Write a contact sheet of the hits as a PNG file. Raises QueryError if there are no hits."""
    if not results.hits:
        raise QueryError("there are no results to show", hint="Search for something else, or use a wider filter.")
    target.write_bytes(montage(results, hit_pictures(store, results.hits, longest=CELL)))


def montage(results: SearchResults, pictures: Mapping[int, HitPicture]) -> bytes:
    """Return a PNG: the query, then the hits in rank order, row by row, each with its rank, score and attributes."""
    hits = results.hits
    columns = max(1, min(len(hits), math.ceil(math.sqrt(len(hits) * 1.4))))
    rows = math.ceil(len(hits) / columns)
    font, bold = ImageFont.load_default(size=14), ImageFont.load_default(size=18)
    cell_height = CELL + 3 * _LINE + _GAP
    shown_columns = max(columns, _LEAST_COLUMNS)  # the query must be readable above a single hit, too
    width = 2 * _MARGIN + shown_columns * CELL + (shown_columns - 1) * _GAP
    top = 2 * _MARGIN + 2 * _LINE
    sheet = Image.new("RGB", (width, top + rows * cell_height + _MARGIN), _BACK)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), fitted(results.query, bold, width - 2 * _MARGIN), _TEXT, bold)
    about = f"{len(hits)} hit{'' if len(hits) == 1 else 's'}. Model {results.model}; score: {results.score}."
    if marked := sum(_burned_in(hit) for hit in hits):
        about = f"(!) {marked} of {len(hits)} may show text about a patient. {about}"
    draw.text((_MARGIN, _MARGIN + _LINE + 6), fitted(about, font, width - 2 * _MARGIN), _SOFT, font)
    for number, hit in enumerate(hits):
        x = _MARGIN + number % columns * (CELL + _GAP)
        y = top + number // columns * cell_height
        draw.rectangle((x, y, x + CELL - 1, y + CELL - 1), (0, 0, 0))
        pixels = pictures[hit.rank].pixels
        if pixels is not None:
            picture = Image.fromarray(pixels).convert("RGB")
            scale = min(CELL / picture.width, CELL / picture.height)
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            picture = picture.resize(size, Image.Resampling.LANCZOS)
            sheet.paste(picture, (x + (CELL - size[0]) // 2, y + (CELL - size[1]) // 2))
        else:
            problem = fitted(f"no picture: {pictures[hit.rank].problem}", font, CELL - 8)
            draw.text((x + 4, y + CELL // 2), problem, _SOFT, font)
        for line, (text, colour) in enumerate(_caption(hit)):
            draw.text((x, y + CELL + 4 + line * _LINE), fitted(text, font, CELL), colour, font)
    buffer = io.BytesIO()
    mark = PngInfo()
    mark.add_text("Software", f"medlens {KIND}")
    sheet.save(buffer, "PNG", optimize=True, pnginfo=mark)
    return buffer.getvalue()


def fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Return the text on one line, cut with an ellipsis if it is wider than that many pixels."""
    text = " ".join(neutral(text).splitlines())
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle] + "...") <= width else (low, middle - 1)
    return text[:low] + "..."


def _burned_in(hit: Hit) -> bool:
    return warning(hit.attributes.get("burned_in_text")) is not None


def _caption(hit: Hit) -> list[tuple[str, tuple[int, int, int]]]:
    values = hit.attributes

    def joined(*names: str) -> str:
        return "  ".join(str(values[name]) for name in names if values.get(name) is not None)

    mark = "  (!)" if _burned_in(hit) else ""
    age = f"{values['patient_age']:.3g} y" if values.get("patient_age") is not None else ""
    return [
        (f"{hit.rank}.{mark}  {hit.score:.3f}  {joined('modality', 'body_part_examined')}", _TEXT),
        ("  ".join(filter(None, (joined("patient_sex"), age, joined("study_date", "view_position")))), _SOFT),
        (joined("series_description") or joined("study_description"), _SOFT),
    ]
