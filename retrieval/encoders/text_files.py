"""The files of a model's text side: a tokenizer's, and the config.json of a text tower of transformers.

transformers loads a folder by what the folder says, code included. So no loader ever sees the folder itself: what is
known of its files and within bounds is written anew into an empty one (`staged`), and everything else stays behind,
`auto_map` and Python files among it. The same reading gives what the tokenizer counts for in a model's fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrieval.bounded import parse_json, read_bytes, read_json, require_file
from retrieval.encoders import config_rules as rules
from retrieval.encoders.fingerprint import sha256_of
from retrieval.encoders.model_config import checked, counting, refusal
from retrieval.errors import EncoderError

TEXT_CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
_SPECIAL, _ADDED = "special_tokens_map.json", "added_tokens.json"
_MOST_SETTINGS = 4 << 20  # bytes
MOST_TOKENIZER = 64 << 20  # that of Gemma, 256,000 pieces, has 34 MB
_PIECES = "spiece.model"
# What holds a vocabulary where there is no tokenizer.json.
_VOCABULARIES = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    _PIECES,
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "spm.model",
)
SENTENCE_PIECES = frozenset({"SiglipTokenizer"})  # read spiece.model, whatever else there is
TOKENIZER_FILES = (TOKENIZER, SETTINGS, _SPECIAL, _ADDED, *_VOCABULARIES)
_MOST_PADDED = 1 << 16  # tokens
_MOST_PATTERN = 1000  # characters
_MOST_LETTERS = 200  # of a word; BERT's have 100
_STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")  # of tokenizer.json, beside the vocabulary
_MOST_STEPS = 5000  # values in them
_MOST_GROWTH = 10_000


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer as files: JSON that was checked, and files that are taken as they are."""

    model: str
    checked: Mapping[str, Mapping[str, Any]]
    whole: tuple[Path, ...]

    @property
    def settings(self) -> Mapping[str, Any]:
        """What is known of tokenizer_config.json; empty if there is none."""
        return self.checked.get(SETTINGS, {})

    def plan(self) -> tuple[bytes, Mapping[str, Any]] | None:
        """tokenizer.json as it is and as values, within its bounds; None if there is none. Raises EncoderError."""
        path = next((path for path in self.whole if path.name == TOKENIZER), None)
        if path is None:
            return None
        content = _read(path, MOST_TOKENIZER, self.model)
        return content, _bounded_plan(content, self.model)

    def identity(self) -> dict[str, Any]:
        """What tells it from others: the settings that count, and the SHA-256 of its files."""
        settings = {key: value for key, value in self.settings.items() if rules.TOKENIZER[key].counts}
        others = {name: dict(values) for name, values in self.checked.items() if name != SETTINGS and values}
        parts = {"settings": settings, **others, **{path.name: sha256_of(path) for path in self.whole}}
        return {"sha256": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()}

    def write(self, folder: Path) -> None:
        """Into a folder of our own. Raises EncoderError for a tokenizer that is beyond its bounds."""
        for name, values in self.checked.items():
            (folder / name).write_text(json.dumps(values), encoding="utf-8")
        plan = self.plan()
        if plan is not None:
            (folder / TOKENIZER).write_bytes(plan[0])
        for path in self.whole:
            if path.name != TOKENIZER:
                content = _read(path, MOST_TOKENIZER, self.model)
                if path.suffix == ".json":
                    _parsed(content, path, self.model)
                (folder / path.name).write_bytes(content)


