"""Learning from a teacher: its losses by plain loops, what is asked of it and how often, and a student beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from drawn_world import make_world, settings_of_run, write_rows, write_run
from PIL import Image
from tiny_models import write_clip

from cli.medlens_commands.train import train as train_command
from retrieval.encoders.clip import ClipEncoder
from retrieval.errors import TrainingError, WeightsNotFound
from retrieval.training.config import TrainingConfig, load_config, with_teacher
from retrieval.training.context import TrainingContext
from retrieval.training.data import read_corpus
from retrieval.training.loop import Loop
from retrieval.training.processes import Processes
from retrieval.training.run import TrainingResult, train
from retrieval.training.set_up import set_up
from retrieval.training.teacher import Distillation, TeacherEmbeddings, open_teacher, similarity_loss
from retrieval.zeroshot.labels import load_labels

SCHEDULE = {"epochs": 2, "batch_size": 24, "evaluate_every": 1, "warmup_steps": 3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def teacher(world: Path) -> TrainingResult:
    """Knows the shapes."""
    return train(load_config(world / "run.yaml"))


def configured(
    world: Path, name: str, model: Any, teacher: dict[str, Any] | None = None, **changes: Any
) -> TrainingConfig:
    changes = {"embed_dim": 8, "schedule": SCHEDULE} | changes
    return write_run(world, name, teacher={"model": str(model)} | (teacher or {}), **changes)


def embeddings_of(config: TrainingConfig, work: Path) -> tuple[Loop, TeacherEmbeddings]:
    labels = [load_labels(name) for name in config.label_sets]
    corpus = read_corpus(config.data, labels)
    run = set_up(TrainingContext(config, corpus, labels, work))
    encoder = open_teacher(config, "cpu")
    assert encoder is not None
    return run, TeacherEmbeddings(encoder, run.texts, corpus.rows, work, Processes(), lambda *_: None)


# The losses


def test_similarities_by_plain_loops() -> None:
    rng = np.random.default_rng(0)
    mine, theirs = rng.normal(size=(2, 5, 5))

    def one_way(a: Any, b: Any) -> float:
        total = 0.0
        for i in range(5):
            p, q = (np.exp(m[i]) / np.exp(m[i]).sum() for m in (b, a))
            total += sum(p[j] * (np.log(p[j]) - np.log(q[j])) for j in range(5))
        return total / 5

    expected = (one_way(mine, theirs) + one_way(mine.T, theirs.T)) / 2
    assert similarity_loss(*map(torch.from_numpy, (mine, theirs))).item() == pytest.approx(expected, rel=1e-9)
    same = torch.from_numpy(mine)
    assert similarity_loss(same, same + 3).item() == pytest.approx(0, abs=1e-9)


def test_a_student_that_says_what_the_teacher_says_has_nothing_to_learn(
    world: Path, teacher: TrainingResult, tmp_path: Path
) -> None:
    config = configured(world, "perfect", teacher.folder, embed_dim=16)
    run, embeddings = embeddings_of(config, tmp_path)
    distillation = Distillation(embeddings, config)
    assert not list(distillation.parameters()), "the widths are equal: no head"
    rows, scale = list(range(24)), torch.tensor(embeddings.logit_scale)
    ids = [run.texts.ids[row.caption] for row in run.context.corpus.rows[:24]]
    images, texts = torch.tensor(embeddings.train[rows]), torch.tensor(embeddings.texts[ids])
    everything = np.ones(24, bool)
    assert distillation(images, texts, rows, ids, scale, everything).item() == pytest.approx(0, abs=1e-5)
    wrong = images.clone()
    wrong[3] = -wrong[3]
    assert distillation(wrong, texts, rows, ids, scale, everything).item() > 0.1
    without = everything.copy()
    without[3] = False  # mirrored
    assert distillation(wrong, texts, rows, ids, scale, without).item() == pytest.approx(0, abs=1e-5)
    assert distillation(wrong, texts, rows, ids, scale, ~everything).item() == 0


def test_each_weight_counts_its_loss(world: Path, teacher: TrainingResult, tmp_path: Path) -> None:
    rows, generator = list(range(6)), torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(6, 8, generator=generator), dim=-1) for _ in range(2))
    found = {}
    for at, weights in enumerate([(1, 0), (0, 1), (0, 0), (2, 3)]):
        settings = {"embedding_weight": weights[0], "similarity_weight": weights[1], "temperature": 0.2}
        config = configured(world, "weights", teacher.folder, settings)
        (tmp_path / str(at)).mkdir()
        run, embeddings = embeddings_of(config, tmp_path / str(at))
        ids = [run.texts.ids[row.caption] for row in run.context.corpus.rows[:6]]
        distillation = Distillation(embeddings, config)
        assert [tuple(p.shape) for p in distillation.parameters()] == [(16, 8)]
        found[weights] = distillation(images, texts, rows, ids, torch.tensor(3.0), np.ones(6, bool)).item()
    assert found[0, 0] == 0
    assert found[2, 3] == pytest.approx(2 * found[1, 0] + 3 * found[0, 1], rel=1e-5)
    sure = torch.from_numpy(np.array(embeddings.train[rows] @ embeddings.texts[ids].T)) / 0.2
    assert found[0, 1] == pytest.approx(similarity_loss(3 * images @ texts.T, sure).item(), rel=1e-4)


# What the teacher is asked


@pytest.fixture(scope="module", params=["medlens", "open_clip"])
def model(request: pytest.FixtureRequest, teacher: TrainingResult, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "medlens":
        return str(teacher.folder)
    return f"local-dir:{write_clip(tmp_path_factory.mktemp('clip') / 'tiny')}"


def test_it_sees_the_images_through_its_own_preprocessing(world: Path, model: str, tmp_path: Path) -> None:
    run, embeddings = embeddings_of(configured(world, "asked", model), tmp_path)
    encoder = ClipEncoder.load(model, "cpu")
    pictures = [np.asarray(Image.open(row.image)) for row in run.context.corpus.rows]
    np.testing.assert_allclose(embeddings.train, encoder.encode_images(pictures[:72]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(embeddings.dev, encoder.encode_images(pictures[72:]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(embeddings.texts, encoder.encode_text(run.texts.all), rtol=0, atol=1e-5)


def test_it_is_asked_once(
    world: Path, teacher: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(world, "once", teacher.folder)
    _, embeddings = embeddings_of(config, tmp_path)
    first = np.array(embeddings.train)
    asked: list[int] = []
    encode = ClipEncoder.encode_images
    monkeypatch.setattr(
        ClipEncoder, "encode_images", lambda self, some: (asked.append(len(some)), encode(self, some))[1]
    )
    _, again = embeddings_of(config, tmp_path)
    assert asked == []
    np.testing.assert_array_equal(again.train, first)
    np.save(tmp_path / "teacher.train.npy", np.zeros((72, 16), np.float32))
    (tmp_path / "teacher.train.key").write_text("of another teacher")
    _, anew = embeddings_of(config, tmp_path)
    assert sum(asked) == 72
    np.testing.assert_array_equal(anew.train, first)


# Runs


def likeness(result: TrainingResult, teacher: TrainingResult, world: Path) -> float:
    """How far the similarities of the dev images to each other follow the teacher's: a correlation."""
    pictures = [np.asarray(Image.open(world / "shapes" / f"{i}.png")) for i in range(72, 96)]
    found = []
    for folder in (result.folder, teacher.folder):
        images = ClipEncoder.load(str(folder), "cpu", "fp32").encode_images(pictures)
        found.append((images @ images.T)[np.triu_indices(24, 1)])
    return float(np.corrcoef(found)[0, 1])


