"""The image tower's warm-up: its loss by plain loops, which images it may see, and that it goes on where it was."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from drawn_world import SHAPES, TONES, draw, make_world, write_rows, write_run
from PIL import Image

from retrieval.errors import TrainingError
from retrieval.training.config import TrainingConfig
from retrieval.training.context import TrainingContext
from retrieval.training.data import read_corpus
from retrieval.training.loop import Loop
from retrieval.training.run import train
from retrieval.training.set_up import set_up
from retrieval.training.unpaired import read_unpaired
from retrieval.training.warm_up import two_views, warm_up

SCHEDULE = {"epochs": 2, "batch_size": 24, "evaluate_every": 2, "warmup_steps": 3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With 30 pictures in a folder `more`, without captions."""
    root = make_world(tmp_path_factory.mktemp("world"))
    (root / "more" / "deep").mkdir(parents=True)
    rng = np.random.default_rng(1)
    for i in range(30):
        draw(root / "more" / ("deep" if i % 2 else "") / f"m{i}.png", SHAPES[i % 3], TONES[i % 2], rng)
    return root


# The loss


@pytest.mark.parametrize("groups", [[0, 1, 2, 3], [0, 0, 1, 2], [0, 1, 1, 1]])
def test_two_views_by_plain_loops(groups: list[int]) -> None:
    generator = torch.Generator().manual_seed(len(set(groups)))
    first, second = (F.normalize(torch.randn(4, 8, generator=generator), dim=-1).double() for _ in range(2))
    views, owner = torch.cat([first, second]), [0, 1, 2, 3] * 2
    total = 0.0
    for i in range(8):
        mate = (i + 4) % 8
        others = [j for j in range(8) if groups[owner[j]] != groups[owner[i]]] + [mate]
        below = sum(math.exp(float(views[i] @ views[j]) / 0.3) for j in others)
        total += math.log(below) - float(views[i] @ views[mate]) / 0.3
    found = two_views(first, second, torch.tensor(groups), 0.3)
    assert found.item() == pytest.approx(total / 8, rel=1e-9)


# Which images it sees


def configured(world: Path, name: str, **changes: Any) -> TrainingConfig:
    settings = {"epochs": 3, "batch_size": 24, "images": [{"path": "more", "terms": "drawn"}]} | changes
    return write_run(world, name, warm_up=settings, schedule=SCHEDULE)


def seen(world: Path, entries: list[str], data: list[dict[str, Any]] | None = None) -> list[list[str]]:
    changes: dict[str, Any] = {"data": data} if data is not None else {"data": [{"pairs": "shapes/pairs.jsonl"}]}
    warm = {"images": [{"path": entry} for entry in entries]}
    config = write_run(world, "seen", warm_up=warm, label_sets={}, **changes)
    return [[row.image.name for row in each.rows] for each in read_unpaired(config, read_corpus(config.data, []))]


def test_a_folder_and_its_folders(world: Path) -> None:
    (found,) = seen(world, ["more"])
    assert sorted(found) == sorted(f"m{i}.png" for i in range(30))


def test_held_out_images_their_copies_and_their_patients_stay_out(world: Path) -> None:
    """Rows 72 to 95 are dev; row 0 is a training image of the run already."""
    folder = world / "leaky"
    folder.mkdir()
    shutil.copy(world / "shapes" / "80.png", folder / "copy-of-80.png")
    shutil.copy(world / "shapes" / "0.png", folder / "copy-of-0.png")
    rows = [
        {"image": "../shapes/81.png"},
        {"image": "../shapes/1.png"},
        {"image": "../more/m0.png", "split": "dev"},
        {"image": "../more/m2.png", "split": "test"},
        {"image": "../more/m4.png", "group": "g40"},  # of rows 80 and 81
        {"image": "../more/m6.png", "group": "another"},
        {"image": "../more/m8.png", "split": "train"},
    ]
    write_rows(folder, rows, "more.jsonl")
    assert seen(world, ["leaky", "leaky/more.jsonl"]) == [["copy-of-0.png"], ["m6.png", "m8.png"]]
    with pytest.raises(TrainingError, match="'shapes' has no new image; all are held out or already part of the run"):
        seen(world, ["shapes"])


def test_a_held_out_row_without_a_text_is_held_out_too(world: Path) -> None:
    rows = [json.loads(line) for line in (world / "shapes" / "pairs.jsonl").read_text().splitlines()]
    rows += [{"image": "../more/m0.png", "group": "mute", "split": "dev"}]
    rows += [{"image": "../more/m2.png", "group": "mute", "split": "dev", "text": ""}]
    rows += [{"image": "../more/m4.png", "group": "mute too"}]
    write_rows(world / "shapes", rows, "mute.jsonl")
    (found,) = seen(world, ["more"], [{"pairs": "shapes/mute.jsonl"}])
    assert len(found) == 28
    assert "m4.png" in found


def test_an_image_named_twice_is_seen_once(world: Path) -> None:
    write_rows(world / "more", [{"image": "m0.png"}, {"image": "deep/m1.png"}], "two.jsonl")
    assert [len(names) for names in seen(world, ["more/two.jsonl", "more"])] == [2, 28]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "can't be read"),
        ("{", "line 1 is not JSON"),
        ("[1]", "not a JSON object"),
        ('{"group": "x"}', "line 1 has no image"),
        ('{"image": "x.png", "split": "training"}', "the split 'training'"),
    ],
)
def test_what_gives_no_images_is_said(world: Path, content: str | None, said: str) -> None:
    (world / "odd.jsonl").unlink(missing_ok=True)
    if content is not None:
        (world / "odd.jsonl").write_text(content)
    with pytest.raises(TrainingError, match=said):
        seen(world, ["odd.jsonl"])


