"""Embeddings and recurrent layers: they are found, have knobs, train on their grids, and are left alone by all else."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.evaluators.parametrized import WEIGHT_ONLY
from paretrim.spaces.anatomy import Anatomy, Granularity, dissect
from paretrim.spaces.dimension import Choice, Value
from paretrim.spaces.gridding import record_of
from paretrim.spaces.lowrank import LowRank
from paretrim.spaces.pruning import StructuredPruning
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.recurrent import KEPT
from paretrim.spaces.sparsity import Sparsity
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import small_schooling
from paretrim.spaces.weight_only import WeightOnly

Recurrent = Callable[..., nn.RNNBase]
FAMILIES = ["uniform", "asymmetric", "lsq", "power_of_two", "codebook", "noise"]
KINDS: list[Recurrent] = [nn.LSTM, nn.GRU, nn.RNN]
TOKENS = torch.arange(24).view(4, 6)


class Texts(nn.Module):
    """Tokens and their places, a block with a recurrent layer, and scores: ids ``(N, 6)`` to ``(N, 40)``."""

    def __init__(self, kind: Recurrent = nn.LSTM, tied: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 16)
        self.places = nn.Embedding(6, 16)
        self.blocks = nn.ModuleList([Block(kind), Block(kind)])
        self.head = nn.Linear(16, 40)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.table(x) + self.places(torch.arange(x.shape[1]))
        for block in self.blocks:
            y = y + block(y)
        scores: torch.Tensor = self.head(y.mean(dim=1))
        return scores


class Block(nn.Module):
    """A linear layer, a recurrent one, and a linear one."""

    def __init__(self, kind: Recurrent) -> None:
        super().__init__()
        self.into = nn.Linear(16, 24)
        self.memory = kind(24, 32, batch_first=True, bidirectional=True)
        self.out = nn.Linear(64, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs, _ = self.memory(functional.relu(self.into(x)))
        return self.out(outputs)  # type: ignore[no-any-return]


class Added(nn.Module):
    """The outputs of a recurrent layer are added to its inputs."""

    def __init__(self, kind: Recurrent) -> None:
        super().__init__()
        self.into = nn.Linear(8, 16)
        self.memory = kind(16, 16, batch_first=True)
        self.body = nn.Linear(16, 24)
        self.head = nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.into(x))
        y = y + self.memory(y)[0]
        return self.head(functional.relu(self.body(y[:, -1])))  # type: ignore[no-any-return]


def texts(kind: Recurrent = nn.LSTM, tied: bool = False) -> Texts:
    torch.manual_seed(0)
    return Texts(kind, tied).eval()


def anatomy_of(net: nn.Module, granularity: Granularity = "per-layer") -> Anatomy:
    return dissect(net, TOKENS, granularity=granularity)


def quantization(**options: object) -> WeightQuantization:
    return WeightQuantization(QuantizationOptions.model_validate(options))


def recipe_of(bits: dict[str, Value], **settings: Value) -> Recipe:
    return Recipe.of(
        {f"quantization.bits.{name}": width for name, width in bits.items()}
        | {f"quantization.{name}": value for name, value in settings.items()}
    )


def knobs(technique: Technique, anatomy: Anatomy) -> dict[str, Choice]:
    return {each.name: each for each in technique.dimensions(anatomy) if isinstance(each, Choice)}


def step(net: nn.Module) -> None:
    """Take one step of training."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    loss = functional.cross_entropy(net.train()(TOKENS), torch.arange(4))
    torch.autograd.backward(loss)
    optimizer.step()
    net.eval()


def levels(weight: torch.Tensor) -> int:
    """Return the most values that a row has."""
    return max(len(torch.unique(row)) for row in weight.detach())


class TestFinding:
    @pytest.mark.parametrize("kind", KINDS)
    def test_they_are_found_in_order_beside_the_layers(self, kind: Recurrent) -> None:
        found = anatomy_of(texts(kind))
        assert [each.name for each in found.weight_only] == [
            "table",
            "places",
            "blocks.0.memory",
            "blocks.1.memory",
        ]
        ways = ("weight_ih_l0", "weight_hh_l0", "weight_ih_l0_reverse", "weight_hh_l0_reverse")
        assert found.weight_only[2].weights == tuple(f"blocks.0.memory.{name}" for name in ways)
        assert not {each.name for each in found.layers} & {each.name for each in found.weight_only}

    def test_who_has_weights_in_common_is_told(self) -> None:
        assert [each.tied for each in anatomy_of(texts(tied=True)).weight_only] == ["head", "", "", ""]

    def test_an_embedding_that_changes_its_own_weights_is_left_out(self) -> None:
        net = nn.Sequential(nn.Embedding(24, 8, max_norm=1.0), nn.Flatten(), nn.Linear(48, 3)).eval()
        assert anatomy_of(net).weight_only == ()

    def test_a_model_without_layers_has_knobs_all_the_same(self) -> None:
        net = nn.Sequential(nn.Embedding(24, 8), nn.Flatten()).eval()
        found = anatomy_of(net)
        assert (found.layers, found.weight_only) == ((), (WeightOnly("0", ("0.weight",)),))
        assert list(knobs(quantization(), found)) == ["quantization.bits.0"]
        for other in (StructuredPruning, LowRank, Sparsity):
            assert other(other.Options()).dimensions(found) == ()

    def test_no_other_technique_touches_them(self) -> None:
        found = anatomy_of(texts())
        names = {each.name for each in found.weight_only}
        for other in (LowRank, Sparsity):
            dimensions = other(other.Options()).dimensions(found)
            assert not [each.name for each in dimensions if each.name.partition(".")[2].partition(".")[2] in names]


