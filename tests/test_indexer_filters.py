"""The filter language: against a naive judge on both databases, through the index, and what it says to bad input."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_factory import DIM, SPEC, indexed, only
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.catalog.conditions import require_valid
from indexer.catalog.filters.dates import days
from indexer.catalog.filters.language import MAX_CONDITIONS, MAX_DEPTH, MAX_LENGTH, MAX_VALUES, Condition, parse_filter
from indexer.catalog.filters.values import folded, spellings, years
from indexer.keywords import COLUMNS, KEYWORDS
from indexer.store.store import Store
from retrieval.errors import QueryError, UnknownFilterKeyword
from retrieval.types import SearchFilter
from tests.reference.filters import holds, same_letter

LETTERS = "aAbBzZkK\u212asSiIäÄöÖßẞſKµμσςΣéÉıİжЖ0 %_/\\.'\"*?-"
TEXTS = st.text(st.sampled_from(LETTERS), min_size=1, max_size=6).filter(lambda text: text.strip() != "")  # refused
POOLS: dict[str, list[Any]] = {
    "study_date": [date(2019, 12, 31), date(2020, 1, 1), date(2020, 2, 29), date(2021, 6, 15), None],
    "patient_age": [0.0, 1.5, 17.999, 60.0, 61.0, 5 * 7 / 365.25, 1 / 3, None],
    "modality": ["CT", "MR", "ct", "CR", None],
    "series_number": [-3, 0, 1, 2, 2**40, None],
    "slice_thickness": [0.7, 0.1 + 0.2, 5.0, None],
    "image_type": ["ORIGINAL\\PRIMARY\\AXIAL", "DERIVED\\SECONDARY", "ORIGINAL", "PRIMARY\\X\\\\AXIAL", None],
    "burned_in_annotation": [True, False, None],
    "study_instance_uid": ["1.2", "1.2.3", "1.2.A", None],
}
NAMES = {  # how each column is written in a filter
    "study_date": ["StudyDate", "study_date"],
    "patient_age": ["PatientAge", "patientage", "PATIENT_AGE"],
    "modality": ["Modality", "modality"],
    "series_number": ["SeriesNumber"],
    "slice_thickness": ["SliceThickness"],
    "image_type": ["ImageType"],
    "burned_in_annotation": ["BurnedInAnnotation"],
    "study_instance_uid": ["StudyInstanceUID"],
    "study_description": ["StudyDescription", '"study_description"'],
    "body_part_examined": ["BodyPartExamined"],
}
DATES = st.sampled_from(["2019", "2020", "2020-01", "2020-02", "2020-12", "2020-02-29", "20200101", "2021", "1900"])
AGES = st.sampled_from(["0", "60", "060Y", "18", "018M", "18 months", "5 weeks", "5W", "4m", "1 day", "60.5", "17.999"])
WHOLE = st.sampled_from(["-3", "0", "1", "2", "+2", str(2**40), str(2**63 - 1)])
NUMBERS = st.sampled_from(["0.7", "0.3", "5", "5.0", "1e-1", "-1", "0.70000000000000001"])
WORDS = {
    "modality": st.sampled_from(["CT", "ct", "mr", "M", "R", "C*", "?R", "PT"]),
    "image_type": st.sampled_from(["axial", "ORIGINAL", "PRIM", "derived\\secondary", "AL", "l\\p", "x", "\\"]),
    "study_instance_uid": st.sampled_from(["1.2", "1.2.3", "1.2.a", "1.2.A", "2", "1"]),
    "study_description": TEXTS,
    "body_part_examined": TEXTS,
}
VALUES = {
    "study_date": DATES,
    "patient_age": AGES,
    "series_number": WHOLE,
    "slice_thickness": NUMBERS,
    "burned_in_annotation": st.sampled_from(["yes", "NO", "true", "0"]),
    **WORDS,
}
ORDERED = ("study_date", "patient_age", "series_number", "slice_thickness")
PATTERNS = ("contains", "starts with", "ends with", "like")


@st.composite
def conditions(draw: st.DrawFn) -> tuple[Any, ...]:
    column = draw(st.sampled_from(sorted(NAMES)))
    operators = ["=", "!=", "in", "not in", "is missing", "is present"]
    if column in ORDERED:
        operators += ["<", "<=", ">", ">=", "between", "not between"]
    elif column in WORDS:
        operators += [p for p in PATTERNS if (p, column) != ("like", "image_type")]
        operators += [f"not {p}" for p in PATTERNS if (p, column) != ("like", "image_type")]
    operator = draw(st.sampled_from(operators))
    if operator.startswith("is "):
        return operator, column, []
    if operator.endswith("in"):
        return operator, column, draw(st.lists(VALUES[column], min_size=1, max_size=3))
    values = [draw(VALUES[column]) for _ in range(2 if operator.endswith("between") else 1)]
    if operator.endswith("between"):
        values.sort(key={"study_date": lambda t: days(t)[0], "patient_age": years}.get(column, float))
    return operator, column, values


FILTERS = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=6,
)


def written(filter_: tuple[Any, ...], rng: np.random.Generator) -> str:
    """The filter as someone may type it: any case of the grammar's words, any quotes, more or fewer blanks."""

    def word(text: str) -> str:
        return str(rng.choice([text, text.upper(), text.title()])).replace(" ", str(rng.choice([" ", "  ", "\n"])))

    def value(text: str) -> str:
        plain = text.replace("\\", "").replace(".", "").replace("-", "").isalnum()
        reserved = text.lower() in ("and", "or", "not", "in", "between", "contains", "like", "is")
        if plain and not reserved and rng.random() < 0.7:
            return text
        quote = str(rng.choice(["'", '"']))
        return quote + text.replace(quote, 2 * quote) + quote

    operator = filter_[0]
    if operator == "not":
        return f"{word('not')} ({written(filter_[1], rng)})"
    if operator in ("and", "or"):
        return f" {word(operator)} ".join(f"({written(part, rng)})" for part in filter_[1])
    _, column, values = filter_
    name = str(rng.choice(NAMES[column]))
    if operator.startswith("is "):
        other = {"is missing": "is not present", "is present": "is not missing"}[operator]
        return f"{name} {word(str(rng.choice([operator, other])))}"
    texts = [value(text) for text in values]
    if operator.endswith("in"):
        return f"{name} {word(operator)} ({', '.join(texts)})"
    if operator.endswith("between"):
        return f"{name} {word(operator)} {texts[0]} {word('and')} {texts[1]}"
    if operator[0] in "=!<>":
        blank = str(rng.choice(["", " ", "\t"]))
        sign = {"=": str(rng.choice(["=", "=="])), "!=": str(rng.choice(["!=", "<>"]))}.get(operator, operator)
        return f"{name}{blank}{sign}{blank}{texts[0]}"
    return f"{name} {word(operator)} {texts[0]}"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    location: str | Path = tmp_path / "store"
    if request.param == "postgresql":
        location = request.getfixturevalue("postgres_url")
    with Store.create(location, SPEC, local_dir=tmp_path / "local") as made:
        yield made


