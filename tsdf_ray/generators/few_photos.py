"""Two aids for training a family on a few thousand photos; without them a published family has its published loss.

A discriminator that sees few photos learns them by heart, and its label head is fooled by patterns that no eye takes
for a hair colour. So what it sees may be augmented (augment.py), and a small attribute classifier, trained beforehand
against sign steps and then frozen (classifier.py), may join the generator's loss.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from tsdf_ray.generators.augment import augment
from tsdf_ray.generators.domains import label_cross_entropy

SIDE = 32
IDENTITY_SHARE = 0.25
"""Share of a batch that an identity term sees."""


class FewPhotosConfig(BaseModel):
    """What a family's config inherits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    augment: bool = Field(False, description="the discriminator sees photos shifted and with a hole")
    classifier_width: int | None = Field(
        None, ge=4, le=512, description="first width of a frozen attribute classifier in the loss; none where not given"
    )
    classifier_weight: float = Field(1.0, ge=0.0, le=1e3, description="weight of the frozen classifier's term")

    def shown(self, x_BCHW: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """What the discriminator sees of photos."""
        return augment(x_BCHW, rng) if self.augment else x_BCHW

    def classifier_part(self, labels: int) -> dict[str, nn.Module]:
        """The part `classifier`, where there is one: frozen."""
        if self.classifier_width is None:
            return {}
        return {"classifier": AttributeClassifier(labels, self.classifier_width).eval().requires_grad_(False)}

    def classifier_term(
        self, parts: dict[str, nn.Module], fake_BCHW: torch.Tensor, target_BA: torch.Tensor, names: tuple[str, ...]
    ) -> dict[str, torch.Tensor]:
        """The term `g_classifier`, where there is a classifier: its cross-entropy towards the target labels."""
        if "classifier" not in parts or not self.classifier_weight:
            return {}
        loss = label_cross_entropy(parts["classifier"](fake_BCHW), target_BA, names)
        return {"g_classifier": self.classifier_weight * loss}


class AttributeClassifier(nn.Module):
    """Small attribute classifier of a loss: photos [B, 3, H, W], seen at 32 x 32, to label logits [B, A]."""

    def __init__(self, labels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(SIDE)]
        before, stride = 3, 1
        for channels in (width, 2 * width, 3 * width, 4 * width):
            layers += [nn.Conv2d(before, channels, 3, stride=stride, padding=1), nn.GroupNorm(4, channels), nn.SiLU()]
            before, stride = channels, 2
        self.main = nn.Sequential(*layers)
        self.head = nn.Linear(4 * width, labels)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        h = self.main(x_BCHW)
        logits: torch.Tensor = self.head(h.mean((2, 3)))
        return logits.float()