def test_a_student_learns_what_its_captions_do_not_say(world: Path, teacher: TrainingResult) -> None:
    """They name the tone alone; the teacher tells the shapes apart too."""
    rows = [json.loads(line) for line in (world / "shapes" / "pairs.jsonl").read_text().splitlines()]
    rows = [row | {"text": row["text"].rpartition(" ")[0] + " shape"} for row in rows]
    write_rows(world / "shapes", rows, "tones.jsonl")
    schedule = {"epochs": 40, "batch_size": 24, "learning_rate": 1.0e-2, "warmup_steps": 5, "evaluate_every": 40}
    plain: dict[str, Any] = {"schedule": schedule, "label_sets": {}, "data": [{"pairs": "shapes/tones.jsonl"}]}
    taught = train(configured(world, "taught", teacher.folder, {"embedding_weight": 5}, **plain))
    alone = train(write_run(world, "alone", embed_dim=8, **plain))
    assert likeness(taught, teacher, world) > likeness(alone, teacher, world) + 0.1


def weights(folder: Path) -> bytes:
    return (folder / "open_clip_model.safetensors").read_bytes()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("embed_dim", [8, 16])
def test_a_student_that_was_killed_goes_on_bit_for_bit(world: Path, teacher: TrainingResult, embed_dim: int) -> None:
    schedule = SCHEDULE | {"epochs": 4, "evaluate_every": 2}
    changes = {"schedule": schedule, "embed_dim": embed_dim, "augmentation": {"flip": 0.5}}
    whole = train(configured(world, f"student-whole-{embed_dim}", teacher.folder, **changes))
    config = configured(world, f"student-killed-{embed_dim}", teacher.folder, **changes)

    def kill(epoch: int, loss: float, figures: Any) -> None:
        if epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        train(config, on_epoch=kill)
    assert weights(train(config).folder) == weights(whole.folder)