def filled(store: Store, seed: int, count: int = 90) -> dict[int, dict[str, Any]]:
    """A store of random rows, some deleted since: the rows that are left, by the id of their one frame."""
    rng = np.random.default_rng(seed)

    def text() -> str | None:
        letters = "".join(rng.choice(list(LETTERS), size=rng.integers(1, 8))).strip()
        return letters if letters and rng.random() < 0.8 else None

    rows = [
        {name: pool[rng.integers(len(pool))] for name, pool in POOLS.items()}
        | {"study_description": text(), "body_part_examined": text()}
        for _ in range(count)
    ]
    archive = store.catalog.files.archive_id("/a")
    store.catalog.files.commit(archive, [indexed(f"{n}", f"9.{n}", frames=1, **row) for n, row in enumerate(rows)])
    gone = {int(n) for n in rng.choice(count, size=count // 6, replace=False)}
    store.frames_index()  # so that the index has to catch up with what goes
    store.catalog.files.forget(archive, [f"{n}" for n in sorted(gone)])
    return {n + 1: row for n, row in enumerate(rows) if n not in gone}


@pytest.mark.parametrize("seed", range(2))
def test_any_filter_finds_what_the_naive_judge_finds(store: Store, seed: int) -> None:
    kept = filled(store, seed)
    index = store.frames_index()
    query = np.eye(DIM, dtype=np.float32)[:1]

    @settings(max_examples=150, deadline=None)
    @given(filter_=FILTERS, spelling=st.integers(0, 2**32 - 1))
    def check(filter_: tuple[Any, ...], spelling: int) -> None:
        text = written(filter_, np.random.default_rng(spelling))
        expected = [i for i, row in kept.items() if holds(filter_, row) is True]
        ids = store.catalog.frames.ids_matching(SearchFilter(where=text))
        assert ids.tolist() == expected, text
        answers = index.search(query, len(kept) + 5, only(ids))[0]
        assert sorted(i for i, _ in answers) == expected, text

    check()


def test_every_letter_against_every_letter(store: Store) -> None:
    rows = [{"study_description": f"x{letter}y"} for letter in LETTERS]
    files = [indexed(f"{n}", f"1.{n}", frames=1, **row) for n, row in enumerate(rows, 1)]
    store.catalog.files.commit(store.catalog.files.archive_id("/a"), files)
    for letter in LETTERS:
        for operator, text in (("=", f"X{letter}y"), ("contains", f"{letter}y"), ("like", f"x{letter}Y")):
            quoted = "'" + text.replace("'", "''") + "'"
            found = store.catalog.frames.ids_matching(
                SearchFilter(where=f"StudyDescription {operator} {quoted}")
            ).tolist()
            expected = [i for i, row in enumerate(rows, 1) if holds((operator, "study_description", [text]), row)]
            assert found == expected, (operator, text)


def test_a_filter_in_words_and_equal_values_both_hold(store: Store) -> None:
    kept = filled(store, 5)
    where = SearchFilter({"modality": ("ct", "mr"), "study_date": ("2020",)}, "PatientAge is present")
    expected = [
        i
        for i, row in kept.items()
        if row["modality"] in ("CT", "ct", "MR")
        and row["study_date"]
        and row["study_date"].year == 2020
        and row["patient_age"] is not None
    ]
    assert expected
    assert store.catalog.frames.ids_matching(where).tolist() == expected
    assert bool(SearchFilter(where="x")) and not SearchFilter()


def test_negation_takes_no_row_that_says_nothing(store: Store) -> None:
    kept = filled(store, 6)

    def found(text: str) -> set[int]:
        return set(store.catalog.frames.ids_matching(SearchFilter(where=text)).tolist())

    said = {i for i, row in kept.items() if row["modality"]}
    assert 0 < len(said) < len(kept)
    assert found("Modality != CT") == found("not Modality = CT") == found("not not Modality != CT")
    assert found("Modality = CT") | found("Modality != CT") == said
    assert found("Modality != CT or Modality is missing") == set(kept) - found("Modality = CT")
    assert found("not (Modality = CT and PatientAge > 20)") == found("Modality != CT or PatientAge <= 20")


INJECTIONS = [
    "'; DROP TABLE frames; --",
    "' OR '1'='1",
    "\\' OR 1=1 --",
    "%",
    "x' UNION SELECT vector FROM frames --",
    "$1; :name %(name)s ?1 {}",
    "CT) OR (1=1",
]


@pytest.mark.parametrize("hostile", INJECTIONS)
def test_hostile_values_are_values(store: Store, hostile: str) -> None:
    archive = store.catalog.files.archive_id("/a")
    files = [indexed("0", "1.0", frames=1, study_description=hostile), indexed("1", "1.1", frames=1, modality="CT")]
    store.catalog.files.commit(archive, files)
    quoted = "'" + hostile.replace("'", "''") + "'"
    for test in ("=", "contains", "starts with", "ends with"):
        assert store.catalog.frames.ids_matching(SearchFilter(where=f"StudyDescription {test} {quoted}")).tolist() == [
            1
        ]
        assert store.catalog.frames.ids_matching(SearchFilter(where=f"Modality {test} {quoted}")).tolist() == []
    assert store.catalog.frames.ids_matching(SearchFilter({"study_description": (hostile,)})).tolist() == [1]
    for text in (hostile, f"{hostile} = CT", f'"{hostile}" = CT'):
        with pytest.raises(QueryError):
            store.catalog.frames.ids_matching(SearchFilter(where=text))
    assert store.catalog.frames.ids_matching(SearchFilter()).tolist() == [1, 2]


BAD = [  # filter, column of the caret, what is said
    ("   ", None, "the filter is empty"),
    ("Modality", 9, "expected a comparison (=, !=, <"),
    ("Modality CT", 10, "found 'CT'"),
    ("Modality =", 11, "expected a value, found the end"),
    ("Modality = and PatientAge > 3", 12, "expected a value, found 'and'"),
    ("Modality in CT", 13, "expected '(', found 'CT'"),
    ("Modality in ()", 14, "expected a value, found ')'"),
    ("Modality in (CT, MR", 20, "expected ')' or ','"),
    ("(Modality = CT", 15, "expected ')', 'and' or 'or'"),
    ("Modality = CT)", 14, "expected the end, 'and' or 'or', found ')'"),
    ("Modality = CT Modality = MR", 15, "found 'Modality'"),
    ("Modality = CT and", 18, "expected an attribute"),
    ('Modality = "CT', 12, "a quote that is not closed"),
    ("PatientAge between 3", 21, "expected 'and'"),
    ("Modality is empty", 13, "expected 'missing', 'not' or 'present'"),
    ("Modality starts CT", 10, "expected a comparison"),
    ("Modality not = CT", 14, "expected 'between', 'contains', 'ends with', 'in', 'like' or 'starts with'"),
    ("Modalty = CT", 1, "no attribute 'Modalty'"),
    ("Modality = CT and age > 3", 19, "no attribute 'age'"),
    ("PatientAge > old", 14, "expected years like 60, or 018M"),
    ("PatientAge > nan", 14, "expected years"),
    ("StudyDate >= 2020-13", 14, "expected a date like"),
    ("StudyDate = 202001", 13, "expected a date like"),
    ("StudyDate = 2021-02-29", 13, "expected a date like"),
    ("StudyDate = 0000", 13, "expected a date like"),
    ("StudyDate > 20 years", 13, "expected a date like"),
    ("StudyDate between 2021 and 2020", 19, "no value is between 2021 and 2020"),
    ("SeriesNumber = 1.5", 16, "expected a whole number"),
    ("SeriesNumber = 99999999999999999999", 16, "expected a whole number"),
    ("SliceThickness > thick", 18, "expected a number"),
    ("SliceThickness < inf", 18, "expected a number"),
    ("BurnedInAnnotation = maybe", 22, "expected yes or no"),
    ("BurnedInAnnotation < yes", 20, "expected one of =, !=, in, is missing, is present"),
    ("Modality < CT", 10, "modality is text; expected one of =, !="),
    ("PatientAge contains 6", 12, "patient_age is an age; expected one of =, !="),
    ("ImageType like A*", 11, "not like"),
    ("StudyDescription contains ''", 27, "the value after study_description contains is empty"),
    ("Modality = C\x00T", 13, "contains a character that no attribute can contain"),
    ("Modality = \udcff", 12, "contains a character that no attribute can contain"),
    ("(" * (MAX_DEPTH + 1) + "Modality = CT", MAX_DEPTH + 1, "nested brackets"),
    (
        " or ".join(["Modality = CT"] * (MAX_CONDITIONS + 1)),
        17 * MAX_CONDITIONS + 1,
        f"conditions; expected at most {MAX_CONDITIONS}",
    ),
    (f"Modality = {'x' * (MAX_LENGTH + 1)}", 12, f"at most {MAX_LENGTH}"),
    (f"SliceThickness in ({', '.join(map(str, range(MAX_CONDITIONS + 1)))})", 1, "more than"),
    (f"Rows in ({','.join(['1'] * (MAX_VALUES + 1))})", None, f"at most {MAX_VALUES}"),
]


@pytest.mark.parametrize(("text", "column", "said"), BAD, ids=[text[:30] for text, _, _ in BAD])
def test_bad_filters_are_refused_where_they_are_wrong(text: str, column: int | None, said: str) -> None:
    with pytest.raises(QueryError) as caught:
        require_valid(SearchFilter(where=text))
    message = str(caught.value)
    assert said in message
    if column is not None:
        first, line, caret = message.split("\n")
        assert first.endswith(f"(column {column})")
        assert set(caret.strip()) == {"^"}
        if column < 50:
            assert len(caret.rstrip("^")) == 4 + column - 1
            shown = line.removeprefix("    ").removesuffix(" ...").rstrip(" ")
            assert text.replace("\x00", " ").startswith(shown) or "\udcff" in text


PAGE = (Path(__file__).parents[1] / "docs" / "filters.md").read_text("utf-8")


def test_the_page_on_filters_shows_filters_that_work(store: Store) -> None:
    commands = re.findall(r"--where '([^']*)'", PAGE)
    text_below = PAGE.rpartition("```")[2]
    names = "|".join(["kind", "patient_pseudonym", *COLUMNS, *(keyword.name for keyword in KEYWORDS)])
    inline = [text for text in re.findall(r"`([^`]+)`", text_below) if re.match(rf"(?:{names}) (?=\S)", text)]
    assert len(commands) == 4 and len(inline) >= 14
    operators = set(re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE))))
    assert operators >= {"=", "!=", "in (a, b)", "<", "between a and b", "contains", "like", "is missing", "is present"}
    rows = [
        {"modality": "CT", "patient_age": 71.0, "study_date": date(2020, 2, 29), "study_description": "CT Knee ANGIO"},
        {"modality": "MR", "patient_age": 1.0, "study_date": date(2021, 1, 1), "body_part_examined": "SCHÄDEL"},
        {
            "laterality": "L",
            "image_laterality": "L",
            "slice_thickness": 3.0,
            "image_type": "ORIGINAL\\PRIMARY\\AXIAL",
            "patient_sex": "F",
        },
        {"laterality": "B", "slice_thickness": 1.25, "series_description": "t2 axial", "patient_age": 50.0},
        {"study_description": "knee", "patient_sex": "F", "study_date": date(2020, 3, 1)},
        {"modality": "CR", "body_part_examined": "CHEST"},
    ]
    files = [indexed(f"{n}", f"1.{n}", frames=1, **row) for n, row in enumerate(rows, 1)]
    store.catalog.files.commit(store.catalog.files.archive_id("/a"), files)
    found = {
        text: store.catalog.frames.ids_matching(SearchFilter(where=text)).tolist() for text in (*commands, *inline)
    }
    assert all(found.values()), [text for text, ids in found.items() if not ids]
    assert [found[text] for text in commands] == [[1], [5], [1], [2]]
    assert found["BodyPartExamined = schädel"] == found["StudyDate > 2020"] == [2]
    assert found["StudyDate = 2020"] == [1, 5] and found["StudyDate <= 2020-02"] == [1]
    assert found["Modality != CT"] == [2, 6] and found["Modality != CT or Modality is missing"] == [2, 3, 4, 5, 6]
    assert found["Modality = x-ray"] == found["BodyPartExamined = thorax"] == [6]
    assert found["PatientSex = woman"] == [3, 5] and found["StudyDate >= May 2020"] == [2]
    assert found["Laterality not in (L, R)"] == found["SliceThickness <= 1.5"] == [4]
    assert found["PatientAge between 40 and 60"] == found['SeriesDescription starts with "T2"'] == [4]
    assert found['StudyDescription like "*angio*"'] == [1] and found["ImageType = AXIAL"] == [3]


