"""What `bench.ensemble` works on: the paper's ensemble with random weights, photos, both stages, and a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from tsdf_ray.defenders.base import Knowledge
from tsdf_ray.defenders.descent import sign_step
from tsdf_ray.defenders.eot import draw_view
from tsdf_ray.defenders.forgeries import Visit, at_feature_size, mean_square
from tsdf_ray.defenders.interruption import Interruption, InterruptionConfig
from tsdf_ray.defenders.learning import Course
from tsdf_ray.defenders.objectives import feature_loss, output_loss
from tsdf_ray.defenders.poisoning import PoisonConfig, Poisoner, Rows
from tsdf_ray.detectors import DETECTORS, Detector, load_detector
from tsdf_ray.faces import FaceSet, draw_edits
from tsdf_ray.game.materials import all_attributes
from tsdf_ray.generators.attentiongan import AttentionGAN, AttentionGANConfig
from tsdf_ray.generators.attgan import AttGAN, AttGANConfig
from tsdf_ray.generators.base import Family
from tsdf_ray.generators.hisd import HiSD, HiSDConfig
from tsdf_ray.generators.stargan import StarGAN, StarGANConfig

EPSILON = 0.05
PAPER_POISON = PoisonConfig(rule="adam", steps=50, lambda_f=1.0, score_form="squared")


def generators(*, small: bool) -> list[Family]:
    """StarGAN, AttentionGAN, AttGAN and HiSD (glasses) of official size, or narrow."""
    critic: dict[str, Any] = {"discriminator_width": 4}
    label: dict[str, Any] = {"width": 8, "blocks": 2, **critic} if small else critic
    shallow: dict[str, Any] = {"width": 8, "widest": 64, "hidden": 8, **critic} if small else {"hidden": 8, **critic}
    style: dict[str, Any] = {"discriminator_widths": (4, 4)}
    if small:
        style |= {"widths": (8, 16, 32), "translator_widths": (8, 8, 8), "extractor_widths": (4, 8)}
    return [
        StarGAN(StarGANConfig(**label)),
        AttentionGAN(AttentionGANConfig(**label)),
        AttGAN(AttGANConfig(**shallow)),
        HiSD(HiSDConfig(edited=("Eyeglasses",), **style)),
    ]


def detectors(*, small: bool) -> dict[str, Detector]:
    """RetinaFace as packaged; S3FD and DSFD with random weights, of official width or an eighth."""
    found: dict[str, Detector] = {"retinaface": load_detector("retinaface")}
    for name in ("s3fd", "dsfd"):
        found[name] = DETECTORS[name](*([0.125] if small else [])).eval().requires_grad_(False)
    return found


@dataclass
class Workload:
    """The ensemble on a device, with `batch` photos."""

    families: Mapping[str, Family]
    detectors: Mapping[str, Detector]
    photos: FaceSet
    device: torch.device

    @classmethod
    def make(cls, batch: int, device: str, *, small: bool = False) -> Workload:
        """Everything drawn from one seed. small: narrow networks at 64 px."""
        torch.manual_seed(0)
        made = generators(small=small)
        attributes = all_attributes(made)
        side = 64 if small else 256
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (batch, 3, side // 16, side // 16), dtype=np.uint8)
        pixels = coarse.repeat(16, axis=2).repeat(16, axis=3)
        labels = rng.integers(0, 2, (batch, len(attributes)), dtype=np.uint8)
        photos = FaceSet(pixels, labels, attributes, tuple(str(i) for i in range(batch)))
        for family in made:
            family.freeze()
            for module in family.parts.values():
                module.to(device)
        known = {family.name: family for family in made}
        watched = {name: detector.to(device) for name, detector in detectors(small=small).items()}
        return cls(known, watched, photos, torch.device(device))

    def trainable(self, *, on: bool) -> None:
        """Whether all weights ask for gradients, as in code that forgets to freeze them."""
        for family in self.families.values():
            family.parts["generator"].requires_grad_(on)
        for detector in self.detectors.values():
            detector.requires_grad_(on)

    def knowledge(self, precision: str) -> Knowledge:
        """What a defender is given."""
        return Knowledge(0, 0, self.families, self.detectors, self.photos, precision)


class StageOne:
    """An outer batch of stage 1 with the paper's settings, by the classes that `found` and `tsdf` run."""

    def __init__(self, load: Workload, precision: str) -> None:
        self.config = InterruptionConfig(epsilon=EPSILON, step_size=0.001)
        self.work = Interruption(self.config, load.knowledge(precision), load.photos)
        self.index = list(range(len(load.photos)))
        rng = torch.Generator().manual_seed(0)
        asked = dict.fromkeys(family.attributes for family in load.families.values())
        self.target = {names: draw_edits(load.photos.select(names).labels(), names, rng) for names in asked}
        start = torch.rand(1, 3, load.photos.size, load.photos.size, generator=rng) * 2 - 1
        self.start = (start * EPSILON).to(load.device)
        self.models = len(load.families)

    def visit(self) -> Visit:
        """The labels asked for, and the clean side: computed at the first call."""
        return self.work.visit(self.index, lambda own_BA, names: self.target[names])

    def batch(self) -> torch.Tensor:
        """Feature steps and one end-to-end step."""
        rng, w = torch.Generator().manual_seed(1), self.start
        visit = self.visit()
        for _ in range(self.config.feature_steps):
            w = sign_step(w, self.work.feature_gradient(w, visit, rng), self.config.step, EPSILON)
        course = Course(0.0, torch.zeros(self.models, 1, device=self.work.device))
        return course.output_step(self.work, w, visit, rng)

    def gradient(self) -> torch.Tensor:
        """Of the end-to-end step."""
        weights = torch.full((self.models, 1), 1 / self.models, device=self.work.device)
        return self.work.output_gradient(self.start, self.visit(), weights, torch.Generator().manual_seed(1))[0]


