"""Pretraining of a generator from a set of photos: checkpoints, sample grids, exact resume.

The folder holds `resume.safetensors` (everything to go on), `checkpoints/step-*.safetensors` (families, as
`load_family` reads them), `samples/step-*.png` and, at the end, `generator.safetensors`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from tsdf_ray.errors import Stopped, UserError
from tsdf_ray.faces.edits import edit_labels
from tsdf_ray.faces.faceset import FaceSet, to_pixels
from tsdf_ray.generators.base import Family, Tensors, check_tensors
from tsdf_ray.generators.classifier import train_classifier
from tsdf_ray.generators.fresh import fresh_family
from tsdf_ray.generators.train_config import TrainConfig
from tsdf_ray.generators.trainer import Trainer
from tsdf_ray.generators.weights import GENERATORS, load_family, save_family
from tsdf_ray.registry import look_up
from tsdf_ray.store.atomic import whole_file, write_tensors

NAMES = ("pretrain",)
SMALL_STEPS = 1000


class LongTrainConfig(TrainConfig):
    """`TrainConfig` with the defaults of a training from scratch: the shipped editor's."""

    steps: int = Field(7_000, ge=0, le=10_000_000, description="generator steps")
    learning_rate: float = Field(5e-4, gt=0.0, le=1.0, description="Adam's step size, of the generator")
    discriminator_rate: float = Field(
        0.5, gt=0.0, le=100.0, description="the discriminator's step size as a multiple of the generator's"
    )
    decay_share: float = Field(
        0.3, ge=0.0, le=1.0, description="last share of the steps, over which both step sizes fall linearly to 0"
    )
    ema_decay: float | None = Field(
        0.999, gt=0.0, lt=1.0, description="decay of the generator's moving average, which then is the result"
    )


class PretrainConfig(BaseModel):
    """What to train and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = Field("editor", description="generator family")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="the family's own config; empty for its defaults"
    )
    start: str | None = Field(
        None, description="weights to start from, with their own settings where `settings` gives no other"
    )
    train: LongTrainConfig = Field(LongTrainConfig(), description="steps, batch, optimiser, moving average, precision")
    seed: int = Field(0, ge=0, description="run seed")
    small_steps: int | None = Field(
        None,
        ge=0,
        description="first steps made at half the photos' side, four times as fast; default: 1000, none where the "
        "family cannot be trained at that side",
    )
    classifier_steps: int = Field(
        1500, ge=0, description="steps for the frozen classifier of the loss, where there is one"
    )
    sample_every: int = Field(500, ge=1, description="steps between sample grids")
    checkpoint_every: int = Field(1000, ge=1, description="steps between checkpoints")

    def fresh(self) -> Family:
        """The family before the first step, untrained or as in `start`.

        Raises UserError: unknown family, settings that do not fit it or the weights, weights of another family.
        """
        kind = look_up("generators", self.family, GENERATORS)
        start = None if self.start is None else load_family(self.start)
        if start is not None and start.name != self.family:
            raise UserError(f"pretrain: start: {self.start} holds {start.name}, not {self.family}; name that family")
        own = {} if start is None else json.loads(start.config_json())
        try:
            config = kind.config_class.model_validate(own | self.settings)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in ("settings", *first["loc"]))
            raise UserError(f"pretrain: {where}: {first['msg']}") from error
        family = fresh_family(kind, config, self.seed, *NAMES)
        if start is not None:
            tensors = start.tensors()
            check_tensors(f"pretrain: start: {self.start}", family.tensors(), tensors)
            family.load(tensors)
        return family


@dataclass(frozen=True)
class Progress:
    """Where a pretraining stands; given to the caller's callback after each step."""

    phase: str
    """`classifier` or `generator`."""
    step: int
    steps: int
    losses: dict[str, float]
    """Weighted loss terms of this step."""
    seconds_left: float
    """At the pace of the steps made so far in this phase."""


Report = Callable[[Progress], None]


