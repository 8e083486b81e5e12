"""Attention heads: finding them in a model, and cutting whole ones.

Michel et al., "Are Sixteen Heads Really Better than One?", 2019, and Voita et al., 2019, cut heads in this way.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from paretrim.evaluators.inputs import Inputs
from paretrim.spaces.multihead import UnfoldedAttention
from paretrim.spaces.surgery import ties

COUNTS = ("num_heads", "n_heads", "num_attention_heads", "heads", "n_head", "nhead", "nheads", "h")
_BEFORE, _AFTER = r"^(?:to_?|w_?|proj_?|lin_?|linear_?|fc_?)?", r"(?:_?(?:proj|projection|lin|linear|layer|fc))?$"
_PARTS = tuple(re.compile(f"{_BEFORE}(?:{part}){_AFTER}") for part in ("q|query|queries", "k|keys?", "v|values?"))
_FUSED = re.compile(r"qkv|^in_proj$|^c_attn$|^query_key_value$")


@dataclass(frozen=True)
class Heads:
    """The heads of one attention, which can be cut whole.

    Attributes:
        name: Module path of the attention.
        layers: Paths of the layers that give queries, keys and values, three or one for all, then of the one that
            reads what the heads give.
        heads: How many there are.
        size: Channels of a head.
        order: How the rows of one layer for all are ordered: queries, keys and values each with all heads, or each head
            with its own three.
        count: The attribute that says how many heads there are.
        widths: Attributes that say how many channels all heads have together.
    """

    name: str
    layers: tuple[str, ...]
    heads: int
    size: int
    order: Literal["kinds", "heads"] = "kinds"
    count: str = "num_heads"
    widths: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Paths of the layers that give queries, keys and values."""
        return self.layers[:-1]


def find_heads(
    model: nn.Module, example: Inputs
) -> tuple[tuple[Heads, ...], dict[str, str], tuple[tuple[str, tuple[str, ...]], ...]]:
    """Find the attentions of a model whose heads can be cut.

    An attention has a count of heads as an attribute, and layers by the names that they usually have. That its heads can
    be cut is verified: the model without a head answers as the model that does not read that head.

    Args:
        model: In evaluation mode; attention in one piece must be unfolded. It is not changed.
        example: Some samples.

    Returns:
        The attentions, the reasons why others are left whole, by path, and (path, layers) of those others.
    """
    order = _executed(model, example)
    shared = ties(model)
    found: list[Heads] = []
    reasons: dict[str, str] = {}
    whole: list[tuple[str, tuple[str, ...]]] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            reasons[name] = "its attention cannot be unfolded: it adds keys and values of its own"
        sources = _sources(name, module)
        group = _described(model, name, sources, order) if sources else None
        if not sources:
            continue
        reason = "no layer was found that reads its heads"
        if group is not None:
            tied = [each for each in group.layers if each in shared]
            reason = f"{tied[0]} shares its weights with {shared[tied[0]]}" if tied else ""
            verified = None if reason else _verified(model, example, group)
            if verified is not None:
                found.append(verified)
                continue
        reasons[name] = reason or "the model does not answer rightly without one of its heads"
        whole.append((name, sources))
    return tuple(found), reasons, tuple(whole)


def rows_of_heads(group: Heads, heads: Sequence[int], now: int | None = None) -> list[list[int]]:
    """Return which rows of each source belong to some heads, and last which columns of the reader do.

    Args:
        group: The attention.
        heads: Positions among the heads that it has now.
        now: How many it has now; by default as many as it had.
    """
    now, size = now or group.heads, group.size
    plain = [head * size + i for head in heads for i in range(size)]
    if len(group.sources) > 1:
        return [plain] * len(group.layers)
    if group.order == "kinds":
        return [[kind * now * size + i for kind in range(3) for i in plain], plain]
    return [[head * 3 * size + i for head in heads for i in range(3 * size)], plain]


def cut_heads(model: nn.Module, group: Heads, gone: Sequence[int]) -> None:
    """Cut whole heads out of a model, in place."""
    module = model.get_submodule(group.name)
    now = int(getattr(module, group.count))
    rows = rows_of_heads(group, gone, now)
    for path, out in zip(group.sources, rows, strict=False):
        layer = model.get_submodule(path)
        kept = sorted(set(range(len(layer.weight))) - set(out))  # type: ignore[arg-type]
        layer.weight = _picked(layer.weight, 0, kept)
        layer.bias = None if layer.bias is None else _picked(layer.bias, 0, kept)
        setattr(layer, "out_features", len(kept))  # noqa: B010 - a plain number of whatever layer it is
    reader = model.get_submodule(group.layers[-1])
    kept = sorted(set(range(now * group.size)) - set(rows[-1]))
    reader.weight = _picked(reader.weight, 1, kept)
    setattr(reader, "in_features", len(kept))  # noqa: B010
    setattr(module, group.count, now - len(gone))
    for width in group.widths:
        setattr(module, width, len(kept))
    if isinstance(module, UnfoldedAttention):
        module.kept = tuple(head for place, head in enumerate(module.kept) if place not in set(gone))