class StageTwo:
    """Stage 2 on the paper's objectives (features, scores and boxes), by the class that `tsdf` runs."""

    def __init__(self, load: Workload, precision: str) -> None:
        config = PAPER_POISON.model_copy(update={"precision": precision})
        self.poisoner = Poisoner(config, EPSILON, load.detectors, 0, 0)
        x_BCHW = load.photos.images().to(load.device)
        w = (torch.rand(x_BCHW.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1) * EPSILON
        self.w = w.to(load.device)
        self.rows: Rows = self.poisoner.start(x_BCHW, self.w, torch.ones_like(self.w), load.photos.ids)

    def step(self) -> torch.Tensor:
        """Losses, gradient and one move of delta."""
        gradient = self.gradient()
        self.rows.move(gradient, 0.0, EPSILON, PAPER_POISON.step_size(EPSILON))
        return gradient

    def gradient(self) -> torch.Tensor:
        """Of the total with respect to delta."""
        self.rows.delta = self.rows.delta.detach().requires_grad_()
        _, total_B = self.poisoner.losses(self.rows, draw_view((), torch.Generator()))
        return torch.autograd.grad(total_B.sum(), self.rows.delta)[0]


def plain_batch(load: Workload, stage: StageOne) -> None:
    """The same outer batch as published code runs it: one graph for all generators, whose weights get gradients, clean
    outputs computed anew at every step, decoders run in feature steps too."""
    x_BCHW, w, target = stage.visit().x_BCHW, stage.start, stage.visit().target
    for step in range(stage.config.feature_steps + 1):
        w = w.detach().requires_grad_()
        total = torch.zeros((), device=load.device)
        for name, family in load.families.items():
            with torch.no_grad():
                clean, clean_mid = family.edit_and_features(x_BCHW, target[name])
            out, mid = family.edit_and_features((x_BCHW + w).clamp(-1.0, 1.0), target[name])
            total = total - mean_square(at_feature_size(mid), at_feature_size(clean_mid)).mean()
            if step == stage.config.feature_steps:
                total = total - mean_square(out, clean).mean()
        total.backward()  # type: ignore[no-untyped-call]
        assert w.grad is not None
        w = sign_step(w.detach(), w.grad, stage.config.step, EPSILON)


def plain_step(load: Workload, stage: StageTwo) -> None:
    """The same stage-2 step with gradients for all weights and the detectors' clean pass computed anew."""
    rows = stage.rows
    rows.delta = rows.delta.detach().requires_grad_()
    seen_BCHW = (rows.x_BCHW + rows.w + rows.delta).clamp(-1.0, 1.0)
    total = torch.zeros((), device=load.device)
    for name, detector in load.detectors.items():
        with torch.no_grad():
            detector.raw(rows.x_BCHW)
        raw = detector.raw(seen_BCHW)
        total = total + output_loss(raw, rows.views[name], seen_BCHW.shape[-1], PAPER_POISON).sum()
        total = total + feature_loss(raw.features, rows.targets[name], PAPER_POISON.level_weights).sum()
    total.backward()  # type: ignore[no-untyped-call]


def flops(run: Callable[[], object]) -> float:
    """GFLOP that `run` executes in convolutions and products, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops()) / 1e9


@torch.no_grad()
def needed(load: Workload) -> dict[str, float]:
    """GFLOP per photo that the two stages cannot do without, from single forward passes of the networks.

    Backward to the photo alone costs what forward does. Stage 1: three times encoders, once everything, both ways, with
    clean passes known. Stage 2: every detector's features and heads, both ways; `features alone` leaves the heads out.
    """
    x_1CHW = load.photos.images()[:1].to(load.device)
    asked = {f: load.photos.select(f.attributes).labels()[:1].to(load.device) for f in load.families.values()}
    whole = sum(flops(partial(f.edit_and_features, x_1CHW, c_1A)) for f, c_1A in asked.items())
    encoders = sum(flops(partial(f.features, x_1CHW, c_1A)) for f, c_1A in asked.items())
    heads = sum(flops(lambda d=d: d.raw(x_1CHW)) for d in load.detectors.values())  # type: ignore[misc]
    levels = sum(flops(lambda d=d: d.features(x_1CHW)) for d in load.detectors.values())  # type: ignore[misc]
    return {"stage1": 6 * encoders + 2 * whole, "stage2": 2 * heads, "stage2 features alone": 2 * levels}
