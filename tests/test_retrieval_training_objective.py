"""The losses against plain loops and open_clip's, and runs under each of the objective's choices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from drawn_world import make_world, write_rows, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import SigLipLoss

from retrieval.encoders.clip import ClipEncoder
from retrieval.errors import TrainingError
from retrieval.training.context import TrainingContext
from retrieval.training.data import read_corpus
from retrieval.training.objective import (
    HardNegatives,
    Mirrored,
    multi_positive_infonce,
    pairwise_sigmoid,
    positive_pairs,
)
from retrieval.training.run import train
from retrieval.training.set_up import set_up
from retrieval.training.texts import Texts


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def features(n: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 12), seed=st.integers(0, 99), scale=st.floats(1, 100), bias=st.floats(-12, 3))
def test_with_all_texts_different_it_is_siglips_loss(n: int, seed: int, scale: float, bias: float) -> None:
    images, texts = features(n, seed), features(n, seed + 1)
    ours = pairwise_sigmoid(images, texts, torch.tensor(scale), torch.tensor(bias), torch.eye(n, dtype=torch.bool))
    theirs = SigLipLoss()(images, texts, torch.tensor(scale), torch.tensor(bias))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 7), k=st.integers(1, 5), seed=st.integers(0, 99))
def test_hard_negatives_by_plain_loops(n: int, k: int, seed: int) -> None:
    images, texts, wrong = (features(size, seed + at).double() for at, size in enumerate((n, n, k)))
    rng = np.random.default_rng(seed)
    owners, ids = rng.integers(0, n, k), rng.integers(0, 3, n)
    hard = HardNegatives(wrong, torch.from_numpy(owners))
    positive = positive_pairs(torch.from_numpy(ids))
    scale, bias = torch.tensor(7.0), torch.tensor(-2.0)
    logits, extra = 7 * (images @ texts.T).numpy(), 7 * (images @ wrong.T).numpy()

    softmax = 0.0
    for way, matrix in (("text", logits), ("image", logits.T)):
        for i in range(n):
            right = [j for j in range(n) if ids[j] == ids[i]]
            below = [matrix[i, j] for j in range(n)]
            if way == "text":
                below += [extra[i, j] for j in range(k) if owners[j] == i]
            below_log = np.log(np.exp(below).sum())
            softmax += sum(below_log - matrix[i, j] for j in right) / len(right) / n / 2
    assert multi_positive_infonce(images, texts, scale, positive, hard).item() == pytest.approx(softmax, rel=1e-6)

    sigmoid = sum(
        np.log1p(np.exp(-(1 if ids[i] == ids[j] else -1) * (logits[i, j] - 2))) for i in range(n) for j in range(n)
    ) + sum(np.log1p(np.exp(extra[owners[j], j] - 2)) for j in range(k))
    assert pairwise_sigmoid(images, texts, scale, bias, positive, hard).item() == pytest.approx(sigmoid / n, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 6), m=st.integers(1, 4), seed=st.integers(0, 99))
def test_mirrored_images_by_plain_loops(n: int, m: int, seed: int) -> None:
    images, texts, turned = (features(size, seed + at).double() for at, size in enumerate((n, n, m)))
    owners = np.random.default_rng(seed).integers(0, n, m)
    mirror = Mirrored(turned, torch.from_numpy(owners))
    positive, scale, bias = torch.eye(n, dtype=torch.bool), torch.tensor(7.0), torch.tensor(-2.0)
    logits, extra = 7 * (images @ texts.T).numpy(), 7 * (texts @ turned.T).numpy()  # extra: [text, mirrored image]

    softmax = 0.0
    for i in range(n):
        below_text = [logits[j, i] for j in range(n)] + [extra[i, j] for j in range(m) if owners[j] == i]
        softmax += (np.log(np.exp(logits[i]).sum()) + np.log(np.exp(below_text).sum()) - 2 * logits[i, i]) / n / 2
    found = multi_positive_infonce(images, texts, scale, positive, mirror=mirror)
    assert found.item() == pytest.approx(softmax, rel=1e-6)

    without = pairwise_sigmoid(images, texts, scale, bias, positive).item()
    sigmoid = without + sum(np.log1p(np.exp(extra[owners[j], j] - 2)) for j in range(m)) / n
    assert pairwise_sigmoid(images, texts, scale, bias, positive, mirror=mirror).item() == pytest.approx(sigmoid)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_hard_negatives_push_their_own_image_alone(loss: str) -> None:
    images, texts, wrong = features(3, 0).requires_grad_(), features(3, 1), features(1, 2)
    positive, scale = positive_pairs(torch.arange(3)), torch.tensor(5.0)
    gradients = []
    for hard in (None, HardNegatives(wrong, torch.tensor([1]))):
        if loss == "softmax":
            value = multi_positive_infonce(images, texts, scale, positive, hard)
        else:
            value = pairwise_sigmoid(images, texts, scale, torch.tensor(-2.0), positive, hard)
        gradients.append(torch.autograd.grad(value, images)[0])
    change = gradients[1] - gradients[0]
    assert not change[[0, 2]].any()
    assert change[1] @ wrong[0] > 0  # a step down the gradient turns it away


def test_near_texts_are_positives_unless_they_claim_otherwise() -> None:
    pooled = torch.tensor([[1.0, 0.0], [2.0, 0.1], [3.0, 0.1], [0.0, 1.0]])
    ids, same = torch.arange(4), torch.zeros(4, dtype=torch.long)
    near = positive_pairs(ids, pooled, same, 0.9)
    assert near[:3, :3].all()
    assert near[3].tolist() == [False, False, False, True]
    parted = positive_pairs(ids, pooled, torch.tensor([0, 0, 1, 0]), 0.9)
    assert parted[0].tolist() == [True, True, False, False]
    assert torch.equal(positive_pairs(ids, pooled, same, 0.9999), torch.eye(4, dtype=torch.bool))
    assert torch.equal(positive_pairs(torch.tensor([5, 5, 2, 2]))[0], torch.tensor([True, True, False, False]))


# Runs


def short(world: Path, name: str, **changes: Any) -> Any:
    schedule = {"epochs": 2, "batch_size": 24, "evaluate_every": 2, "warmup_steps": 3}
    return write_run(world, name, schedule=schedule, **changes)


@pytest.fixture(scope="module")
def sided(world: Path) -> dict[str, Any]:
    """A source whose texts name sides and findings, near-equal ones among them, and have sentences."""
    said = ["left mass", "right mass", "a mass on the left", "no cyst", "dark cyst of the heart", "a cyst"]
    rows = [
        {
            "image": f"{i}.png",
            "text": said[i % 6],
            "group": f"s{i}",
            "split": "dev" if i >= 60 else "train",
            "report": f"The {said[i % 6]} is round. A grey shape is seen.",
        }
        for i in range(72)
    ]
    write_rows(world / "shapes", rows, "sided.jsonl")
    return {"pairs": "shapes/sided.jsonl", "sentences": {"report": 0.5}}


def test_siglip_learns_and_opens_everywhere(world: Path) -> None:
    schedule = {"epochs": 40, "batch_size": 24, "learning_rate": 1.0e-2, "warmup_steps": 5, "evaluate_every": 40}
    config = write_run(world, "siglip", objective={"loss": "siglip", "initial_temperature": 0.1}, schedule=schedule)
    result = train(config)
    (zero_shot,) = result.figures.zero_shot["shapes"]
    assert zero_shot.accuracy.low > zero_shot.accuracy.chance
    assert result.figures.retrieval["shapes"].image_to_text[1].low > 1 / 6
    model = open_clip.create_model(f"local-dir:{result.folder}")
    assert model.logit_bias is not None
    assert model.logit_bias.item() != -10.0, "the bias was not trained, or not read"
    assert abs(model.logit_bias.item() + 10.0) < 5
    assert ClipEncoder.load(str(result.folder), "cpu", "fp32").encode_text(["a dark circle"]).shape == (1, 16)
    assert "Sigmoid loss over pairs (SigLIP); equal texts as positives." in (result.folder / "README.md").read_text()


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_every_trick_at_once(world: Path, sided: dict[str, Any], loss: str) -> None:
    objective = {"loss": loss, "near_equal": 0.95, "hard_negatives": ["side", "negation", "mirror"]}
    config = short(
        world,
        f"all-{loss}",
        data=[sided],
        label_sets={},
        objective=objective,
        augmentation={"flip": 0.5, "scale": [1, 1], "borders": 0.25},
    )
    card = (train(config).folder / "README.md").read_text()
    assert "texts of a cosine of 0.95 or more too" in card
    assert "each caption with left and right exchanged and with its first finding denied as a hard negative" in card
    assert "single sentences drawn from long texts" in card
    assert "50 % of images mirrored, left and right exchanged in their texts" in card
    assert "the mirrored image as a hard negative of a text that names a side" in card
    assert "to hide the source of some images, grey borders (25 %)" in card


def test_the_texts_of_a_run(world: Path, sided: dict[str, Any]) -> None:
    config = short(world, "texts", data=[sided], label_sets={}, objective={"hard_negatives": ["side", "negation"]})
    corpus = read_corpus(config.data, [])
    assert corpus.rows[0].texts == (
        ("left mass", 1.0),
        ("The left mass is round.", 0.25),
        ("A grey shape is seen.", 0.25),
    )
    texts = Texts(corpus, [], config)

    def hard(text: str) -> list[str]:
        return [texts.all[i] for i in texts.hard.get(texts.ids[text], [])]

    assert hard("left mass") == ["right mass", "no left mass"]
    assert hard("no cyst") == ["cyst"]
    assert hard("A grey shape is seen.") == []
    assert texts.mirrored == {}
    plain = Texts(corpus, [], short(world, "plain", data=[sided], label_sets={}))
    assert plain.hard == {}
    assert plain.all == list(dict.fromkeys(text for row in corpus.rows for text, _ in row.texts))


def test_a_mirrored_image_comes_with_its_mirrored_text(world: Path, sided: dict[str, Any], tmp_path: Path) -> None:
    config = short(world, "mirror", data=[sided | {"sentences": {}}], label_sets={}, augmentation={"flip": 0.5})
    run = set_up(TrainingContext(config, read_corpus(config.data, []), [], tmp_path))
    said = ["left mass", "no cyst", "dark cyst of the heart"] * 8
    before = [run.texts.ids[text] for text in said]
    canvas = torch.rand(24, 1, 4, 4)
    turned, after = run._flipped(canvas, before)
    flipped = dict.fromkeys(said, 0)
    for i, text in enumerate(said):
        mirror = bool(torch.equal(turned[i], canvas[i].flip(-1)))
        assert mirror != bool(torch.equal(turned[i], canvas[i]))
        assert run.texts.all[after[i]] == (text.replace("left", "right") if mirror else text)
        flipped[text] += mirror
    assert flipped["dark cyst of the heart"] == 0
    assert 0 < flipped["left mass"] < 8
    assert 0 < flipped["no cyst"] < 8
    assert run._flipped(canvas, before)[1] == after, "a function of seed and step"


def test_only_images_whose_text_names_a_side_are_mirrored_as_wrong(
    world: Path, sided: dict[str, Any], tmp_path: Path
) -> None:
    config = short(
        world, "wrong", data=[sided | {"sentences": {}}], label_sets={}, objective={"hard_negatives": ["mirror"]}
    )
    run = set_up(TrainingContext(config, read_corpus(config.data, []), [], tmp_path))
    chosen = [run.texts.ids[text] for text in ["left mass", "no cyst", "right mass", "a cyst"] * 6]
    drawn = run._to_mirror(chosen)
    assert len(drawn) == 3, "an eighth of 24"
    assert all(i % 2 == 0 for i in drawn)
    assert run._to_mirror(chosen) == drawn, "a function of seed and step"
    assert run._to_mirror([run.texts.ids["no cyst"]] * 24) == []


def test_near_texts_need_a_locked_tower(world: Path) -> None:
    with pytest.raises(TrainingError, match=r"objective\.near_equal needs text\.locked: true"):
        short(
            world,
            "unlocked",
            objective={"near_equal": 0.9},
            text={"start": "start", "context_length": 12, "locked": False},
        )
