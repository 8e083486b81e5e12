"""The anatomy of a model: which layers it has, and which of them must be cut together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from paretrim.errors import UserCodeError
from paretrim.evaluators.abilities import Abilities
from paretrim.evaluators.inputs import Inputs, zeros
from paretrim.evaluators.parametrized import WEIGHT_ONLY
from paretrim.evaluators.signature import Signature
from paretrim.spaces.attention import Heads
from paretrim.spaces.blocks import Block, find_blocks
from paretrim.spaces.coupling import LAYER_TYPES, Cuttable, Group, find_cuttable, first_line
from paretrim.spaces.reaching import UNUSED, unused
from paretrim.spaces.stiffness import rigid
from paretrim.spaces.traits import Trait, traits_of
from paretrim.spaces.weight_only import WeightOnly, find_weight_only

__all__ = ["LAYER_TYPES", "Anatomy", "Granularity", "Group", "Layer", "WeightOnly", "dissect", "parts_of"]

Granularity = Literal["per-layer", "per-block", "global"]


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes:
        name: Its module path in the model.
        weights: Number of weights, biases left out.
        first: Whether it is the first that the input meets.
        last: Whether it gives the model's output.
        shape: Shape of its weights, ``(outputs, inputs of each, ...)``.
        rigid: Why it cannot be replaced by several layers under its name, or nothing where it can.
    """

    name: str
    weights: int
    first: bool
    last: bool
    shape: tuple[int, ...] = ()
    rigid: str = ""


@dataclass(frozen=True)
class Anatomy:
    """What the techniques need to know of a model.

    Attributes:
        layers: In order of execution.
        groups: Groups of layers that structured pruning can cut.
        left_out: (layer, reason) of what pruning cannot cut.
        inputs: What one sample's inputs are.
        abilities: What the target can do with compressed layers.
        granularity: Whether each group of coupled layers has knobs of its own, or shares them within its block, or all do.
        traits: What kinds of modules it has, as far as they say how to train it.
        heads: Attentions whose heads can be cut; their layers are those of the rewritten model.
        whole_attentions: (attention, reason) of those that keep all their heads.
        blocks: Parts that can be removed whole.
        fixed_blocks: (block, reason) of those that cannot be removed.
        weight_only: Embeddings, recurrent layers and transposed convolutions, in order of execution: their weights can be stored
            narrow, and nothing else is done to them but that pruning cuts what they are coupled to.
        unused: Modules with weights that run and have no say in the output; an exported file is without them.
        sample: Some real samples, to trace with: of zeros, such as a mask, a model may make nothing. None for zeros.
    """

    layers: tuple[Layer, ...]
    groups: tuple[Group, ...]
    left_out: tuple[tuple[str, str], ...]
    inputs: Signature
    abilities: Abilities = field(default_factory=Abilities)
    granularity: Granularity = "per-layer"
    traits: tuple[Trait, ...] = ()
    heads: tuple[Heads, ...] = ()
    whole_attentions: tuple[tuple[str, str], ...] = ()
    blocks: tuple[Block, ...] = ()
    fixed_blocks: tuple[tuple[str, str], ...] = ()
    weight_only: tuple[WeightOnly, ...] = ()
    unused: frozenset[str] = frozenset()
    sample: Inputs | None = field(default=None, compare=False, repr=False)

    def example(self, batch: int = 2) -> Inputs:
        """Return inputs of so many samples, of which no more is known than their form."""
        given = zeros(self.inputs, 1) if self.sample is None else self.sample
        return given[torch.arange(batch) % len(given)]

    def knob(self, layer: str) -> str:
        """Return the name of the knobs that a layer has, which it may share with others."""
        if self.granularity == "global":
            return "all"
        return layer if self.granularity == "per-layer" else self._block(layer)

    def cut_groups(self) -> tuple[tuple[str, tuple[Group, ...]], ...]:
        """Return (name, groups) of the groups of channels that share their knobs."""
        shared: dict[str, tuple[Group, ...]] = {}
        for group in self.groups:
            name = self.knob(group.name)
            shared[name] = (*shared.get(name, ()), group)
        return tuple(shared.items())

    def head_groups(self) -> tuple[tuple[str, tuple[Heads, ...]], ...]:
        """Return (name, attentions) of the attentions that share their knobs."""
        shared: dict[str, tuple[Heads, ...]] = {}
        for each in self.heads:
            name = self.knob(each.name)
            shared[name] = (*shared.get(name, ()), each)
        return tuple(shared.items())

    def layer_groups(self) -> tuple[tuple[str, tuple[Layer, ...]], ...]:
        """Return (name, layers) of the layers that share their bits; the first and the last layer stand alone."""
        shared: dict[str, tuple[Layer, ...]] = {}
        for first, layers in self._coupled_layers():
            ends = layers[0].first or layers[0].last
            name = first if ends else self.knob(first)
            shared[name] = (*shared.get(name, ()), *layers)
        return tuple(shared.items())

    def weight_only_groups(self) -> tuple[tuple[str, tuple[WeightOnly, ...]], ...]:
        """Return (name, modules) of the embeddings and recurrent layers that share their bits.

        A name may be that of a group of layers too: all of these then share one knob. A module that has weights in common
        with a layer has that layer's knob.
        """
        knobs = {layer.name: name for name, layers in self.layer_groups() for layer in layers}
        shared: dict[str, tuple[WeightOnly, ...]] = {}
        for each in self.weight_only:
            name = knobs[each.name] = knobs.get(each.tied) or self.knob(each.name)
            shared[name] = (*shared.get(name, ()), each)
        return tuple(shared.items())

    def _coupled_layers(self) -> list[tuple[str, tuple[Layer, ...]]]:
        by_name = {layer.name: layer for layer in self.layers}
        ends = [layer for layer in self.layers if layer.first or layer.last]
        grouped: dict[str, tuple[Layer, ...]] = {layer.name: (layer,) for layer in ends}
        seen = {layer.name for layer in ends}
        for group in self.groups:
            members = tuple(by_name[name] for name in group.layers if name not in seen)
            if members:
                grouped[members[0].name] = members
                seen |= {layer.name for layer in members}
        grouped |= {layer.name: (layer,) for layer in self.layers if layer.name not in seen}
        order = {layer.name: position for position, layer in enumerate(self.layers)}
        return sorted(grouped.items(), key=lambda item: order[item[0]])

    def _block(self, layer: str) -> str:
        """Return the innermost numbered part of a layer's path that holds other layers too, else the layer itself."""
        parts = layer.split(".")
        held = [*(each.name for each in self.layers), *(each.name for each in self.weight_only)]
        for end in range(len(parts) - 1, 0, -1):
            prefix = ".".join(parts[:end])
            if parts[end - 1][-1:].isdigit() and sum(path.startswith(f"{prefix}.") for path in held) > 1:
                return prefix
        return layer


