"""Rules of descent on a batch of independent perturbations, one row per photo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch


def sign_step(w: torch.Tensor, gradient: torch.Tensor, step: float, epsilon: float) -> torch.Tensor:
    """One descent step: w - step * sign(gradient), clipped to +-epsilon."""
    return (w - step * gradient.sign()).clamp(-epsilon, epsilon)


def with_momentum(gradient: torch.Tensor, previous: torch.Tensor | float, decay: float) -> torch.Tensor:
    """gradient / mean|gradient| + decay * previous; the mean is taken per row of w."""
    scale = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
    return gradient / scale.clamp_min(torch.finfo(gradient.dtype).tiny) + decay * previous


class Rule(Protocol):
    """How a gradient becomes a step; carries tensors with one row per photo."""

    def step(self, gradient: torch.Tensor, size: float, progress: float) -> torch.Tensor:
        """What to subtract; progress runs from 0 to 1."""

    def keep(self, kept_B: torch.Tensor) -> None:
        """Forget the other rows."""


@dataclass
class Adam:
    """Adam with default betas and a cosine to zero; gradient norm clipped to 1 per photo (the paper's)."""

    mean: torch.Tensor | None = None
    square: torch.Tensor | None = None
    count: int = 0

    def step(self, gradient: torch.Tensor, size: float, progress: float) -> torch.Tensor:
        """lr * m / (sqrt(v) + 1e-8), bias-corrected."""
        gradient = gradient / gradient.flatten(1).norm(dim=1).clamp_min(1.0)[:, None, None, None]
        self.count += 1
        self.mean = 0.1 * gradient if self.mean is None else 0.9 * self.mean + 0.1 * gradient
        squared = 0.001 * gradient.square()
        self.square = squared if self.square is None else 0.999 * self.square + squared
        mean = self.mean / (1 - 0.9**self.count)
        square = self.square / (1 - 0.999**self.count)
        return size * 0.5 * (1 + math.cos(math.pi * progress)) * mean / (square.sqrt() + 1e-8)

    def keep(self, kept_B: torch.Tensor) -> None:
        """Forget the other rows."""
        if self.mean is not None and self.square is not None:
            self.mean, self.square = self.mean[kept_B], self.square[kept_B]


@dataclass
class MomentumSign:
    """Sign of the running sum of gradients, each divided by its mean magnitude."""

    momentum: float
    running: torch.Tensor | float = 0.0

    def step(self, gradient: torch.Tensor, size: float, progress: float) -> torch.Tensor:
        """Steps of constant size."""
        self.running = with_momentum(gradient, self.running, self.momentum)
        return size * self.running.sign()

    def keep(self, kept_B: torch.Tensor) -> None:
        """Forget the other rows."""
        if isinstance(self.running, torch.Tensor):
            self.running = self.running[kept_B]
