"""Indexing killed at random moments and run again, until a run ends."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import crash_trial
from trials.registry import Tally, trial

from indexer.store.store import Store


@trial(attempts=400, share=0.05)
def kills(attempts: int, seed: int, folder: Path, tally: Tally) -> None:
    """SIGKILL at random moments of indexing leaves the store of one undisturbed run, and no frame is encoded twice."""
    rng = random.Random(seed)
    archive = crash_trial.make_archive(folder / "archive", 24)
    (folder / "logs").mkdir()
    whole = crash_trial.Trial(archive, folder / "whole", folder / "logs")
    whole.undisturbed()
    with Store.open(folder / "whole") as store:
        expected = crash_trial.contents(store)
    statuses = {dict(row)["status"] for row in expected["files"]}
    tally.require(statuses == {"indexed", "rejected"}, f"the archive must have files of both kinds, has {statuses}")
    lives = 0
    while tally.tried < attempts:
        life = crash_trial.Trial(archive, folder / "store", folder / "logs", finished=lives, at_work=whole.at_work)
        life.life(rng, most_kills=attempts - tally.tried)
        lives += 1
        with Store.open(folder / "store") as store:
            same = crash_trial.contents(store) == expected
        shutil.rmtree(folder / "store")
        if same and not life.encoded_again:
            tally.contained(life.kills)
        else:
            for _ in range(life.kills):
                tally.failed(f"store {lives}: same contents: {same}, frames encoded again: {len(life.encoded_again)}")
            tally.require(life.kills > 0, f"store {lives}, never killed, differs")
