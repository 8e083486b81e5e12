"""Two thin layers in the place of one: a truncated singular value decomposition of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import skip_init

from paretrim.errors import TrialError


@dataclass(frozen=True)
class Thrift:
    """When two factors are worth more than the layer.

    Attributes:
        block: Ranks are multiples of this.
        gain: Factors have at most this share of the layer's weights.
    """

    block: int
    gain: float

    def rank(self, least: int, shape: tuple[int, ...]) -> int:
        """Return the next rank that is a multiple of the block, or the full rank of weights of a shape."""
        full = min(shape[0], _size(shape) // shape[0])
        return min(full, -(-least // self.block) * self.block)

    def pays(self, rank: int, shape: tuple[int, ...]) -> bool:
        """Tell whether factors of a rank are small enough in the place of weights of shape ``(o, i, ...)``."""
        outputs, size = shape[0], _size(shape)
        return rank * (size // outputs + outputs) <= self.gain * size


def factorized(layer: nn.Module, energy: float, thrift: Thrift) -> nn.Sequential | None:
    """Return the two factors of a linear layer or convolution, or None where they would save too little.

    A linear layer becomes two; a convolution becomes one with the same kernel, stride, padding and dilation to `rank`
    channels, and one of kernel 1 to the output channels. Each factor takes the square root of the singular values, so
    that the two are of the same size and train alike.

    Args:
        layer: A plain linear layer or convolution without grouped channels; it is not changed.
        energy: Share of the squared singular values to keep, from 0 to 1; the rank is the smallest that does, rounded up.
        thrift: When it is worth it.

    Raises:
        TrialError: The weights are not finite.
    """
    weight = layer.get_parameter("weight").detach()
    if not thrift.pays(thrift.rank(1, tuple(weight.shape)), tuple(weight.shape)):
        return None
    left, values, right = _decomposed(weight)
    rank = thrift.rank(rank_of(values, energy), tuple(weight.shape))
    if not thrift.pays(rank, tuple(weight.shape)):
        return None
    return _pair(layer, right[:rank], left[:, :rank])


def soothe(factors: Sequence[nn.Module]) -> None:
    """Scale down the gradients of two factors in training, so that their product moves no further than one matrix would.

    A step along the gradients G of a product's factors moves it by the learning rate times ``B Bᵀ G + G Aᵀ A``, up to the
    sum of their squared spectral norms times as far as the same step would move a single matrix. With momentum, rates
    that suit the layer let its factors diverge. Optimizers that divide by the size of gradients take no notice.

    Args:
        factors: The layers; nothing is done unless they are two.
    """
    if len(factors) != 2:
        return
    weights = [factor.get_parameter("weight") for factor in factors]
    further = sum(float(torch.linalg.matrix_norm(each.detach().flatten(1), 2)) ** 2 for each in weights)
    if further > 1.0:
        for weight in weights:
            if weight.requires_grad:
                weight.register_hook(lambda gradient: gradient / further)


def rank_of(values: torch.Tensor, energy: float) -> int:
    """Return how many of the singular values, largest first, hold a share of the sum of their squares; at least one."""
    held = values.square().cumsum(0)
    return min(len(values), int((held < energy * held[-1]).sum()) + 1)


def _decomposed(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ``(outputs, n)``, the singular values, and ``(n, inputs)``; each side has the values' square roots.

    The eigenvectors of the smaller side's products are found 2.5 times as fast as both sides' singular vectors, and in
    double precision are as good for weights in single precision.
    """
    if not bool(torch.isfinite(weight).all()):
        raise TrialError(
            "a layer to factorize has weights that are NaN or infinite; load a model whose weights are finite"
        )
    matrix = weight.double().flatten(1)
    tall = len(matrix) > matrix.shape[1]
    matrix = matrix.T if tall else matrix
    squares, vectors = torch.linalg.eigh(matrix @ matrix.T)
    values, vectors = squares.flip(0).clamp_min(0.0).sqrt(), vectors.flip(1)
    # Of a value that is no more than rounding noise, nothing shall be divided by.
    roots = values.clamp_min(1e-7 * float(values[0]) + 1e-30).sqrt()
    near, far = vectors * roots, vectors.T @ matrix / roots[:, None]
    return (far.T, values, near.T) if tall else (near, values, far)


def _pair(layer: nn.Module, first: torch.Tensor, second: torch.Tensor) -> nn.Sequential:
    """Return layers of the weights ``(rank, inputs)`` and ``(outputs, rank)``, the second with the layer's bias."""
    rank, outputs = len(first), len(second)
    bias = layer._parameters.get("bias") is not None
    # Their own first values would be drawn in vain, and would shift what others draw after them.
    if isinstance(layer, nn.Linear):
        thin = skip_init(nn.Linear, layer.in_features, rank, bias=False)
        wide = skip_init(nn.Linear, rank, outputs, bias=bias)
    elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        kept = {name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
        thin = skip_init(type(layer), layer.in_channels, rank, bias=False, **kept)
        wide = skip_init(type(layer), rank, outputs, kernel_size=1, bias=bias)
    else:
        raise TypeError(f"{type(layer).__name__} cannot be factorized; linear layers and convolutions can")
    return _filled(nn.Sequential(thin, wide), layer, (first, second))


def _filled(
    pair: nn.Sequential,
    layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d,
    weights: tuple[torch.Tensor, torch.Tensor],
) -> nn.Sequential:
    weight = layer.weight
    pair.to(device=weight.device, dtype=weight.dtype).train(layer.training)
    with torch.no_grad():
        for part, values in zip(pair, weights, strict=True):
            held = part.get_parameter("weight")
            held.copy_(values.view_as(held))
            held.requires_grad_(weight.requires_grad)
    if layer.bias is not None:
        pair[1].register_parameter("bias", layer.get_parameter("bias"))
    return pair


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
