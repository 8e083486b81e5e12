"""How many channels to cut from each group, and cutting them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from paretrim.spaces.anatomy import Anatomy, Group
from paretrim.spaces.importance import channel_scores, seed_of
from paretrim.spaces.surgery import choices, coupled, cut, dependency_graph, produced


@dataclass(frozen=True)
class Rounding:
    """Which numbers of channels may stay.

    Attributes:
        block: Counts are multiples of it; a group that has fewer, or does not divide by it, may stay whole.
        least: Share of its channels that each group keeps; one channel, and one block, at least.
    """

    block: int
    least: float = 0.0

    def kept(self, group: Group, ratio: float) -> int:
        """Return how many of a group's channels stay when a share is to be cut; halves round up."""
        if ratio == 0:
            return group.channels
        block = self.of(group)
        # A guard against float noise such as 23.999999.
        rounded = math.floor(group.channels * (1.0 - ratio) / block + 0.5 + 1e-9) * block
        return min(group.channels, max(self.floor(group), rounded))

    def floor(self, group: Group) -> int:
        """Return how many of a group's channels stay in any case."""
        block = self.of(group)
        blocks = math.ceil(self.least * group.channels / block - 1e-9)
        return min(group.channels, max(1, blocks) * block)

    def of(self, group: Group) -> int:
        """Return the block of a group, in which its own multiple is counted."""
        return math.lcm(self.block, group.multiple)


@dataclass(frozen=True)
class Part:
    """A group as it stands in a model of which parts may have been cut or removed.

    Attributes:
        group: What the anatomy says of it.
        root: A layer of it that is still there.
        channels: How many can be chosen now.
    """

    group: Group
    root: nn.Module
    channels: int


def parts(model: nn.Module, anatomy: Anatomy, graph: Any) -> list[Part]:
    """Return the groups that are there; those that have become one because what lay between is gone come once."""
    modules = dict(model.named_modules())
    found: list[Part] = []
    seen: set[nn.Module] = set()
    for group in anatomy.groups:
        root = next((modules[name] for name in group.layers if modules.get(name) in graph.module2node), None)
        if root is None or root in seen:
            continue
        channels = choices(graph, root)
        seen |= {item.dep.target.module for item in produced(graph, coupled(graph, root, range(channels)))}
        found.append(Part(group, root, channels))
    return found


def even_counts(found: Sequence[Part], ratios: Mapping[str, float], rounding: Rounding, done: float) -> dict[str, int]:
    """Return how many channels of each group to cut now, by its name.

    Args:
        found: The groups.
        ratios: The share of a group's channels to cut in all, by its name.
        rounding: Which numbers may stay.
        done: The share of that to be reached now, 1 for all.
    """
    counts = {}
    for part in found:
        all_in_all = part.group.channels - rounding.kept(part.group, ratios[part.group.name])
        stays = part.group.channels - round(all_in_all * done / part.group.multiple) * part.group.multiple
        counts[part.group.name] = max(0, part.channels - stays)
    return counts


def ranked_counts(
    found: Sequence[Part], scores: Mapping[str, torch.Tensor], share: float, rounding: Rounding
) -> dict[str, int]:
    """Return how many channels of each group to cut so that a share of all is gone, the least important first.

    Channels go in blocks, ranked by the mean importance of theirs.

    Args:
        found: The groups.
        scores: The importance of each group's channels, 1 on average.
        share: Of the channels that all groups had at first.
        rounding: Which numbers may stay.
    """
    blocks = []
    for part in found:
        ordered = scores[part.group.name].sort().values
        start, floor, block = 0, rounding.floor(part.group), rounding.of(part.group)
        # The first step is to a multiple of the block, the others are whole blocks.
        size = part.channels % block or block
        while start + size <= part.channels - floor:
            blocks.append((float(ordered[start : start + size].mean()), part.group.name, size))
            start, size = start + size, block
    gone = sum(part.group.channels - part.channels for part in found)
    wanted = share * sum(part.group.channels for part in found)
    counts = dict.fromkeys((part.group.name for part in found), 0)
    for _, name, size in sorted(blocks, key=lambda block: block[0]):
        if gone + size / 2 <= wanted + 1e-9:
            counts[name] += size
            gone += size
    return counts


class Cutter:
    """Cuts the channels of a model that matter least.

    Args:
        model: Cut in place.
        anatomy: Of the model that it was made from.
        kind: The importance by which channels are ranked.
        seed: Of all that is random.
    """

    def __init__(self, model: nn.Module, anatomy: Anatomy, kind: str, seed: int) -> None:
        self._graph = dependency_graph(model, anatomy.example())
        self._kind, self._seed = kind, seed
        self.parts = parts(model, anatomy, self._graph)

    def scores(self) -> dict[str, torch.Tensor]:
        """Return the importance of each group's channels."""
        return {part.group.name: self._scores(part) for part in self.parts}

    def cut(self, counts: Mapping[str, int]) -> None:
        """Cut so many channels of each group, by its name."""
        for part in self.parts:
            count = counts[part.group.name]
            if count:
                order = torch.argsort(self._scores(part), stable=True)
                cut(self._graph, part.root, order[:count].tolist())

    def _scores(self, part: Part) -> torch.Tensor:
        whole = coupled(self._graph, part.root, range(part.channels))
        return channel_scores(self._kind, self._graph, whole, seed_of(self._seed, part.group.name))