def test_suggestions() -> None:
    def hint(text: str) -> str:
        with pytest.raises(UnknownFilterKeyword) as caught:
            require_valid(SearchFilter(where=text))
        return caught.value.hint

    assert hint("Modalty = CT") == "Did you mean 'Modality'?"
    assert hint("StudyDescripton = CT") == "Did you mean 'StudyDescription'?"
    assert hint("body_part = HEAD") == "Did you mean 'body_part_examined'?"
    assert "study_instance_uid" in hint("zzzz = CT")
    assert "patient_pseudonym" in hint("PatientName = Doe")


def test_a_message_says_nothing_of_what_follows() -> None:
    with pytest.raises(QueryError) as caught:
        require_valid(SearchFilter(where="PatientName = 'Doe^Jane' and Modality = CT"))
    assert "Doe" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("value", ["C\x00T", "\udc80"])
def test_equal_values_no_database_takes_are_refused(store: Store, value: str) -> None:
    with pytest.raises(QueryError, match="contains a character that no attribute can contain"):
        store.catalog.frames.ids_matching(SearchFilter({"modality": (value,)}))


def test_the_most_that_is_taken_is_taken(store: Store) -> None:
    store.catalog.files.commit(
        store.catalog.files.archive_id("/a"), [indexed("0", "1.0", frames=1, modality="CT", rows=7)]
    )
    for text in (
        "(" * MAX_DEPTH + "Modality = CT" + ")" * MAX_DEPTH,
        " or ".join(["Modality = MR"] * (MAX_CONDITIONS - 1) + ["Modality = CT"]),
        " and ".join(["not ImageType = MR or Modality = CT"] * (MAX_CONDITIONS // 2)),
        "not (" * MAX_DEPTH + "Modality = CT" + ")" * MAX_DEPTH,
        f"Rows in ({','.join(map(str, range(MAX_VALUES)))})",
        f"Modality = {'x' * (MAX_LENGTH - 1)} or Modality = CT",
        f"SliceThickness in ({','.join(map(str, range(MAX_CONDITIONS)))}) or Modality = CT",
    ):
        assert store.catalog.frames.ids_matching(SearchFilter(where=text)).tolist() == [1], text[:60]


@given(st.text(st.sampled_from(LETTERS + "=<>()!, \n") | st.characters(), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_filter(text)
    except QueryError as error:
        assert "Traceback" not in str(error)


@given(st.characters(exclude_categories=["Cs"]), st.characters(exclude_categories=["Cs"]))
@settings(max_examples=500, deadline=None)
def test_letters_fold_one_by_one(a: str, b: str) -> None:
    for letter in (a, b):
        assert len(folded(letter)) == 1
        assert folded(folded(letter)) == folded(letter)
        assert folded(letter).isascii() == letter.isascii()
        assert all(same_letter(other, letter) for other in spellings(folded(letter)).get(folded(letter), ()))
        for other in {letter.upper(), letter.lower(), letter.title()}:
            if len(other) == 1 and other.isascii() == letter.isascii() and other.lower() == letter.lower():
                assert folded(other) == folded(letter)


def test_periods_and_ages() -> None:
    assert days("2020") == (date(2020, 1, 1), date(2020, 12, 31))
    assert days("2020-02") == (date(2020, 2, 1), date(2020, 2, 29))
    assert days("20200229") == days("2020-02-29") == (date(2020, 2, 29),) * 2
    assert days("9999")[1] == date(9999, 12, 31)
    assert years("018M") == years("18 months") == years("1.5") == 1.5
    assert years("052W") == pytest.approx(0.9966, abs=1e-4)


def test_a_parser_costs_little_of_a_cold_search() -> None:
    """It brings no module but its own and what Python has."""
    script = (
        "import sys, dataclasses, logging; before = set(sys.modules); import indexer.catalog.filters.language; "
        "new = {m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names); "
        "assert new <= {'indexer', 'retrieval', 'parsy'}, new"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("word", ["\u0130s", "L\u0130ke", "l\u0131ke", "i\u017f", "conta\u0131ns"])
def test_a_word_that_only_looks_like_one_of_the_grammars_is_a_value(word: str) -> None:
    condition = parse_filter(f"BodyPartExamined = {word}")
    assert isinstance(condition, Condition)
    assert [value.text for value in condition.values] == [word]
