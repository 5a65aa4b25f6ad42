"""Judge a model on pairs of your own, and say the figures with their intervals and with what guessing gives.

    python examples/judge_a_model.py PAIRS --model medlens-base

PAIRS is a JSON-lines file as docs/train.md describes it, or the folder that holds one; its dev rows are judged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import medlens


def judge(pairs: Path, model: str | None = None) -> list[str]:
    """A line for each way of asking: its recall at 10, with its 95 % interval and with what guessing gives."""
    judged = medlens.evaluate_pairs(pairs, medlens.EvaluationSettings(resamples=500), model=model)
    return [
        f"{result.name} ({result.ranker}): R@10 {result.estimates['R@10']}" for result in judged.evaluation.retrieval
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model")
    options = parser.parse_args()
    print("\n".join(judge(options.pairs, options.model)))