def _picked(parameter: object, dim: int, kept: Sequence[int]) -> nn.Parameter:
    assert isinstance(parameter, torch.Tensor)  # noqa: S101 - tells the type checker what a layer holds
    made = parameter.detach().index_select(dim, torch.tensor(kept, dtype=torch.long, device=parameter.device))
    return nn.Parameter(made, requires_grad=parameter.requires_grad)


def _executed(model: nn.Module, example: Inputs) -> list[str]:
    order: list[str] = []
    names = {module: name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    handles = [m.register_forward_hook(lambda module, *_: order.append(names[module])) for m in names]
    try:
        with torch.no_grad():
            example.through(model)
    finally:
        for handle in handles:
            handle.remove()
    return order


def _sources(name: str, module: nn.Module) -> tuple[str, ...]:
    """Return the paths of the layers that give queries, keys and values, or nothing where it is no attention."""
    if not any(isinstance(getattr(module, each, None), int) for each in COUNTS):
        return ()
    layers = [child for child, each in module.named_children() if isinstance(each, nn.Linear)]
    prefix = f"{name}." if name else ""
    for child in layers:
        if _FUSED.search(child.lower()):
            return (prefix + child,)
    parts = [next((child for child in layers if part.match(child.lower())), None) for part in _PARTS]
    return tuple(prefix + child for child in parts if child is not None) if all(parts) else ()


def _described(model: nn.Module, name: str, sources: tuple[str, ...], order: list[str]) -> Heads | None:
    module = model.get_submodule(name)
    count = next(each for each in COUNTS if isinstance(getattr(module, each, None), int))
    heads = int(getattr(module, count))
    outputs = {len(model.get_submodule(each).weight) for each in sources}  # type: ignore[arg-type]
    inner, rest = divmod(outputs.pop(), 1 if len(sources) > 1 else 3)
    if outputs or rest or heads < 1 or inner % heads or not set(sources) <= set(order):
        return None
    last = max(order.index(each) for each in sources)
    reader = next((n for n in order[last + 1 :] if model.get_submodule(n).in_features == inner), None)
    return None if reader is None else Heads(name, (*sources, reader), heads, inner // heads, count=count)


def _verified(model: nn.Module, example: Inputs, group: Heads) -> Heads | None:
    """Return the group with the order and the widths with which the model without a head answers rightly, or None."""
    if group.heads < 2:
        return group
    module = model.get_submodule(group.name)
    equal = tuple(k for k, v in vars(module).items() if type(v) is int and v == group.heads * group.size)
    usual = tuple(each for each in equal if each in ("all_head_size", "inner_dim", "attn_dim"))
    orders: tuple[Literal["kinds", "heads"], ...] = ("kinds", "heads") if len(group.sources) == 1 else ("kinds",)
    inputs = probe(example)
    for order in orders:
        for widths in dict.fromkeys(((), usual, equal)):
            tried = replace(group, order=order, widths=widths)
            if all(_answers_rightly(model, inputs, tried, head) for head in (0, group.heads - 1)):
                return tried
    return None


def probe(example: Inputs) -> Inputs:
    """Return inputs on which a wrong cut shows: random ones where they are floats, else those that were given."""
    generator = torch.Generator().manual_seed(0)

    def shown(part: torch.Tensor) -> torch.Tensor:
        return torch.randn(part.shape, generator=generator).to(part) if part.is_floating_point() else part

    return example.each(shown)


def _answers_rightly(model: nn.Module, inputs: Inputs, group: Heads, head: int) -> bool:
    blind, cut = copy.deepcopy(model), copy.deepcopy(model)
    reader = blind.get_submodule(group.layers[-1])
    with torch.no_grad():
        reader.weight[:, rows_of_heads(group, [head])[-1]] = 0.0  # type: ignore[operator]
        try:
            cut_heads(cut, group, [head])
            expected, given = inputs.through(blind), inputs.through(cut)
        except Exception:  # noqa: BLE001 - a model that computes with what it had before does not run, and is left whole
            return False
    return close(expected, given)


def close(expected: torch.Tensor, given: torch.Tensor) -> bool:
    """Tell whether two outputs are equal but for rounding."""
    scale = float(expected.abs().max()) + 1e-12
    return expected.shape == given.shape and float((expected - given).abs().max()) <= 1e-4 * scale
