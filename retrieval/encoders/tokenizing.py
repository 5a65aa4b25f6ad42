"""The tokenizers of open_clip and of the library `tokenizers`, made fit for what strangers wrote.

open_clip's own take time by the square of a text's length for runs of combining marks (ftfy normalizes them) and for
long words (byte pairs are joined by going over the whole word for each pair). Label files and reports may hold either.
`tokenizers` raises plain `Exception`, and its panics are not even that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from retrieval.encoders.byte_pairs import END_OF_WORD, MOST_KNOWN, joined
from retrieval.errors import EncoderError
from retrieval.language.letters import with_few_marks


def in_linear_time(tokenizer: Any) -> Any:
    """One of open_clip's tokenizers, changed in place: the same ids, but for marks beyond 30 on one letter."""
    clean = tokenizer.clean_fn
    tokenizer.clean_fn = lambda text: clean(with_few_marks(text))
    if hasattr(tokenizer, "bpe_ranks"):
        ranks = {f"{left} {right}": rank for (left, right), rank in tokenizer.bpe_ranks.items()}
        known: dict[str, str] = tokenizer.cache

        def joined_word(word: str) -> str:
            if word not in known:
                found = " ".join(joined([*word[:-1], word[-1] + END_OF_WORD], ranks))
                if len(known) >= MOST_KNOWN:
                    return found
                known[word] = found
            return known[word]

        tokenizer.bpe = joined_word
    return tokenizer


@contextmanager
def tokenizer_errors(model: str) -> Iterator[None]:
    """What `tokenizers` raises, as EncoderError."""
    try:
        yield
    except BaseException as exc:
        if type(exc) is not Exception and type(exc).__name__ != "PanicException":
            raise
        raise EncoderError(
            f"the tokenizer of the model {model!r} can't be used: {' '.join(str(exc).split())[:200]}",
            hint="Its files may be damaged, or of another model: copy them anew from where the model comes from.",
        ) from exc
