"""One self-contained page of hits: pictures inside, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

from retrieval.types import Hit, SearchResults, Uint8Image

_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; }
h1 { font-size: 1.25rem; margin: 0; }
p.about { margin: .25rem 0 1.25rem; opacity: .75; }
ol { list-style: none; padding: 0; display: grid; gap: 1rem; }
ol { grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
li { border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; }
li:focus-visible { outline: 3px solid #48f; }
.picture { background: #000; height: 15rem; display: flex; align-items: center; justify-content: center; color: #999; }
.picture img { width: 100%; height: 100%; object-fit: contain; }
.facts { padding: .6rem .75rem; }
.score { font-weight: 600; }
dl { margin: .4rem 0 0; display: grid; grid-template-columns: auto 1fr; gap: 0 .6rem; font-size: .85rem; }
dt { opacity: .65; } dd { margin: 0; overflow-wrap: anywhere; }
.report { margin: .5rem 0 0; font-size: .85rem; font-style: italic; }
.burned { color: #b50; }
"""
_SHOWN = (
    ("modality", "Modality"),
    ("body_part_examined", "Body part"),
    ("view_position", "View"),
    ("patient_sex", "Sex"),
    ("patient_age", "Age"),
    ("study_date", "Study date"),
    ("series_description", "Series"),
    ("sop_instance_uid", "SOP instance"),
)


@dataclass(frozen=True)
class Card:
    """A hit with its picture, or why there is none, and what the study's report says."""

    hit: Hit
    picture: Uint8Image | None
    trouble: str = ""
    report: str = ""


def page(results: SearchResults, cards: Sequence[Card]) -> str:
    """The whole document."""
    among = "" if results.searched is None else f", among {results.searched} frames that pass the filter"
    items = "\n".join(_card(card) for card in cards) or "<li><div class=facts>No results.</div></li>"
    query = html.escape(results.query)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>medlens: {query}</title><style>{_STYLE}</style></head>
<body><h1>{query}</h1>
<p class="about">{len(results.hits)} hits{among}. Model {html.escape(results.model)}; score is cosine similarity.</p>
<ol>
{items}
</ol></body></html>
"""


def _card(card: Card) -> str:
    values = card.hit.attributes
    facts = [f"<dt>{title}</dt><dd>{html.escape(str(values[key]))}</dd>" for key, title in _SHOWN if values.get(key)]
    if values.get("slice"):
        facts.append(f"<dt>Slice</dt><dd>{values['slice']} of {values['slices']}</dd>")
    if (values.get("number_of_frames") or 1) > 1:
        facts.append(f"<dt>Frame</dt><dd>{card.hit.key.frame_number} of {values['number_of_frames']}</dd>")
    if values.get("burned_in_annotation"):
        facts.append('<dt class="burned">Burned in</dt><dd class="burned">may show text about a patient</dd>')
    if card.picture is None:
        picture = html.escape(card.trouble or "no picture")
    else:
        picture = f'<img alt="rank {card.hit.rank}" src="{_data_uri(card.picture)}">'
    report = f'<p class="report">{html.escape(card.report)}</p>' if card.report else ""
    return (
        f'<li tabindex="0"><div class="picture">{picture}</div><div class="facts">'
        f'<span class="score">{card.hit.rank}. {card.hit.score:.3f}</span><dl>{"".join(facts)}</dl>{report}</div></li>'
    )


def _data_uri(picture: Uint8Image) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