def read_tokenizer(folder: Path, model: str, default: str | None = None) -> TokenizerFiles:
    """The tokenizer in a folder. EncoderError if there is none, or if it asks for more than transformers' own classes.

    Its large files are not read yet. `model` is for errors, `default` the class where none is named.
    """
    settings = _read_checked(folder / SETTINGS, rules.TOKENIZER, model)
    if settings.get("tokenizer_class") is None and _raw(folder / SETTINGS, model).get("auto_map"):
        raise refusal(model, f"{SETTINGS}: auto_map", "code of its own", "tokenizer_class to name one of transformers'")
    special, added = _read_checked(folder / _SPECIAL, rules.SPECIAL_TOKENS, model), _raw(folder / _ADDED, model)
    if not rules.ADDED_TOKENS.holds(added):
        raise refusal(model, _ADDED, added, rules.ADDED_TOKENS.expected)
    found = {name: values for name, values in ((SETTINGS, settings), (_SPECIAL, special), (_ADDED, added)) if values}
    if default is not None and settings.get("tokenizer_class") is None:
        found[SETTINGS] = {**settings, "tokenizer_class": default}
    in_pieces = found.get(SETTINGS, {}).get("tokenizer_class") in SENTENCE_PIECES
    whole = _there(folder / TOKENIZER) and not (in_pieces and _there(folder / _PIECES))
    names = (TOKENIZER,) if whole else tuple(n for n in _VOCABULARIES if _there(folder / n))
    if not names:
        raise EncoderError(
            f"the model {model!r} can't be loaded: it has no tokenizer, expected {TOKENIZER} or a vocabulary file",
            hint="The download may be unfinished; or copy the tokenizer's files into the model's folder.",
        )
    for name in names:
        try:
            require_file(folder / name, MOST_TOKENIZER)
        except OSError as exc:
            raise _unreadable(folder / name, exc, model) from exc
    return TokenizerFiles(model, found, tuple(folder / name for name in names))


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer's vocabulary lies in a folder."""
    return any(_there(folder / name) for name in (TOKENIZER, *_VOCABULARIES))


@dataclass(frozen=True)
class TextConfig:
    """The config.json of a text tower of transformers. `stated` holds what is known and checked of it."""

    stated: Mapping[str, Any] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        family = str(self.stated["model_type"])
        return {"model_type": family, **counting(self.stated, rules.TEXT_MODELS[family])}


def read_text_config(path: Path, model: str) -> TextConfig:
    """A text tower's config.json. EncoderError if it is beyond its bounds, or of a family that open_clip does not wrap.

    What is unknown in it is left: such files hold much that concerns training.
    """
    return text_config_from(_raw(path, model), model)


def text_config_from(values: Mapping[str, Any], model: str) -> TextConfig:
    """The same from its values."""
    family = values.get("model_type")
    table = rules.TEXT_MODELS.get(family) if isinstance(family, str) else None
    if table is None:
        raise refusal(model, f"{TEXT_CONFIG}: model_type", family, f"one of {', '.join(rules.TEXT_MODELS)}")
    known = {key: value for key, value in values.items() if key in table and value is not None}
    return TextConfig({"model_type": family, **checked(known, table, model, TEXT_CONFIG)})


@contextmanager
def staged(tokenizer: TokenizerFiles | None, text: TextConfig | None) -> Iterator[Path]:
    """A folder that holds nothing but checked files of a model's text side, for the time of loading it."""
    with tempfile.TemporaryDirectory(prefix="medlens-") as made:
        folder = Path(made)
        if tokenizer is not None:
            tokenizer.write(folder)
        if text is not None:
            (folder / TEXT_CONFIG).write_text(json.dumps(text.stated), encoding="utf-8")
        yield folder


def _there(path: Path) -> bool:
    """Whether something has that name, be it no file: reading it says what it is."""
    return path.is_symlink() or path.exists()


def _read(path: Path, most: int, model: str) -> bytes:
    try:
        return read_bytes(path, most)
    except OSError as exc:
        raise _unreadable(path, exc, model) from exc


def _raw(path: Path, model: str) -> dict[str, Any]:
    """A JSON object; empty if there is no such file."""
    if not _there(path):
        return {}
    try:
        values = read_json(path, _MOST_SETTINGS)
    except (OSError, ValueError) as exc:
        raise _unreadable(path, exc, model) from exc
    if not isinstance(values, dict):
        raise refusal(model, path.name, values, "an object")
    return values


