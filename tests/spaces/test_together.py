"""Every two techniques that do not exclude each other, and all at once, through the whole life of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from paretrim.evaluators.abilities import GRIDS, Abilities
from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.splits import Split
from paretrim.evaluators.storage import Activation, Storage
from paretrim.evaluators.target import LoweringRequest, TargetSettings
from paretrim.spaces import technique
from paretrim.spaces.anatomy import LAYER_TYPES, Anatomy, dissect, parts_of
from paretrim.spaces.dimension import Choice, Dimension, Value, existing
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.recovery import recover
from paretrim.spaces.schooling import Loss, Schooling
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import CLASSES, INPUT_SHAPE, small_batch, small_net, small_schooling

ABILITIES = Abilities(channel_multiple=4, integers=GRIDS, weight_only=(4, 8), signs=True)
# For each technique its settings, and values of families of knobs that are far enough from neutral to be seen.
MILD: dict[str, tuple[dict[str, object], dict[str, Value]]] = {
    "depth": ({}, {"depth.blocks": 1}),
    "pruning": ({}, {"pruning.ratio": 0.5}),
    "lowrank": ({"energy": [0.4, 1.0], "step": 0.1}, {"lowrank.energy": 0.4}),
    "sparsity": ({}, {"sparsity.amount": 0.5}),
    "quantization": ({}, {"quantization.bits": 8}),
    "distillation": ({}, {"distillation.weight": 0.5, "distillation.temperature": 2.0}),
    "recovery": ({"label_smoothing": 0.2}, {"recovery.epochs": 2, "recovery.label_smoothing": 0.2}),
}
# Recovery trains, also where it is not one of the pair.
TRAINING: dict[str, Value] = {"recovery.epochs": 2, "recovery.batch_size": 8, "recovery.learning_rate": 0.01}


class Residual(nn.Module):
    """Two convolutions and a shortcut, which can go whole."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(16, 24, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.conv2 = nn.Conv2d(24, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(functional.relu(self.norm(self.conv1(x))))  # type: ignore[no-any-return]


