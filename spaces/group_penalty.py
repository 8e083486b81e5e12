"""Sparsity that is learned before the cut: a group lasso over all weights that would go with a channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.cutting import Part, parts
from paretrim.spaces.importance import rows_of
from paretrim.spaces.schooling import TrainingBatch
from paretrim.spaces.surgery import coupled, dependency_graph


class GroupPenalty:
    """The sum over channels of the length of all their weights, so that some become zero as a whole.

    Sources: Wen et al., "Learning Structured Sparsity in Deep Neural Networks", 2016, over the coupled weights of Fang et
    al., "DepGraph", 2023. Channels that cost more time on the target are pressed harder (as in Shen et al.,
    "Structural Pruning via Latency-Saliency Knapsack", 2022, for one).

    Args:
        model: As it will be trained; its channels may not change while this is in use.
        anatomy: Of the model that it was made from.
        groups: The names of the groups to press.
        strength: How hard.
        channel_ms: Milliseconds for one channel of a group, by its name; groups without one count as the mean.
    """

    def __init__(
        self,
        model: nn.Module,
        anatomy: Anatomy,
        groups: Sequence[str],
        strength: float,
        channel_ms: Mapping[str, float],
    ) -> None:
        self._graph = dependency_graph(model, anatomy.example())
        chosen = [part for part in parts(model, anatomy, self._graph) if part.group.name in groups]
        costs = [channel_ms[part.group.name] for part in chosen if part.group.name in channel_ms]
        mean = sum(costs) / len(costs) if sum(costs) > 0 else 1.0
        weights = [channel_ms.get(part.group.name, mean) / mean if costs else 1.0 for part in chosen]
        self._strength = strength
        self._pressed = [
            (weight, part.channels, self._items(part)) for weight, part in zip(weights, chosen, strict=True)
        ]

    def __call__(self, batch: TrainingBatch) -> torch.Tensor:
        """Return the penalty, a scalar."""
        total = torch.zeros(())
        for weight, channels, items in self._pressed:
            energy = torch.full((channels,), 1e-12, device=batch.labels.device)
            for item in items:
                rows = rows_of(self._graph, item)
                if rows is not None:
                    places = torch.tensor(item.root_idxs, device=rows.device)
                    energy = energy.index_add(0, places, rows.pow(2).sum(dim=1))
            total = total + weight * energy.sqrt().sum()
        return self._strength * total

    def close(self) -> None:
        """Let go of the model."""
        self._pressed = []

    def _items(self, part: Part) -> list[Any]:
        whole = coupled(self._graph, part.root, range(part.channels))
        return [item for item in whole if not getattr(item.dep.target.module, "stands_in", False)]
