"""A single page of results that contains its pictures and loads nothing from elsewhere.

The page's content security policy allows only its own pictures, its style, and the one script below, by its hash. So no
text of a query, an attribute or a report can run, even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

from indexer.burned_in import warning
from indexer.store.store import Store
from indexer.tasks.answers import HitPicture, best_sentences, hit_pictures
from retrieval.neutral import neutral
from retrieval.types import Embeddings, Hit, SearchResults, Uint8Image

_PICTURE_EDGE = 512  # pixels, of a hit on the page

_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#0003, #fff3); --soft: light-dark(#555, #aaa);
  --accent: light-dark(#0b57d0, #8ab4f8); --warn: light-dark(#a33b00, #ffb27a); --card: light-dark(#fff, #1c1d20); }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem; background: light-dark(#f4f5f7, #111214);
  color: light-dark(#16181c, #e8eaed); }
h1 { font-size: 1.3rem; margin: 0; overflow-wrap: anywhere; }
p.about, p.keys, p.note { margin: .25rem 0; color: var(--soft); }
p.note { color: inherit; border-left: 3px solid var(--warn); padding-left: .5rem; margin: .4rem 0; }
@media (pointer: coarse) { p.keys { display: none; } }
kbd { font: inherit; font-size: .8em; border: 1px solid var(--line); border-radius: .25rem; padding: 0 .3em; }
ol { list-style: none; padding: 0; margin: 1.25rem 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; height: 100%;
  cursor: zoom-in; scroll-margin: 1rem; }
article:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.picture { background: #000; height: 15rem; display: flex; align-items: center; justify-content: center; color: #bbb;
  text-align: center; }
.picture:not(:has(img)) { padding: 1rem; }
.picture img { width: 100%; height: 100%; object-fit: contain; }
.facts { padding: .6rem .75rem .75rem; }
.score { font-weight: 600; } .rank { color: var(--soft); font-weight: 400; }
.head { display: flex; flex-wrap: wrap; gap: 0 .75rem; justify-content: space-between; align-items: baseline; }
.parts { color: var(--soft); font-size: .85rem; }
dl { margin: .4rem 0 0; display: grid; grid-template-columns: auto 1fr; gap: 0 .6rem; font-size: .85rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
li .uid { display: none; }
blockquote { margin: .6rem 0 0; padding-left: .6rem; border-left: 3px solid var(--line); font-size: .85rem;
  font-style: italic; overflow-wrap: anywhere; }
.burned { color: var(--warn); }
dialog { border: 1px solid var(--line); border-radius: .5rem; padding: 0; background: var(--card); color: inherit;
  width: min(96vw, 70rem); max-height: 96vh; outline: none; }
dialog::backdrop { background: #000b; }
dialog article { border: 0; cursor: default; display: grid; grid-template-columns: 2fr minmax(15rem, 1fr); }
dialog .picture { height: min(88vh, 44rem); cursor: zoom-out; }
@media (max-width: 45rem) { dialog article { grid-template-columns: 1fr; } dialog .picture { height: 55vh; } }
"""
_SCRIPT = """
"use strict";
const cards = [...document.querySelectorAll("li > article")];
const dialog = document.querySelector("dialog");
let open = -1;
function columns() {
  const top = cards[0].getBoundingClientRect().top;
  return cards.filter(c => Math.abs(c.getBoundingClientRect().top - top) < 2).length;
}
function show(i) {
  open = i;
  const copy = cards[i].cloneNode(true);
  copy.removeAttribute("tabindex");
  dialog.replaceChildren(copy);
  if (!dialog.open) dialog.showModal();
}
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.altKey || event.metaKey || !cards.length) return;
  const from = dialog.open ? open : cards.indexOf(document.activeElement);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[event.key];
  let to = from;
  if (step) to = from < 0 ? 0 : from + step;
  else if (event.key === "Home") to = 0;
  else if (event.key === "End") to = cards.length - 1;
  else if ((event.key === "Enter" || event.key === " ") && from >= 0 && !dialog.open) {
    event.preventDefault();
    return show(from);
  } else return;
  event.preventDefault();
  if (to < 0 || to >= cards.length) return;
  if (dialog.open) show(to);
  cards[to].focus();
  cards[to].scrollIntoView({ block: "nearest" });
});
for (const [i, card] of cards.entries()) card.addEventListener("click", () => show(i));
dialog.addEventListener("click", event => {
  if (event.target === dialog || event.target.closest(".picture")) dialog.close();
});
dialog.addEventListener("close", () => cards[open].focus());
"""
_KEYS = """<p class="keys"><kbd>&larr;</kbd> <kbd>&uarr;</kbd> <kbd>&darr;</kbd> <kbd>&rarr;</kbd> move,
<kbd>Enter</kbd> enlarges, <kbd>Esc</kbd> goes back.</p>"""
_SHOWN = (
    ("modality", "Modality"),
    ("body_part_examined", "Body part"),
    ("view_position", "View"),
    ("patient_sex", "Sex"),
    ("patient_age", "Age"),
    ("study_date", "Study date"),
    ("study_description", "Study"),
    ("series_description", "Series"),
    ("study_instance_uid", "Study UID"),
    ("sop_instance_uid", "SOP instance"),
)
_UNITS = {"patient_age": " y"}


