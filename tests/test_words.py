"""Words that must not come back: in messages and help, in docstrings and comments, in the pages and the README."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from messages import PACKAGES, ROOT, all_messages

# Each phrase with the words to use instead.
PHRASES = {
    r"(?<!there )(?<!has )\b(?:is|are) no (?!longer|more\b|less\b|other\b|better|worse|different)": "is not a ...",
    r"\bby hand of\b": "with",
    r"\bwhose owner is\b": "whose owner",
    r"\bhad from (?:its|the) hub\b": "downloaded from the Hugging Face hub",
    r"\bcan be no\b": "can't be a ...",
    r"\bis none of (?:the|its|these|them)\b": "is not one of ...",
    r"\bthat is no damage\b": "is harmless",
    r"\blabels? that \S+ has not\b": "... does not define these labels",
    r"\bleave (?:them|it) away\b": "remove ...",
    r"\bto be borne in mind\b": "note",
    r"\b(?:start|calibrate|write it|made) anew\b": "again",
    r"\bwas asked for, but\b": "is not available: ...",
    r"\b(?:hub|model|torch|index|store) is asked\b": "name what happens",
    r"\bwho(?:ever)? asks\b": "name the reader or the caller",
    r"\bso worded\b": "with this wording",
    r"\bhardly hears?\b": "hardly respond to",
    r"\bas it is said\b": "name the text",
    r"\bnobody asked\b": "was not requested",
    r"\bit wants a\b": "expected ...",
    r"\btells? (?:\w+ ){1,3}apart by\b": "distinguishes ... by",
}
GENERATED = ("reference", "_build")  # pages made from texts that are looked at already


def comments(path: Path) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), " ".join(text.split())


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a page outside of its code blocks."""
    fenced = False
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def texts() -> Iterator[tuple[str, str]]:
    """Every text with its place, in the program and in the pages."""
    for message in all_messages():
        yield f"{message.module}:{message.line}", message.text
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            for line, text in [*docstrings(path), *comments(path)]:
                yield f"{place}:{line}", text
    pages = [page for page in sorted((ROOT / "docs").rglob("*.md")) if not {*page.parts} & {*GENERATED}]
    for page in [ROOT / "README.md", *pages]:
        for line, text in prose(page):
            yield f"{page.relative_to(ROOT).as_posix()}:{line}", text


@pytest.fixture(scope="module")
def everything() -> list[tuple[str, str]]:
    return list(texts())


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_does_not_come_back(phrase: str, everything: list[tuple[str, str]]) -> None:
    pattern = re.compile(phrase, re.IGNORECASE)
    found = [f"{place}: {text}" for place, text in everything if pattern.search(text)]
    assert not found, f"write {PHRASES[phrase]!r} instead:\n" + "\n".join(found)


def test_the_texts_are_all_there(everything: list[tuple[str, str]]) -> None:
    """The list has messages of every package, docstrings, comments and pages: else the test above proves nothing."""
    places = {place.split("/")[0].split(":")[0] for place, _ in everything}
    assert places >= {"retrieval", "indexer", "cli", "medlens", "docs", "README.md"}
    assert any(text.startswith("#") for _, text in everything)


@pytest.mark.parametrize(
    ("phrase", "bad", "good"),
    [
        (next(iter(PHRASES)), "the store 'x' is no store", "there is no store at 'x', and 'y' is no longer one"),
        (r"\bcan be no\b", "'x' can be no path", "'x' can't be a path"),
    ],
)
def test_a_phrase_is_told_from_its_better(phrase: str, bad: str, good: str) -> None:
    assert phrase in PHRASES
    assert re.search(phrase, bad) and not re.search(phrase, good)
