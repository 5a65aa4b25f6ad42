"""How fast the architectures of public models are here, with random weights: a handful of images and texts each.

    python benchmarks/model_speed.py [--images 4] [--only NAME ...]

Weights do not change how long an image takes, so nothing is downloaded. float32, one thread, and the time of the
processor, not of the clock: what else runs on the machine counts little. Prints lines for `architectures` in
data/public_models.yaml: images and texts a second of one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from retrieval.encoders.image_tower import probe_pictures
from retrieval.encoders.preprocess import Preprocess

ROUNDS = 3


def clip_b32() -> tuple[Any, Callable[[torch.Tensor], Any], int, int, int]:
    from transformers import CLIPConfig, CLIPModel

    return _pair(CLIPModel(CLIPConfig()), 224, 77)


def siglip(vision: dict[str, int], text: dict[str, int]) -> tuple[Any, Callable[[torch.Tensor], Any], int, int, int]:
    from transformers import SiglipConfig, SiglipModel

    model = SiglipModel(SiglipConfig(vision_config=vision, text_config=text))
    return _pair(model, vision.get("image_size", 224), 64)


def biomedclip() -> tuple[Any, Callable[[torch.Tensor], Any], int, int, int]:
    import open_clip
    from transformers import BertConfig

    with TemporaryDirectory() as made:
        BertConfig().save_pretrained(Path(made))
        model = open_clip.CustomTextCLIP(
            embed_dim=512,
            vision_cfg={
                "timm_model_name": "vit_base_patch16_224",
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "linear",
                "image_size": 224,
            },
            text_cfg={
                "hf_model_name": made,
                "hf_model_pretrained": False,
                "hf_proj_type": "mlp",
                "hf_pooler_type": "cls_last_hidden_state_pooler",
                "context_length": 256,
            },
        )
    return model.visual, model.encode_text, _megabytes(model), 224, 32  # a query's tokens; padding is left out


def _pair(model: Any, size: int, context: int) -> tuple[Any, Callable[[torch.Tensor], Any], int, int, int]:
    visual = torch.nn.Module()
    visual.forward = lambda pixels: model.get_image_features(pixel_values=pixels).pooler_output  # type: ignore[method-assign]

    def texts(tokens: torch.Tensor) -> Any:
        return model.get_text_features(input_ids=tokens)

    return visual, texts, _megabytes(model), size, context


def _megabytes(model: Any) -> int:
    return round(sum(one.numel() for one in model.parameters()) * 4 / 1e6)


SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
ARCHITECTURES = {
    "ViT-B/32 at 224": clip_b32,
    "ViT-B/16 at 224 and BERT": biomedclip,
    "SigLIP 2 ViT-B/16 at 224": lambda: siglip({}, {"vocab_size": 256_000}),
    "SigLIP SoViT-400m/14 at 448": lambda: siglip(
        {**SO400M, "image_size": 448, "patch_size": 14}, {**SO400M, "vocab_size": 32_000}
    ),
}


def rate(work: Callable[[], Any], count: int) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return count / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--only", nargs="*", default=list(ARCHITECTURES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"# one thread, torch {torch.__version__}, {args.images} images, float32")
    for name in args.only:
        torch.manual_seed(0)
        visual, texts, megabytes, size, context = ARCHITECTURES[name]()
        preprocess = Preprocess((size, size), (0.5,) * 3, (0.5,) * 3)
        pixels = torch.from_numpy(preprocess.batch((probe_pictures((size, size)) * args.images)[: args.images]))
        visual.eval()
        tokens = torch.from_numpy(np.full((args.images, context), 7))
        with torch.inference_mode():
            images = rate(lambda v=visual, p=pixels: v(p), len(pixels))
            lines = rate(lambda t=texts, k=tokens: t(k), len(tokens))
        print(f"  {name}: {{megabytes: {megabytes}, images: {images:.2f}, texts: {lines:.1f}}}", flush=True)


if __name__ == "__main__":
    main()
