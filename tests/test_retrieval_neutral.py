"""Strangers' text as it is shown: in every format the same, and nothing in it acts."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from datetime import date

import pytest

from cli.medlens_app import _NeutralFormatter
from cli.medlens_output.formats import Format, write_rows
from cli.medlens_output.lines import say
from retrieval.evaluation.report import _text as report_text
from retrieval.neutral import neutral, neutral_message, neutral_values

UNSEEN = [
    *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c",  # direction of writing
    *"\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e\u2061\u3164\U000e0041",  # no width
    *"\x00\x07\x08\x0b\x0c\x1b\x1f\x7f\x80\x85\x9b\x9d\u2028\u2029",  # what terminals and readers act on
]
FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@x",
    "|cmd",
    "\uff1d1+1",
    "\uff0b1",
    "\uff0d1",
    "\uff20x",
    "\uff5ccmd",
    "\ufe661",
    "\u207a1",
]
PLAIN = [
    "",
    "CT chest",
    "Thorax p.a. -- 2",
    "M\u00fcller 3\u00d72",
    "\u80ba\u708e",
    "T1 = 3",
    "(-1)",
    "1-2",
    "\u2212 5",
    "#1",
    "'x",
]


@pytest.mark.parametrize("character", UNSEEN)
def test_what_cant_be_seen_is_shown(character: str) -> None:
    assert neutral(f"a{character}b") == "a\ufffdb" == neutral_message(f"a{character}b")


@pytest.mark.parametrize("text", FORMULAS)
@pytest.mark.parametrize("before", ["", " ", "\u3000", "\u00a0 ", "\t", "\n"])
def test_what_begins_like_a_formula_is_text(text: str, before: str) -> None:
    assert neutral(before + text) == "'" + before + text
    assert neutral(neutral(before + text)) == neutral(before + text)


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_stays(text: str) -> None:
    assert neutral(text) == text


def test_figures_and_numbers_stay() -> None:
    for figure in ("-0.5", "+1.2 %", "+1.2 % (0.3 % to 2.1 %)", "-0.012 (-0.020 to -0.003)"):
        assert neutral(figure) == figure
    assert neutral("+1.2 % (0.3 % to cmd|x!A0)") == "'+1.2 % (0.3 % to cmd|x!A0)"
    values = {"a": -3, "b": -0.25, "=c": ["=1", -1], "d": date(2026, 1, 2), "e": None, "f": True}
    assert neutral_values(values) == {"a": -3, "b": -0.25, "'=c": ["'=1", -1], "d": "2026-01-02", "e": None, "f": True}


def test_all_formats_say_the_same() -> None:
    row = {"x": "\uff1d1\u202egnp", "\uff0bname": 1, "list": ["|cmd", "b"], "number": -3}

    def written(style: Format) -> str:
        out = io.StringIO()
        write_rows([row], style, head={"query": "@q\u200b"}, out=out)
        return out.getvalue()

    shown = "'\uff1d1\ufffdgnp"
    expected = {"x": shown, "'\uff0bname": 1, "list": ["'|cmd", "b"], "number": -3}
    assert json.loads(written(Format.JSONL)) == expected
    assert json.loads(written(Format.JSON)) == {"query": "'@q\ufffd", "results": [expected]}
    (found,) = csv.DictReader(io.StringIO(written(Format.CSV)))
    assert found == {"x": shown, "'\uff0bname": "1", "list": "'|cmd; b", "number": "-3"}
    table = written(Format.TABLE)
    assert shown in table and "'|cmd; b" in table and "-3" in table and "'@q\ufffd" in table
    assert report_text("\uff1d1\u202egnp<b>") == "&#x27;\uff1d1\ufffdgnp&lt;b&gt;"


def test_lines_and_log_records_cant_act_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("- \x1b[2Jname\u202e\nsecond \x9b\r", err=True)
    assert capsys.readouterr().err == "- \ufffd[2Jname\ufffd\nsecond \ufffd\ufffd\n"
    record = logging.LogRecord("indexer", logging.WARNING, "", 0, "%s", ("a\x1b]0;t\x07\u200e",), None)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u200e]", _NeutralFormatter("%(message)s").format(record))
