"""Training of the small attribute classifier that a family's loss keeps frozen (not the judge)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.faceset import FaceSet, to_images
from tsdf_ray.generators.domains import domain_index, label_cross_entropy
from tsdf_ray.randomness import torch_rng

SIGN_STEP = 0.1
"""Largest adversarial change of a pixel while the classifier trains, on the [-1, 1] scale."""


def train_classifier(
    module: nn.Module,
    faces: FaceSet,
    steps: int,
    run_seed: int,
    on_step: Callable[[int, float], None] | None = None,
    batch: int = 48,
    learning_rate: float = 2e-3,
) -> None:
    """Train `module` (photos to label logits [B, A]) on `faces` at half size: AdamW, one cycle, mirrored photos.

    Contrast, brightness, cast and noise are varied, and each batch is shown after one sign step against the classifier
    (fast adversarial training, Wong et al. 2020, arXiv 2001.03994): a plain classifier is fooled by faint stripes, and
    a generator finds these sooner than hair colours. `on_step(steps made, loss)` is called after each step. Leaves the
    module frozen, in evaluation mode. Raises MatchFailed when the loss is not finite.
    """
    device = next(module.parameters()).device
    pixels, labels = torch.from_numpy(np.array(faces.pixels_BCHW)).to(device), faces.labels().to(device)
    domain_N = domain_index(faces.labels(), faces.attributes)
    chance_N = (1.0 / domain_N.bincount()[domain_N].double()) ** 0.5
    module.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(module.parameters(), learning_rate, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=max(steps, 1))
    for step in range(steps):
        rng = torch_rng(run_seed, "pretrain", "classifier", step)
        index = torch.multinomial(chance_N, batch, replacement=True, generator=rng)
        x_BCHW = _vary(F.avg_pool2d(to_images(pixels[index.to(device)]), 2), rng)
        truth_BA = labels[index.to(device)]
        x_BCHW = x_BCHW + _against(module, x_BCHW, truth_BA, faces.attributes, rng)
        loss = _loss(module, x_BCHW, truth_BA, faces.attributes)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise MatchFailed(f"training the classifier: loss became {value} at step {step}")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if on_step is not None:
            on_step(step + 1, value)
    module.eval().requires_grad_(False)


def _loss(module: nn.Module, x_BCHW: torch.Tensor, truth_BA: torch.Tensor, attributes: tuple[str, ...]) -> torch.Tensor:
    with torch.autocast(x_BCHW.device.type, torch.bfloat16):
        logits_BA = module(x_BCHW)
    return label_cross_entropy(logits_BA, truth_BA, attributes)


def _against(
    module: nn.Module,
    x_BCHW: torch.Tensor,
    truth_BA: torch.Tensor,
    attributes: tuple[str, ...],
    rng: torch.Generator,
) -> torch.Tensor:
    """A sign step that raises the loss, from a random start: each photo's own size, up to `SIGN_STEP`."""
    size_B111 = SIGN_STEP * torch.rand(len(x_BCHW), 1, 1, 1, generator=rng).to(x_BCHW.device)
    start_BCHW = size_B111 * (2 * torch.rand(x_BCHW.shape, generator=rng).to(x_BCHW.device) - 1)
    moved_BCHW = (x_BCHW + start_BCHW).requires_grad_()
    (gradient,) = torch.autograd.grad(_loss(module, moved_BCHW, truth_BA, attributes), moved_BCHW)
    return (start_BCHW + 1.25 * size_B111 * gradient.sign()).maximum(-size_B111).minimum(size_B111)


def _vary(x_BCHW: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    contrast, brightness, grain, side = torch.rand(4, len(x_BCHW), 1, 1, 1, generator=rng).to(x_BCHW.device)
    cast_B311 = 0.2 * torch.rand(len(x_BCHW), 3, 1, 1, generator=rng).to(x_BCHW.device) - 0.1
    noise_BCHW = torch.randn(x_BCHW.shape, generator=rng).to(x_BCHW.device)
    x_BCHW = torch.where(side < 0.5, x_BCHW.flip(-1), x_BCHW)
    varied: torch.Tensor = (
        x_BCHW * (0.8 + 0.4 * contrast) + (0.3 * brightness - 0.15) + cast_B311 + 0.2 * grain * noise_BCHW
    )
    return varied
