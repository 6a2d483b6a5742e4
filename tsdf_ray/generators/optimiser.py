"""Adam as the training uses it: step sizes by part of a network, and a state that can be put back exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from tsdf_ray.generators.base import Tensors

_MOMENTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "step": lambda parameter: torch.zeros((), device=parameter.device),
    "exp_avg": lambda parameter: torch.zeros_like(parameter.detach()),
    "exp_avg_sq": lambda parameter: torch.zeros_like(parameter.detach()),
}
"""Adam's state of one weight, as it is before the first step."""


def _laid_out_as(parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """`gradient` with the strides of its weight: CUDA's of a 1 x 1 convolution may differ, and the optimiser stops."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


class Optimiser(torch.optim.Adam):
    """Adam over all weights of a network, one group of them per multiple of the step size."""

    def __init__(
        self, module: torch.nn.Module, scales: Mapping[str, float], rate: float, betas: tuple[float, float]
    ) -> None:
        """`scales`: multiples of the step size by prefix of the weights' names; 1 for all others."""
        groups: dict[float, list[torch.Tensor]] = {}
        for name, parameter in module.named_parameters():
            scale = next((scale for prefix, scale in scales.items() if name.startswith(prefix)), 1.0)
            groups.setdefault(scale, []).append(parameter)
        scaled = [{"params": parameters, "scale": scale} for scale, parameters in groups.items()]
        super().__init__(scaled, rate, betas=betas, fused=True)

    @property
    def weights(self) -> list[torch.Tensor]:
        """All weights, in the order of the gradients that `descend` takes."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def set_rate(self, rate: float) -> None:
        """The step size from now on."""
        for group in self.param_groups:
            group["lr"] = rate * group["scale"]

    def descend(self, gradients: Sequence[torch.Tensor | None]) -> None:
        """One step along these gradients; a weight without one stays as it is."""
        for parameter, gradient in zip(self.weights, gradients, strict=True):
            parameter.grad = None if gradient is None else _laid_out_as(parameter, gradient)
        self.step()

    def moments(self) -> Tensors:
        """The state of every weight, as `index.key` arrays."""
        return {
            f"{i}.{key}": self.state[parameter].get(key, zero(parameter)).cpu().numpy().copy()
            for i, parameter in enumerate(self.weights)
            for key, zero in _MOMENTS.items()
        }

    def load_moments(self, moments: Tensors) -> None:
        """Put back what `moments` gave."""
        for i, parameter in enumerate(self.weights):
            for key, zero in _MOMENTS.items():
                found = torch.from_numpy(np.array(moments[f"{i}.{key}"]))
                self.state[parameter][key] = zero(parameter).copy_(found)
