"""From ranked frames to answers: grouped by level, one per patient or study, near-duplicates folded, cut to a page.

Answers are taken in rank order, and the ranking is read on until the page is full or nothing is left: what is shown is
what a sort of all answers would show, and pages fit together. A group that a deeper frame could still lift above one
that is known is not decided before that frame's best possible score has been reached (the threshold algorithm of Fagin,
Lotem and Naor 2001).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from retrieval.search.query import Level, OnePer, Pooling, Query
from retrieval.search.ranking import Ranking, RankingByParts
from retrieval.types import Catalog, Lineage, RowFilter

_COLUMNS = {Level.SERIES: "series_instance_uid", Level.STUDY: "study_instance_uid"}
_FIELDS = {Level.INSTANCE: "instance", Level.SERIES: "series", Level.STUDY: "study"}


@dataclass(frozen=True)
class Answer:
    """One answer by its best frame. `breakdown` is None where it is the frame's own."""

    frame: int
    score: float
    breakdown: Mapping[str, float] | None = None
    folded: int = 0


def answers(query: Query, ranking: Ranking, catalog: Catalog, allowed: RowFilter | None) -> list[Answer]:
    """The page that a query asks for, of all frames or of those that are `allowed`."""
    asked = 2 * (query.offset + query.k)
    while True:
        lineage: dict[int, Lineage] = {}
        found, complete = _candidates(query, ranking, catalog, allowed, asked, lineage)
        page, full = _page(query, found, catalog, lineage)
        if full or complete:
            return page
        asked *= 4


def _candidates(
    query: Query,
    ranking: Ranking,
    catalog: Catalog,
    allowed: RowFilter | None,
    asked: int,
    lineage: dict[int, Lineage],
) -> tuple[list[Answer], bool]:
    """Answers in their final order, and whether there are no others. Fills `lineage` for their frames."""
    if query.pooling is Pooling.LATE and isinstance(ranking, RankingByParts):
        return _late(query, ranking, catalog, allowed, asked, lineage)
    ranked = ranking.top(asked)
    complete = len(ranked) < asked
    lineage.update(catalog.lineage(i for i, _ in ranked))
    alive = [(i, score) for i, score in ranked if i in lineage]  # deleted since the index was read
    if query.pooling is Pooling.MEAN:
        uids = dict.fromkeys(_group(query.level, i, lineage) for i, _ in alive)
        members = _members(query, uids, catalog, allowed)
        scores = ranking.scores([i for frames in members.values() for i in frames])
        pooled = []
        for frames in members.values():
            known = sorted((-scores[i], i) for i in frames if i in scores)[: query.best]
            if known:
                pooled.append(Answer(known[0][1], -sum(score for score, _ in known) / len(known)))
        below = ranked[-1][1] if ranked else 0.0  # no mean is above its best
        breakdowns = _mean_breakdowns(query, ranking, members, scores) if ranking.additive else {}
        found = [replace(answer, breakdown=breakdowns.get(answer.frame)) for answer in pooled]
        return _decided(found, below, complete, catalog, lineage), complete
    best: dict[str | int, Answer] = {}
    for i, score in alive:
        best.setdefault(_group(query.level, i, lineage), Answer(i, score))
    return list(best.values()), complete


def _late(
    query: Query,
    ranking: RankingByParts,
    catalog: Catalog,
    allowed: RowFilter | None,
    asked: int,
    lineage: dict[int, Lineage],
) -> tuple[list[Answer], bool]:
    """Each part's best over the group's frames, added up; shown by the frame that is best of all by the parts' sum."""
    signs = np.array([part.weight > 0 for part in query.parts])
    lists = ranking.top_by_part(asked)
    if not lists[0]:
        return [], True
    complete = len(lists[0]) < asked
    positive = [ranked for ranked, sign in zip(lists, signs, strict=True) if sign]
    seen = catalog.lineage({i for ranked in positive for i, _ in ranked})
    uids = dict.fromkeys(_group(query.level, i, seen) for ranked in positive for i, _ in ranked if i in seen)
    members = _members(query, uids, catalog, allowed)
    everyone = [i for frames in members.values() for i in frames]
    parts, total = ranking.breakdown(everyone), ranking.scores(everyone)
    found = []
    for frames in members.values():
        known = [i for i in frames if i in parts]
        if known:
            # A negative part counts by the frame that is most like it: the one with the least contribution.
            gains = {
                name: (max if sign else min)(parts[i][name] for i in known)
                for name, sign in zip(ranking.names, signs, strict=True)
            }
            found.append(Answer(min(known, key=lambda i: (-total[i], i)), sum(gains.values()), gains))
    # What lies below the lists has at most each list's last; of a negative part, whose list begins with the least
    # alike, at most the first.
    below = sum(ranked[-1 if sign else 0][1] for ranked, sign in zip(lists, signs, strict=True))
    return _decided(found, below, complete, catalog, lineage), complete


