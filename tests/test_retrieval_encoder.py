"""The encoder equals open_clip, whatever the batch; bf16 is used only where it agrees."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tiny_models import write_biomedclip, write_clip

from retrieval.encoders.clip import ClipEncoder, Device, choose_device
from retrieval.encoders.faster import folded, layer_groups, lowered
from retrieval.encoders.image_tower import SAME, Agreement, ImageTower, agreement, probe_pictures
from retrieval.encoders.model_source import resolve_model, shipped_models
from retrieval.encoders.torch_model import open_model
from retrieval.errors import EncoderError, NonFiniteEmbedding
from retrieval.types import Encoder, Uint8Image

TEXTS = ["axial CT of the chest", "MR image of the knee", "", "x " * 500, "é µ 漢字 \n"]

LEAST_COSINE = 0.999  # of embeddings in bfloat16 to those in float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> ClipEncoder:
    return ClipEncoder.load(f"local-dir:{folder}", "cpu", "fp32")


def pictures(n: int, seed: int = 0) -> list[Uint8Image]:
    """Grey and RGB, of many sizes."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        height, width = rng.integers(5, 90, 2)
        found.append(rng.integers(0, 256, (height, width, 3) if i % 3 == 0 else (height, width), np.uint8))
    return found


@pytest.mark.parametrize("prefix", ["local-dir:", ""])
def test_embeddings_equal_open_clips_own(folder: Path, prefix: str) -> None:
    encoder = ClipEncoder.load(f"{prefix}{folder}", "cpu", "fp32")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    images = pictures(7)
    with torch.inference_mode():
        batch = torch.stack([transform(Image.fromarray(image)) for image in images])
        expected_images = model.encode_image(batch, normalize=True).numpy()
        expected_texts = model.encode_text(
            open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS), normalize=True
        ).numpy()
    np.testing.assert_allclose(encoder.encode_images(images), expected_images, rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), expected_texts, rtol=0, atol=1e-5)
    assert encoder.logit_scale == pytest.approx(model.logit_scale.exp().item())


def test_it_keeps_the_protocol(encoder: ClipEncoder) -> None:
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.embed_dim) == ("small", 32)
    assert str(encoder.device) == "cpu in fp32 (as asked; precision as asked)"


@pytest.mark.parametrize("n", [0, 1, 32, 33])
def test_shape_type_and_norm(encoder: ClipEncoder, n: int) -> None:
    for vectors in (encoder.encode_images(pictures(n)), encoder.encode_text(["a"] * n)):
        assert vectors.shape == (n, 32)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_batches_change_no_result_and_keep_the_order(encoder: ClipEncoder) -> None:
    images, texts = pictures(33), [f"text number {i}" for i in range(65)]
    one_by_one = np.concatenate([encoder.encode_images([image]) for image in images])
    np.testing.assert_allclose(encoder.encode_images(images), one_by_one, rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_images(images[::-1]), one_by_one[::-1], rtol=0, atol=1e-5)
    together = encoder.encode_text(texts)
    for i in (0, 1, 63, 64):  # the first batch ends after 64
        np.testing.assert_allclose(together[[i]], encoder.encode_text([texts[i]]), rtol=0, atol=1e-5)
    assert len(np.unique(one_by_one.round(4), axis=0)) == 33  # different pictures, different vectors


@pytest.mark.parametrize("pooler", ["mean_pooler", "cls_pooler", "cls_last_hidden_state_pooler"])
def test_padding_that_is_left_out_changes_no_text(tmp_path: Path, pooler: str) -> None:
    folder = tmp_path / "bert"
    write_biomedclip(folder, tmp_path / "scratch", vision="test_vit", hidden=128, layers=1, pooler=pooler)
    encoder = ClipEncoder.load(str(folder), "cpu", "fp32")
    texts = [("word " * (7 * i % 40)).strip() for i in range(70)]  # short and long in turn, more than one batch
    with torch.inference_mode():
        tokens = encoder._tokenizer(texts)
        expected = encoder._model.encode_text(tokens, normalize=True).numpy()
    lengths: list[int] = []
    encoder._model.text.register_forward_pre_hook(lambda _, arguments: lengths.append(arguments[0].shape[1]))
    np.testing.assert_allclose(encoder.encode_text(texts), expected, rtol=0, atol=1e-5)
    assert len(lengths) == 3
    assert max(lengths) < tokens.shape[1]


