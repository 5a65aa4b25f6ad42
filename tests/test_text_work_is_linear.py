"""What strangers wrote is worked on in linear time: operations are counted while texts double.

See `operations` for what is counted. A text is a unit repeated, with something before and after: runs of what a pattern
begins with, and of what it is made of, are what super-linear code is slow on.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from operations import Operations, counted

from retrieval.errors import MedlensError

SIZES = (600, 1200, 2400)
MOST_GROWTH = 2.4  # 2 is linear, n log n a little more, 4 is quadratic
LEAST = 10_000  # operations from which growth is judged

COUNTED = (
    *("retrieval.language", "retrieval.search.bm25", "retrieval.search.query", "retrieval.search.interpret"),
    *(
        "retrieval.zeroshot.labels",
        "retrieval.zeroshot.ground_truth",
        "retrieval.row_files",
        "retrieval.evaluation.pairs",
    ),
    *(
        "retrieval.encoders.numpy_text.tokens",
        "retrieval.encoders.byte_pairs",
        "retrieval.encoders.tokenizing",
        "open_clip.tokenizer",
        "indexer.privacy",
        "indexer.catalog.filters",
        "parsy",
        "yaml",
        "ftfy",
        "html",
    ),
)
TEXT = """
    no not without neither nor or and with but is are was seen absent effusion mass left right LUL L no, x a the 1 1.
    2.9 . , ; : ! ? - / ( ) [ ] ' " # * & @ \\ \u0300 \u00e9 \u80ba there in contrast evidence of negative for free
    suspected and Dr. J. Smith 555-1234 12 Mar 2020 signed by tel MRN 1.2.840 findings: impression \u2022 No. etc. = >
    like between { } "":" &amp; < | _ ' ''
"""
WORDS = (*TEXT.split(), "\n", "\t")
RUNS = (
    *(
        " ",
        ".",
        ",",
        "no ",
        "no, ",
        "no x ",
        "no mass ",
        "the mass ",
        "suspected mass, ",
        "left and right ",
        ". ",
        "?! ",
    ),
    *("a@", "Dr. A. ", "1-", "+1 ", "signed by A, ", "12 Mar ", "A1", "(555) "),
    *("a", "1", "1.", "'", '"', "(", "-", "\n", " \n", "\u0315\u0300"),
)
AROUND = (("", ""), ("x", "x"), ("left", "x"), ("no ", "."), ("Dr.", "1"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The routines, from modules that count."""
    place = tmp_path_factory.mktemp("texts") / "file"
    with counted(*COUNTED) as operations:
        from open_clip.tokenizer import SimpleTokenizer

        from indexer.catalog.filters.language import parse_filter
        from indexer.privacy.identity import Identity, forms_of
        from indexer.privacy.scrub import scrub
        from retrieval.encoders.numpy_text.tokens import BytePairs, cleaned
        from retrieval.encoders.tokenizing import in_linear_time
        from retrieval.evaluation.pairs import read_pairs
        from retrieval.language import captions, header_terms, negation, sentences, sides
        from retrieval.search.bm25 import terms
        from retrieval.search.interpret import separate_negations
        from retrieval.search.query import Query
        from retrieval.zeroshot.ground_truth import read_truth
        from retrieval.zeroshot.labels import Label, LabelSet, load_labels

        names = forms_of(
            Identity(("Smith^John", "No^X", "\u80ba\u80ba", "M\u00e9x^\u80ba"), ("1-1-1",), (), ("19500307",))
        )
        labels = LabelSet(name="m", labels=(Label(name="no", prompts=("a",)), Label(name="x", prompts=("b",))))

        def of_file(read: Callable[[Path], object], start: str, row: str, end: str = "") -> Callable[[str], object]:
            """A reader of files, given a file of rows with the text in them."""

            def run(text: str) -> object:
                rows = "".join(
                    row.format(number, text[at : at + 40]) for number, at in enumerate(range(0, len(text), 40))
                )
                place.write_text(start + rows + end, encoding="utf-8")
                return read(place)

            return run

        def whole(read: Callable[[Path], object]) -> Callable[[str], object]:
            return of_file(read, "", "{1}")

        byte_pairs = BytePairs(77)
        whole_models = in_linear_time(SimpleTokenizer(context_length=77))

        routines: dict[str, Callable[[str], object]] = {
            "polarity": negation.polarity,
            "affirmed": negation.affirmed,
            "clauses of sides": lambda text: [sides.sided(clause.split()) for clause in sides.clauses(text)],
            "only side": lambda text: sides.only_side([text]),
            "terms": terms,
            "sentences": sentences.sentences,
            "caption negated": captions.negated,
            "caption exchanged": captions.exchanged,
            "caption mirrored": captions.mirrored,
            "claims": captions.sides_and_negations,
            "findings": captions.findings,
            "sentences of a caption": captions.sentences_of,
            "query": lambda text: separate_negations(Query(text)),
            "terms of the header": lambda text: header_terms.header_terms([text]),
            "scrub": lambda text: scrub(text, names),
            "filter": parse_filter,
            "filter of a value": lambda text: parse_filter(f"Modality = '{text}'"),
            "filter of values": lambda text: parse_filter(f"Modality in ({','.join(text.split()) or 'x'})"),
            "byte pairs": lambda text: byte_pairs([text]),
            "byte pairs of a whole model": whole_models.encode,
            "cleaning": cleaned,
            "label names": lambda text: load_labels(f"{text},no"),
            "label file": whole(lambda path: load_labels(str(path))),
            "label file of labels": of_file(
                lambda path: load_labels(str(path)), "name: m\nlabels:\n", "- {{name: 'n{0}', prompts: [a]}}\n"
            ),
            "truth file": whole(lambda path: read_truth(path, labels)),
            "truth file of rows": of_file(lambda path: read_truth(path, labels), "file,label\n", "{0},no\n"),
            "pairs file": whole(read_pairs),
            "pairs file of rows": of_file(read_pairs, "", '{{"image": "{0}.png", "group": "{0}", "text": "no"}}\n'),
        }
        yield SimpleNamespace(operations=operations, routines=routines)