class TestKnobs:
    def test_each_has_one_of_all_widths(self) -> None:
        found = knobs(quantization(weight_bits=[2, 8, "none"]), anatomy_of(texts()))
        for name in ("table", "places", "blocks.0.memory", "blocks.1.memory"):
            assert found[f"quantization.bits.{name}"] == Choice(f"quantization.bits.{name}", (2, 8, "none"), "none")

    def test_what_has_weights_in_common_has_one_knob(self) -> None:
        found = knobs(quantization(), anatomy_of(texts(tied=True)))
        assert "quantization.bits.table" not in found
        assert "quantization.bits.head" in found

    def test_they_share_the_knobs_of_their_block_and_of_all(self) -> None:
        by_block = knobs(quantization(), anatomy_of(texts(), "per-block"))
        assert {"quantization.bits.table", "quantization.bits.places", "quantization.bits.blocks.1"} <= set(by_block)
        assert "quantization.bits.blocks.1.memory" not in by_block
        together = anatomy_of(texts(), "global")
        assert dict(together.weight_only_groups())["all"] == together.weight_only
        assert list(knobs(quantization(), together)).count("quantization.bits.all") == 1

    def test_the_anchors_have_them(self) -> None:
        anchors = quantization().anchors(anatomy_of(texts()))
        assert anchors["int8"]["quantization.bits.blocks.0.memory"] == 8
        assert anchors["float16"]["quantization.bits.table"] == 16

    def test_activations_are_of_layers_only(self) -> None:
        found = knobs(quantization(families=["uniform", "lsq"], activations=["target", "none"]), anatomy_of(texts()))
        deciding = {when.name for when in found["quantization.family"].when}
        assert {"quantization.bits.table", "quantization.bits.head"} <= deciding
        # No target has been named that computes with integers.
        assert "quantization.activations" not in found

    def test_storage_goes_by_weights_and_without_integers(self) -> None:
        net = texts()
        stored = quantization().storage(net, recipe_of({"blocks.0.memory": 8, "table": 16}), anatomy_of(net))
        assert {name: (each.bits, each.integers) for name, each in stored.items() if each.bits == 8} == {
            f"blocks.0.memory.{name}": (8, False)
            for name in ("weight_ih_l0", "weight_hh_l0", "weight_ih_l0_reverse", "weight_hh_l0_reverse")
        }
        assert stored["table.weight"].bits == 16