def test_grey_is_three_equal_channels(encoder: ClipEncoder) -> None:
    grey = pictures(2)[1]
    np.testing.assert_allclose(
        encoder.encode_images([grey]), encoder.encode_images([np.stack([grey] * 3, axis=-1)]), rtol=0, atol=1e-6
    )


def test_one_text_in_place_of_a_list_is_refused(encoder: ClipEncoder) -> None:
    with pytest.raises(TypeError, match="list of texts"):
        encoder.encode_text("ct")


def test_a_picture_that_is_none_is_refused(encoder: ClipEncoder) -> None:
    with pytest.raises(ValueError, match=r"float64 \(4, 4\)"):
        encoder.encode_images([np.zeros((4, 4))])  # type: ignore[list-item]


def loaded(folder: Path) -> tuple[Any, Any, Any]:
    return open_model(resolve_model(str(folder)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_no_usable_embedding_is_an_error(folder: Path, value: float) -> None:
    model, tokenizer, spec = loaded(folder)
    model.visual.proj.data.fill_(value)
    model.text_projection.data.fill_(value)
    broken = ClipEncoder(model, tokenizer, spec, Device("cpu", "fp32", "test"))
    with pytest.raises(NonFiniteEmbedding, match=r"for 2 of 2 images \(first at index 0\)") as caught:
        broken.encode_images(pictures(2))
    assert "damaged" in caught.value.hint
    with pytest.raises(NonFiniteEmbedding, match="for 3 of 3 texts"):
        broken.encode_text(["a", "b", "c"])


def test_bf16_agrees_with_fp32(folder: Path, encoder: ClipEncoder) -> None:
    fast = ClipEncoder.load(str(folder), "cpu", "bf16")
    assert fast.device.precision == "bf16"
    images = pictures(12)
    cosines = (fast.encode_images(images) * encoder.encode_images(images)).sum(axis=1)
    assert cosines.min() > LEAST_COSINE
    assert not np.array_equal(fast.encode_images(images), encoder.encode_images(images))  # bf16 did run
    np.testing.assert_array_equal(fast.encode_text(TEXTS), encoder.encode_text(TEXTS))  # texts stay in fp32


class Offset(torch.nn.Module):
    """Takes the small difference of large numbers, which bf16 does not hold."""

    def __init__(self, visual: torch.nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (self.visual(pixels) + 100) - 100


class Float32Only(Offset):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if pixels.dtype != torch.float32:
            raise RuntimeError("expected scalar type Float but found BFloat16")
        return self.visual(pixels)


class NanInBf16(Offset):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.visual(pixels) * (1.0 if pixels.dtype == torch.float32 else float("nan"))


def test_the_first_layers_can_stay_in_float32() -> None:
    import timm

    torch.manual_seed(0)
    visual = torch.nn.Sequential()
    visual.trunk = timm.create_model("test_efficientnet", num_classes=8).eval()
    groups = layer_groups(visual.trunk)
    pixels = torch.randn(6, 3, 64, 64)
    with torch.inference_mode():
        exact = visual.trunk(pixels)
        errors = []
        for kept in (0, 2, len(groups)):
            tower = lowered(visual, kept)
            out = tower.trunk(pixels if kept else pixels.to(torch.bfloat16))
            errors.append(float((out.float() - exact).abs().max()))
            for number, group in enumerate(groups):
                own = [tower.trunk.get_parameter(n) for n in group if n in dict(tower.trunk.named_parameters())]
                assert {p.dtype for p in own} == {torch.float32 if number < kept else torch.bfloat16}
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-4, "folded float32"
    assert all(p.dtype == torch.float32 for p in visual.parameters()), "the plain tower stays as it was"


@pytest.mark.parametrize(
    ("wrapper", "said"),
    [(Offset, "bf16 gave a cosine"), (Float32Only, "expected scalar type"), (NanInBf16, "cosine nan")],
)
def test_where_bf16_disagrees_the_model_runs_in_fp32_and_says_so(
    folder: Path, wrapper: type[Offset], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, tokenizer, spec = loaded(folder)
    model.visual = wrapper(model.visual)
    with caplog.at_level(logging.WARNING, "retrieval.encoders.clip"):
        encoder = ClipEncoder(model, tokenizer, spec, Device("cpu", "bf16", "test"))
    assert encoder.device.precision == "fp32"
    assert said in encoder.device.reason
    assert "runs in fp32" in caplog.text
    plain = ClipEncoder(*loaded(folder), Device("cpu", "fp32", "test"))
    images = pictures(3)
    np.testing.assert_allclose(encoder.encode_images(images), plain.encode_images(images), rtol=0, atol=2e-3)


def test_the_shipped_model_asked_for_bf16_keeps_its_cosines(shared_data: Path) -> None:
    if "medlens-base" not in shipped_models():
        pytest.skip("the default model is not in data/models")
    found = [p for p in sorted((shared_data / "pairs" / "medpix").rglob("*")) if p.suffix in (".png", ".jpg", ".jpeg")]
    images = [np.asarray(Image.open(path).convert("L")) for path in found[:: max(len(found) // 24, 1)][:24]]
    assert len(images) == 24
    exact = ClipEncoder.load(None, "cpu", "fp32").encode_images(images)
    fast = ClipEncoder.load(None, "cpu", "bf16")
    cosines = (fast.encode_images(images) * exact).sum(axis=1)
    assert fast.device.precision == "bf16"
    assert LEAST_COSINE < cosines.min() < SAME


@pytest.mark.parametrize(
    ("device", "precision", "said"),
    [("gpu", "auto", "device 'gpu'"), ("mps", "auto", "device 'mps'"), ("cpu", "fp16", "precision 'fp16'")],
)
def test_unknown_devices_and_precisions(device: str, precision: str, said: str) -> None:
    with pytest.raises(EncoderError, match=said) as caught:
        choose_device(device, precision)
    assert caught.value.hint


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_missing_gpu(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EncoderError, match="torch finds no CUDA device") as caught:
        choose_device(device)
    assert "--device cpu" in caught.value.hint
    assert choose_device("auto", "fp32") == Device("cpu", "fp32", "no CUDA device found; precision as asked")


def test_one_gpu_is_cuda_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    assert choose_device("auto").name == "cuda"
    assert choose_device("cuda:0") == Device("cuda:0", "fp32", "as asked; bf16 is not native there")
    for device in ("cuda:1", "cuda:", "cuda:x", "cuda:-1"):
        with pytest.raises(EncoderError, match="torch finds 1 CUDA devices"):
            choose_device(device)


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp32")])
def test_the_cpu_runs_bf16_only_where_it_is_native(
    native: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.encoders.clip._cpu_has_bf16", lambda: native)
    device = choose_device("cpu")
    assert device.precision == precision
    assert "bf16 instructions" in device.reason


class ConvBlock(torch.nn.Sequential):
    def __init__(self, channels: int, *, swapped: bool = False) -> None:
        super().__init__(torch.nn.Conv2d(channels, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        self.swapped = swapped
        torch.nn.init.normal_(self[1].running_mean)
        torch.nn.init.uniform_(self[1].running_var, 0.5, 2)
        torch.nn.init.uniform_(self[1].weight, 0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.swapped:  # batch normalisation comes first, whatever the order of the children says
            return self[2](self[0](self[1](x)))
        return super().forward(x)


class ConvTower(torch.nn.Module):
    def __init__(self, *, swapped: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(ConvBlock(3), ConvBlock(8, swapped=swapped), torch.nn.AvgPool2d(8))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layers(pixels).flatten(1)


def norms_left(visual: torch.nn.Module) -> int:
    return sum(isinstance(module, torch.nn.BatchNorm2d) for module in visual.modules())


def test_batch_normalisation_is_folded_where_the_numbers_stay(encoder: ClipEncoder) -> None:
    visual = ConvTower().eval()
    tower = ImageTower(visual, encoder.spec.preprocess, "cpu", bf16=False)
    assert (norms_left(visual), norms_left(tower.visual)) == (2, 0)
    images = pictures(5)
    with torch.inference_mode():
        expected = visual(torch.from_numpy(encoder.spec.preprocess.batch(images))).numpy()
    assert agreement(expected, tower.features(images)).cosine >= SAME


def test_batch_normalisation_stays_where_the_order_of_the_layers_deceives(encoder: ClipEncoder) -> None:
    visual = ConvTower(swapped=True).eval()
    tower = ImageTower(visual, encoder.spec.preprocess, "cpu", bf16=False)
    assert norms_left(tower.visual) == 2
    assert norms_left(folded(visual)) == 0


def test_lanes_change_no_number_and_leave_torchs_threads_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(21)
    alone = ClipEncoder.load(str(folder), "cpu", "fp32").encode_images(images)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        encoder = ClipEncoder.load(str(folder), "cpu", "fp32")
        np.testing.assert_allclose(encoder.encode_images(images), alone, rtol=0, atol=1e-6)
        assert encoder.batch_size == 96
        assert torch.get_num_threads() == 3
        tower = encoder._images
        assert [len(share) for share in tower._shares(images)] == [7, 7, 7]
        assert [len(share) for share in tower._shares(images[:7])] == [7]  # too few to share
        assert tower.lanes is not None
        assert tower.lanes.map(lambda part: (len(part), torch.get_num_threads()), [images, images[:2]]) == [
            (21, 1),
            (2, 1),
        ]
        assert tower.lanes.map(lambda part: torch.get_num_threads(), [images]) == [3]
    finally:
        torch.set_num_threads(before)


def test_the_pixels_are_those_of_the_preprocessing(encoder: ClipEncoder) -> None:
    tower = encoder._images
    for images in (pictures(4), [p for p in pictures(9) if p.ndim == 2]):
        pixels = tower._pixels(tower._stacked(images))
        np.testing.assert_array_equal(pixels.numpy(), encoder.spec.preprocess.batch(images))


def test_agreement_sees_reordered_neighbours_that_a_cosine_hides() -> None:
    rng = np.random.default_rng(0)
    alike = np.ones((8, 64), np.float32) * 100 + rng.normal(size=(8, 64)).astype(np.float32)
    noisy = alike + rng.normal(size=alike.shape).astype(np.float32)
    found = agreement(alike, noisy)
    assert found.cosine > LEAST_COSINE
    assert found.recall < 0.9
    assert agreement(alike, alike * 3) == Agreement(pytest.approx(1, abs=1e-6), 1.0)
    assert not agreement(alike, np.zeros_like(alike)).cosine >= 0


def test_probe_pictures_differ_and_stay_the_same() -> None:
    probes = probe_pictures((64, 80))
    assert {p.shape for p in probes} == {(64, 80)} and {p.dtype for p in probes} == {np.dtype(np.uint8)}
    flat = np.stack([p.ravel() for p in probes]).astype(float)
    assert np.abs(np.corrcoef(flat) - np.eye(len(probes))).max() < 0.9
    np.testing.assert_array_equal(probes, probe_pictures((64, 80)))