def _decided(
    found: list[Answer], below: float, complete: bool, catalog: Catalog, lineage: dict[int, Lineage]
) -> list[Answer]:
    """In order, without those that something unseen, which scores at most `below`, could still overtake."""
    ordered = sorted(found, key=lambda answer: (-answer.score, answer.frame))
    decided = ordered if complete else [answer for answer in ordered if answer.score > below]
    lineage.update(catalog.lineage(answer.frame for answer in decided))
    return [answer for answer in decided if answer.frame in lineage]


def _mean_breakdowns(
    query: Query, ranking: Ranking, members: Mapping[str, Sequence[int]], scores: Mapping[int, float]
) -> dict[int, dict[str, float]]:
    """By the best frame of each group: the means of the parts over the frames that count."""
    counted = [
        sorted((i for i in frames if i in scores), key=lambda i: (-scores[i], i))[: query.best]
        for frames in members.values()
    ]
    parts = ranking.breakdown([i for frames in counted for i in frames])
    out = {}
    for frames in counted:
        if frames:
            names = dict.fromkeys(name for i in frames for name in parts[i])
            out[frames[0]] = {name: sum(parts[i].get(name, 0.0) for i in frames) / len(frames) for name in names}
    return out


def _members(
    query: Query, uids: Iterable[str | int], catalog: Catalog, allowed: RowFilter | None
) -> dict[str, list[int]]:
    """The frames of each series or study, of those that may be searched."""
    found = catalog.frames_of(_COLUMNS[query.level], [str(uid) for uid in uids])
    if allowed is None:
        return {uid: list(frames) for uid, frames in found.items()}
    every = np.array([i for frames in found.values() for i in frames], dtype=np.int64)
    passing = set(allowed.passing(every).tolist())
    return {uid: [i for i in frames if i in passing] for uid, frames in found.items()} if passing else {}


def _group(level: Level, frame: int, lineage: Mapping[int, Lineage]) -> str | int:
    return frame if level is Level.FRAME else str(getattr(lineage[frame], _FIELDS[level]))


def _page(
    query: Query, found: Sequence[Answer], catalog: Catalog, lineage: Mapping[int, Lineage]
) -> tuple[list[Answer], bool]:
    """The page, and whether it is full and what is folded into it is known down to the next answer."""
    taken: list[Answer] = []
    taken_keys: set[str] = set()
    vectors = _Vectors(catalog, [answer.frame for answer in found]) if query.fold is not None else None
    wanted = query.offset + query.k
    for answer in found:
        key = _one_per_key(query.one_per, lineage[answer.frame])
        if key in taken_keys:
            continue
        if vectors is not None and query.fold is not None:
            near = vectors.near(answer.frame, [other.frame for other in taken], query.fold)
            if near is not None:
                taken[near] = replace(taken[near], folded=taken[near].folded + 1)
                continue
        if len(taken) == wanted:
            return taken[query.offset :], True
        taken.append(answer)
        if key is not None:
            taken_keys.add(key)
    return taken[query.offset :], vectors is None and len(taken) == wanted


def _one_per_key(one_per: OnePer | None, lineage: Lineage) -> str | None:
    """What at most one answer may share: the patient, the study or the series. A frame whose patient is not known
    counts as a patient of its study."""
    if one_per is None:
        return None
    if one_per is OnePer.PATIENT:
        return f"patient {lineage.patient}" if lineage.patient is not None else f"study {lineage.study}"
    return lineage.study if one_per is OnePer.STUDY else lineage.series


class _Vectors:
    """Embeddings of candidates, fetched in rank order as they are needed."""

    def __init__(self, catalog: Catalog, frames: Sequence[int]) -> None:
        ids, vectors = catalog.vectors_of(frames)
        self._rows = {int(i): row for row, i in enumerate(ids)}
        self._vectors = vectors.astype(np.float32)

    def near(self, frame: int, others: Sequence[int], cosine: float) -> int | None:
        """Which of the others the frame is most like, if by that much."""
        if not others or frame not in self._rows:
            return None
        known = [self._rows[other] for other in others]
        alike = self._vectors[known] @ self._vectors[self._rows[frame]]
        best = int(np.argmax(alike))
        return best if alike[best] >= cosine else None
