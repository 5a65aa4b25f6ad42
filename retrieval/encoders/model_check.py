"""The judged comparison of a model of one's own: our way of running it against that of the library it comes from.

What is judged: pixels, tokens and embeddings against the original, words from a cold start against PyTorch. What is
measured beside: speed, memory, and what bfloat16 does to the neighbours of pictures.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from retrieval.encoders.model_parts import ModelParts, model_parts
from retrieval.encoders.model_source import load_error, resolve_model
from retrieval.encoders.transformers_config import TransformersConfig
from retrieval.types import Embeddings, Uint8Image

if TYPE_CHECKING:
    from retrieval.encoders.clip import ClipEncoder
    from retrieval.encoders.original_library import OriginalModel

LEAST_COSINE = 0.9999
MOST_LEVELS = 1.0  # of 255, between our pixels and the library's
TEXTS = (
    "chest radiograph with a left pleural effusion",
    "No effusion, no pneumothorax!",
    "axial CT of the abdomen; 3 mm slices (portal venous phase)",
    "T2-weighted MR of the knee, with a torn meniscus?",
    "Zustand nach Herz-OP: kein Erguss, größengleich",
    "  two  spaces\nand a line  ",
    "µ-CT & 100 % [sic] <5 mm",
    "X",
    "",
    "frontal and lateral views of the chest show clear lungs and a normal heart. " * 20,
)
_SIZES = ((300, 300), (451, 320), (240, 387), (611, 512), (223, 225), (97, 64))
_ROUNDS = 3
_BATCH = 8
_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Judgement:
    """One line of a check. `result` is "pass" or "fail" for what is judged, "note" for what is measured or told."""

    check: str
    result: Literal["pass", "fail", "note"]
    value: float | int | str | None
    expected: str = ""
    detail: str = ""


@dataclass(frozen=True)
class ModelCheck:
    """What a model is, and how running it here compares with its own library. `passed` if no judgement failed."""

    name: str
    layout: str
    dimensions: int
    context_length: int
    megabytes: float
    fingerprint: str
    library: str
    judgements: tuple[Judgement, ...]

    @property
    def passed(self) -> bool:
        return all(one.result != "fail" for one in self.judgements)


def check_model(place: str, device: str = "auto", on_progress: Callable[[str], None] | None = None) -> ModelCheck:
    """Judge a model by its name or folder, as --model takes it. `on_progress` is told what is done next.

    Both copies of the model run in float32, one after the other, the original on the CPU. Takes the memory of one and
    as long as some 50 pictures.

    Raises WeightsNotFound or EncoderError for a model that can't be loaded: there is nothing to compare then.
    """
    tell = on_progress or (lambda _: None)
    tell("reading the model's files")
    source = resolve_model(place)
    try:
        parts = model_parts(source)
        spec = parts.spec
    except (OSError, ValueError) as exc:
        raise load_error(source, exc) from exc
    pictures = pictures_to_compare()
    tell("running it in its own library")
    library, expected = _original(parts, pictures)
    tell("running it here")
    before = _peak_memory()
    began = time.perf_counter()
    encoder = _encoder(parts, device)
    seconds = time.perf_counter() - began
    judgements = [
        _pixels(encoder, pictures, expected.pixels),
        _tokens(encoder, expected.tokens),
        _cosines("images", encoder.encode_images(pictures), expected.images),
        _cosines("texts", encoder.encode_text(TEXTS), expected.texts),
        _cold_start(parts, expected.texts),
        Judgement("seconds to load", "note", round(seconds, 2), detail=str(encoder.device)),
    ]
    tell("measuring speed")
    judgements += [*_speed(encoder), _memory(before)]
    tell("trying bfloat16")
    judgements.append(_bf16(encoder))
    return ModelCheck(
        spec.name,
        f"transformers, {parts.config.model_type}" if isinstance(parts.config, TransformersConfig) else "open_clip",
        spec.embed_dim,
        parts.config.context_length,
        round(parts.weights.size / 1e6, 1),
        spec.fingerprint,
        library,
        tuple(judgements),
    )


def pictures_to_compare() -> list[Uint8Image]:
    """Grey pictures of several shapes and one in colour: larger and smaller than a model's input, odd and oblong."""
    from retrieval.encoders.image_tower import probe_pictures

    grey = [probe_pictures(size)[i] for i, size in enumerate(_SIZES)]
    return [*grey, np.stack(probe_pictures((280, 333))[:3], axis=-1)]


@dataclass(frozen=True)
class _Expected:
    pixels: Sequence[_Array]
    tokens: _Array
    images: Embeddings
    texts: Embeddings


def _original(parts: ModelParts, pictures: Sequence[Uint8Image]) -> tuple[str, _Expected]:
    from retrieval.encoders.original_library import original_model

    with original_model(parts) as model:
        return model.library, _answers(model, pictures)