class BlockNet(nn.Module):
    """`small_net` has no block that could go; this one has two. Same inputs, same classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(Residual(), Residual())
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.blocks(functional.relu(self.stem(x)))
        return self.head(functional.relu(y).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def block_net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BlockNet().eval()


def built(names: Sequence[str]) -> list[Technique]:
    kinds = [technique.find(name) for name in names]
    ordered = sorted(kinds, key=lambda kind: (kind.stage, kind.name))
    return [kind(kind.Options.model_validate(MILD[kind.name][0])) for kind in ordered]


def mild(parts: Sequence[Technique], anatomy: Anatomy) -> Recipe:
    """Return the recipe in which each of the techniques acts."""
    wanted = {family: value for part in parts for family, value in MILD[part.name][1].items()}
    dimensions = [each for part in parts for each in part.dimensions(anatomy)]
    values = {each.name: _value(each, wanted) for each in dimensions}
    return Recipe.of({**TRAINING, **existing(dimensions, values)}, seed=3)


def _value(dimension: Dimension, wanted: Mapping[str, Value]) -> Value:
    for family, value in wanted.items():
        if dimension.name == family or dimension.name.startswith(f"{family}."):
            return value
    if isinstance(dimension, Choice) and dimension.neutral not in dimension.values:
        return dimension.values[0]
    return TRAINING.get(dimension.name, dimension.neutral)


@dataclass
class Life:
    """A model that went through all hooks, and what it was."""

    before: nn.Module
    model: nn.Module
    anatomy: Anatomy
    recipe: Recipe
    stored: dict[str, Storage]
    loss: Loss
    activation: Activation

    def weights(self) -> dict[str, torch.Tensor]:
        layers = (name for name, each in self.model.named_modules() if isinstance(each, LAYER_TYPES))
        return {name: self.model.get_parameter(f"{name}.weight").detach() for name in layers}

    def answers(self) -> torch.Tensor:
        with torch.no_grad():
            outputs: torch.Tensor = self.model(small_batch()[0])
        return outputs


@cache
def anatomy_of(make: Callable[[], nn.Module]) -> Anatomy:
    return dissect(make(), small_batch(2)[0], ABILITIES)


@cache
def unmarked(names: tuple[str, ...]) -> Life:
    return live(names)


def live(names: Sequence[str]) -> Life:
    """Take a model through the hooks of techniques as a trial does."""
    make = block_net if "depth" in names else small_net
    model, parts = make(), built(names)
    anatomy = anatomy_of(make)
    recipe, schooling = mild(parts, anatomy), taught_by(make())
    loss = schooling.loss
    for part in parts:
        loss = part.loss(loss, recipe)
    schooling = replace(schooling, loss=loss)
    for part in parts:
        part.reshape(model, recipe, anatomy, schooling)
    for part in parts:
        part.attach(model, recipe, anatomy, schooling)
    train(model, parts, recipe, anatomy, schooling)
    for part in parts:
        part.bake(model, recipe, anatomy)
    stored: dict[str, Storage] = {}
    for part in parts:
        stored |= part.storage(model, recipe, anatomy)
    activations = [part.activation(recipe) for part in parts]
    chosen = next((each for each in activations if each is not None), Activation())
    return Life(make(), model.eval(), anatomy, recipe, stored, loss, chosen)


def taught_by(tutor: nn.Module) -> Schooling:
    schooling, inputs = small_schooling(24), small_batch(24)[0]
    with torch.no_grad():
        return replace(schooling, tutor=tutor, teacher=tutor(inputs))


def train(model: nn.Module, parts: Sequence[Technique], recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
    asked = [part.penalty(model, recipe, anatomy, schooling) for part in parts]
    penalties = tuple(each for each in asked if each is not None)

    def advance(done: float) -> None:
        for part in parts:
            part.advance(model, recipe, anatomy, done)

    losses = list(recover(model, recipe, replace(schooling, penalties=penalties, advance=advance)))
    for each in penalties:
        each.close()
    advance(1.0)
    assert len(losses) == 2


def blocks_are_gone(life: Life) -> bool:
    return sum(not parts_of(life.model, layer.name) for layer in life.anatomy.layers) == 2


def channels_are_gone(life: Life) -> bool:
    # Of the group of the stem; a factorized layer has its output channels in its last factor.
    (name, *_), whole = parts_of(life.model, "stem")[::-1], life.before.get_parameter("stem.weight")
    return len(life.weights()[name]) == len(whole) // 2


def layers_are_factorized(life: Life) -> bool:
    return any(len(parts_of(life.model, layer.name)) == 2 for layer in life.anatomy.layers)


def weights_are_zero(life: Life) -> bool:
    shares = [float((weight == 0).float().mean()) for weight in life.weights().values()]
    return min(shares) > 0.4


def weights_lie_on_their_grids(life: Life) -> bool:
    if life.stored.keys() != life.weights().keys():
        return False
    for name, stored in life.stored.items():
        weight = life.weights()[name].flatten(1)
        steps = torch.tensor(stored.steps)[:, None] if stored.steps else weight.abs().amax(1, keepdim=True) / 127
        codes = weight / steps.clamp(min=1e-12)
        if not torch.allclose(codes, codes.round(), atol=1e-2) or float(codes.abs().max()) > 127.5:
            return False
    return True


def the_teacher_counts(life: Life) -> bool:
    outputs, labels = life.answers(), small_batch()[1]
    return not torch.equal(life.loss(outputs, labels, outputs + 1.0), life.loss(outputs, labels, -outputs))


def labels_are_smoothed(life: Life) -> bool:
    # Without smoothing, being sure of the right class costs nothing.
    labels = torch.arange(CLASSES)
    sure = 50.0 * functional.one_hot(labels, CLASSES)
    return float(life.loss(sure, labels, sure)) > 1.0


SEEN: dict[str, Callable[[Life], bool]] = {
    "depth": blocks_are_gone,
    "pruning": channels_are_gone,
    "lowrank": layers_are_factorized,
    "sparsity": weights_are_zero,
    "quantization": weights_lie_on_their_grids,
    "distillation": the_teacher_counts,
    "recovery": labels_are_smoothed,
}


def excluding(one: str, other: str) -> bool:
    known = technique.installed()
    return other in known[one].excludes or one in known[other].excludes


PAIRS = [pair for pair in combinations(sorted(SEEN), 2) if not excluding(*pair)]


def test_every_technique_of_this_package_is_among_them() -> None:
    own = {name for name, kind in technique.installed().items() if kind.__module__.startswith("paretrim.")}
    assert own == set(MILD) == set(SEEN)


@pytest.mark.parametrize("name", sorted(SEEN))
def test_what_is_looked_for_is_not_there_without_the_technique(name: str) -> None:
    assert not SEEN[name](unmarked(("pruning",) if name in ("depth", "recovery") else ("depth", "recovery")))


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_two_techniques_both_leave_their_mark(pair: tuple[str, str]) -> None:
    life = live(pair)
    answers = life.answers()
    assert answers.shape == (len(small_batch()[0]), CLASSES)
    assert torch.isfinite(answers).all()
    assert {name: SEEN[name](life) for name in pair} == dict.fromkeys(pair, True)
    assert not any(parametrize.is_parametrized(module) for module in life.model.modules())
    assert life.stored.keys() <= life.weights().keys()


def test_all_together_leave_their_marks_and_make_the_same_model_again() -> None:
    names = [name for name in sorted(SEEN) if not any(excluding(name, other) for other in SEEN)]
    life = live(names)
    assert {name for name in names if SEEN[name](life)} == set(names)
    again = live(names).model.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in life.model.state_dict().items())


@pytest.mark.parametrize(
    "names",
    [
        ("depth", "pruning", "lowrank"),
        ("pruning", "quantization"),
        ("lowrank", "quantization"),
        ("sparsity", "quantization"),
        tuple(sorted(SEEN)),
    ],
    ids="-".join,
)
def test_the_artifact_answers_as_the_torch_model(names: tuple[str, ...], tmp_path: Path) -> None:
    life = live(names)
    wanted, got = life.answers().numpy(), lowered(life, tmp_path)
    # Integer layers round what flows between them to 8 bits.
    share = 0.05 if life.stored else 1e-4
    assert np.abs(got - wanted).max() < share * np.ptp(wanted)


def lowered(life: Life, folder: Path) -> Any:
    """Return the answers of the artifact that a model is lowered to."""
    target = OnnxRuntimeCpu(TargetSettings())
    calibration = Split(small_batch(64, seed=1))
    artifact = target.lower(
        life.model, LoweringRequest(Signature.single(INPUT_SHAPE), life.stored, calibration, life.activation), folder
    )
    path = folder / "model.onnx"
    path.write_bytes(artifact.read())
    call = target.open(path)
    return np.concatenate([call(each[None].numpy()) for each in small_batch()[0]])
