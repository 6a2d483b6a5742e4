"""How a family is trained: steps, batch, optimiser, precision."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class TrainConfig(BaseModel):
    """How a family is trained or fine-tuned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(100, ge=0, le=10_000_000, description="generator steps")
    batch: int = Field(16, ge=1, le=4096, description="photos per step")
    learning_rate: float = Field(4e-4, gt=0.0, le=1.0, description="Adam's step size, of the generator")
    discriminator_rate: float = Field(
        1.0, gt=0.0, le=100.0, description="the discriminator's step size as a multiple of the generator's"
    )
    betas: tuple[Rate, Rate] = Field((0.5, 0.99), description="Adam's decay rates")
    discriminator_steps: int = Field(1, ge=1, le=100, description="discriminator steps per generator step")
    decay_share: float = Field(
        0.5, ge=0.0, le=1.0, description="last share of the steps, over which both step sizes fall linearly to 0"
    )
    ema_decay: float | None = Field(
        None, gt=0.0, lt=1.0, description="decay of the generator's moving average, which then is the result"
    )
    precision: Literal["float32", "bfloat16"] = Field("bfloat16", description="of the passes (autocast)")
    flips: bool = Field(True, description="mirror photos at random")
    balance: float = Field(
        0.5, ge=0.0, le=1.0, description="how far rare label combinations are drawn more often: 0 not, 1 all alike"
    )
