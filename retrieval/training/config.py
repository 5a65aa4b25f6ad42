"""The configuration of a training run: one YAML file. Unknown keys are refused by name."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from retrieval.errors import TrainingError
from retrieval.training.model_folder import filled, find_folder
from retrieval.training.packaged import PREFIX
from retrieval.zeroshot.labels import explain

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageTower(_Strict):
    """A timm architecture. `image_size` is the edge length of the square input, in pixels.

    The tower is trained from scratch or from `start`: a weights file of the architecture, or `package:NAME` for weights
    in a Python package. Then the first `locked_groups` groups of layers, counted from the stem, are not trained.
    `layer_decay` multiplies the learning rate of each group of layers relative to the group above it; the last group
    learns at the full rate.
    """

    timm_model: str = "tf_efficientnet_lite0"
    start: str | None = None
    locked_groups: Annotated[int, Field(ge=0)] = 0
    image_size: Annotated[int, Field(ge=32, le=1024)] = 160
    resize_mode: Literal["longest", "shortest", "squash"] = "longest"
    mean: float = 0.498
    std: Positive = 0.502
    drop_path: Share = 0.1
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0


class TextTower(_Strict):
    """A BERT sentence encoder to start from: a folder, or `package:NAME` for an encoder in a Python package.

    `vocabulary` limits the number of word pieces; all pieces of the training texts are kept. `locked` trains only the
    projection on top, on features that are computed once. With `locked: false`, the first `locked_groups` groups (the
    embeddings, then layer by layer) are not trained, and `layer_decay` multiplies the learning rate of each group
    relative to the group above it; the projection, the last group, learns at the full rate.
    """

    start: str
    vocabulary: Count | None = None
    context_length: Annotated[int, Field(ge=8, le=512)] = 96
    projection: Literal["linear", "mlp"] = "mlp"
    locked: bool = True
    locked_groups: Annotated[int, Field(ge=0)] = 0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _layers_of_an_unlocked_tower(self) -> Self:
        given = sorted(self.model_fields_set & {"locked_groups", "layer_decay"})
        if self.locked and given:
            raise ValueError(f"the text tower has {' and '.join(given)}, which needs locked: false")
        return self


class Source(_Strict):
    """One set of image-text pairs. Give either `pairs` or `store`.

    `pairs` is a JSON-lines file with `image` (a path relative to the file), texts, `group` and `split`. `store` is a
    medlens store: `medlens train` exports its images and reports as such a file. It exports the frames that pass the
    filter `where`, and makes `dev_share` of the patients dev rows.

    `texts` maps fields to the frequency with which they are drawn as the caption. `templates` does the same for
    sentences with {field} in them. Evaluation uses the first of these texts that a row has.
    `sentences` maps fields with several sentences to the frequency with which one of the sentences is drawn.
    `captions` maps fields with captions of a publication's figures to the frequency with which they are drawn, whole or
    by sentence, without the parts about arrows, marks and panels.
    `only` maps fields to the values of the rows to use (`licence: [CC BY, CC0]`).
    `judged: false` leaves out the rows that are not for training, for sets in which patients can't be told apart.
    `attributes` maps a label set to the field with its value, or to a template of fields. `constants` gives the value
    if all rows have the same.
    `sample` draws this many rows anew each epoch.
    `rehearsal` marks a set that the continued model was trained on; the gate measures how much of it is forgotten.
    """

    pairs: Path = Path()
    store: str | None = None
    where: str = ""
    dev_share: Share = 0.1
    texts: dict[str, Positive] = Field(default_factory=lambda: {"text": 1.0})
    templates: dict[str, Positive] = Field(default_factory=dict)
    sentences: dict[str, Positive] = Field(default_factory=dict)
    captions: dict[str, Positive] = Field(default_factory=dict)
    only: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    judged: bool = True
    attributes: dict[str, str] = Field(default_factory=dict)
    constants: dict[str, str] = Field(default_factory=dict)
    sample: Count | None = None
    rehearsal: bool = False
    terms: str = ""

    @model_validator(mode="after")
    def _pairs_or_a_store(self) -> Self:
        given = self.model_fields_set
        if ("pairs" in given) == (self.store is not None):
            raise ValueError("a source needs either pairs: FILE or store: PLACE")
        if self.store is None and given & {"where", "dev_share"}:
            raise ValueError("where and dev_share belong to a store; the rows of a pairs file have their own split")
        return self

    @field_validator("templates")
    @classmethod
    def _plain_fields(cls, templates: dict[str, float]) -> dict[str, float]:
        for template in templates:
            names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
            odd = [name for name in names if not name.isidentifier()]
            if odd:
                raise ValueError(f"the template {template!r} has {{{odd[0]}}}, expected the name of a field in braces")
        return templates


class Augmentation(_Strict):
    """Ranges of the random changes.

    `flip` is the share of images that are mirrored, with left and right exchanged in their text. Images whose text
    names an organ that lies on one side, such as the heart or the liver, are not mirrored.

    Other changes hide the source of an image. `coarse` is the share of images that are read at a lower resolution, down
    to `coarsest` of their own. `borders` is the share that gets up to four bars of one grey along the edges, `marks`
    the share with rectangles over possible burned-in text, and `inverted` the share with black and white exchanged.
    """

    rotation_degrees: Annotated[float, Field(ge=0, le=45)] = 10.0
    scale: tuple[Positive, Positive] = (0.8, 1.1)
    stretch: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    shift: Share = 0.12
    gamma: Annotated[float, Field(ge=0, le=2)] = 0.3
    contrast: Share = 0.3
    brightness: Share = 0.1
    noise: Share = 0.03
    flip: Share = 0.0
    coarse: Share = 0.0
    coarsest: Annotated[float, Field(gt=0, le=1)] = 0.3
    borders: Share = 0.0
    marks: Share = 0.0
    inverted: Share = 0.0


class Unpaired(_Strict):
    """Images without captions: an image folder, or a JSON-lines file with `image`, and optionally `group` and
    `split`."""

    path: Path
    terms: str = ""


class WarmUp(_Strict):
    """Training of the image tower without texts, before the rest: the model learns to recognize an image in another
    view.

    It uses the training images of `data` and the additional `images`. `augmentation` makes the views.
    """

    epochs: Count = 20
    batch_size: Annotated[int, Field(ge=4)] = 128
    learning_rate: Positive = 1e-3
    temperature: Positive = 0.2
    images: tuple[Unpaired, ...] = ()
    augmentation: Augmentation = Augmentation(
        rotation_degrees=15, scale=(0.4, 1.0), shift=0.2, gamma=0.5, contrast=0.5, brightness=0.2, noise=0.06
    )


class Teacher(_Strict):
    """A model whose embeddings the trained model should reproduce: any model that medlens opens, by name or folder.

    The loss gets two more terms: `embedding_weight` times 1 - cosine of the embeddings (through a linear head if the
    widths differ), and `similarity_weight` times the divergence of the similarities within a batch. The teacher's
    similarities use `temperature`, by default the teacher's own.
    """

    model: str | None = None
    embedding_weight: Annotated[float, Field(ge=0)] = 1.0
    similarity_weight: Annotated[float, Field(ge=0)] = 1.0
    temperature: Positive | None = None


class Objective(_Strict):
    """A loss over the images and texts of a batch, plus `prompt_weight` times the cross-entropy over the prompts of
    each label set.

    Equal texts are positives of all their images. With `near_equal`, so are texts whose features below the locked
    tower's projection have at least this cosine (and the same sides and negations).

    `loss` is `infonce` (softmax over the batch) or `siglip` (each pair alone, with a learned bias that starts at
    `initial_bias`).

    `hard_negatives` adds wrong texts to each image: its own caption with left and right exchanged (`side`) or with its
    first finding negated (`negation`), or another patient's caption with other findings (`finding`), drawn each step
    among the rows with the same value of the label set `region`. `mirror` adds the mirrored image as a wrong image of a
    text that names a side, for at most an eighth of a batch.
    """

    loss: Literal["infonce", "siglip"] = "infonce"
    near_equal: Annotated[float, Field(gt=0, le=1)] | None = None
    hard_negatives: tuple[Literal["side", "negation", "finding", "mirror"], ...] = ()
    region: str = "body_region"
    initial_bias: float = -10.0
    prompt_weight: Annotated[float, Field(ge=0)] = 1.0
    label_smoothing: Share = 0.1
    initial_temperature: Positive = 0.07


class Schedule(_Strict):
    """AdamW with linear warm-up, then cosine to `final_learning_rate`. `ema` averages the weights that are saved.

    `chunk_size` encodes a batch in chunks of this size: a large batch fits on a small device, at the cost of one more
    forward pass. Gradients are those of the whole batch, except for batch norm, whose statistics are those of a chunk.

    `precision: bf16` runs the forward passes of the towers in bfloat16 by autocast; weights, features, losses and
    evaluations stay in float32.

    The first `small_share` of the epochs use images of `small_image_size` pixels, which is cheaper.

    `start_share` is for a run that continues a model: the weights that are evaluated and saved are this share of that
    model's weights and the rest of what was learned (Wortsman et al. 2022), so that less is forgotten.

    Every `evaluate_every` epochs, the dev rows are evaluated and the state is saved. `keep_best` saves the weights with
    the best R@10 (mean of both directions, of the source `judged_by`, by default of all sources) instead of the last
    weights. `patience` ends the run after this many evaluations without an improvement. Weights chosen by the dev rows
    make the figures on these rows slightly too good.
    """

    epochs: Count = 100
    batch_size: Annotated[int, Field(ge=4)] = 64
    chunk_size: Annotated[int, Field(ge=4)] | None = None
    learning_rate: Positive = 2e-3
    text_learning_rate: Positive = 1e-3
    final_learning_rate: Positive = 1e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    precision: Literal["fp32", "bf16"] = "fp32"
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    ema: Share = 0.998
    start_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    small_image_size: Annotated[int, Field(ge=32)] | None = None
    small_share: Share = 0.75
    evaluate_every: Count = 5
    keep_best: bool = False
    judged_by: str | None = None
    patience: Count | None = None

    @model_validator(mode="after")
    def _best_is_kept(self) -> Self:
        for name in ("judged_by", "patience"):
            if getattr(self, name) is not None and not self.keep_best:
                raise ValueError(f"{name} needs keep_best: true")
        return self


class Gate(_Strict):
    """How much a run that continues a model may forget: percentage points of R@10 (mean of both directions), on the dev
    rows of each source with rehearsal: true."""

    most_lost: Annotated[float, Field(ge=0, le=100)] = 2.0


class TrainingConfig(_Strict):
    """A whole run. `output` and label files are relative to the configuration's folder, pairs files too unless
    `load_config` is given another folder for them.

    With `continue_from` (a shipped model, or a folder that `medlens train` wrote), the run continues that model, which
    decides the architecture and the preprocessing."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    output: Path
    seed: int = 0
    embed_dim: Annotated[int, Field(ge=8, le=4096)] = 256
    image: ImageTower = ImageTower()
    text: TextTower
    data: tuple[Source, ...] = Field(min_length=1)
    label_sets: dict[str, Positive] = Field(default_factory=dict)
    augmentation: Augmentation = Augmentation()
    warm_up: WarmUp | None = None
    objective: Objective = Objective()
    teacher: Teacher | None = None
    schedule: Schedule = Schedule()
    continue_from: Path | None = None
    gate: Gate = Gate()
    description: str = ""
    ablations: tuple[Path, ...] = ()

    @model_validator(mode="after")
    def _rehearsal_is_of_an_older_model(self) -> Self:
        if self.continue_from is None and any(source.rehearsal for source in self.data):
            raise ValueError("data with rehearsal: true needs continue_from, the model that was trained on it")
        if self.continue_from is None and self.schedule.start_share:
            raise ValueError("schedule.start_share needs continue_from, the model whose weights are mixed in")
        if "gate" in self.model_fields_set and not any(source.rehearsal for source in self.data):
            raise ValueError("gate needs at least one source with rehearsal: true")
        return self

    @model_validator(mode="after")
    def _near_texts_stay_where_they_are(self) -> Self:
        if self.objective.near_equal is not None and not self.text.locked:
            raise ValueError("objective.near_equal needs text.locked: true")
        return self

    @field_validator("data")
    @classmethod
    def _distinct(cls, data: tuple[Source, ...]) -> tuple[Source, ...]:
        places = [source.store or source.pairs for source in data]
        if len(set(places)) != len(places):
            raise ValueError("the same pairs file or store is named twice")
        return data


