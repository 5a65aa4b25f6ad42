"""From ranked frames to answers: grouped by level, one per patient or study, near-duplicates folded, cut to a page.

Answers are taken in rank order, and the ranking is read until the page is full or the ranking ends. The result is the
same as if all answers had been sorted, so consecutive pages fit together. A group's place is final once no unread frame
can score high enough to change it (the threshold algorithm of Fagin, Lotem and Naor 2001).
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
    """One answer, represented by its best frame. A `breakdown` of None means the breakdown of that frame."""

    frame: int
    score: float
    breakdown: Mapping[str, float] | None = None
    folded: int = 0


def answers(query: Query, ranking: Ranking, catalog: Catalog, allowed: RowFilter | None) -> list[Answer]:
    """The page of answers that a query requests, from all frames or from the `allowed` ones."""
    limit = 2 * (query.offset + query.k)
    while True:
        lineage: dict[int, Lineage] = {}
        found, complete = _candidates(query, ranking, catalog, allowed, limit, lineage)
        page, full = _page(query, found, catalog, lineage)
        if full or complete:
            return page
        limit *= 4


def _candidates(
    query: Query,
    ranking: Ranking,
    catalog: Catalog,
    allowed: RowFilter | None,
    limit: int,
    lineage: dict[int, Lineage],
) -> tuple[list[Answer], bool]:
    """Answers in their final order, and whether these are all answers. Adds their frames to `lineage`."""
    if query.pooling is Pooling.LATE and isinstance(ranking, RankingByParts):
        return _late(query, ranking, catalog, allowed, limit, lineage)
    ranked = ranking.top(limit)
    complete = len(ranked) < limit
    lineage.update(catalog.lineage(i for i, _ in ranked))
    alive = [(i, score) for i, score in ranked if i in lineage]  # without frames deleted since the index was read
    if query.pooling is Pooling.MEAN:
        uids = dict.fromkeys(_group(query.level, i, lineage) for i, _ in alive)
        members = _members(query, uids, catalog, allowed)
        scores = ranking.scores([i for frames in members.values() for i in frames])
        pooled = []
        for frames in members.values():
            known = sorted((-scores[i], i) for i in frames if i in scores)[: query.best]
            if known:
                pooled.append(Answer(known[0][1], -sum(score for score, _ in known) / len(known)))
        below = ranked[-1][1] if ranked else 0.0  # a mean is never above the best score
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
    limit: int,
    lineage: dict[int, Lineage],
) -> tuple[list[Answer], bool]:
    """Late interaction: for each part the best score over a group's frames, added up over the parts.

    The frame with the highest sum of parts represents the group.
    """
    signs = np.array([part.weight > 0 for part in query.parts])
    lists = ranking.top_by_part(limit)
    if not lists[0]:
        return [], True
    complete = len(lists[0]) < limit
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
            # A negative part is scored by the frame most similar to it, which has the lowest contribution.
            gains = {
                name: (max if sign else min)(parts[i][name] for i in known)
                for name, sign in zip(ranking.names, signs, strict=True)
            }
            found.append(Answer(min(known, key=lambda i: (-total[i], i)), sum(gains.values()), gains))
    # A frame outside the lists scores at most the last entry of each positive part's list. The list of a negative part
    # starts with the least similar frames, so its bound is the first entry.
    below = sum(ranked[-1 if sign else 0][1] for ranked, sign in zip(lists, signs, strict=True))
    return _decided(found, below, complete, catalog, lineage), complete


def _decided(
    found: list[Answer], below: float, complete: bool, catalog: Catalog, lineage: dict[int, Lineage]
) -> list[Answer]:
    """The answers in order, without those that an unread frame, which scores at most `below`, could still overtake."""
    ordered = sorted(found, key=lambda answer: (-answer.score, answer.frame))
    decided = ordered if complete else [answer for answer in ordered if answer.score > below]
    lineage.update(catalog.lineage(answer.frame for answer in decided))
    return [answer for answer in decided if answer.frame in lineage]


def _mean_breakdowns(
    query: Query, ranking: Ranking, members: Mapping[str, Sequence[int]], scores: Mapping[int, float]
) -> dict[int, dict[str, float]]:
    """For the best frame of each group: the mean of each part over the frames that enter the group's score."""
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
    """The frames of each series or study, limited to the allowed frames."""
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
    """The page, and whether it is final: full, with every near-duplicate above the next answer folded."""
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
        """The index of the most similar of `others`; None if its cosine similarity is below `cosine`."""
        if not others or frame not in self._rows:
            return None
        known = [self._rows[other] for other in others]
        alike = self._vectors[known] @ self._vectors[self._rows[frame]]
        best = int(np.argmax(alike))
        return best if alike[best] >= cosine else None
