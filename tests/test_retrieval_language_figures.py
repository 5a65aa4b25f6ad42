"""Captions of figures, cut to what they say of the picture."""

from __future__ import annotations

import pytest

from retrieval.language.figures import plain_caption, shares_of_caption


@pytest.mark.parametrize(
    ("caption", "plain"),
    [
        ("Subpleural nodules (arrows) on the left.", "Subpleural nodules on the left."),
        ("A mass (long white arrow), and a node (arrowheads)", "A mass, and a node"),
        ("Bilateral haematomas (marked by white arrows).", "Bilateral haematomas."),
        ("A cyst as indicated by the arrow.", "A cyst."),
        ("Postobturation.", ""),
        ("One of the nodes is indicated by arrows.", "One of the nodes."),
        ("The arrow points at the tumour. Axial CT of the head.", "Axial CT of the head."),
        ("Axial CT of the head, the arrow shows a cyst.", "Axial CT of the head."),
        ("Figure 3. CT of the abdomen (A) and of the chest (B).", "CT of the abdomen and of the chest."),
        ("Fig 1B: lateral view of the knee", "lateral view of the knee"),
        (
            "Radiographs. A. Initial film of the hand. B. The same after a year.",
            "Initial film of the hand. The same after a year.",
        ),
        ("Osteoarthritis makes joint spaces narrow.", "Osteoarthritis makes joint spaces narrow."),
        ("An aneurysm of the L4 artery, vitamin A deficiency", "An aneurysm of the L4 artery, vitamin A deficiency"),
        ("Arrows: abscess.", ""),
        ("", ""),
    ],
)
def test_what_is_left(caption: str, plain: str) -> None:
    assert plain_caption(caption) == plain


def test_shares_add_up_and_the_whole_comes_first() -> None:
    found = shares_of_caption("CT of the head (arrow). A subdural haematoma is seen.")
    assert found == [
        ("CT of the head. A subdural haematoma is seen.", 0.5),
        ("CT of the head.", 0.25),
        ("A subdural haematoma is seen.", 0.25),
    ]
    assert shares_of_caption("CT of the head (arrow).") == [("CT of the head.", 1.0)]
    assert shares_of_caption("Arrow.") == []


@pytest.mark.parametrize(
    "piece", ["(", "(arrow", "as shown by the ", "A. ", "white ", "(a, ", ", arrow", "Fig ", "A, "]
)
def test_long_captions_come_to_an_end(piece: str) -> None:
    assert len(plain_caption(piece * 20_000)) <= 20_000 * len(piece)