def test_the_card_has_both_on_the_same_rows(world: Path, teacher: TrainingResult) -> None:
    heard: list[Any] = []
    result = train(configured(world, "card", teacher.folder), on_teacher=heard.append)
    assert heard == [result.teacher_report]
    mine, theirs = (figures.retrieval["shapes"] for figures in (result.figures, heard[0].figures))
    assert (theirs.images, theirs.texts) == (24, 6)
    card = (result.folder / "README.md").read_text()
    ways = [mine.image_to_text, theirs.image_to_text, mine.text_to_image, theirs.text_to_image]
    assert "| shapes | " + " | ".join(str(way[10]) for way in ways) + " |" in card
    table = [100 * way[10].value for way in (theirs.image_to_text, theirs.text_to_image)]
    assert f"| the teacher |  | {table[0]:.1f} / {table[1]:.1f} % |" in card
    spec = ClipEncoder.load(str(teacher.folder), "cpu").spec
    assert f"Taught by shapes (16 dimensions, weights `{spec.weights_sha256[:16]}...`" in card
    assert "through a linear head" in card
    metrics = json.loads((result.folder / "metrics.json").read_text())
    assert metrics["teacher"]["weights_sha256"] == spec.weights_sha256
    assert metrics["teacher"]["retrieval"]["shapes"]["images"] == 24


def test_from_the_command_line(world: Path, teacher: TrainingResult, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(world, "command", embed_dim=8, schedule=SCHEDULE | {"epochs": 1})
    train_command(world / "command.yaml", device="cpu", teacher=str(teacher.folder))
    said = capsys.readouterr()
    assert said.err.index("teacher shapes  shapes: R@10 ") < said.err.index("epoch    1  loss")
    assert "command: 1 epochs" in said.out
    assert "Taught by shapes" in (world / "out" / "command" / "README.md").read_text()


def test_another_teacher_is_another_run(world: Path, teacher: TrainingResult, tmp_path: Path) -> None:
    config = configured(world, "changed", teacher.folder)
    train(config)
    other = f"local-dir:{write_clip(tmp_path / 'other')}"
    with pytest.raises(TrainingError, match="was written with another configuration"):
        train(with_teacher(config, other))


def test_no_teacher_and_one_that_is_not_there(world: Path) -> None:
    with pytest.raises(TrainingError, match="the section teacher has no model") as caught:
        train(write_run(world, "nameless", teacher={"embedding_weight": 2}))
    assert "--teacher" in caught.value.hint
    with pytest.raises(WeightsNotFound, match="no model 'professor'"):
        train(with_teacher(load_config(world / "run.yaml"), "professor"))
    assert open_teacher(load_config(world / "run.yaml"), "cpu") is None


def test_a_folder_beside_the_configuration_is_found(world: Path, teacher: TrainingResult) -> None:
    config = write_run(world, "beside", teacher={"model": "local-dir:out/shapes", "temperature": 0.1})
    assert config.teacher is not None
    assert config.teacher.model == f"local-dir:{teacher.folder.resolve()}"
    other = with_teacher(config, "medlens-base").teacher
    assert other is not None
    assert (other.model, other.temperature) == ("medlens-base", 0.1)
    assert "teacher" not in settings_of_run()
