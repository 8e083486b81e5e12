"""Operators that were layers become layers again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from paretrim.search.sources.pt2_steps import Argument, Held, Step

Tensor = torch.Tensor

_CONVOLUTIONS = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
_TRANSPOSED = {
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d": nn.ConvTranspose2d,
    "conv_transpose3d": nn.ConvTranspose3d,
}
_NORMS: dict[int, type[nn.Module]] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@dataclass(frozen=True)
class Made:
    """A layer that does what a step does.

    Attributes:
        module: The layer; its tensors are on the meta device.
        held: The model's tensors that it has, by its own names for them.
        inputs: What it is called with.
    """

    module: nn.Module
    held: Mapping[str, Held]
    inputs: tuple[Argument, ...]


class Call:
    """A step whose arguments are asked for by name."""

    def __init__(self, step: Step, tensors: Mapping[str, Tensor]) -> None:
        self.step = step
        self._tensors = tensors
        self._given = {each.name: each.value for each in step.arguments}

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument that is no tensor."""
        return self._given.get(name, default)

    def parameters(self, *names: str) -> dict[str, Held] | None:
        """Return the arguments that are parameters; None where one of them is computed, and cannot be a layer's."""
        given = {name: self._given[name] for name in names if self._given.get(name) is not None}
        learned = all(isinstance(v, Held) and isinstance(self._tensors[v.name], nn.Parameter) for v in given.values())
        return given if learned else None

    def buffers(self, *names: str) -> dict[str, Held] | None:
        """Return the arguments that the model holds; None where one is missing or computed."""
        given = {name: self._given.get(name) for name in names}
        held = {name: each for name, each in given.items() if isinstance(each, Held)}
        return held if len(held) == len(given) else None

    def shape(self, held: Held) -> tuple[int, ...]:
        """Return the shape of what the model holds."""
        return tuple(self._tensors[held.name].shape)

    def first(self, count: int = 1) -> tuple[Argument, ...]:
        """Return the inputs of a layer, which stand first."""
        return tuple(Argument(each.name, each.value) for each in self.step.arguments[:count])


def made(step: Step, tensors: Mapping[str, Tensor]) -> Made | None:
    """Return the layer that does what a step does, or None where there is none.

    Args:
        step: Calls an operator.
        tensors: What the model holds, by name.
    """
    maker = _MAKERS.get(step.name) if step.target.startswith("aten.") else None
    if maker is None:
        return None
    with torch.device("meta"):
        return maker(Call(step, tensors))


def _learned(call: Call, make: Callable[[tuple[int, ...], bool], nn.Module]) -> Made | None:
    """Return a layer of a weight and perhaps a bias, made from the weight's shape."""
    held = call.parameters("weight", "bias")
    if not held or "weight" not in held:
        return None
    return Made(make(call.shape(held["weight"]), "bias" in held), held, call.first())


def _convolution(call: Call) -> Made | None:
    kind, groups = _CONVOLUTIONS[call.step.name], call.get("groups", 1)
    options = {
        name: _one(call.get(name, default)) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    }

    def make(shape: tuple[int, ...], bias: bool) -> nn.Module:
        return kind(shape[1] * groups, shape[0], shape[2:], groups=groups, bias=bias, **options)  # type: ignore[arg-type]

    return _learned(call, make)


def _transposed(call: Call) -> Made | None:
    kind, groups = _TRANSPOSED[call.step.name], call.get("groups", 1)
    defaults = (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))
    options = {name: _one(call.get(name, default)) for name, default in defaults}

    def make(shape: tuple[int, ...], bias: bool) -> nn.Module:
        return kind(shape[0], shape[1] * groups, shape[2:], groups=groups, bias=bias, **options)  # type: ignore[arg-type]

    return _learned(call, make)


def _linear(call: Call) -> Made | None:
    return _learned(call, lambda shape, bias: nn.Linear(shape[1], shape[0], bias=bias))


