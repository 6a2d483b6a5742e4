"""In what precision a defender's passes through networks run, and in what memory layout."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """`float32` leaves passes alone; `bfloat16` runs them under autocast, on a CPU in channels-last.

    There a bfloat16 convolution is two to six times slower in the usual layout, which turns every result (measured).
    """

    name: str
    device: torch.device

    @property
    def half(self) -> bool:
        """Whether networks compute in bfloat16."""
        return self.name == "bfloat16"

    def autocast(self) -> torch.autocast:
        """The context of a pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def laid_out(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The photos as a pass wants them; differentiable."""
        if not self.half or self.device.type != "cpu":
            return x_BCHW
        return x_BCHW.contiguous(memory_format=torch.channels_last)
