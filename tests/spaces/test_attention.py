"""Attention heads: found where they are, cut whole, and otherwise left in peace."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.spaces.anatomy import Anatomy, dissect
from paretrim.spaces.multihead import UnfoldedAttention, unfold
from paretrim.spaces.pruning import PruningOptions, StructuredPruning
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.testing import small_schooling
from paretrim.spaces.traits import wants_adaptive_steps

INPUTS = torch.randn(4, 5, 32, generator=torch.Generator().manual_seed(0))


class Mixer(nn.Module):
    """Attention by hand, with three layers and the count of heads at hand."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.query, self.key, self.value, self.out = (nn.Linear(32, 32) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Fused(nn.Module):
    """Attention with one layer for all three, ordered by kinds or by heads."""

    def __init__(self, by_heads: bool = False) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.by_heads = 4, 8, by_heads
        self.qkv, self.proj = nn.Linear(32, 96, bias=False), nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = self.qkv(x)
        if self.by_heads:
            q, k, v = flat.unflatten(-1, (self.num_heads, 3, self.head_dim)).permute(3, 0, 2, 1, 4)
        else:
            q, k, v = flat.unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1) * self.head_dim**-0.5).softmax(dim=-1)
        return self.proj((scores @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Biased(Fused):
    """One whose heads have parameters that are theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(4, 5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1) * self.head_dim**-0.5 + self.bias).softmax(dim=-1)
        return self.proj((scores @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """The inner half of an attention as it is named in libraries of language models."""

    def __init__(self) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size, self.all_head_size = 4, 8, 32
        self.query, self.key, self.value = (nn.Linear(32, self.all_head_size) for _ in range(3))

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], self.num_attention_heads, self.attention_head_size).permute(0, 2, 1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        mixed = functional.scaled_dot_product_attention(q, k, v).permute(0, 2, 1, 3).contiguous()
        return mixed.view(*mixed.shape[:2], self.all_head_size)


class Named(nn.Module):
    """Its other half."""

    def __init__(self) -> None:
        super().__init__()
        self.self, self.dense = SelfAttention(), nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.self(x))  # type: ignore[no-any-return]


class Plain(nn.Module):
    """`torch.nn.MultiheadAttention` in a module, averaged weights and masks used."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.attention = nn.MultiheadAttention(32, 4, batch_first=batch_first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        length = x.shape[1] if self.batch_first else x.shape[0]
        mask = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        mixed, weights = self.attention(x, x, x, attn_mask=mask)
        mixed = mixed if self.batch_first else mixed.transpose(0, 1)
        return mixed + weights.sum(dim=2, keepdim=True)  # type: ignore[no-any-return]


class Net(nn.Module):
    """An attention between two layers."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.attention, self.head = nn.Linear(32, 32), attention, nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(functional.relu(x + self.attention(x)).mean(dim=1))  # type: ignore[no-any-return]


def encoder(norm_first: bool, batch_first: bool = True) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=batch_first, norm_first=norm_first)
    stack = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    net = nn.Sequential(nn.Linear(32, 32), stack, nn.Linear(32, 3)).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net


MODELS: dict[str, Callable[[], nn.Module]] = {
    "by hand": Mixer,
    "fused": Fused,
    "fused by heads": lambda: Fused(by_heads=True),
    "by usual names": Named,
    "torch's": Plain,
    "torch's, length first": lambda: Plain(batch_first=False),
}


def cut(net: nn.Module, anatomy: Anatomy, share: float, prefix: str = "pruning.heads", **options: object) -> nn.Module:
    technique = StructuredPruning(PruningOptions.model_validate(options))
    twin = copy.deepcopy(net)
    names = [each.name for each in technique.dimensions(anatomy) if each.name.startswith(prefix)]
    assert names
    technique.reshape(twin, Recipe.of(dict.fromkeys(names, share)), anatomy, small_schooling())
    return twin


@pytest.mark.parametrize("kind", MODELS)
def test_heads_of_nothing_go_without_a_trace(kind: str) -> None:
    net = Net(MODELS[kind]()).eval()
    anatomy = dissect(net, INPUTS)
    (group,) = anatomy.heads
    assert (group.heads, group.size) == (4, 8)
    with torch.no_grad():
        torchs = kind.startswith("torch")
        reader = "attention.attention.out_proj" if torchs else group.layers[-1]
        net.get_parameter(f"{reader}.weight")[:, [*range(8, 16), *range(24, 32)]] = 0.0
    twin = cut(net, anatomy, 0.5)
    if not torchs:  # the weights that torch's gives are means over the heads that are left
        torch.testing.assert_close(twin(INPUTS), net(INPUTS))
    assert getattr(twin.get_submodule(group.name), group.count) == 2
    assert len(twin.get_parameter(f"{group.sources[0]}.weight")) == (48 if len(group.sources) == 1 else 16)
    assert twin.get_parameter(f"{group.layers[-1]}.weight").shape == (32, 16)
    assert twin.train()(INPUTS[:, :3]).shape == (4, 3)


@pytest.mark.parametrize("kind", MODELS)
def test_one_head_stays_and_the_model_still_learns(kind: str) -> None:
    net = Net(MODELS[kind]()).eval()
    twin = cut(net, dissect(net, INPUTS), 0.75, ratio=(0.0, 0.9))
    torch.autograd.backward(twin.train()(INPUTS).square().sum())
    assert all(parameter.grad is not None for parameter in twin.parameters())


class TestUnfolding:
    @pytest.mark.parametrize("batch_first", [True, False])
    @pytest.mark.parametrize("weights", [True, False])
    def test_outputs_stay_equal_with_any_mask(self, batch_first: bool, weights: bool) -> None:
        source = nn.MultiheadAttention(32, 4, batch_first=batch_first, kdim=16, vdim=8).eval()
        nn.init.normal_(source.in_proj_bias)
        made = UnfoldedAttention(source)
        query, key, value = torch.randn(3, 5, 32), torch.randn(3, 6, 16), torch.randn(3, 6, 8)
        padding = torch.zeros(3, 6, dtype=torch.bool)
        padding[1, 4:] = True
        if not batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        for mask in (None, torch.ones(5, 6).triu(2).bool(), torch.randn(12, 5, 6)):
            added = mask is not None and mask.dtype != torch.bool
            for hidden in (None, torch.zeros(3, 6).masked_fill(padding, float("-inf")) if added else padding):
                given = made(query, key, value, hidden, weights, mask)
                expected = source(query, key, value, hidden, weights, mask)
                torch.testing.assert_close(given[0], expected[0])
                if weights:
                    torch.testing.assert_close(given[1], expected[1])

    def test_masks_of_each_head_go_with_their_heads(self) -> None:
        net = Plain().eval()
        anatomy = dissect(Net(net).eval(), INPUTS)
        twin = cut(Net(net).eval(), anatomy, 0.5).get_submodule("attention.attention")
        assert isinstance(twin, UnfoldedAttention)
        mask = torch.randn(16, 5, 5)
        outputs, weights = twin(INPUTS, INPUTS, INPUTS, attn_mask=mask, average_attn_weights=False)
        assert (outputs.shape, weights.shape) == ((4, 5, 32), (4, 2, 5, 5))

    @pytest.mark.parametrize("norm_first", [True, False])
    @pytest.mark.parametrize("batch_first", [True, False])
    def test_an_encoder_answers_as_before(self, norm_first: bool, batch_first: bool) -> None:
        net = encoder(norm_first, batch_first)
        twin = copy.deepcopy(net)
        unfold(twin)
        with torch.no_grad():
            torch.testing.assert_close(twin(INPUTS), net(INPUTS), rtol=1e-4, atol=1e-4)

    def test_what_has_keys_of_its_own_is_left_whole_with_a_reason(self) -> None:
        net = Plain()
        net.attention = nn.MultiheadAttention(32, 4, batch_first=True, add_bias_kv=True)
        found = dissect(Net(net).eval(), INPUTS)
        assert found.heads == ()
        assert "cannot be unfolded" in StructuredPruning(PruningOptions()).left_out(found)["attention.attention"]


class TestEncoders:
    @pytest.mark.parametrize("norm_first", [True, False])
    def test_heads_feed_forward_and_stream_are_cut(self, norm_first: bool) -> None:
        net = encoder(norm_first)
        anatomy = dissect(net, INPUTS)
        assert {group.name for group in anatomy.groups} == {"0", "1.layers.0.linear1", "1.layers.1.linear1"}
        twin = cut(net, anatomy, 0.5, "pruning")
        assert twin.get_parameter("1.layers.0.linear1.weight").shape == (32, 16)
        assert twin.get_parameter("1.layers.1.self_attn.q.weight").shape == (16, 16)
        with torch.no_grad():
            assert twin.eval()(INPUTS).shape == twin.train()(INPUTS).shape == (4, 5, 3)

    @pytest.mark.parametrize("norm_first", [True, False])
    def test_hidden_units_that_nothing_reads_go_without_a_trace(self, norm_first: bool) -> None:
        net = encoder(norm_first)
        with torch.no_grad():
            net.get_parameter("1.layers.0.linear2.weight")[:, ::2] = 0.0
        technique = StructuredPruning(PruningOptions())
        twin = copy.deepcopy(net)
        recipe = Recipe.of({"pruning.ratio.1.layers.0.linear1": 0.5})
        technique.reshape(twin, recipe, dissect(net, INPUTS), small_schooling())
        assert len(twin.get_parameter("1.layers.0.linear1.weight")) == 32
        with torch.no_grad():
            torch.testing.assert_close(twin(INPUTS), net(INPUTS), rtol=1e-4, atol=1e-4)

    def test_a_cut_encoder_exports_with_a_free_batch(self, tmp_path: Path) -> None:
        net = encoder(norm_first=True)
        twin = cut(net, dissect(net, INPUTS), 0.5, "pruning")
        batch = torch.export.Dim("batch", min=1, max=1024)
        made = torch.onnx.export(twin, (INPUTS,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
        assert made is not None
        made.save(tmp_path / "net.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
        for inputs in (INPUTS[:1], INPUTS):
            (given,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
            with torch.no_grad():
                np.testing.assert_allclose(given, twin(inputs).numpy(), atol=1e-4)


class WidthFromInput(Fused):
    """Reshapes to the width of its input, so that it has no other number of heads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, x.shape[2] // self.num_heads).permute(2, 0, 3, 1, 4)
        )
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]


