"""Token ids without torch or transformers: a BERT's word pieces, and the byte pairs of open_clip's own text towers.

Ids are those of open_clip's tokenizers, cut to the context length as they cut; only the padding is left out.
"""

from __future__ import annotations

import gzip
import html
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from retrieval.encoders.byte_pairs import END_OF_WORD, MOST_KNOWN, joined
from retrieval.encoders.numpy_text.needs_torch import NeedsTorch
from retrieval.encoders.text_files import TokenizerFiles
from retrieval.language.letters import with_few_marks

TokenIds = list[int]
_MERGES = 49152 - 256 - 2  # of the vocabulary that CLIP was trained with
_NORMALIZER = (  # what tokenizer_config.json calls it, what tokenizer.json calls it, what holds where neither says
    ("", "clean_text", True),
    ("do_lower_case", "lowercase", True),
    ("strip_accents", "strip_accents", None),
    ("tokenize_chinese_chars", "handle_chinese_chars", True),
)


class Tokens(Protocol):
    """Texts to token ids, special tokens included, each at most the context length. `pad` fills what is shorter."""

    pad: int
    vocabulary: int
    context_length: int

    def __call__(self, texts: Sequence[str]) -> list[TokenIds]: ...


def cleaned(text: str) -> str:
    """Broken encodings and HTML entities repaired, white space collapsed: as open_clip does before either tokenizer."""
    if not (text.isascii() and text.isprintable()) or "&" in text:  # else there is nothing that ftfy would repair
        import ftfy

        text = ftfy.fix_text(with_few_marks(text))
    return " ".join(html.unescape(html.unescape(text)).split())


class WordPieces:
    """An uncased or cased BERT's tokenizer.json, read by the library `tokenizers`."""

    def __init__(self, files: TokenizerFiles, context_length: int) -> None:
        """NeedsTorch where transformers might read the files otherwise than `tokenizers` does."""
        settings, plan = files.settings, files.plan()
        if plan is None or not settings:
            raise NeedsTorch(f"its {'tokenizer.json' if plan is None else 'tokenizer_config.json'} is missing")
        content, values = plan
        _require_plain_bert(values, settings)
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(content.decode("utf-8"))
        except Exception as exc:
            raise NeedsTorch(f"its tokenizer.json can't be read: {' '.join(str(exc).split())[:200]}") from exc
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(context_length)
        self.context_length = context_length
        pad, start, end = (
            self._tokenizer.token_to_id(_content(settings.get(f"{name}_token", f"[{name.upper()}]")))
            for name in ("pad", "cls", "sep")
        )
        if pad is None or self._tokenizer.encode("").ids != [start, end]:
            raise NeedsTorch("its tokenizer does not put a text between [CLS] and [SEP]")
        self.pad: int = pad
        self.vocabulary: int = self._tokenizer.get_vocab_size(with_added_tokens=True)

    def __call__(self, texts: Sequence[str]) -> list[TokenIds]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch([cleaned(text) for text in texts])]


class BytePairs:
    """CLIP's tokenizer (Radford et al. 2021): bytes as characters, joined by rank; words end in a mark of their own.

    The list of merges comes with open_clip's wheel and is read from there without importing it.
    """

    pad = 0

    def __init__(self, context_length: int) -> None:
        import regex

        spec = find_spec("open_clip")
        if spec is None or not spec.submodule_search_locations:
            raise NeedsTorch("open_clip's vocabulary was not found")
        path = Path(next(iter(spec.submodule_search_locations))) / "bpe_simple_vocab_16e6.txt.gz"
        try:
            lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : _MERGES + 1]
        except OSError as exc:
            raise NeedsTorch(f"open_clip's vocabulary can't be read: {exc.strerror or exc}") from exc
        self.context_length = context_length
        self._ranks = {line: rank for rank, line in enumerate(lines)}
        letters = _byte_letters()
        self._letters = dict(zip(range(256), letters, strict=True))
        # Ids: the 256 letters, the same at a word's end, what the merges make, start and end of text.
        ordered = sorted(letters)
        first = [*ordered, *(letter + END_OF_WORD for letter in ordered)]
        self._ids = {piece: number for number, piece in enumerate(first)}
        self._ids.update((line.replace(" ", ""), number) for number, line in enumerate(lines, len(first)))
        self._start, self._end = "<start_of_text>", "<end_of_text>"
        self.vocabulary = len(first) + len(lines) + 2
        self._ids |= {self._start: self.vocabulary - 2, self._end: self.vocabulary - 1}
        self._words = regex.compile(
            rf"{self._start}|{self._end}|'s|'t|'re|'ve|'m|'ll|'d|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+",
            regex.IGNORECASE,
        )
        self._known: dict[str, TokenIds] = {t: [self._ids[t]] for t in (self._start, self._end)}

    def __call__(self, texts: Sequence[str]) -> list[TokenIds]:
        start, end = self._ids[self._start], self._ids[self._end]
        out = []
        for text in texts:
            ids = [number for word in self._words.findall(cleaned(text).lower()) for number in self._pieces(word)]
            out.append([start, *ids[: self.context_length - 2], end])
        return out

    def _pieces(self, word: str) -> TokenIds:
        """Ids of one word. In time n log n: a query can be one word of a megabyte."""
        if word in self._known:
            return self._known[word]
        pieces = [self._letters[byte] for byte in word.encode("utf-8")]
        pieces[-1] += END_OF_WORD
        ids = [self._ids[piece] for piece in joined(pieces, self._ranks)]
        if len(self._known) < MOST_KNOWN:
            self._known[word] = ids
        return ids


def _byte_letters() -> list[str]:
    """A letter for each byte: printable Latin-1 stands for itself, the others for the letters from 256 on."""
    others = iter(range(256, 512))
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _content(token: Any) -> str:
    """A special token is written as its text, or as an object that holds it."""
    return str(token.get("content")) if isinstance(token, dict) else str(token)


def _require_plain_bert(plan: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Only what transformers' BertTokenizer makes of these files too: it builds its own from their settings."""
    kinds = {part: (plan.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")}
    expected = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}
    if kinds != expected or plan["model"].get("continuing_subword_prefix", "##") != "##":
        raise NeedsTorch(f"its tokenizer is made of {', '.join(map(str, kinds.values()))}, expected a BERT's")
    if settings.get("tokenizer_class", "BertTokenizer") not in ("BertTokenizer", "BertTokenizerFast"):
        raise NeedsTorch(f"its tokenizer is a {settings['tokenizer_class']}")
    normalizer = plan["normalizer"]
    for setting, part, default in _NORMALIZER:
        if (settings.get(setting, default) if setting else default) != normalizer.get(part, default):
            raise NeedsTorch(f"its tokenizer.json has {part} {normalizer.get(part)}, unlike its configuration")
    if settings.get("padding_side", "right") != "right" or settings.get("truncation_side", "right") != "right":
        raise NeedsTorch("its tokenizer pads or cuts on the left")
