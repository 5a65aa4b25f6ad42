"""Where a model lies is the user's business, not a store's: the list of known models, and stores that lie."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from command_line import copied, medlens
from test_retrieval_light import write_bert_clip, write_wide_clip
from test_retrieval_model_hostile import AUTO_MAP, CODE, SENTINEL, changed, config_json, text_cfg, tokenizer_config
from tiny_models import write_clip

from indexer.store.store import Store
from retrieval.encoders.known_models import find_model, known_models, remember_model
from retrieval.encoders.model_list import add_model, list_models
from retrieval.encoders.model_parts import spec_of
from retrieval.encoders.model_source import DEFAULT_MODEL, resolve_model, shipped_models
from retrieval.encoders.terms import terms_of_model
from retrieval.errors import EncoderError, StoreError, StoreIncompatible, WeightsNotFound


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SENTINEL_FOLDER", str(tmp_path))
    monkeypatch.delenv("MEDLENS_MODEL", raising=False)
    return tmp_path / "home" / "medlens"


def spec_in(folder: Path) -> dict[str, Any]:
    return spec_of(resolve_model(str(folder))).to_json()


# -- the list


def test_a_model_that_was_added_is_found_by_what_it_is(tmp_path: Path, home: Path) -> None:
    folder = write_clip(tmp_path / "small")
    spec = spec_in(folder)
    with pytest.raises(WeightsNotFound, match=r"'small' .* is not known on this machine") as caught:
        find_model(spec)
    assert "medlens models add PLACE" in caught.value.hint
    assert str(tmp_path) not in f"{caught.value}{caught.value.hint}"
    add_model(str(folder))
    assert find_model(spec) == resolve_model(str(folder))
    assert find_model(spec | {"name": "as somebody else calls it"}) == resolve_model(str(folder))
    assert [(m.name, m.place) for m in list_models() if m.place] == [("small", f"local-dir:{folder}")]


def test_the_terms_of_the_weights_are_read_beside_them(tmp_path: Path, home: Path) -> None:
    folder = write_clip(tmp_path / "small")
    spec = spec_in(folder)
    assert terms_of_model(spec) == "terms unknown", "a model that nobody added"
    assert add_model(str(folder)).terms == "terms unknown"
    (folder / "terms.json").write_text('{"terms": "CC BY 4.0,   images of two hospitals"}')
    assert terms_of_model(spec) == "CC BY 4.0, images of two hospitals"
    assert [m.terms for m in list_models() if m.name == "small"] == ["CC BY 4.0, images of two hospitals"]
    for broken in ("[]", '{"terms": 3}', '{"terms": " "}', "{"):
        (folder / "terms.json").write_text(broken)
        assert terms_of_model(spec) == "terms unknown", broken


def test_the_list_is_its_owners_alone(tmp_path: Path, home: Path) -> None:
    before = os.umask(0)
    try:
        add_model(str(write_clip(tmp_path / "small")))
    finally:
        os.umask(before)
    assert stat.S_IMODE((home / "models.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert [path.name for path in home.iterdir()] == ["models.json"]


def test_several_may_add_at_once(tmp_path: Path) -> None:
    folders = [write_clip(tmp_path / f"m{i}", {"render_profile": {"percentiles": [i, 99]}}) for i in range(6)]
    threads = [threading.Thread(target=add_model, args=(str(folder),)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.place for one in known_models().values()} == {f"local-dir:{folder}" for folder in folders}


def test_a_shipped_model_needs_no_list(tmp_path: Path, home: Path) -> None:
    if DEFAULT_MODEL not in shipped_models():
        pytest.skip("the default model is not in data/models")
    spec = spec_of(resolve_model())
    assert not remember_model(spec, resolve_model())
    assert not home.exists()
    assert find_model(spec.to_json()) == resolve_model()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": 2, "models": {}}',
        '{"format": 1, "models": []}',
        '{"format": 1, "models": {"a": 1}}',
        '{"format": 1, "models": ' + '{"a":' * 100_000 + "1" + "}" * 100_001,
    ],
)
def test_a_list_that_is_damaged_says_so(tmp_path: Path, home: Path, content: str) -> None:
    home.mkdir(parents=True)
    (home / "models.json").write_text(content)
    with pytest.raises(EncoderError, match=r"the list of known models, models\.json, can't be read") as caught:
        find_model(spec_in(write_clip(tmp_path / "small")))
    assert "medlens models add" in caught.value.hint


def test_a_list_that_is_a_device(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "models.json").symlink_to("/dev/zero")
    with pytest.raises(EncoderError, match="a device"):
        known_models()


def test_a_model_that_has_moved(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "small")
    spec = spec_in(folder)
    add_model(str(folder))
    folder.rename(tmp_path / "moved")
    with pytest.raises(WeightsNotFound, match="is no longer at the location where it was added") as caught:
        find_model(spec)
    assert "models add" in caught.value.hint
    add_model(str(tmp_path / "moved"))
    assert find_model(spec) == resolve_model(str(tmp_path / "moved"))


# -- what a fingerprint covers


def test_two_models_that_differ_in_anything_are_two(tmp_path: Path) -> None:
    """The same weights throughout."""
    plain = write_bert_clip(tmp_path / "plain")
    weights = (plain / "open_clip_model.safetensors").read_bytes()
    changes = {
        "pooler": lambda f: text_cfg(f, hf_pooler_type="cls_last_hidden_state_pooler"),
        "context": lambda f: text_cfg(f, context_length=16),
        "tokenizer's settings": lambda f: text_cfg(f, tokenizer_kwargs={"clean": "canonicalize"}),
        "activation of the text tower": lambda f: config_json(f, hidden_act="relu"),
        "epsilon": lambda f: config_json(f, layer_norm_eps=1e-3),
        "case": lambda f: tokenizer_config(f, do_lower_case=False),
        "case that is not stated": lambda f: changed(f / "tokenizer_config.json", lambda c: c.pop("do_lower_case")),
        "vocabulary": lambda f: (f / "tokenizer.json").write_text(
            (f / "tokenizer.json").read_text().replace('"chest"', '"chesd"')
        ),
        "activation of the image tower": lambda f: _model_cfg(f, quick_gelu=True),
        "heads of the image tower": lambda f: _vision_cfg(f, head_width=16),
        "pooling of the image tower": lambda f: _vision_cfg(f, pool_type="avg"),
        "pixels": lambda f: _preprocess_cfg(f, mean=[0.5, 0.5, 0.5]),
    }
    found = {"plain": spec_of(resolve_model(str(plain)))}
    for name, change in changes.items():
        folder = Path(shutil.copytree(plain, tmp_path / name.replace(" ", "-")))
        change(folder)
        assert (folder / "open_clip_model.safetensors").read_bytes() == weights
        found[name] = spec_of(resolve_model(str(folder)))
    assert len({spec.fingerprint for spec in found.values()}) == len(changes) + 1
    assert {spec.weights_sha256 for spec in found.values()} == {found["plain"].weights_sha256}


def test_two_ways_to_say_the_same_are_one_model(tmp_path: Path) -> None:
    plain = write_bert_clip(tmp_path / "plain")
    other = Path(shutil.copytree(plain, tmp_path / "elsewhere"))
    text_cfg(other, hf_model_name="some/bert", hf_tokenizer_name="some/bert", tokenizer_mode=None)
    _vision_cfg(other, mlp_ratio=4, patch_dropout=0.5, timm_model_pretrained=True)
    _model_cfg(other, custom_text=True, quick_gelu=False, init_logit_scale=2.0)
    config_json(other, hidden_act="gelu", layer_norm_eps=1e-12, dtype="float16", architectures=["BertModel"])
    tokenizer_config(other, name_or_path="some/bert", model_max_length=9)
    assert spec_in(other) == spec_in(plain) | {"name": "elsewhere"}


def _edited(folder: Path, part: str, values: dict[str, Any]) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    inside = config["model_cfg"] if part == "model_cfg" else config["model_cfg"].get(part)
    if part == "preprocess_cfg":
        inside = config.setdefault(part, {})
    inside.update(values)
    path.write_text(json.dumps(config))


def _model_cfg(folder: Path, **values: Any) -> None:
    _edited(folder, "model_cfg", values)


def _vision_cfg(folder: Path, **values: Any) -> None:
    _edited(folder, "vision_cfg", values)


def _preprocess_cfg(folder: Path, **values: Any) -> None:
    _edited(folder, "preprocess_cfg", values)


# -- stores


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    return copied(("CT_small.dcm",), tmp_path / "archive")


def manifest(store: Path, **values: Any) -> None:
    """Write into a store what its maker might have written."""
    with Store.open(store) as opened:
        described = opened.manifest["model"] | values
        opened.manifest["model"] = {k: v for k, v in described.items() if v is not None}


OLD = {"configuration": None, "tokenizer": None, "fingerprint": None}  # what 0.1.0 did not write


def test_a_store_is_answered_by_the_model_that_the_user_named_once(tmp_path: Path, archive: Path) -> None:
    model, store = write_clip(tmp_path / "model"), tmp_path / "store"
    medlens("index", archive, "--store", store, "--model", model)
    with Store.open(store) as opened:
        assert opened.model == spec_in(model)
        assert str(tmp_path) not in json.dumps(dict(opened.manifest))
    assert len(medlens("search", "a chest", "--store", store, "--format", "jsonl").stdout.splitlines()) == 1


def test_a_stores_model_that_nobody_knows(tmp_path: Path, archive: Path, home: Path) -> None:
    model, store = write_clip(tmp_path / "model"), tmp_path / "store"
    medlens("index", archive, "--store", store, "--model", model)
    (home / "models.json").unlink()
    for arguments in (("search", "a chest"), ("index", archive), ("classify", "--labels", "a, b")):
        failed = medlens(*arguments, "--store", store, "--format", "json", code=1)
        said = json.loads(failed.stderr.splitlines()[-1])
        assert said["type"] == "WeightsNotFound"
        assert "medlens models add PLACE" in said["hint"]
    medlens("search", "a chest", "--store", store, "--model", model)
    [row] = [json.loads(line) for line in medlens("models", "add", model, "--format", "jsonl").stdout.splitlines()]
    assert (row["name"], row["place"]) == ("model", f"local-dir:{model}")
    assert row["fingerprint"] == spec_in(model)["fingerprint"]
    medlens("search", "a chest", "--store", store)
    listed = [json.loads(line) for line in medlens("models", "--format", "jsonl").stdout.splitlines()]
    assert [one["name"] for one in listed if one["place"]] == ["model"]


def test_a_store_that_names_a_place_is_not_followed_there(tmp_path: Path, archive: Path, home: Path) -> None:
    """What 0.1.0 did: load whatever the manifest's `source` pointed to. Somebody's store was enough to run code."""
    model, store = write_bert_clip(tmp_path / "model"), tmp_path / "store"
    medlens("index", archive, "--store", store, "--model", model)
    (home / "models.json").unlink()
    evil = Path(shutil.copytree(model, tmp_path / "evil"))
    (evil / "evil.py").write_text(CODE)
    text_cfg(evil, tokenizer_kwargs={"trust_remote_code": True})
    tokenizer_config(evil, tokenizer_class="Words", auto_map=AUTO_MAP)
    config_json(evil, auto_map=AUTO_MAP)
    for place in (
        f"local-dir:{evil}",
        str(evil),
        f"ViT-B-32@{evil}/x.pt",
        "hf-hub:evil/model",
        "../evil",
        7,
        [str(evil)],
    ):
        for altered in ({}, OLD, {"name": place}, OLD | {"name": str(evil)}):
            manifest(store, **({"source": place, "name": "model"} | altered))
            for arguments in (("search", "a chest"), ("search", "a chest", "--ranker", "hybrid"), ("index", archive)):
                failed = medlens(*arguments, "--store", store, code=1)
                expected = "does not name a model" if altered.get("name", "") in (7, [str(evil)]) else "models add"
                assert expected in failed.stderr
                assert not (tmp_path / SENTINEL).exists()


def test_another_activation_is_another_model(tmp_path: Path, archive: Path) -> None:
    """The same weights with QuickGELU: vectors with a cosine of 0.63 in 0.1.0, and no word of it."""
    gelu, quick = write_wide_clip(tmp_path / "gelu"), write_wide_clip(tmp_path / "quick", quick_gelu=True)
    assert spec_in(gelu)["weights_sha256"] == spec_in(quick)["weights_sha256"]
    store = tmp_path / "store"
    medlens("index", archive, "--store", store, "--model", gelu)
    failed = medlens("search", "a chest", "--store", store, "--model", quick, code=1)
    assert "the models differ in configuration" in failed.stderr
    with Store.open(store) as opened, pytest.raises(StoreIncompatible, match="configuration"):
        opened.require_model(spec_in(quick))


def test_a_store_of_0_1_0_is_completed_once(tmp_path: Path, archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, store = write_wide_clip(tmp_path / "model"), tmp_path / "store"
    medlens("index", archive, "--store", store, "--model", model)
    manifest(store, source=f"local-dir:{model}", name="as it was called", **OLD)
    with Store.open(store) as opened:
        assert opened.manifest["model"]["source"] == f"local-dir:{model}"
        assert opened.model.keys() == {"name", "weights_sha256", "embed_dim", "preprocess", "render_profile"}
    medlens("search", "a chest", "--store", store)
    assert "made by medlens 0.1.0" in caplog.text
    with Store.open(store) as opened:
        assert opened.model == spec_in(model) | {"name": "as it was called"}
    caplog.clear()
    medlens("search", "a chest", "--store", store)
    assert "0.1.0" not in caplog.text
    quick = write_wide_clip(tmp_path / "quick", quick_gelu=True)
    assert "the models differ in configuration" in medlens(
        "search", "a chest", "--store", store, "--model", quick, code=1
    ).stderr  # fmt: skip


def test_the_reference_store_of_0_1_0_is_completed_by_the_shipped_model(tmp_path: Path) -> None:
    if DEFAULT_MODEL not in shipped_models():
        pytest.skip("the default model is not in data/models")
    store = Path(shutil.copytree(Path(__file__).parent / "reference" / "store-0.1.0", tmp_path / "store"))
    with Store.open(store) as opened:
        assert "fingerprint" not in opened.model
    found = medlens("search", "pleural effusion", "--store", store, "--format", "jsonl").stdout.splitlines()
    assert len(found) == 5
    with Store.open(store) as opened:
        assert opened.model == spec_of(resolve_model()).to_json()
        assert "source" not in opened.manifest["model"]


def test_a_store_of_0_1_0_of_other_weights_stays_as_it_is(tmp_path: Path, archive: Path) -> None:
    model, store = write_wide_clip(tmp_path / "model"), tmp_path / "store"
    medlens("index", archive, "--store", store, "--model", model)
    manifest(store, source="x", **OLD)
    other = write_clip(tmp_path / "other")
    assert "weights_sha256" in medlens("search", "a chest", "--store", store, "--model", other, code=1).stderr
    with Store.open(store) as opened:
        assert opened.manifest["model"]["source"] == "x"


def test_a_store_of_0_1_0_that_can_not_be_written(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On read-only media the model is completed for the process that uses it."""
    model, store = write_clip(tmp_path / "model"), tmp_path / "store"
    medlens("index", archive, "--store", store, "--model", model)
    manifest(store, source="x", **OLD)

    def refuse(*_: Any, **__: Any) -> None:
        raise StoreError("attempt to write a readonly database")

    with Store.open(store) as opened:
        monkeypatch.setattr(type(opened.manifest), "__setitem__", refuse)
        opened.require_model(spec_in(model))
        assert opened.model == spec_in(model)
        with pytest.raises(StoreIncompatible):
            opened.require_model(spec_in(model) | {"tokenizer": {"kind": "another"}})
    with Store.open(store) as again:
        assert "tokenizer" not in again.model


