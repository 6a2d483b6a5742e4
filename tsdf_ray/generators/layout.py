"""Layers that keep a batch's memory layout, so that bfloat16 passes can stay in channels-last from end to end.

On a CPU a bfloat16 convolution works in channels-last; given the usual layout, most of its time goes into turning its
result. PyTorch's instance norm would turn it back, hence the norms here. Without channels-last nothing changes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

TINY = 1e-12
"""Least deviation that is divided by in a backward pass; where a channel is constant its gradient is 0 anyway."""


def layout_of(h_BCHW: torch.Tensor) -> torch.memory_format:
    """channels_last, or contiguous for anything else."""
    last = h_BCHW.is_contiguous(memory_format=torch.channels_last) and not h_BCHW.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def with_planes(h_BCHW: torch.Tensor, values_BA: torch.Tensor) -> torch.Tensor:
    """The values as constant planes behind the channels of `h`: [B, C + A, H, W], in the layout of `h`."""
    planes = values_BA[:, :, None, None].expand(-1, -1, *h_BCHW.shape[2:])
    return torch.cat([h_BCHW, planes.to(h_BCHW.dtype)], 1).contiguous(memory_format=layout_of(h_BCHW))


def instance_norm(
    h_BCHW: torch.Tensor, weight_C: torch.Tensor | None = None, bias_C: torch.Tensor | None = None, eps: float = 1e-5
) -> torch.Tensor:
    """Each channel of each photo by its own mean and biased variance."""
    if h_BCHW.device.type != "cpu" or layout_of(h_BCHW) is not torch.channels_last:
        return F.instance_norm(h_BCHW, weight=weight_C, bias=bias_C, eps=eps)
    ones, zeros = (h_BCHW.new_full((1, h_BCHW.shape[1]), value, dtype=_wide(h_BCHW)) for value in (1.0, 0.0))
    weight = ones if weight_C is None else weight_C[None]
    bias = zeros if bias_C is None else bias_C[None]
    normed: torch.Tensor = _Norm.apply(h_BCHW, weight, bias, eps, False)  # type: ignore[no-untyped-call]
    return normed


def deviation_norm(h_BCHW: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    """(h - mean) / (deviation + eps) * weight + bias, each channel of each photo by its own unbiased deviation.

    weight, bias: float [1 or B, C]. Float32; on a CPU in the precision of `h`, with statistics in float32.
    """
    if h_BCHW.device.type == "cpu":
        normed: torch.Tensor = _Norm.apply(h_BCHW, weight, bias, eps, True)  # type: ignore[no-untyped-call]
        return normed
    h = h_BCHW.float()
    variance, mean = torch.var_mean(h, (2, 3), keepdim=True)
    return (h - mean) / (variance.sqrt() + eps) * weight[:, :, None, None] + bias[:, :, None, None]


class _Norm(torch.autograd.Function):
    """(h - mean) / divisor * weight + bias by PyTorch's batch norm kernels, which keep `h` alone and take few passes.

    The divisor is the root of biased variance + eps, or the unbiased deviation plus eps. Batch norm's gradient is
    w k (g - mean g - k^2 (h - mean) mean(g (h - mean))) with its inverse deviation k, and fits the first as it is. The
    second has 1 / divisor before the bracket and n / ((n - 1) deviation divisor) for k^2: the weight makes up for it.
    """

    @staticmethod
    def forward(
        ctx: Any, h_BCHW: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, outside: bool
    ) -> torch.Tensor:
        count = h_BCHW[0, 0].numel()
        found, means, divisors, inverses = [], [], [], []
        weights, biases = (_per_row(h_BCHW, value) for value in (weight, bias))
        for h_1CHW, weight_C, bias_C in zip(_rows(h_BCHW), weights, biases, strict=True):
            mean_C, variance_C = torch.zeros_like(weight_C), torch.zeros_like(weight_C)
            torch.batch_norm_update_stats(h_1CHW, mean_C, variance_C, 1.0)  # running statistics without a memory
            if outside:
                deviation_C = variance_C.sqrt()
                divisor_C = deviation_C + eps
                inverse_C = (count / ((count - 1) * deviation_C.clamp_min(TINY) * divisor_C)).sqrt()
            else:
                divisor_C = (variance_C * ((count - 1) / count) + eps).sqrt()
                inverse_C = 1 / divisor_C
            # In evaluation mode batch norm divides by the root of the variance it is given.
            square_C = divisor_C.square()
            found.append(F.batch_norm(h_1CHW, mean_C, square_C, weight_C, bias_C, training=False, eps=0.0))
            means.append(mean_C)
            divisors.append(divisor_C)
            inverses.append(inverse_C)
        ctx.save_for_backward(h_BCHW, weight, bias, *(torch.stack(rows) for rows in (means, divisors, inverses)))
        return _joined(found, h_BCHW)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BCHW: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of h, weight and bias; see the class."""
        h_BCHW, weight, bias, means, divisors, inverses = ctx.saved_tensors
        gradient_BCHW = gradient_BCHW.contiguous(memory_format=layout_of(h_BCHW))
        want = [ctx.needs_input_grad[0], *[any(ctx.needs_input_grad[1:3])] * 2]
        found: tuple[list[torch.Tensor], ...] = ([], [], [])
        rows = zip(
            _rows(h_BCHW), _rows(gradient_BCHW), means, divisors, inverses, _per_row(h_BCHW, weight), strict=True
        )
        for h_1CHW, gradient_1CHW, mean_C, divisor_C, inverse_C, weight_C in rows:
            ratio_C = 1 / (divisor_C * inverse_C)
            to_h, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
                gradient_1CHW, h_1CHW, weight_C * ratio_C, None, None, mean_C, inverse_C, True, 0.0, want
            )
            if want[0]:
                found[0].append(to_h)
            if want[1]:
                found[1].append(to_weight * ratio_C)
                found[2].append(to_bias)
        joined = _joined(found[0], h_BCHW) if want[0] else None
        sums = [
            torch.stack(part).view(len(h_BCHW), -1).sum_to_size(value.shape) if part else None
            for part, value in zip(found[1:], (weight, bias), strict=True)
        ]
        return joined, *sums, None, None


def _rows(h_BCHW: torch.Tensor) -> list[torch.Tensor]:
    """Parts [1, C, H, W] that batch norm can take for themselves: in channels-last the photos, else one of all maps."""
    if layout_of(h_BCHW) is torch.channels_last:
        return list(torch.split(h_BCHW, 1))
    return [h_BCHW.reshape(1, -1, *h_BCHW.shape[2:])]


def _joined(rows: list[torch.Tensor], like_BCHW: torch.Tensor) -> torch.Tensor:
    """The parts as one [B, C, H, W]: not a view, so that what follows may work in place."""
    if layout_of(like_BCHW) is torch.channels_last:
        return torch.cat(rows)
    joined: torch.Tensor = torch.ops.aten._unsafe_view(rows[0], like_BCHW.shape)
    return joined


def _per_row(h_BCHW: torch.Tensor, value: torch.Tensor) -> list[torch.Tensor]:
    """[1 or B, C] as one vector for each of `_rows`, in the precision of their statistics."""
    rows = len(h_BCHW) if layout_of(h_BCHW) is torch.channels_last else 1
    return list(value.to(_wide(h_BCHW)).expand(len(h_BCHW), -1).reshape(rows, -1))


def _wide(h_BCHW: torch.Tensor) -> torch.dtype:
    return torch.float64 if h_BCHW.dtype is torch.float64 else torch.float32
