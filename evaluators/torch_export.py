"""From a torch model to the bytes of an exported program, ``.pt2``.

Weights of 2 to 8 bits are stored as codes with a scale for each output channel, those of 16 as half floats, and the program
widens them itself: whoever loads the file with ``torch.export.load`` gets the right answers. An embedding looks its rows up
before they are widened. Activations stay 32-bit floats.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from types import MethodType

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from paretrim.errors import LoweringError
from paretrim.evaluators.blocks import peaks
from paretrim.evaluators.lowering import FIXED_BATCH, innermost, quiet, traced
from paretrim.evaluators.parametrized import chain_of, owner, put_on, weight_path
from paretrim.evaluators.storage import BLOCK, HALF, PEAK, Storage
from paretrim.evaluators.target import LoweringRequest

# What the exporter notes at each node: source paths, which would ship and would make equal models differ.
_NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")


def export(model: nn.Module, request: LoweringRequest) -> bytes:
    """Export a model with a free batch dimension, each layer's weights stored as requested.

    Args:
        model: In evaluation mode, on the CPU, with one output; left as it is.
        request: The inputs, and bits per layer.

    Raises:
        LoweringError: The exporter does not take the model; the message has its reason.
    """
    stored = _with_stored_weights(model, request.layers)
    try:
        with quiet():
            program = torch.export.export(stored, **traced(request.inputs))
    except Exception as error:
        fixed = "Constraints violated" in str(error)
        raise LoweringError(
            FIXED_BATCH if fixed else f"the model does not export with torch.export: {innermost(error)}"
        ) from error
    outputs = len(program.graph_signature.user_outputs)
    if outputs != 1:
        raise LoweringError(f"the model has {outputs} outputs; models with one output are supported")
    for node in program.graph.nodes:
        for note in _NOTES:
            node.meta.pop(note, None)
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def _with_stored_weights(model: nn.Module, layers_stored: Mapping[str, Storage]) -> nn.Module:
    stored = copy.deepcopy(model).eval().requires_grad_(False)
    modules, weights = (
        dict(stored.named_modules()),
        {name for name, _ in stored.named_parameters(remove_duplicate=False)},
    )
    paths = {name: weight_path(name, modules) for name in layers_stored}
    missing = [name for name, path in paths.items() if path not in weights]
    if missing:
        raise LoweringError(f"the model has no weights for the layers {', '.join(missing)}; leave them at 'none' bits")
    known: dict[int, parametrize.ParametrizationList] = {}
    for name, each in layers_stored.items():
        module, weight = owner(stored, paths[name])
        held, looks_up = id(getattr(module, weight)), type(module).forward is nn.Embedding.forward
        form = HalfFloats() if each.bits == HALF else Codes(each)
        put_on(module, weight, form, unsafe=True)  # the stored type differs
        chain = chain_of(module, weight)
        _share(chain, known.setdefault(held, chain))
        if looks_up:
            object.__setattr__(module, "forward", MethodType(_looked_up, module))
    return stored


def _share(chain: parametrize.ParametrizationList, first: parametrize.ParametrizationList) -> None:
    """Let modules that have weights in common have them in common as stored, where they are stored alike."""
    mine, theirs = (list(each.parameters(recurse=False)) for each in (chain, first))
    if len(mine) == len(theirs) and all(map(torch.equal, mine, theirs)):
        for position, each in enumerate(theirs):
            setattr(chain, f"original{position}", each)


def _looked_up(module: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Return rows of an embedding's table, shape ``(..., D)``: looked up as they are stored, and widened after that."""
    chain = chain_of(module, "weight")
    stored = chain.parameters(recurse=False)
    widened: torch.Tensor = chain[0](*(each if len(each) == 1 else functional.embedding(rows, each) for each in stored))
    return widened


class HalfFloats(nn.Module):
    """Stores weights as half floats."""

    def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor]:
        """Return what is stored. Beyond the range of half floats a weight would become infinite."""
        return (weight.clamp(-65504, 65504).half(),)

    def forward(self, halves: torch.Tensor) -> torch.Tensor:
        """Return the weights, widened."""
        return halves.float()


class Codes(nn.Module):
    """Stores weights as signed 8-bit codes on the grid on which they lie."""

    def __init__(self, stored: Storage) -> None:
        super().__init__()
        self.stored = stored

    def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is stored: codes of the shape of the weights, and a scale for each channel, block of one, or for all."""
        if self.stored.steps is None:
            blocks = self.stored.in_blocks
            peak = torch.from_numpy(peaks(weight.numpy())) if blocks else weight.abs().flatten(1).amax(dim=1)
            peak = peak.flatten() if self.stored.per_channel else peak.amax(dim=0, keepdim=True)
            scale = peak.clamp_min(1e-12) / (2 ** (self.stored.bits - 1) - 1)
        else:
            scale = torch.tensor(self.stored.steps, dtype=weight.dtype)
        scale = scale.view(len(weight), -1) if self.stored.in_blocks else scale.view(-1, *[1] * (weight.dim() - 1))
        return torch.round(weight / self._wide(scale, weight)).clamp(-PEAK, PEAK).to(torch.int8), scale

    def forward(self, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Return the weights, widened."""
        return codes * self._wide(scale, codes)

    def _wide(self, scale: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the scales as they broadcast to weights."""
        return scale.repeat_interleave(BLOCK, dim=-1)[..., : rows.shape[-1]] if self.stored.in_blocks else scale