def dissect(
    model: nn.Module,
    example: Inputs | torch.Tensor,
    abilities: Abilities = Abilities(),  # noqa: B008 - it is frozen
    granularity: Granularity = "per-layer",
) -> Anatomy:
    """Find the layers of a model and the groups that must be cut together.

    The dependency graph is that of Torch-Pruning (Fang et al., "DepGraph: Towards Any Structural Pruning", 2023).

    Args:
        model: In evaluation mode; it is not changed.
        example: Some samples; a tensor, shape ``(N, ...)``, where the model has one input.
        abilities: What the target can do with compressed layers.
        granularity: Which groups share their knobs.

    Raises:
        UserCodeError: The model has nothing that could be compressed, or does not run on the example.
    """
    example = Inputs.of(example)
    modules = dict(model.named_modules())
    ran = _execution_order(model, example)
    idle = unused(model, example, ran)
    ran = [name for name in ran if name not in idle]
    names = [name for name in ran if isinstance(modules[name], LAYER_TYPES)]
    others = find_weight_only(model, [name for name in ran if isinstance(modules[name], WEIGHT_ONLY)], names)
    if not names and not others:
        raise UserCodeError(
            "the model has no convolution, linear layer, recurrent layer or embedding, so there is nothing to compress; "
            "give a model that has some"
        )
    stiff = rigid(model, example, names)
    layers = tuple(
        Layer(name, weight.numel(), i == 0, i == len(names) - 1, tuple(weight.shape), stiff.get(name, ""))
        for i, (name, weight) in enumerate((name, modules[name].weight) for name in names)
    )
    found = find_cuttable(model, example, names) if names else Cuttable((), ())
    blocks, fixed = _blocks(model, example, names)
    return Anatomy(
        layers,
        found.groups,
        (*found.left_out, *((name, UNUSED) for name in sorted(idle))),
        example.signature,
        abilities,
        granularity,
        traits_of(model, attends=bool(found.heads or found.whole_attentions)),
        found.heads,
        found.whole_attentions,
        blocks,
        tuple(fixed.items()),
        others,
        idle,
        example,
    )


def parts_of(model: nn.Module, layer: str) -> tuple[str, ...]:
    """Return the module paths of what a layer of the uncompressed model has become in a model made from it.

    Most layers are still there under their name. One that was factorized holds its factors under its name, and one
    that was removed with its block is gone.
    """
    found = (name for name, module in model.named_modules() if isinstance(module, LAYER_TYPES))
    return tuple(name for name in found if name == layer or name.startswith(f"{layer}."))


def _execution_order(model: nn.Module, example: Inputs) -> list[str]:
    order: list[str] = []
    kinds = (*LAYER_TYPES, *WEIGHT_ONLY)
    names = {module: name for name, module in model.named_modules() if isinstance(module, kinds)}

    def note(module: nn.Module, *_: object) -> None:
        if names[module] not in order:
            order.append(names[module])

    handles = [module.register_forward_hook(note) for module in names]
    try:
        with torch.no_grad():
            example.through(model)
    except Exception as error:
        raise UserCodeError(
            f"the model does not run on inputs ({example.described()}): {type(error).__name__}: {first_line(error)}; "
            "check that the data fits the model"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return order


def _blocks(model: nn.Module, example: Inputs, names: list[str]) -> tuple[tuple[Block, ...], dict[str, str]]:
    try:
        return find_blocks(model, example, names)
    except Exception:  # noqa: BLE001 - a model whose output is no tensor, for one
        return (), {}