def test_too_few_images_for_a_batch_and_one_that_is_none(world: Path) -> None:
    with pytest.raises(TrainingError, match="the warm-up has 102 images, expected at least one batch of 103"):
        train(configured(world, "few", batch_size=103))
    (world / "torn").mkdir()
    (world / "torn" / "x.png").write_bytes(b"PNG")
    with pytest.raises(TrainingError, match=r"'x\.png' can't be read"):
        train(configured(world, "torn-run", images=[{"path": "torn"}]))


# Runs


def run_of(config: TrainingConfig, work: Path) -> Loop:
    return set_up(TrainingContext(config, read_corpus(config.data, []), [], work))


def test_it_learns_to_know_an_image_again(world: Path, tmp_path: Path) -> None:
    """The loss falls; the text tower stays as it was."""
    warm = {"epochs": 30, "batch_size": 24, "learning_rate": 5e-3, "images": [{"path": "more"}]}
    config = write_run(
        world, "learns", warm_up=warm, schedule=SCHEDULE, label_sets={}, data=[{"pairs": "shapes/pairs.jsonl"}]
    )
    run = run_of(config, tmp_path)
    losses: dict[int, float] = {}

    def note(what: str, done: int, total: int) -> None:
        if what.startswith("warm-up") and done == total:
            losses[len(losses)] = float(what.rpartition(" ")[2])

    text_before = {name: tensor.clone() for name, tensor in run.model.text.state_dict().items()}
    run.context = replace(run.context, on_progress=note)
    warm_up(run, read_unpaired(config, run.context.corpus), "x")
    assert len(losses) == 30
    assert losses[29] < losses[0] - 0.5
    for name, tensor in run.model.text.state_dict().items():
        assert torch.equal(tensor, text_before[name])


def weights(folder: Path) -> bytes:
    return (folder / "open_clip_model.safetensors").read_bytes()


class Killed(BaseException):
    pass


def killed_after(config: TrainingConfig, what: str) -> None:
    def kill(said: str, done: int, total: int) -> None:
        if said.startswith(what):
            raise Killed

    with pytest.raises(Killed):
        train(config, on_progress=kill)


def test_a_warm_up_that_was_killed_goes_on_bit_for_bit(world: Path) -> None:
    whole = train(configured(world, "warm-whole", epochs=4))
    config = configured(world, "warm-killed", epochs=4)
    killed_after(config, "warm-up 4")  # after the state of epoch 2
    work = config.output.parent / "warm-killed.work" / "warm_up"
    assert torch.load(work / "state.pt", weights_only=True)["epoch"] == 2
    killed_after(config, "epoch 1")  # the warm-up has ended, training has no state yet
    said: list[str] = []
    again = train(config, on_progress=lambda what, done, total: said.append(what))
    assert not any(what.startswith("warm-up") for what in said)
    assert weights(again.folder) == weights(whole.folder)
    without = train(write_run(world, "warm-without", schedule=SCHEDULE))
    assert weights(without.folder) != weights(whole.folder)


def test_chunks_and_a_locked_group(world: Path, tmp_path: Path) -> None:
    """Locked layers stay, the rest moves; a batch in chunks goes through."""
    warm = {"epochs": 1, "batch_size": 24}
    config = write_run(
        world,
        "chunked",
        warm_up=warm,
        label_sets={},
        data=[{"pairs": "shapes/pairs.jsonl"}],
        image={"timm_model": "test_efficientnet", "image_size": 32, "locked_groups": 1},
        schedule=SCHEDULE | {"chunk_size": 10},
    )
    run = run_of(config, tmp_path)
    before = {name: tensor.clone() for name, tensor in run.model.visual.state_dict().items()}
    warm_up(run, [], "x")
    after = run.model.visual.state_dict()
    stem = [name for name in before if name.startswith(("trunk.conv_stem", "trunk.bn1"))]
    assert stem
    assert all(torch.equal(before[name], after[name]) for name in stem)
    assert not torch.equal(before["trunk.classifier.weight"], after["trunk.classifier.weight"])


def test_the_card_says_what_it_was_warmed_up_on(world: Path) -> None:
    write_rows(world / "more", [{"image": f"m{i}.png", "group": f"p{i % 4}"} for i in range(0, 30, 2)], "rows.jsonl")
    entries = [{"path": "more/rows.jsonl", "terms": "any use"}, {"path": "more"}]
    card = " ".join((train(configured(world, "card", images=entries)).folder / "README.md").read_text().split())
    assert "| more/rows.jsonl, images alone | 15 | 0 | 2 | any use | `" in card
    assert "| more, images alone | 15 | 0 | 15 | | a folder |" in card
    assert "warmed up without texts on 102 images, for 3 epochs of batch 24" in card


def test_grey_and_coloured_files_alike(world: Path) -> None:
    (world / "colour").mkdir()
    Image.new("RGB", (20, 30), (200, 10, 10)).save(world / "colour" / "a.JPG")
    (world / "colour" / "notes.txt").write_text("no picture")
    assert seen(world, ["colour"]) == [["a.JPG"]]