def pretrain(
    config: PretrainConfig,
    faces: FaceSet,
    out: Path,
    progress: Report | None = None,
    samples: FaceSet | None = None,
    resume: bool = False,
    device: str = "cpu",
) -> Path:
    """Train a family on `faces` in the folder `out`; returns the path of the finished weights.

    `samples` are the photos of the grids (the first eight; default: of `faces`). The callback may raise Stopped: the
    state is saved and the error goes on. With `resume` the training goes on where `out` left off, with the same draws:
    on a CPU with the same number of threads the result equals that of an unbroken run. `device` is torch's name of what
    it is trained on (`cpu`, `cuda`, `cuda:1`).

    Raises UserError: no such device, unusable settings, `out` holds a training already (without `resume`) or none, or
    another one (with it). Raises MatchFailed when a loss is not finite.
    """
    state = out / "resume.safetensors"
    if resume and not state.is_file():
        raise UserError(f"{state}: no training to resume; leave out --resume to start one")
    if not resume and state.is_file():
        raise UserError(f"{out}: holds a training already; resume it or name another folder")
    family = config.fresh()
    _to(family, device)
    trainer = Trainer(family, faces, config.train, config.seed, NAMES)
    small_steps = _small_steps(config.small_steps, family, faces.size // 2)
    made = _restore(state, trainer, config, faces) if resume else 0
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        _classifier(family, faces, config, progress)
        _save(state, trainer, config, faces, 0)
    shown = (samples or faces).take(range(min(8, len(samples or faces))))
    clock = _Clock("generator", made, config.train.steps, progress)
    try:
        while made < config.train.steps:
            losses = trainer.step(made, shrink=2 if made < small_steps else 1)
            made += 1
            last = made == config.train.steps
            if made % config.sample_every == 0 or last:
                _grid(out / "samples" / f"step-{made:07d}.png", trainer, shown)
            if made % config.checkpoint_every == 0 or last:
                _save(state, trainer, config, faces, made)
                _save_average(out / "checkpoints" / f"step-{made:07d}.safetensors", trainer)
            clock.tick(made, losses)
    except Stopped:
        _save(state, trainer, config, faces, made)
        raise
    finished = out / "generator.safetensors"
    trainer.finish()
    save_family(finished, family)
    return finished


def _small_steps(asked: int | None, family: Family, side: int) -> int:
    """How many first steps are made at half the side. Raises UserError when that was asked for and cannot be."""
    try:
        family.check_training_side(side, "pretrain: small_steps trains at half the side")
    except UserError:
        if asked:
            raise
        return 0
    return SMALL_STEPS if asked is None else asked


class _Clock:
    """Time left at the pace of this phase."""

    def __init__(self, phase: str, made: int, steps: int, progress: Report | None) -> None:
        self._phase, self._first, self._steps, self._progress = phase, made, steps, progress
        self._started = time.perf_counter()

    def tick(self, made: int, losses: dict[str, float]) -> None:
        if self._progress is not None:
            pace = (time.perf_counter() - self._started) / (made - self._first)
            self._progress(Progress(self._phase, made, self._steps, losses, pace * (self._steps - made)))


def _to(family: Family, device: str) -> None:
    """Move all parts. Raises UserError when there is no such device."""
    try:
        for part in family.parts.values():
            part.to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error


def _classifier(family: Family, faces: FaceSet, config: PretrainConfig, progress: Report | None) -> None:
    if "classifier" not in family.frozen_parts or not config.classifier_steps or config.start is not None:
        return
    clock = _Clock("classifier", 0, config.classifier_steps, progress)
    train_classifier(
        family.parts["classifier"],
        faces,
        config.classifier_steps,
        config.seed,
        lambda step, loss: clock.tick(step, {"classifier": loss}),
    )


def _save(path: Path, trainer: Trainer, config: PretrainConfig, faces: FaceSet, made: int) -> None:
    notes = {"pretrain": config.model_dump_json(), "faces": faces.digest, "step": str(made)}
    write_tensors(path, _flat(trainer.state()), notes)


def _flat(tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
    # Scalars become arrays of one: the writer wants contiguous arrays, which have a dimension.
    return {name: np.atleast_1d(value) for name, value in tensors.items()}


def _restore(path: Path, trainer: Trainer, config: PretrainConfig, faces: FaceSet) -> int:
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            notes = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read as safetensors: {error}") from error
    if json.loads(notes.get("pretrain", "null")) != json.loads(config.model_dump_json()):
        raise UserError(f"{path}: was trained with other settings; resume with those it was started with")
    if notes.get("faces") != faces.digest:
        raise UserError(f"{path}: was trained on other photos; resume with those it was started with")
    expected = trainer.state()
    check_tensors(str(path), _flat(expected), tensors)
    trainer.load_state({name: value.reshape(expected[name].shape) for name, value in tensors.items()})
    return int(notes["step"])


def _save_average(path: Path, trainer: Trainer) -> None:
    """The family with its moving average, beside the training that goes on with the raw weights."""
    config = trainer.family.config_class.model_validate_json(trainer.family.config_json())
    family = type(trainer.family)(config)
    family.load(trainer.family.tensors() | trainer.generator_tensors())
    save_family(path, family)


@torch.no_grad()
def _grid(path: Path, trainer: Trainer, shown: FaceSet) -> None:
    """One row per photo: the photo, its edit to its own labels, then each attribute edited."""
    config = trainer.family.config_class.model_validate_json(trainer.family.config_json())
    family = type(trainer.family)(config)
    family.load(trainer.generator_tensors())
    device = trainer.device
    _to(family, str(device))
    for module in family.parts.values():
        module.eval()
    x_BCHW, own_BA = shown.images().to(device), shown.labels()
    columns = [x_BCHW, family.edit(x_BCHW, own_BA.to(device))]
    for a in range(len(family.attributes)):
        target_BA = torch.stack([edit_labels(own_A, a, family.attributes) for own_A in own_BA])
        columns.append(family.edit(x_BCHW, target_BA.to(device)))
    rows = torch.cat([torch.cat(list(column), 1) for column in columns], 2)
    with whole_file(path) as temporary:
        Image.fromarray(to_pixels(rows).permute(1, 2, 0).cpu().numpy()).save(temporary, format="PNG")