def _embedding(call: Call) -> Made | None:
    held = call.parameters("weight")
    if not held or call.get("scale_grad_by_freq", False) or call.get("sparse", False):
        return None
    padding = call.get("padding_idx", -1)
    rows, columns = call.shape(held["weight"])
    module = nn.Embedding(rows, columns, padding_idx=None if padding < 0 else padding)
    indices = next(each for each in call.step.arguments if each.name == "indices")
    return Made(module, held, (Argument("input", indices.value),))


def _batch_norm(call: Call) -> Made | None:
    held, running = call.parameters("weight", "bias"), call.buffers("running_mean", "running_var")
    kind = _NORMS.get(call.step.rank)
    if held is None or running is None or kind is None or call.get("training"):
        return None
    features = call.shape(running["running_mean"])[0]
    module = kind(features, eps=call.get("eps"), momentum=call.get("momentum"), affine=len(held) == 2)
    return Made(module, held | running, call.first()) if len(held) in (0, 2) else None


def _layer_norm(call: Call) -> Made | None:
    held = call.parameters("weight", "bias")
    if held is None or (held and "weight" not in held):
        return None
    shape = tuple(call.get("normalized_shape"))
    module = nn.LayerNorm(shape, call.get("eps", 1e-5), elementwise_affine=bool(held), bias="bias" in held)
    return Made(module, held, call.first())


def _group_norm(call: Call) -> Made | None:
    held = call.parameters("weight", "bias")
    if not held or len(held) != 2:
        return None
    channels = call.shape(held["weight"])[0]
    return Made(nn.GroupNorm(call.get("num_groups"), channels, call.get("eps", 1e-5)), held, call.first())


def _dropout(call: Call) -> Made | None:
    return None if call.get("train") else Made(nn.Dropout(call.get("p")), {}, call.first())


def _plain(make: Callable[[Call], nn.Module]) -> Callable[[Call], Made | None]:
    """Return what makes an activation, which holds nothing."""
    return lambda call: Made(make(call), {}, call.first())


def _hardtanh(call: Call) -> nn.Module:
    low, high = call.get("min_val", -1.0), call.get("max_val", 1.0)
    inplace = call.step.changes()
    return nn.ReLU6(inplace) if (low, high) == (0, 6) else nn.Hardtanh(low, high, inplace)


def _elu(call: Call) -> Made | None:
    if call.get("scale", 1) != 1 or call.get("input_scale", 1) != 1:
        return None
    return Made(nn.ELU(call.get("alpha", 1.0), call.step.changes()), {}, call.first())


def _one(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_MAKERS: dict[str, Callable[[Call], Made | None]] = {
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys(_TRANSPOSED, _transposed),
    "linear": _linear,
    "embedding": _embedding,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "dropout": _dropout,
    "gelu": _plain(lambda call: nn.GELU(call.get("approximate", "none"))),
    "sigmoid": _plain(lambda _: nn.Sigmoid()),
    "tanh": _plain(lambda _: nn.Tanh()),
    "softplus": _plain(lambda call: nn.Softplus(call.get("beta", 1), call.get("threshold", 20))),
    **dict.fromkeys(("hardtanh", "hardtanh_"), _plain(_hardtanh)),
    **dict.fromkeys(("elu", "elu_"), _elu),
    **dict.fromkeys(("relu", "relu_"), _plain(lambda call: nn.ReLU(call.step.changes()))),
    **dict.fromkeys(("relu6", "relu6_"), _plain(lambda call: nn.ReLU6(call.step.changes()))),
    **dict.fromkeys(("silu", "silu_"), _plain(lambda call: nn.SiLU(call.step.changes()))),
    **dict.fromkeys(("mish", "mish_"), _plain(lambda call: nn.Mish(call.step.changes()))),
    **dict.fromkeys(("hardswish", "hardswish_"), _plain(lambda call: nn.Hardswish(call.step.changes()))),
    **dict.fromkeys(("hardsigmoid", "hardsigmoid_"), _plain(lambda call: nn.Hardsigmoid(call.step.changes()))),
    **dict.fromkeys(
        ("leaky_relu", "leaky_relu_"),
        _plain(lambda call: nn.LeakyReLU(call.get("negative_slope", 0.01), call.step.changes())),
    ),
}