def _unreadable(path: Path, exc: Exception, model: str) -> EncoderError:
    why = exc.strerror if isinstance(exc, OSError) else " ".join(str(exc).split())[:200]
    return EncoderError(f"the model {model!r} can't be loaded: its {path.name} can't be read: {why}")


def _read_checked(path: Path, table: Mapping[str, rules.Rule], model: str) -> dict[str, Any]:
    """What is known of a JSON file, checked. Other keys are left: downloads carry many, from the name of a chat
    template to code that nobody needs."""
    known = {key: value for key, value in _raw(path, model).items() if key in table}
    return checked(known, table, model, path.name)


def _parsed(content: bytes, path: Path, model: str) -> dict[str, Any]:
    try:
        values = parse_json(content)
    except ValueError as exc:
        raise _unreadable(path, exc, model) from exc
    if not isinstance(values, dict):
        raise refusal(model, path.name, values, "an object")
    return values


def _bounded_plan(content: bytes, model: str) -> dict[str, Any]:
    """The values of tokenizer.json. EncoderError for what would take for ever, or all of the memory."""
    plan = _parsed(content, Path(TOKENIZER), model)
    for part in ("padding", "truncation"):
        for name, value in _leaves(plan.get(part)):
            if isinstance(value, int | float) and not 0 <= value <= _MOST_PADDED:
                raise refusal(model, f"{TOKENIZER}: {part}.{name}", value, f"a number up to {_MOST_PADDED:,}")
    longest = plan["model"].get("max_input_chars_per_word", 0) if isinstance(plan.get("model"), dict) else 0
    if isinstance(longest, int | float) and longest > _MOST_LETTERS:  # by whose square a word takes time
        raise refusal(model, f"{TOKENIZER}: max_input_chars_per_word", longest, f"at most {_MOST_LETTERS}")
    leaves = [leaf for part in _STEPS for leaf in _leaves(plan.get(part))]
    if len(leaves) > _MOST_STEPS:
        raise refusal(model, f"{TOKENIZER}: {', '.join(_STEPS)}", len(leaves), f"at most {_MOST_STEPS:,} values")
    growth = 1
    for name, value in leaves:
        if name == "Regex" and not (isinstance(value, str) and ends_soon(value)):
            raise refusal(model, f"{TOKENIZER}: a pattern", value, "one without nested or many repetitions")
        if name in ("content", "prepend") and isinstance(value, str):
            growth *= max(1, len(value))  # one after the other, replacements may double a text again and again
    if growth > _MOST_GROWTH:
        raise refusal(model, f"{TOKENIZER}: replacements", growth, f"a text to grow at most {_MOST_GROWTH:,} times")
    return plan


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values in nested lists and objects, each with the key that it is under."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _leaves(one, key)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one, name)
    else:
        yield name, value


_CLASS = re.compile(r"\[(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]")
_ESCAPE = re.compile(r"\\(?:[pP]\{[^}]*\}|x\{[^}]*\}|.)", re.DOTALL)
_GROUP_REPEATED = re.compile(r"\)[*+{]")
_UNBOUNDED = re.compile(r"[*+]|\{\d*,\}|\{\d{3,}|,\d{3,}\}")
_REFERS_BACK = re.compile(r"\\(?:[1-9]|k|g)")


def ends_soon(pattern: str) -> bool:
    """Whether a pattern surely matches in time that grows with a small power of a text's length, never exponentially.

    It holds for all that tokenizers are built of in practice: classes of characters, alternatives, and at most two
    repetitions in each, none of them of a group.
    """
    if len(pattern) > _MOST_PATTERN or _REFERS_BACK.search(pattern):
        return False
    plain = _CLASS.sub("c", _ESCAPE.sub("e", pattern))
    if _GROUP_REPEATED.search(plain):
        return False
    return all(len(_UNBOUNDED.findall(alternative)) <= 2 for alternative in plain.split("|"))