@pytest.mark.parametrize("kind", ["device", "pipe", "large"])
def test_a_key_that_has_no_end(tmp_path: Path, archive: Path, kind: str) -> None:
    model, store = write_clip(tmp_path / "model"), tmp_path / "store"
    medlens("index", archive, "--store", store, "--model", model)
    key = store / "pseudonym.key"
    key.unlink()
    if kind == "device":
        key.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(key)
    else:
        key.touch()
        os.truncate(key, 1 << 40)
    assert "can't be read" in medlens("index", archive, "--store", store, code=1).stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"name": None},
        {"name": 7},
        {"name": "\x1b[2J"},
        {"name": "x" * 10**6},
        {"embed_dim": 10**12},
        {"embed_dim": "32"},
        {"embed_dim": True},
        {"embed_dim": None},
        {"weights_sha256": float("nan")},
    ],
)
def test_what_describes_no_model_is_said(tmp_path: Path, archive: Path, changes: dict[str, Any]) -> None:
    model, store = write_clip(tmp_path / "model"), tmp_path / "store"
    medlens("index", archive, "--store", store, "--model", model)
    manifest(store, **changes)
    for arguments in (("search", "a chest"), ("info",), ("index", archive)):
        failed = medlens(*arguments, "--store", store, code=1)
        assert "does not name a model" in failed.stderr
        assert "\x1b" not in failed.stderr
