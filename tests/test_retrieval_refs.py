"""REF: what a text names, and the frame of a store that it leads to."""

from __future__ import annotations

import hashlib
from base64 import b32encode
from collections.abc import Sequence
from pathlib import Path

import pytest

from retrieval.errors import QueryError
from retrieval.search.refs import FrameRef, ShortRef, parse_ref, resolve
from retrieval.types import FrameKey, shortest_unambiguous

KEY = FrameKey("1.2.840.10008.1", 3)


class Keys:
    def __init__(self, *keys: FrameKey) -> None:
        self.keys = keys

    def keys_with_prefix(self, letters: str, most: int) -> Sequence[FrameKey]:
        return [key for key in self.keys if key.short.startswith(letters)][:most]

    def frames_of_instance(self, sop_instance_uid: str) -> Sequence[FrameKey]:
        return [key for key in self.keys if key.sop_instance_uid == sop_instance_uid]


def test_a_short_key_is_base32_of_the_sha256_of_uid_and_frame() -> None:
    digest = hashlib.sha256(b"1.2.840.10008.1#3").digest()
    assert KEY.short == b32encode(digest).decode().lower()[:13] == "t7cdqhyt43iw4"
    assert KEY.short != FrameKey("1.2.840.10008.1", 4).short


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("1.2.3", FrameRef("1.2.3")),
        ("scans/missing.dcm", Path("scans/missing.dcm")),
        ("missing.dcm", Path("missing.dcm")),
        ("1.2.3#7", FrameRef("1.2.3", 7)),
        ("ID_5c8b1e#2", FrameRef("ID_5c8b1e", 2)),  # an identifier that is not a UID is said with its frame
        ("ABCDEFGH", ShortRef("abcdefgh")),
        ("abcdefgh234567", ShortRef("abcdefgh234567")),
    ],
)
def test_what_a_text_names(text: str, ref: object) -> None:
    assert parse_ref(text) == ref


def test_a_file_that_is_there_goes_before_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_ref("abcdefgh") == ShortRef("abcdefgh")
    Path("abcdefgh").write_bytes(b"")
    assert parse_ref("abcdefgh") == Path("abcdefgh")
    assert parse_ref("./abcdefgh") == Path("./abcdefgh")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" ", "empty"),
        ("abc", "is not a reference"),
        ("1.2.3#0", "expected a frame number from 1 on"),
        ("a\0b", "is not a reference"),
    ],
)
def test_what_names_nothing_is_refused(text: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        parse_ref(text)


def test_a_prefix_that_one_frame_has_is_enough() -> None:
    others = [FrameKey("1.2.3", number) for number in range(1, 50)]
    assert resolve(ShortRef(KEY.short[:8]), Keys(KEY, *others)) == KEY
    with pytest.raises(QueryError, match="the store has no frame whose key begins with"):
        resolve(ShortRef("aaaaaaaa"), Keys(KEY))


def test_a_prefix_of_several_is_ambiguous_and_lists_them() -> None:
    class Colliding(Keys):
        def keys_with_prefix(self, letters: str, most: int) -> Sequence[FrameKey]:
            return self.keys[:most]

    keys = [FrameKey("1.2.3", number) for number in range(1, 9)]
    with pytest.raises(QueryError, match=r"ambiguous: .* and more") as caught:
        resolve(ShortRef("abcdefgh"), Colliding(*keys))
    assert keys[0].short[:8] in str(caught.value)


def test_a_uid_alone_is_its_first_indexed_frame() -> None:
    keys = Keys(FrameKey("1.2.3", 4), FrameKey("1.2.3", 9))
    assert resolve(FrameRef("1.2.3"), keys) == FrameKey("1.2.3", 4)
    assert resolve(FrameRef("1.2.3", 9), keys) == FrameKey("1.2.3", 9)
    with pytest.raises(QueryError, match="the store does not have frame 5 of this instance") as caught:
        resolve(FrameRef("1.2.3", 5), keys)
    assert caught.value.hint == "Its indexed frames are: 4, 9."
    with pytest.raises(QueryError, match="the store has no frame with this SOP Instance UID"):
        resolve(FrameRef("9.9"), keys)


def test_as_many_letters_are_shown_as_tell_keys_apart() -> None:
    assert shortest_unambiguous(KEY, [KEY, FrameKey("1.2.3")]) == KEY.short[:8]
