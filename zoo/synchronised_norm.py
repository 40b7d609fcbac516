"""Batch normalisation by the statistics of the whole batch, of which each process has an equal share."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.nn import functional as F


def synchronised_batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise by mean and variance over the batches of all processes.

    What one process gets depends on what every process has, and so do the gradients: two small reductions, one in each
    direction. All the rest is the framework's own kernels. On a CPU the reductions of all norms still cost a good
    part of a step.

    Args:
        x: (N, C, *spatial); every process has the same N.
        weight, bias: (C,).
    Returns:
        the shape and dtype of x.
    """
    result: Tensor = _SynchronisedNorm.apply(x, weight, bias, eps)
    return result


class _SynchronisedNorm(torch.autograd.Function):
    """The gradient is that of Ioffe and Szegedy 2015, arXiv:1502.03167, with sums over all processes."""

    @staticmethod
    def forward(ctx: object, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean, variance = _statistics(x)
        ctx.save_for_backward(x, weight, mean, variance)  # type: ignore[attr-defined]
        ctx.eps = eps  # type: ignore[attr-defined]
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, variance = ctx.saved_tensors  # type: ignore[attr-defined]
        # as if the statistics were given: the gradients of x alone, of the scale and of the shift, over this share
        of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]  # type: ignore[attr-defined]
        )  # fmt: skip
        sums = torch.stack([of_weight, of_bias])
        distributed.all_reduce(sums)
        # and what x does by way of the statistics: a straight line in x for each channel
        inverse = torch.rsqrt(variance + ctx.eps)  # type: ignore[attr-defined]
        slope, level = sums * (weight * inverse) * (x.shape[1] / (x.numel() * distributed.get_world_size()))
        slope = slope * inverse
        shape = [1, -1] + [1] * (x.dim() - 2)
        line = torch.addcmul((level - slope * mean).view(shape).to(x.dtype), x, slope.view(shape).to(x.dtype))
        return of_x.sub_(line), of_weight, of_bias, None


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) over all processes.

    Each contributes mean and variance of its share, in a row of its own, so that one reduction gathers them; a mean of
    squares would lose the variance of channels with a large mean.
    """
    axes = [axis for axis in range(x.dim()) if axis != 1]
    variance, mean = torch.var_mean(x.float(), axes, correction=0)
    rows = mean.new_zeros(distributed.get_world_size(), 2, mean.numel())
    rows[distributed.get_rank(), 0], rows[distributed.get_rank(), 1] = mean, variance
    distributed.all_reduce(rows)
    means, variances = rows.unbind(1)
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)
