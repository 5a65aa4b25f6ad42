"""Going on from a trained model: what its folder decides, what it still knows, and the gate on what it forgets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command_line import medlens
from drawn_world import make_grey_world, settings_of_run, write_rows
from safetensors.torch import load_file, save_file

from retrieval.errors import TrainingError
from retrieval.statistics.bootstrap import Judgement
from retrieval.statistics.measures import mean_of
from retrieval.training.config import TrainingConfig, load_config
from retrieval.training.context import TrainingContext
from retrieval.training.continuing import WORDS, spelling_of
from retrieval.training.data import read_corpus
from retrieval.training.forgetting import RECALL, both_ways, compared
from retrieval.training.run import TrainingResult, train
from retrieval.training.scalars import NoScalars
from retrieval.training.set_up import set_up

STILL = dict.fromkeys(["rotation_degrees", "stretch", "shift", "gamma", "contrast", "brightness", "noise"], 0.0)
OLD, NEW = {"pairs": "old/pairs.jsonl"}, {"pairs": "new/pairs.jsonl"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_grey_world(tmp_path_factory.mktemp("world"))


def write_settings(world: Path, name: str, values: dict[str, Any]) -> Path:
    path = world / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def settings(name: str, data: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    schedule = {"epochs": 10, "batch_size": 24, "learning_rate": 1.0e-2, "warmup_steps": 5, "evaluate_every": 5}
    values = settings_of_run(
        name=name, output=f"out/{name}", data=data, label_sets={}, augmentation=STILL | {"scale": [1, 1]}
    )
    return values | {"schedule": schedule | {"ema": 0.9}} | changes


def going_on(name: str, data: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """The same without what the model decides."""
    values = settings(name, data, continue_from="out/base") | changes
    return {key: value for key, value in values.items() if key not in ("embed_dim", "image", "text") or key in changes}


@pytest.fixture(scope="module")
def base(world: Path) -> TrainingResult:
    values = settings("base", [OLD])
    values["schedule"]["epochs"] = 20  # what is to be forgotten has to be known well, on any machine's arithmetic
    return train(load_config(write_settings(world, "base", values)))


def config_of(world: Path, name: str, data: list[dict[str, Any]], **changes: Any) -> TrainingConfig:
    return load_config(write_settings(world, name, going_on(name, data, **changes)))


# What the folder decides


def test_architecture_vocabulary_and_weights_are_the_models(world: Path, base: TrainingResult, tmp_path: Path) -> None:
    config = config_of(world, "weights", [NEW], image={"drop_path": 0.0})
    assert config.embed_dim == 16
    assert (config.image.timm_model, config.image.image_size, config.image.drop_path) == ("test_efficientnet", 32, 0.0)
    assert config.text.context_length == 12
    run = set_up(TrainingContext(config, read_corpus(config.data, []), [], tmp_path))
    given = load_file(base.folder / "open_clip_model.safetensors")
    own = run.model.state_dict()
    assert {name for name in own if not name.endswith("num_batches_tracked")} == given.keys()
    for name, value in given.items():
        assert torch.equal(own[name], value.float()), name
    assert (tmp_path / "text" / "vocab.txt").read_bytes() == (base.folder / "vocab.txt").read_bytes()
    # Before the first step it is the old model: its figures on the old rows are those it was written with.
    again = config_of(world, "again", [OLD | {"rehearsal": True}])
    old = set_up(TrainingContext(again, read_corpus(again.data, []), [], tmp_path / "o"))
    assert old.validator.figures(old.averaged()).recall() == pytest.approx(base.figures.recall(), abs=0.02)


def test_a_smaller_vocabulary_keeps_what_its_words_meant(world: Path, base: TrainingResult, tmp_path: Path) -> None:
    few = NEW | {"only": {"text": ["tonea", "toneb"]}}
    config = config_of(world, "smaller", [few], text={"vocabulary": 1}, schedule={"batch_size": 4})
    corpus = read_corpus(config.data, [])
    run = set_up(TrainingContext(config, corpus, [], tmp_path))
    old = json.loads((base.folder / "tokenizer.json").read_text())["model"]["vocab"]
    new = json.loads((tmp_path / "text" / "tokenizer.json").read_text())["model"]["vocab"]
    assert len(new) < len(old)
    assert run.model.text.transformer.config.vocab_size == len(new)
    words = load_file(base.folder / "open_clip_model.safetensors")[WORDS].float()
    for piece, row in new.items():
        assert torch.equal(run.model.state_dict()[WORDS][row], words[old[piece]]), piece
    assert spelling_of(tmp_path / "text" / "tokenizer.json", ["tonea tonec"], 99).pieces_per_word == 3
    same = config_of(world, "same-words", [few], schedule={"batch_size": 4})
    whole = set_up(TrainingContext(same, corpus, [], tmp_path / "whole"))
    texts = [row.caption for row in corpus.rows]
    ours, theirs = (each.encode_texts.in_batches(each.model.eval(), texts) for each in (run, whole))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"embed_dim": 32}, "embed_dim is 32, but the model 'base' that the run continues has 16"),
        ({"image": {"timm_model": "test_vit"}}, r"image\.timm_model is 'test_vit', but"),
        ({"image": {"image_size": 64}}, r"image\.image_size is 64, but .* has 32"),
        ({"text": {"context_length": 24}}, r"text\.context_length is 24, but"),
        ({"text": {"start": "start"}}, r"text\.start can't be set"),
        ({"image": {"start": "x.pth"}}, r"image\.start can't be set"),
        ({"objective": {"initial_temperature": 0.1}}, r"objective\.initial_temperature can't be set"),
        ({"gate": {"most_lost": 1.0}}, "gate needs at least one source with rehearsal: true"),
        ({"continue_from": "nowhere"}, "the model to continue, 'nowhere', has no open_clip_config.json"),
        ({"image": 3}, "image: "),
    ],
)
def test_what_contradicts_the_model_is_refused(
    world: Path, base: TrainingResult, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(TrainingError, match=said):
        config_of(world, "odd", [NEW], **changes)


def test_a_share_of_the_start_is_kept(world: Path, base: TrainingResult, tmp_path: Path) -> None:
    name, given = "visual.trunk.conv_stem.weight", load_file(base.folder / "open_clip_model.safetensors")
    schedule = settings("x", [NEW])["schedule"] | {"epochs": 1, "evaluate_every": 1}
    weights = []
    for share in (0.0, 0.25):
        config = config_of(world, f"share-{share}", [NEW], schedule=schedule | {"start_share": share})
        run = set_up(TrainingContext(config, read_corpus(config.data, []), [], tmp_path / str(share)))
        run.train_epoch(NoScalars())
        weights.append(run.averaged().state_dict()[name])
        assert not torch.equal(run.model.state_dict()[name], given[name].float()), "the run itself goes on as without"
    learned, mixed = weights
    torch.testing.assert_close(mixed, 0.75 * learned + 0.25 * given[name].float(), rtol=0, atol=1e-6)
    assert not torch.allclose(mixed, learned, atol=1e-5)


def test_a_share_of_a_start_needs_one(world: Path) -> None:
    values = settings("none", [NEW])
    values["schedule"]["start_share"] = 0.5
    with pytest.raises(TrainingError, match="start_share needs continue_from"):
        load_config(write_settings(world, "none", values))


def test_what_agrees_with_the_model_may_be_said(world: Path, base: TrainingResult) -> None:
    assert config_of(world, "agrees", [NEW], embed_dim=16, image={"image_size": 32}).embed_dim == 16


def test_models_that_cant_be_gone_on_from(world: Path, base: TrainingResult) -> None:
    copy = world / "out" / "copy"

    def spoilt(change: Any) -> Path:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(base.folder, copy)
        change()
        return write_settings(world, "spoilt", going_on("spoilt", [NEW], continue_from="out/copy"))

    def pool() -> None:
        values = json.loads((copy / "open_clip_config.json").read_text())
        values["model_cfg"]["vision_cfg"]["timm_pool"] = "max"
        (copy / "open_clip_config.json").write_text(json.dumps(values))

    def tensor() -> None:
        state = load_file(copy / "open_clip_model.safetensors")
        save_file({name: v for name, v in state.items() if name != "logit_scale"}, copy / "open_clip_model.safetensors")

    with pytest.raises(
        TrainingError, match=r"differs from what `medlens train` would build in: .*vision_cfg\.timm_pool"
    ):
        train(load_config(spoilt(pool)))
    with pytest.raises(TrainingError, match=r"1 tensors of 'copy' are missing, .* the first logit_scale"):
        train(load_config(spoilt(tensor)))
    with pytest.raises(TrainingError, match="the output is the folder of the model 'base'"):
        train(config_of(world, "same", [NEW], output="out/base"))
    with pytest.raises(TrainingError, match="needs continue_from"):
        load_config(write_settings(world, "alone", settings("alone", [OLD | {"rehearsal": True}])))


# What it forgets


def test_without_rehearsal_the_gate_closes_and_the_model_is_written(world: Path, base: TrainingResult) -> None:
    assert base.figures.recall() > 0.9
    data = [NEW, OLD | {"rehearsal": True, "sample": 1}]  # one row an epoch rehearses next to nothing
    result = train(config_of(world, "forgets", data))
    forgetting = result.forgetting
    assert forgetting is not None
    found = forgetting.sources["old"]
    assert found.first == pytest.approx(base.figures.recall(), abs=0.02)
    assert found.second < 0.7  # the words mean the opposite now; 0.42 by chance
    assert found.low <= found.value <= found.high < 0
    assert forgetting.forgotten == ["old"]
    assert result.figures.recall("new") > found.second
    # The same code judges before, after, and for the card.
    assert found.second == pytest.approx(result.figures.recall("old"), abs=1e-6)
    card = (result.folder / "README.md").read_text()
    assert "More is lost than may be, 2.0 points: old" in card
    assert forgetting.line("old") in card
    assert "The model base, SHA-256" in card
    assert "| old |" in card
    assert (result.folder / "START.md").read_text().startswith("# base")
    assert json.loads((result.folder / "metrics.json").read_text())["forgetting"]["most_lost"] == 2.0
    train(load_config(write_settings(world, "third", going_on("third", [NEW], continue_from="out/forgets"))))
    cards = (world / "out" / "third" / "START.md").read_text()
    assert cards.index("# forgets") < cards.index("# base")
    assert "nothing says what the model has forgotten" in (world / "out" / "third" / "README.md").read_text()


def test_the_old_rows_alone_are_not_forgotten(world: Path, base: TrainingResult) -> None:
    result = train(config_of(world, "rehearses", [OLD | {"rehearsal": True}], gate={"most_lost": 4.2}))
    assert result.forgetting is not None
    assert result.forgetting.forgotten == []
    assert "At most 4.2 points may be lost: the gate is passed." in (result.folder / "README.md").read_text()


def test_it_goes_on_bit_for_bit_but_not_from_another_model(world: Path, base: TrainingResult) -> None:
    schedule = {"epochs": 2, "batch_size": 24, "evaluate_every": 1}
    data = [NEW, OLD | {"rehearsal": True}]
    model = world / "out" / "moved"
    shutil.copytree(base.folder, model)
    whole = train(config_of(world, "whole", data, schedule=schedule, continue_from="out/moved"))
    config = config_of(world, "killed", data, schedule=schedule, continue_from="out/moved")

    def kill(epoch: int, loss: float, figures: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, on_epoch=kill)
    resumed = train(config)
    assert resumed.forgetting == whole.forgetting
    name = "open_clip_model.safetensors"
    assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    state = load_file(model / name)
    save_file(state | {"logit_scale": state["logit_scale"] + 1}, model / name)
    with pytest.raises(TrainingError, match="another configuration or other data"):
        train(config)


def test_a_rehearsal_that_nothing_can_judge_is_refused(world: Path, base: TrainingResult) -> None:
    write_rows(world / "old", [{"image": f"{i}.png", "text": "tonea", "group": str(i)} for i in range(24)], "no.jsonl")
    with pytest.raises(TrainingError, match="none of the rehearsal sources has dev rows: old"):
        train(config_of(world, "blind", [NEW, {"pairs": "old/no.jsonl", "rehearsal": True}]))


def test_the_mean_of_both_ways_by_hand() -> None:
    class Way:
        def __init__(self, hits: list[float], groups: list[str]) -> None:
            self.figures = type("Figures", (), {"hits": {10: np.array(hits)}})
            self.judgement = Judgement(groups, {RECALL: mean_of(np.array(hits))}, {})

    before = both_ways(Way([1, 1, 1, 0], ["a", "a", "b", "b"]), Way([1, 0], ["a", "b"]))  # type: ignore[arg-type]
    after = both_ways(Way([1, 1, 0, 0], ["a", "a", "b", "b"]), Way([1, 0], ["a", "b"]))  # type: ignore[arg-type]
    found = compared({"x": before}, {"x": after}, 12.5)
    assert (found.sources["x"].first, found.sources["x"].second) == ((0.75 + 0.5) / 2, (0.5 + 0.5) / 2)
    assert found.lost("x") == pytest.approx(12.5)
    assert found.forgotten == []  # as much as may be lost, not more
    assert compared({"x": before}, {"x": after}, 12.4).forgotten == ["x"]
    assert (found.sources["x"].low, found.sources["x"].high) == (-0.25, 0.0)  # both of b, or none of it


# Words that the vocabulary lacks


def test_spelling_is_counted(base: TrainingResult) -> None:
    found = spelling_of(base.folder / "tokenizer.json", ["tonea", "tonea", "zebra é", "漢字 tonea", "a " * 12], 12)
    assert (found.texts, found.unknown, found.cut) == (4, 1, 1)
    assert found.pieces_per_word == pytest.approx((1 + 6 + 3 + 12) / (1 + 2 + 3 + 12))


def test_unknown_words_are_said(world: Path, base: TrainingResult, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"image": f"{i}.png", "text": f"漢 tone{i}", "group": str(i)} for i in range(24)]
    write_rows(world / "new", rows, "kanji.jsonl")
    schedule = {"epochs": 1, "batch_size": 24, "evaluate_every": 1}
    result = train(config_of(world, "kanji", [{"pairs": "new/kanji.jsonl"}], schedule=schedule))
    assert "new: 24 of 24 texts have a word with a character that is not in the vocabulary of the model" in caplog.text
    assert "| new | 24 |" in (result.folder / "README.md").read_text().split("spells the texts")[1]


def test_the_command_exits_with_3(world: Path, base: TrainingResult) -> None:
    schedule = going_on("x", [])["schedule"]
    values = going_on("command", [NEW, OLD | {"rehearsal": True, "sample": 1}], schedule=schedule)
    values.pop("continue_from")
    path = write_settings(world, "command", values | {"gate": {"most_lost": 5.0}})
    result = medlens("train", path, "--continue", base.folder, "--device", "cpu", code=3)
    assert f"old: R@10 of {100 * base.figures.recall():.1f} before" in result.stdout
    assert "forgotten more than the 5 points of R@10" in result.stderr
    assert (world / "out" / "command" / "open_clip_model.safetensors").is_file()
