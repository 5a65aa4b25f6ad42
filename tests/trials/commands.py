"""`medlens` in a child, with a small encoder in place of the model of a store."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from trials.jobs import Encoder, ReadHere


def as_command(arguments: Sequence[str], folder: Path, pace_s: float = 0.0) -> tuple[int, str, str]:
    """In a child: what `medlens` ends with, says on stderr and answers, with a small encoder in place of its model.

    `folder` takes what it writes; each picture takes the encoder `pace_s` seconds.
    """
    from cli.medlens_app import main
    from indexer.reading import pictures
    from indexer.run import batches, pipeline
    from indexer.store import own_model, place
    from indexer.tasks import classifying, indexing
    from retrieval.encoders.clip import ClipEncoder

    encoder = Encoder(pace_s)
    batches.MOST_FILES = 4
    pipeline.GuardedPool = pictures.GuardedPool = ReadHere
    place.secrets.token_bytes = lambda count: bytes(range(count or 0))
    place.uuid.uuid4 = lambda: uuid.UUID(int=4)
    ClipEncoder.from_source = lambda *_: encoder
    indexing.resolve_model = indexing.model_source = classifying.resolve_model = lambda *_: None
    indexing.try_to_remember = lambda *_: None
    own_model.store_model = classifying.store_model = lambda *_: encoder
    said, answered = folder / "said", folder / "answered"
    with said.open("wb") as err, answered.open("wb") as out:
        os.dup2(err.fileno(), 2)
        os.dup2(out.fileno(), 1)
    sys.argv = ["medlens", *arguments]
    try:
        main()
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code, said.read_text(), answered.read_text()


def lines_said(said: str) -> list[str]:
    """What was said on stderr; an error in JSON as the two lines that people get."""
    lines = []
    for line in said.strip().splitlines():
        if line.startswith("{"):
            told = json.loads(line)
            lines += [f"medlens: {told['error']}", *filter(None, [told["hint"]])]
        else:
            lines.append(line)
    return lines
