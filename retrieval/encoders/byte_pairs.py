"""Joining the byte pairs of a word (Sennrich et al. 2016) in time n log n: a text can be one word of a megabyte."""

from __future__ import annotations

from heapq import heappop, heappush

END_OF_WORD = "</w>"
MOST_KNOWN = 65_536  # words whose ids are remembered


def joined(pieces: list[str], ranks: dict[str, int]) -> list[str]:
    """The pair of the lowest rank is joined, everywhere from left to right, until no pair has a rank.

    A queue of pairs by rank and place gives that order, because what a join makes is part of higher ranks only.
    """
    after = list(range(1, len(pieces) + 1))
    before = list(range(-1, len(pieces) - 1))
    queue: list[tuple[int, int, str]] = []

    def offer(at: int) -> None:
        if at >= 0 and after[at] < len(pieces):
            pair = f"{pieces[at]} {pieces[after[at]]}"
            if (rank := ranks.get(pair)) is not None:
                heappush(queue, (rank, at, pair))

    for at in range(len(pieces) - 1):
        offer(at)
    while queue:
        _, at, pair = heappop(queue)
        right = after[at]
        if not pieces[at] or right == len(pieces) or pair != f"{pieces[at]} {pieces[right]}":
            continue  # one of them has been joined meanwhile
        pieces[at] += pieces[right]
        pieces[right] = ""
        after[at] = after[right]
        if after[at] < len(pieces):
            before[after[at]] = at
        offer(before[at])
        offer(at)
    return [piece for piece in pieces if piece]