def _answers(model: OriginalModel, pictures: Sequence[Uint8Image]) -> _Expected:
    pixels = [model.pixels(picture) for picture in pictures]
    return _Expected(pixels, model.tokens(TEXTS), model.images(pictures), model.texts(TEXTS))


def _encoder(parts: ModelParts, device: str) -> ClipEncoder:
    from retrieval.encoders.clip import ClipEncoder

    return ClipEncoder.from_source(parts.source, device, "fp32")


def _pixels(encoder: ClipEncoder, pictures: Sequence[Uint8Image], expected: Sequence[_Array]) -> Judgement:
    preprocess = encoder.spec.preprocess
    std = np.asarray(preprocess.std, np.float32)[:, None, None]
    ours = preprocess.batch(pictures)
    fits = all(one.shape == theirs.shape for one, theirs in zip(ours, expected, strict=True))
    if not fits:
        return Judgement("pixels", "fail", None, f"{list(ours[0].shape)}", f"the library's are {expected[0].shape}")
    differences = [np.abs((one - theirs) * std).max() * 255 for one, theirs in zip(ours, expected, strict=True)]
    most = round(float(max(differences)), 3)
    within = most <= MOST_LEVELS + 0.01
    return Judgement("pixels", _passes(within), most, f"at most {MOST_LEVELS:g}", "largest difference, in grey levels")


def _tokens(encoder: ClipEncoder, expected: _Array) -> Judgement:
    ours = np.asarray(encoder.tokens(TEXTS))
    if ours.shape != expected.shape:
        return Judgement("tokens", "fail", None, f"{expected.shape}", f"ours are {ours.shape}")
    same = int((ours == expected).all(axis=1).sum())
    return Judgement("tokens", _passes(same == len(TEXTS)), same, f"{len(TEXTS)}", "texts with equal tokens")


def _cosines(what: str, ours: Embeddings, expected: Embeddings) -> Judgement:
    if ours.shape != expected.shape:
        return Judgement(f"embeddings of {what}", "fail", None, f"{expected.shape}", f"ours are {ours.shape}")
    least = float((ours * expected).sum(axis=1).min())
    return Judgement(
        f"embeddings of {what}",
        _passes(least >= LEAST_COSINE),
        round(least, 6),
        f"at least {LEAST_COSINE}",
        f"least cosine to the library's, of {len(ours)}",
    )


def _cold_start(parts: ModelParts, expected: Embeddings) -> Judgement:
    from retrieval.encoders.numpy_text.encoder import LightEncoder
    from retrieval.encoders.numpy_text.needs_torch import NeedsTorch

    try:
        light = LightEncoder(parts.source)
        judged = _cosines("texts", light.encode_text(TEXTS), expected)
    except NeedsTorch as exc:
        return Judgement("cold start without PyTorch", "note", "no", detail=" ".join(str(exc).split())[:200])
    return replace(judged, check="cold start without PyTorch", detail=f"possible; {judged.detail}")


def _speed(encoder: ClipEncoder) -> list[Judgement]:
    from retrieval.encoders.image_tower import probe_pictures

    pictures = probe_pictures(encoder.spec.preprocess.size)[:_BATCH]
    lines = [f"{text} {i}" for i, text in enumerate(TEXTS[:_BATCH])]
    images = _rate(lambda: encoder.encode_images(pictures), len(pictures))
    texts = _rate(lambda: encoder.encode_text(lines), len(lines))
    how = f"the best of {_ROUNDS} batches of {_BATCH} in float32"
    return [
        Judgement("images a second", "note", round(images, 1), detail=how),
        Judgement("texts a second", "note", round(texts, 1), detail=how),
    ]


def _rate(work: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return count / min(times)


def _peak_memory() -> float:
    """Of this process until now, in megabytes; NaN where the system does not say."""
    try:
        import resource
    except ImportError:  # no Unix
        return float("nan")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)


def _memory(before: float) -> Judgement:
    now = _peak_memory()
    return Judgement(
        "megabytes of memory",
        "note",
        None if now != now else round(max(now, before)),
        detail="the most that this process took, PyTorch and both runs included",
    )


def _bf16(encoder: ClipEncoder) -> Judgement:
    from retrieval.encoders.image_tower import LEAST_RECALL, PROBE_COSINE, ImageTower, agreement, probe_pictures

    probes = probe_pictures(encoder.spec.preprocess.size)
    exact = encoder.image_features(probes)
    tower = ImageTower(encoder.visual, encoder.spec.preprocess, encoder.device.name, bf16=True)
    name, wanted = "bfloat16", f"cosine {PROBE_COSINE}, {LEAST_RECALL:.0%} of the nearest neighbours"
    if not tower.bf16:
        return Judgement(name, "note", "not used", wanted, tower.notes)
    found = agreement(exact, tower.features(probes))
    return Judgement(name, "note", "used where the hardware has it", wanted, f"{found} of float32")


def _passes(held: bool) -> Literal["pass", "fail"]:
    return "pass" if held else "fail"