class Unannounced(Mixer):
    """Does not say how many heads it has."""

    def __init__(self) -> None:
        super().__init__()
        del self.heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part(x).unflatten(-1, (4, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class TestLeftWhole:
    def test_heads_of_a_fixed_width_have_a_reason(self) -> None:
        found = dissect(Net(WidthFromInput()).eval(), INPUTS)
        reasons = StructuredPruning(PruningOptions()).left_out(found)
        assert found.heads == ()
        assert "does not answer rightly without one of its heads" in reasons["attention"]
        assert "attention.qkv" in reasons

    def test_channels_of_unknown_heads_are_not_cut_one_by_one(self) -> None:
        found = dissect(Net(Unannounced()).eval(), INPUTS)
        assert found.heads == ()
        assert dict(found.left_out)["attention.query"] == "its channels belong to heads of an attention"

    def test_tied_heads_are_not_cut_apart(self) -> None:
        mixer = Mixer()
        mixer.key.weight = mixer.query.weight
        found = dissect(Net(mixer).eval(), INPUTS)
        assert found.heads == ()
        assert "shares its weights with" in dict(found.whole_attentions)["attention"]


@pytest.mark.parametrize("kind", [Mixer, Fused, Biased])
def test_attentions_of_ones_own_make_a_model_a_transformer_whether_or_not_heads_can_go(kind: type[nn.Module]) -> None:
    anatomy = dissect(Net(kind()).eval(), INPUTS)
    assert len(anatomy.heads) == int(kind is not Biased)
    assert wants_adaptive_steps(anatomy.traits)
    assert not wants_adaptive_steps(dissect(Net(nn.Identity()).eval(), INPUTS).traits)
