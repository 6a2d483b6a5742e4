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


def train_classifier(
    module: nn.Module,
    faces: FaceSet,
    steps: int,
    run_seed: int,
    on_step: Callable[[int, float], None] | None = None,
    batch: int = 32,
    learning_rate: float = 2e-3,
) -> None:
    """Train `module` (photos to label logits [B, A]) on `faces`: Adam, cosine to 0, mirrored and half-size photos.

    Half-size photos (every other step) keep it useful while the generator still learns at half size. `on_step(steps
    made, loss)` is called after each step. Leaves the module frozen, in evaluation mode. Raises MatchFailed when the
    loss is not finite.
    """
    device = next(module.parameters()).device
    # Rare label combinations are drawn as often as common ones.
    domain_N = domain_index(faces.labels(), faces.attributes)
    chance_N = 1.0 / domain_N.bincount()[domain_N].double()
    pixels, labels = torch.from_numpy(np.array(faces.pixels_BCHW)).to(device), faces.labels().to(device)
    module.train().requires_grad_(True)
    optimiser = torch.optim.Adam(module.parameters(), learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    for step in range(steps):
        rng = torch_rng(run_seed, "pretrain", "classifier", step)
        index = torch.multinomial(chance_N, batch, replacement=True, generator=rng)
        x_BCHW = to_images(pixels[index.to(device)])
        mirrored_B = (torch.rand(batch, generator=rng) < 0.5).to(device)
        x_BCHW = torch.where(mirrored_B[:, None, None, None], x_BCHW.flip(-1), x_BCHW)
        if step % 2:
            x_BCHW = F.avg_pool2d(x_BCHW, 2)
        with torch.autocast(device.type, torch.bfloat16):
            logits_BA = module(x_BCHW)
        loss = label_cross_entropy(logits_BA, labels[index.to(device)], faces.attributes)
        if not bool(torch.isfinite(loss)):
            raise MatchFailed(f"training the classifier: loss became {float(loss)} at step {step}")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if on_step is not None:
            on_step(step + 1, float(loss.detach()))
    module.eval().requires_grad_(False)
