"""Builds the `Loop` of a run, ready for its first step."""

from __future__ import annotations

import torch
from torch.optim.swa_utils import AveragedModel

from retrieval.errors import TrainingError
from retrieval.training.checkpoint import preprocess_of
from retrieval.training.context import TrainingContext
from retrieval.training.continuing import load_weights, prepare_text_tower
from retrieval.training.data import cache_pixels
from retrieval.training.image_tower import find_weights, load_start, lock_groups
from retrieval.training.loop import CANVAS, Loop
from retrieval.training.model import build_model
from retrieval.training.other_findings import OtherFindings
from retrieval.training.schedule import make_optimizer, warmed_ema
from retrieval.training.text_tower import lock_text_groups
from retrieval.training.texts import TextEncoder, Texts
from retrieval.training.validation import Validator


def set_up(context: TrainingContext) -> Loop:
    """Build the model, compute what stays the same, and read the pictures: a run before its first step.

    Raises TrainingError for an epoch of less than a batch, and for starts and pictures that can't be used.
    """
    config, corpus, work, device = context.config, context.corpus, context.work, context.device
    if not context.processes.first:
        context.processes.wait()  # until the first has filled `work`
    torch.manual_seed(config.seed)
    texts = Texts(corpus, context.label_sets, config)
    if context.processes.first:
        prepare_text_tower(config, texts.all, work / "text")
    model, tokenizer = build_model(config, work)
    start: dict[str, torch.Tensor] | None = None
    encode_texts = TextEncoder(texts, tokenizer, device)
    if config.continue_from is not None:
        load_weights(model, config.continue_from, work / "text")
        if config.schedule.start_share:
            start = {name: values.to(device, copy=True) for name, values in model.state_dict().items()}
    elif config.image.start is not None:
        load_start(model.visual.trunk, find_weights(config.image.start))
    locked_norms = lock_groups(model.visual.trunk, config.image.locked_groups)
    model.to(device)
    if config.text.locked:
        model.text.transformer.requires_grad_(False)
    else:
        lock_text_groups(model.text, config.text.locked_groups)
    ema = AveragedModel(model, multi_avg_fn=warmed_ema(config.schedule.ema)).requires_grad_(False)
    optimizer = make_optimizer(model, config)
    if config.text.locked:
        encode_texts.lock(model, work / "texts.npy", context.on_progress)

    train_numbers = corpus.of_split("train")
    train = [corpus.rows[i] for i in train_numbers]
    use_findings = "finding" in config.objective.hard_negatives
    other_findings = OtherFindings(train, context.label_sets, config, encode_texts) if use_findings else None
    canvas = cache_pixels(train, preprocess_of(config, CANVAS), work / "train.pixels", context.on_progress)
    dev = [row for row in corpus.rows if row.split == "dev"]
    pixels = cache_pixels(dev, preprocess_of(config), work / "dev.pixels", context.on_progress)
    if context.processes.first:
        context.processes.wait()  # the others may read now
    images = len(context.order_of_epoch(0))
    if images < config.schedule.batch_size:
        raise TrainingError(
            f"an epoch has {images} images, expected at least one batch of {config.schedule.batch_size}"
        )
    return Loop(
        context=context,
        texts=texts,
        encode_texts=encode_texts,
        model=model,
        ema=ema,
        optimizer=optimizer,
        locked_norms=locked_norms,
        train_numbers=train_numbers,
        canvas=canvas,
        validator=Validator(config, context.label_sets, dev, pixels, encode_texts),
        steps_per_epoch=images // config.schedule.batch_size,
        start=start,
        other_findings=other_findings,
    )