ROUTINES = (
    *("polarity", "affirmed", "clauses of sides", "only side", "terms", "sentences", "caption negated"),
    *("caption exchanged", "caption mirrored", "claims", "findings", "sentences of a caption", "query", "scrub"),
    *(
        "filter",
        "filter of a value",
        "filter of values",
        "byte pairs",
        "byte pairs of a whole model",
        "cleaning",
        "label names",
        "label file",
    ),
    *("label file of labels", "truth file", "truth file of rows", "pairs file", "pairs file of rows"),
    "terms of the header",
)


def units(seed: int, count: int) -> Iterator[str]:
    """Some of what is always tried, and heaps of words."""
    rng = random.Random(seed)
    yield from RUNS
    for _ in range(count):
        yield rng.choice(("", " ")).join(rng.choices(WORDS, k=rng.randint(1, 3))) + rng.choice(("", " "))


def costs(operations: Operations, routine: Callable[[str], object], text_of: Callable[[int], str]) -> list[int]:
    found = []
    for size in SIZES:
        text, before = text_of(size), operations.count
        with suppress(MedlensError):  # refused, which is an answer too
            routine(text)
        found.append(operations.count - before)
    return found


def is_linear(found: list[int]) -> bool:
    return all(more <= max(MOST_GROWTH * less, LEAST) for less, more in pairwise(found))


@pytest.mark.parametrize("name", ROUTINES)
def test_work_grows_with_the_text_and_no_faster(name: str, work: SimpleNamespace) -> None:
    slow = []
    tried = 4 if name.endswith(("of rows", "of labels")) else None  # the rows are what grows
    for number, unit in enumerate(islice(units(ROUTINES.index(name), 8), tried)):
        before, after = AROUND[number % len(AROUND)]
        text_of = lambda size, u=unit, b=before, a=after: b + u * (size // len(u)) + a  # noqa: E731
        found = costs(work.operations, work.routines[name], text_of)
        if not is_linear(found):
            slow.append(f"{before!r} {unit!r} {after!r}: {found}")
    assert not slow, "\n".join(slow)


def test_every_routine_is_tried(work: SimpleNamespace) -> None:
    assert set(ROUTINES) == set(work.routines)


SLOW = """
import re

def cut_and_search(text):
    while found := re.search("no", text):
        text = text[found.end():]

def trailing(text):
    return re.sub(r"[ .]+$", "", text)

def lengthened(text):
    parts = [""]
    for word in text.split():
        parts[-1] += word
    return parts

def looked_up(text):
    seen = []
    for word in enumerate(text.split()):
        if word not in seen:
            seen.append(word)

def two_loops(text):
    return sum(1 for a in text for b in text)

def nested(text):
    return re.match(r"(?:\\w\\w?)*!", text[:24])

def straight(text):
    return re.findall(r"\\w+", " ".join(text.split()))
"""


@pytest.mark.parametrize(
    ("name", "unit", "linear"),
    [
        ("cut_and_search", "no ", False),
        ("trailing", ". ", False),
        ("lengthened", "a ", False),
        ("looked_up", "a ", False),
        ("two_loops", "a", False),
        ("straight", "no. ", True),
    ],
)
def test_the_count_sees_what_is_slow(
    name: str, unit: str, linear: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_on_purpose.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    with counted("slow_on_purpose") as operations:
        routine = getattr(sys.modules["slow_on_purpose"], name)
        found = costs(operations, routine, lambda size: unit * (size // 4 // len(unit)) + "x")
    assert is_linear(found) == linear, found


def test_a_pattern_that_doubles_with_each_letter_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_on_purpose.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    with counted("slow_on_purpose") as operations:
        sys.modules["slow_on_purpose"].nested("a" * 12)
        few, before = operations.count, operations.count
        sys.modules["slow_on_purpose"].nested("a" * 18)
    assert operations.count - before > 8 * few
