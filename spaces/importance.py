"""Which channels and heads matter least, by several measures that are chosen by name."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal, get_args

import torch
from torch import nn

from paretrim.spaces.attention import Heads, rows_of_heads
from paretrim.spaces.device import moved, on, settle
from paretrim.spaces.recurrent import readers
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.surgery import produced, read

Importance = Literal["l1", "l2", "taylor", "geometric_median", "bn_scale", "random"]
IMPORTANCES: tuple[str, ...] = get_args(Importance)

_BATCHES, _BATCH_SIZE = 4, 32
_NOTHING = 1e-6
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def channel_scores(kind: str, graph: Any, group: Any, seed: int = 0) -> torch.Tensor:
    """Return how much each channel of a group matters, shape ``(channels,)``, 1 on average; of nothing but zeros, -1.

    - ``l1``, ``l2``: the size of all weights that would go with the channel, its filters and what reads it (Li et al.,
      "Pruning Filters for Efficient ConvNets", 2017; grouped as in Fang et al., "DepGraph", 2023);
    - ``taylor``: how much the loss would change, to first order: gradient times weight (Molchanov et al., "Importance
      Estimation for Neural Network Pruning", 2019); the weights must have gradients;
    - ``geometric_median``: how far its filters are from the others, so that what others can stand in for goes first (He
      et al., "Filter Pruning via Geometric Median", 2019);
    - ``bn_scale``: the scale of its batch normalization (Liu et al., "Network Slimming", 2017); ``l2`` where a group has
      none;
    - ``random``: a control.

    Args:
        kind: One of `IMPORTANCES`.
        graph: The dependency graph.
        group: All channels of a group in it.
        seed: For ``random``.
    """
    from torch_pruning import importance

    # What was put in for a shortcut holds ones and zeros that say nothing of a channel's worth.
    items = [each for each in group if _learned(each.dep.target.module)]
    # A gate's channels go with those that it gates, and are not counted for themselves.
    count = 1 + max(group[0].root_idxs)
    if kind == "random":
        scores = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    elif kind == "geometric_median":
        scores = _distances(graph, items, count)
    elif kind == "taylor":
        scores = importance.GroupTaylorImportance()(items)
    elif kind == "bn_scale" and any(isinstance(each.dep.target.module, _NORMS) for each in items):
        scores = importance.BNScaleImportance()(items)
    else:
        scores = importance.GroupMagnitudeImportance(p=1 if kind == "l1" else 2)(items)
    return _settled(scores[:count], _empty(graph, group, count))


def head_scores(kind: str, model: nn.Module, group: Heads, seed: int = 0) -> torch.Tensor:
    """Return how much each head matters, shape ``(heads,)``, as `channel_scores` does.

    Measured are the rows of queries, keys and values and the columns of what reads them; there is no batch normalization
    among them, so that ``bn_scale`` is ``l2``.
    """
    now = int(getattr(model.get_submodule(group.name), group.count))
    owned = [rows_of_heads(group, [head], now) for head in range(now)]
    layers = [model.get_submodule(each) for each in group.layers]
    weights = torch.stack([_weights_of(layers, rows) for rows in owned])
    dead = _of_nothing(torch.stack([_weights_of(layers[-1:], rows[-1:]) for rows in owned]).abs().amax(dim=1))
    if kind == "random":
        scores = torch.rand(now, generator=torch.Generator().manual_seed(seed))
    elif kind == "geometric_median":
        scores = torch.cdist(weights, weights).sum(dim=1)
    elif kind == "taylor":
        scores = torch.stack([_weights_of(layers, rows, slopes=True) for rows in owned]).abs().sum(dim=1)
    else:
        scores = weights.abs().pow(1 if kind == "l1" else 2).sum(dim=1)
    return _settled(scores, dead)


def seed_of(seed: int, name: str) -> int:
    """Return a seed for a part of the model, the same in each process."""
    return zlib.crc32(f"{seed} {name}".encode())


def take_gradients(model: nn.Module, schooling: Schooling, seed: int) -> None:
    """Give all weights their gradients of the loss, summed over a few batches; the model stays in evaluation mode."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    model.eval().requires_grad_(True)
    model.zero_grad(set_to_none=True)
    with on(schooling.device, model):
        for batch in islice(schooling.batches(_BATCH_SIZE, seed), _BATCHES):
            with schooling.working():
                shown = moved(batch, schooling.device)
                teacher = None if schooling.teacher is None else schooling.teacher[batch.index].to(schooling.device)
                torch.autograd.backward(schooling.loss(shown.inputs.through(model), shown.labels, teacher))
                settle(schooling.device)
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for parameter in frozen:
        parameter.requires_grad_(False)


def rows_of(graph: Any, item: Any) -> torch.Tensor | None:
    """Return the weights of one item of a group, a row for each of its channels, or None where it has none."""
    layer = item.dep.target.module
    if isinstance(layer, nn.Embedding):
        return layer.weight[:, item.idxs].T
    if isinstance(layer, nn.RNNBase):
        return torch.cat([getattr(layer, name)[:, item.idxs] for name in readers(layer)]).T
    if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return None
    if graph.is_out_channel_pruning_fn(item.dep.handler):
        return layer.weight[item.idxs].flatten(1)
    # A convolution in groups has as many columns as a group has channels.
    channels = [i % layer.weight.shape[1] for i in item.idxs]
    return layer.weight.transpose(0, 1)[channels].flatten(1)


def _learned(module: object) -> bool:
    return not (isinstance(module, nn.Module) and getattr(module, "stands_in", False))


def _distances(graph: Any, items: Sequence[Any], count: int) -> torch.Tensor:
    total = torch.zeros(count)
    for item in produced(graph, items):
        rows = rows_of(graph, item)
        if rows is not None:
            far = torch.cdist(rows.detach(), rows.detach()).sum(dim=1)
            total.index_add_(0, torch.tensor(item.root_idxs), far / far.mean().clamp_min(1e-12))
    return total


def _empty(graph: Any, items: Any, count: int) -> torch.Tensor:
    """Tell for each channel whether nothing gives it a value, or nothing reads it."""
    dead = torch.zeros(count, dtype=torch.bool)
    for side in (produced(graph, items), read(graph, items)):
        largest, some = torch.zeros(count), False
        for item in side:
            rows = rows_of(graph, item)
            if rows is not None:
                some = True
                largest.scatter_reduce_(0, torch.tensor(item.root_idxs), rows.detach().abs().amax(dim=1), "amax")
        if some:
            dead |= _of_nothing(largest)
    return dead


def _of_nothing(largest: torch.Tensor) -> torch.Tensor:
    return largest <= _NOTHING * largest.max()


def _settled(scores: torch.Tensor, dead: torch.Tensor) -> torch.Tensor:
    scores = scores.detach().clone().nan_to_num(0.0)
    mean = scores.mean()
    scores = scores / mean if float(mean) > 0 else torch.ones_like(scores)
    scores[dead] = -1.0
    return scores


def _weights_of(layers: Sequence[nn.Module], rows: Sequence[Sequence[int]], slopes: bool = False) -> torch.Tensor:
    """Return all weights of one head in one row; with `slopes`, each times its gradient."""
    parts = []
    for i, (layer, owned) in enumerate(zip(layers, rows, strict=True)):
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)  # noqa: S101 - tells the type checker what a layer holds
        values = weight.detach() * weight.grad if slopes and weight.grad is not None else weight.detach()
        last = i == len(layers) - 1
        parts.append((values[:, list(owned)] if last else values[list(owned)]).flatten())
    return torch.cat(parts)
