"""torch's attention in one piece, unfolded into layers that can be cut one by one."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class UnfoldedAttention(nn.Module):
    """What `torch.nn.MultiheadAttention` does, with a layer for each projection and any number of heads.

    Attributes:
        kept: Which of the heads that it once had it still has; masks of each head are picked by it.
    """

    # Read by `torch.nn.TransformerEncoderLayer`, which would else compute with the parameters that are no more.
    in_proj_bias = None
    in_proj_weight = None
    _qkv_same_embed_dim = False

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.head_dim = source.num_heads, source.embed_dim // source.num_heads
        self.dropout, self.batch_first = source.dropout, source.batch_first
        self.kept = tuple(range(source.num_heads))
        self.heads_before = source.num_heads
        joint = source.q_proj_weight if source.in_proj_weight is None else source.in_proj_weight
        self.q, self.k, self.v = (_layer(*part, joint.requires_grad) for part in _projections(source))
        self.out = _layer(source.out_proj.weight, source.out_proj.bias, source.out_proj.weight.requires_grad)
        self.train(source.training)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return outputs and weights as `torch.nn.MultiheadAttention` does, for inputs with a batch dimension."""
        if not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        q, k, v = (
            part(each).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for part, each in ((self.q, query), (self.k, key), (self.v, value))
        )
        mask = self._mask(attn_mask, key_padding_mask, q)
        rate = self.dropout if self.training else 0.0
        weights: torch.Tensor | None = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / self.head_dim**0.5
            weights = functional.softmax(scores if mask is None else scores + mask, dim=-1)
            weights = functional.dropout(weights, rate)
            mixed = weights @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
        outputs = self.out(mixed.transpose(1, 2).flatten(2))
        return outputs if self.batch_first else outputs.transpose(0, 1), weights

    def _mask(
        self, attn_mask: torch.Tensor | None, padding: torch.Tensor | None, q: torch.Tensor
    ) -> torch.Tensor | None:
        """Return what is added to the scores, of a shape that fits ``(N, heads, L, S)``, or None."""
        both: torch.Tensor | None = None
        if attn_mask is not None:
            both = _added(attn_mask, q)
            if both.dim() == 3:
                both = both.unflatten(0, (-1, self.heads_before))[:, list(self.kept)]
        if padding is not None:
            added = _added(padding, q)[:, None, None, :]
            both = added if both is None else both + added
        return both


def unfold(model: nn.Module) -> None:
    """Replace each `torch.nn.MultiheadAttention` by its unfolded form, in place; outputs stay equal.

    Attentions that add keys and values of their own stay as they are.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MultiheadAttention) and child.bias_k is None and not child.add_zero_attn:
                setattr(parent, name, UnfoldedAttention(child))
        if isinstance(parent, nn.TransformerEncoder):
            # It would pack padded sequences for layers that compute in one piece.
            parent.use_nested_tensor = False


def _projections(source: nn.MultiheadAttention) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    joint = source.in_proj_weight
    weights = (source.q_proj_weight, source.k_proj_weight, source.v_proj_weight) if joint is None else joint.chunk(3)
    biases = (None,) * 3 if source.in_proj_bias is None else source.in_proj_bias.chunk(3)
    return list(zip(weights, biases, strict=True))


def _layer(weight: torch.Tensor, bias: torch.Tensor | None, learns: bool) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device, dtype=weight.dtype)
    made.weight = nn.Parameter(weight.detach().clone(), requires_grad=learns)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), requires_grad=learns)
    return made


def _added(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a mask as numbers to add to the scores; True stands for what must not be seen."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill(mask, float("-inf"))
