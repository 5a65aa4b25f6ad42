"""Which words of a text a model does not read: those behind its context, which its tokenizer cuts off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from retrieval.types import Encoder

TokenIds = Sequence[int]
_SHOWN = 60  # characters of words in a message


@runtime_checkable
class SaysUnread(Protocol):
    """An encoder that knows what it cuts off."""

    def unread(self, texts: Sequence[str]) -> list[str]:
        """Of each text the words that `encode_text` does not read, empty if it reads all."""
        ...


def unread(encoder: Encoder, texts: Sequence[str]) -> list[str]:
    """Of each text the words that an encoder does not read. An encoder that does not say is taken to read all."""
    return encoder.unread(texts) if isinstance(encoder, SaysUnread) else [""] * len(texts)


def words_unread(text: str, token_ids: Callable[[str], TokenIds], context_length: int) -> str:
    """The words of a text behind the context. `token_ids` gives the ids of a text as the model gets them, cut.

    Whatever the tokenizer: a text's beginning of so many words has the same ids as the text if the rest is not read. A
    word of which only a part is read counts as read. Costs a few times as much as tokenizing the text.
    """
    if len(text.encode("utf-8", "surrogatepass")) + 2 <= context_length:  # a token is a byte at least
        return ""
    ids = list(token_ids(text))
    if ids != list(token_ids(f"{text} {text}")) or ids == list(token_ids("")):
        return ""  # there was room for more
    words = text.split()

    def is_enough(count: int) -> bool:
        return list(token_ids(" ".join(words[:count]))) == ids

    high = 1
    while high < len(words) and not is_enough(high):
        high *= 2
    low, high = high // 2, min(high, len(words))  # low words are too few, high words are enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return " ".join(words[high:])


def shown(words: str) -> str:
    """Words for a message: quoted, the beginning and the end of many."""
    if len(words) <= _SHOWN:
        return repr(words)
    half = _SHOWN // 2
    return f"{words[:half]!r} to {words[-half:]!r} ({len(words.split())} words)"