class TestGrids:
    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("kind", KINDS)
    def test_they_train_and_end_on_their_grids(self, kind: Recurrent, family: str) -> None:
        net, technique = texts(kind), quantization()
        anatomy = anatomy_of(net)
        recipe = recipe_of({"table": 4, "blocks.0.memory": 4}, family=family)
        before = copy.deepcopy(net.state_dict())
        technique.attach(net, recipe, anatomy, small_schooling())
        step(net)
        settled = net(TOKENS).detach()
        technique.bake(net, recipe, anatomy)
        torch.testing.assert_close(net(TOKENS).detach(), settled, rtol=1e-5, atol=1e-6)
        assert net.state_dict().keys() == before.keys()
        on_grids = [
            path for each in anatomy.weight_only if each.name in ("table", "blocks.0.memory") for path in each.weights
        ]
        for path in on_grids:
            assert levels(net.get_parameter(path)) <= 16
            record = record_of(net, path)
            assert record is not None
            assert record.steps is not None
            assert len(record.steps) == len(net.get_parameter(path))
        assert levels(net.get_parameter("blocks.1.memory.weight_ih_l0")) > 16
        assert not torch.equal(
            before["blocks.0.memory.weight_hh_l0"], net.get_parameter("blocks.0.memory.weight_hh_l0")
        )

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_recurrent_layer_computes_with_what_is_put_on_it(self, kind: Recurrent) -> None:
        net, rounded, technique = texts(kind), texts(kind), quantization()
        anatomy, recipe = anatomy_of(net), recipe_of({"blocks.0.memory": 3})
        technique.attach(net, recipe, anatomy, small_schooling())
        with torch.no_grad():
            for path in anatomy.weight_only[2].weights:
                owner, _, name = path.rpartition(".")
                rounded.get_parameter(path).copy_(getattr(net.get_submodule(owner), name))
        assert not torch.allclose(net(TOKENS), texts(kind)(TOKENS), atol=1e-4)
        torch.testing.assert_close(net(TOKENS), rounded(TOKENS))
        # A copy is one of its own: its weights move, and those of the first do not.
        twin = copy.deepcopy(net)
        step(twin)
        torch.testing.assert_close(net(TOKENS), rounded(TOKENS))
        assert not torch.allclose(twin(TOKENS), rounded(TOKENS), atol=1e-4)

    def test_one_knob_changes_one_weight(self) -> None:
        net, technique = texts(), quantization()
        anatomy, recipe = anatomy_of(net), recipe_of({"table": 2})
        technique.attach(net, recipe, anatomy, small_schooling())
        technique.bake(net, recipe, anatomy)
        plain = texts().state_dict()
        assert [name for name, each in net.state_dict().items() if not torch.equal(each, plain[name])] == [
            "table.weight"
        ]
        assert all(type(module) in (*WEIGHT_ONLY, nn.Linear, nn.ModuleList, Block, Texts) for module in net.modules())

    @pytest.mark.parametrize("training", ["aware", "post"])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_what_is_common_stays_common_on_one_grid(self, family: str, training: str) -> None:
        net, technique = texts(tied=True), quantization()
        anatomy, recipe = anatomy_of(net), recipe_of({"head": 3}, family=family, training=training)
        technique.attach(net, recipe, anatomy, small_schooling())
        step(net)
        technique.bake(net, recipe, anatomy)
        assert net.head.weight is net.table.weight
        assert levels(net.head.weight) <= 8
        stored = technique.storage(net, recipe, anatomy)
        assert stored["head"].steps == stored["table.weight"].steps
        assert stored["head"].steps is not None


class TestPruning:
    @pytest.mark.parametrize("kind", KINDS)
    def test_what_a_recurrent_layer_reads_is_cut_as_if_it_were_never_there(self, kind: Recurrent) -> None:
        net = texts(kind)
        gone = torch.arange(0, 24, 3)
        with torch.no_grad():
            net.blocks[0].get_parameter("into.weight")[gone] = 0.0
            net.blocks[0].get_parameter("into.bias")[gone] = 0.0
        anatomy, technique = anatomy_of(net), StructuredPruning(StructuredPruning.Options())
        assert "blocks.0.into" in [group.name for group in anatomy.groups]
        expected = net(TOKENS).detach()
        technique.reshape(net, Recipe.of({"pruning.ratio.blocks.0.into": 1 / 3}), anatomy, small_schooling())
        memory = net.get_submodule("blocks.0.memory")
        assert isinstance(memory, nn.RNNBase)
        assert (memory.input_size, memory.hidden_size) == (16, 32)
        torch.testing.assert_close(net(TOKENS).detach(), expected)

    def test_rows_of_tables_are_narrowed_with_what_is_added_to_them(self) -> None:
        net = texts()
        anatomy, technique = anatomy_of(net), StructuredPruning(StructuredPruning.Options())
        technique.reshape(net, Recipe.of({"pruning.ratio.blocks.0.out": 0.5}), anatomy, small_schooling())
        assert net.table.weight.shape == (40, 8)
        assert net.places.weight.shape == (6, 8)
        assert net(TOKENS).shape == (4, 40)

    @pytest.mark.parametrize("kind", KINDS)
    def test_hidden_units_stay_and_so_does_what_is_tied_to_them(self, kind: Recurrent) -> None:
        found = dissect(Added(kind).eval(), torch.zeros(2, 5, 8))
        assert dict(found.left_out)["into"] == KEPT
        assert [group.name for group in found.groups] == ["body"]

    def test_a_table_with_the_weights_of_a_layer_is_not_cut(self) -> None:
        net = texts(tied=True)
        reasons = dict(anatomy_of(net).left_out)
        assert "shares its weights" in reasons["blocks.0.out"]


def test_zeros_stay_out_of_weights_that_a_table_has_too() -> None:
    net, technique = texts(tied=True), Sparsity(Sparsity.Options.model_validate({"scope": "balanced"}))
    anatomy, recipe = anatomy_of(net), Recipe.of({"sparsity.amount.all": 0.5})
    assert technique.left_out(anatomy) == {"head": "its weights are also those of table"}
    technique.attach(net, recipe, anatomy, small_schooling())
    technique.advance(net, recipe, anatomy, 1.0)
    technique.bake(net, recipe, anatomy)
    assert int((net.head.weight == 0).sum()) == 0
    assert float((net.get_parameter("blocks.0.into.weight") == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
