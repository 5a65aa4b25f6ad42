"""Kill `index_archive` at random moments, as often as asked, and count what is lost, different, or encoded twice.

    python benchmarks/kills.py [--kills 200] [--files 60] [--seed 0]

Each store is made, indexed, killed (SIGKILL) and indexed again until a run ends; then all its rows and vectors, ids
aside, are compared with those of an uninterrupted run. Exits with 1 if any differ, or if a frame that was committed
before a kill was encoded after it. It says nothing of speed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from crash_trial import Trial, contents, make_archive

from indexer.store.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = make_archive(folder / "archive", asked.files)
        (folder / "logs").mkdir()
        whole = Trial(archive, folder / "whole", folder / "logs")
        whole.undisturbed()
        with Store.open(folder / "whole") as store:
            expected = contents(store)
        kills = stores = differing = again = 0
        while kills < asked.kills:
            trial = Trial(archive, folder / "store", folder / "logs", finished=stores, at_work=whole.at_work)
            trial.life(rng, most_kills=asked.kills - kills)
            with Store.open(folder / "store") as store:
                differing += contents(store) != expected
            shutil.rmtree(folder / "store")
            kills, stores, again = kills + trial.kills, stores + 1, again + len(trial.encoded_again)
            print(f"{kills} kills, {stores} stores, {differing} differ, {again} frames encoded again", flush=True)
    if differing or again:
        sys.exit(1)


if __name__ == "__main__":
    main()
