"""Purification: what an attacker does to photos in the hope of washing a perturbation out, at three places.

Steps are channels, and two that must be fitted first: a learned denoiser and the subtraction of what all collected
photos have in common. `fit` makes what they need, once per round; `Purifier` then runs the steps of a place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field

from tsdf_ray.attackers.denoiser import DenoiseStep, denoise, train_denoiser
from tsdf_ray.attackers.work import Worklog
from tsdf_ray.channels import AnyChannel, BlurChannel, publish
from tsdf_ray.faces.faceset import FaceSet, to_pixels
from tsdf_ray.generators.base import Tensors

Place = Literal["prepare", "train", "inference"]
Fitted = Mapping[str, Tensors]
"""What `fit` made, by the step's config as JSON: a denoiser's weights, or `{"estimate": float32 [1, 3, S, S]}`."""


class SubtractStep(BaseModel):
    """`{kind: subtract}`: estimate a universal perturbation from the round's collected photos and subtract it.

    The estimate is the mean, over those photos as published, of photo minus its denoised version: content averages
    out, what all photos share stays (except for what the denoiser lets through).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["subtract"] = Field(
        "subtract", description="estimate what all collected photos share, and subtract it"
    )
    denoised: Annotated[AnyChannel | DenoiseStep, Field(discriminator="kind")] = Field(
        BlurChannel(sigma=4.0), description="how the version to compare with is made"
    )
    strength: float = Field(1.0, gt=0.0, le=4.0, description="multiple of the estimate that is subtracted")


PurifyStep = Annotated[AnyChannel | DenoiseStep | SubtractStep, Field(discriminator="kind")]
"""One step of a purification, told apart by `kind`."""


class PurifyConfig(BaseModel):
    """Steps in order at each place: the kinds of `publish`, `denoise` and `subtract`; by default none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prepare: tuple[PurifyStep, ...] = Field(
        (), max_length=8, description="before faces are looked for; what is trained on comes from these photos"
    )
    train: tuple[PurifyStep, ...] = Field(
        (), max_length=8, description="after detecting and cropping, before training on them"
    )
    inference: tuple[PurifyStep, ...] = Field(
        (), max_length=8, description="before forging: the generator sees the purified photo"
    )

    @property
    def steps(self) -> tuple[PurifyStep, ...]:
        """Those of all places."""
        return self.prepare + self.train + self.inference


def fit(
    config: PurifyConfig,
    own: FaceSet,
    collected: FaceSet,
    run_seed: int,
    known: Fitted,
    log: Worklog | None = None,
) -> Fitted:
    """What the steps need: denoisers trained on `own` clean photos, estimates from the photos `collected` as published.

    Denoisers among `known` (of an earlier call with the same photos and seed) are taken over: they are the same in
    every round. Raises MatchFailed when a denoiser's loss is not finite.
    """
    log = log or Worklog()
    fitted: dict[str, Tensors] = {}
    for step in _denoisers(config):
        key = step.model_dump_json()
        if key in known:
            fitted[key] = known[key]
        elif key not in fitted:
            learn = partial(train_denoiser, step, own, run_seed)
            fitted[key] = log.timed("learn denoise", step.steps * step.batch, learn)
    for subtract in config.steps:
        if isinstance(subtract, SubtractStep):
            estimate = log.timed("estimate", len(collected), partial(_estimate, subtract, collected, fitted))
            fitted[subtract.model_dump_json()] = {"estimate": estimate}
    return fitted


def denoisers(fitted: Fitted, config: PurifyConfig) -> Fitted:
    """The part of `fitted` that later rounds take over."""
    return {step.model_dump_json(): fitted[step.model_dump_json()] for step in _denoisers(config)}


class Purifier:
    """Runs the steps of a place; a pure function of its arguments (`log` notes what it cost)."""

    def __init__(self, config: PurifyConfig, fitted: Fitted, log: Worklog | None = None) -> None:
        self._config = config
        self._fitted = fitted
        self._log = log or Worklog()

    def __call__(self, place: Place, photos: FaceSet, protected: bool = True) -> FaceSet:
        """`photos` after every step of `place`, in order, on the 8-bit grid; unchanged when there is none.

        `protected` False: as in a world without the protection, for the clean side of a comparison. There photos have
        no perturbation in common, so nothing is subtracted; all other steps are the same.
        """
        steps: tuple[PurifyStep, ...] = getattr(self._config, place)
        for step in steps:
            if isinstance(step, SubtractStep) and not protected:
                continue
            run = partial(_run, step, photos, self._fitted)
            photos = self._log.timed(f"purify.{place} {step.kind}", len(photos), run)
        return photos


def _denoisers(config: PurifyConfig) -> Iterator[DenoiseStep]:
    for step in config.steps:
        inner = step.denoised if isinstance(step, SubtractStep) else step
        if isinstance(inner, DenoiseStep):
            yield inner


def _run(step: PurifyStep, photos: FaceSet, fitted: Fitted) -> FaceSet:
    if isinstance(step, DenoiseStep):
        return denoise(step, fitted[step.model_dump_json()], photos)
    if isinstance(step, SubtractStep):
        estimate_1CHW = torch.tensor(fitted[step.model_dump_json()]["estimate"])
        return photos.with_pixels(to_pixels(photos.images() - step.strength * estimate_1CHW).numpy())
    return publish(photos, step)


def _estimate(step: SubtractStep, collected: FaceSet, fitted: Fitted) -> npt.NDArray[np.float32]:
    smooth = _run(step.denoised, collected, fitted)
    residual_BCHW = collected.pixels_BCHW.astype(np.int16) - smooth.pixels_BCHW
    # Whole numbers: exact, so the sum's order does not matter.
    mean_1CHW = residual_BCHW.sum(0, keepdims=True, dtype=np.int64) / max(1, len(collected))
    estimate_1CHW: npt.NDArray[np.float32] = (mean_1CHW / 127.5).astype(np.float32)
    return estimate_1CHW