@dataclass(frozen=True)
class Card:
    """A hit with its picture, or the reason why there is none, and the sentence of the study's reports nearest to the
    query.
    """

    hit: Hit
    picture: HitPicture
    sentence: str = ""


def html_page(store: Store, results: SearchResults, words: Embeddings | None = None) -> str:
    """A page of the hits with their pictures, rendered from the files in the archive. `words`: see `best_sentences`."""
    pictures = hit_pictures(store, results.hits, longest=_PICTURE_EDGE)
    sentences = best_sentences(store, results.hits, words)
    return page(results, [Card(hit, pictures[hit.rank], sentences.get(hit.rank, "")) for hit in results.hits])


def page(results: SearchResults, cards: Sequence[Card]) -> str:
    """Return the whole HTML document."""
    among = "" if results.searched is None else f", among {results.searched:,} frames that pass the filter"
    items = "\n".join(_card(card) for card in cards)
    shown = f"{_KEYS}\n<ol>\n{items}\n</ol>" if cards else "<p>No results.</p>"
    query = _text(results.query)
    understood = f'<p class="about">{_text(results.understood)}</p>' if results.understood else ""
    notes = "\n".join(f'<p class="note">{_text(note)}</p>' for note in results.notes)
    allowed = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    hits = f"{len(results.hits)} hit{'' if len(results.hits) == 1 else 's'}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="medlens hits">
<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="referrer" content="no-referrer">
<title>medlens: {query}</title><style>{_STYLE}</style></head>
<body><h1>{query}</h1>
{understood}
{notes}
<p class="about">{hits}{among}. Model {_text(results.model)}; score: {_text(results.score)}.</p>
{shown}
<dialog aria-label="The hit, enlarged"></dialog>
<script>{_SCRIPT}</script></body></html>
"""


def _card(card: Card) -> str:
    hit, values = card.hit, card.hit.attributes
    facts = [_fact(key, title, values[key]) for key, title in _SHOWN if values.get(key) is not None]
    if values.get("slice"):
        facts.append(f"<dt>Slice</dt><dd>{values['slice']} of {values['slices']}</dd>")
    if (values.get("number_of_frames") or 1) > 1:
        facts.append(f"<dt>Frame</dt><dd>{hit.key.frame_number} of {values['number_of_frames']}</dd>")
    facts.append(_fact("ref", "Ref", hit.key.short))  # what `medlens show` takes
    if hit.folded:
        facts.append(f"<dt>Folded</dt><dd>{hit.folded} that look the same</dd>")
    if burned := warning(values.get("burned_in_text")):
        facts.append(f'<dt class="burned">Burned in</dt><dd class="burned">{burned}</dd>')
    if card.picture.pixels is None:
        picture = _text(f"no picture: {card.picture.problem}")
    else:
        picture = f'<img alt="rank {hit.rank}" src="{_data_uri(card.picture.pixels)}">'
    parts = ", ".join(f"{_text(name)} {number:.3f}" for name, number in hit.breakdown.items())
    parts = f'<span class="parts">{parts}</span>' if len(hit.breakdown) > 1 else ""
    said = f"<blockquote>{_text(card.sentence)}</blockquote>" if card.sentence else ""
    return (
        f'<li><article tabindex="0"><div class="picture">{picture}</div><div class="facts"><div class="head">'
        f'<span><span class="rank">{hit.rank}.</span> <span class="score">{hit.score:.3f}</span></span>{parts}</div>'
        f"<dl>{''.join(facts)}</dl>{said}</div></article></li>"
    )


def _text(value: object) -> str:
    """Return the value as HTML text, without control characters and markup. Numbers are not changed."""
    return html.escape(neutral(value) if isinstance(value, str) else str(value))


def _fact(key: str, title: str, value: object) -> str:
    said = f"{value:.3g}" if isinstance(value, float) else _text(value)
    said += _UNITS.get(key, "")
    of_uid = ' class="uid"' if key.endswith("_uid") else ""  # long, so shown only for the enlarged hit
    return f"<dt{of_uid}>{title}</dt><dd{of_uid}>{said}</dd>"


def _data_uri(picture: Uint8Image) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