def load_config(path: Path, data: Path | None = None, continue_from: str | None = None) -> TrainingConfig:
    """Read and validate a YAML file. Relative pairs files are searched in `data`, by default beside the configuration.

    `continue_from` replaces the value of the file: the name of a model, or a path relative to the current folder.
    Raises TrainingError, which names each wrong key.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise TrainingError(f"the training configuration {path.name!r} can't be read: {exc.strerror}") from exc
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: not UTF-8, or a date such as 2001-13-01
        raise TrainingError(f"{path.name!r} is not valid YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(values, dict):
        raise TrainingError(
            f"{path.name!r} contains a {type(values).__name__}, expected keys such as name, text and data"
        )
    folder = path.resolve().parent
    if continue_from is not None:
        values = filled(values, find_folder(continue_from, Path.cwd()))
    elif values.get("continue_from") is not None:
        values = filled(values, find_folder(str(values["continue_from"]), folder))
    try:
        config = TrainingConfig.model_validate(values)
    except ValidationError as exc:
        raise TrainingError(f"{path.name}: {explain(exc)}", hint="docs/train.md explains the keys.") from exc
    return _anchored(config, folder, data.resolve() if data is not None else folder)


def _anchored_source(source: Source, data: Path) -> Source:
    if source.store is None:
        return source.model_copy(update={"pairs": data / source.pairs.expanduser()})
    if "://" in source.store:
        return source
    return source.model_copy(update={"store": str(data / Path(source.store).expanduser())})


def _anchored(config: TrainingConfig, folder: Path, data: Path) -> TrainingConfig:
    """The configuration with absolute paths."""
    sources = tuple(_anchored_source(source, data) for source in config.data)

    def start_of(start: str) -> str:
        return start if start.startswith(PREFIX) else str(folder / Path(start).expanduser())

    update: dict[str, Any] = {
        "label_sets": {
            str(folder / n) if n.endswith((".yaml", ".yml")) else n: w for n, w in config.label_sets.items()
        },
        "output": folder / config.output.expanduser(),
        "ablations": tuple(folder / path.expanduser() for path in config.ablations),
        "data": sources,
        "text": config.text.model_copy(update={"start": start_of(config.text.start)}),
    }
    if config.image.start is not None:
        update["image"] = config.image.model_copy(update={"start": start_of(config.image.start)})
    if config.warm_up is not None:
        images = tuple(u.model_copy(update={"path": data / u.path.expanduser()}) for u in config.warm_up.images)
        update["warm_up"] = config.warm_up.model_copy(update={"images": images})
    if config.teacher is not None and config.teacher.model is not None:
        beside = folder / config.teacher.model.removeprefix("local-dir:")
        if beside.is_dir():
            update["teacher"] = config.teacher.model_copy(update={"model": f"local-dir:{beside.resolve()}"})
    return config.model_copy(update=update)


def with_teacher(config: TrainingConfig, model: str) -> TrainingConfig:
    """The configuration with another teacher model. The other settings of the teacher stay."""
    return config.model_copy(update={"teacher": (config.teacher or Teacher()).model_copy(update={"model": model})})
