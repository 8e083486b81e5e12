"""Parents: what recipes have in common is trained once, and nothing else comes out for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from paretrim.evaluators import target
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.target import TargetSettings
from paretrim.search import prepare, space, teaching
from paretrim.search.cache import Cache
from paretrim.search.context import TrialContext
from paretrim.search.parents import Nursery
from paretrim.search.workshop import Workshop
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.dimension import Value
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.records import Epoch

from .conftest import tiny_job

TARGET = target.find(TargetSettings()).build()
EPOCHS = 3
ALL_OFF = dict.fromkeys(("pruning", "sparsity", "lowrank", "depth", "distillation"), "off")
SPACES: dict[str, dict[str, Any]] = {
    "pruning": {"pruning": {"importance": "random"}},
    "pruning in steps": {"pruning": {"steps": 2}},
    "pressed channels": {"pruning": {"sparsity_epochs": 1}},
    "sparsity": {"sparsity": {}},
    "low rank": {"lowrank": {}},
    "feature transfer": {"distillation": {"transfers": ["attention"]}, "pruning": {}},
    "dropped and augmented": {"pruning": {}, "recovery": {"epochs": EPOCHS, "augment": ["shift"], "clip": 1.0}},
}


class Padding(nn.Module):
    """A shortcut without parameters (option A)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 16, 16))


class Residual(nn.Module):
    """Two convolutions beside such a shortcut: ``(N, 1, 8, 8)`` to logits ``(N, 10)``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 32, 3, 1, 1), nn.BatchNorm2d(32)
        self.inner, self.outer = nn.Conv2d(32, 64, 3, 2, 1), nn.Conv2d(64, 64, 3, 1, 1)
        self.shortcut, self.head = Padding(), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = functional.relu(self.outer(functional.relu(self.inner(x))) + self.shortcut(x))
        logits: torch.Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


@dataclass(frozen=True)
class Made:
    """A recipe's model: its course, its weights, and what made it."""

    epochs: tuple[Epoch, ...]
    model: nn.Module
    workshop: Workshop
    recipe: Recipe

    @property
    def inherited(self) -> list[bool]:
        return [epoch.inherited for epoch in self.epochs]

    def lowered(self, folder: Path) -> Artifact:
        folder.mkdir()
        return self.workshop.lowered(TARGET, self.model, self.recipe, folder)


def a_context(given: Mapping[str, Any], folder: Path, net: nn.Module | None = None) -> TrialContext:
    """Return what trials of a small job share, with a cache that is empty."""
    job = tiny_job(space={**ALL_OFF, "recovery": {"epochs": EPOCHS}, **given})
    subject = prepare.load(job)
    if net is not None:
        anatomy = dissect(net, subject.splits.search.train.first(2).inputs, TARGET.abilities(), job.groups)
        subject = replace(subject, model=net, space=space.build(job, anatomy))
    taught = any(part.needs_teacher() for part in subject.space.techniques)
    train = subject.splits.search.train
    return TrialContext(
        model=subject.model,
        splits=subject.splits.search,
        metric=subject.metric,
        space=subject.space,
        teacher=teaching.outputs(subject.model, "hash", train, Cache(folder / "cache")) if taught else None,
        stations=(),
        artifacts=folder,
        channel_ms={group.name: 0.001 for group in subject.space.anatomy.groups},
        share=True,
        nursery=Nursery(Cache(folder / "cache"), "mine"),
    )


def a_recipe(context: TrialContext, bits: int | str, seed: int = 5) -> Recipe:
    """Return a recipe that turns each knob, with so many bits in each layer."""
    strong: dict[str, Value] = {}
    for each in context.space.searched:
        if each.name.startswith("quantization.bits."):
            strong[each.name] = bits
        elif each.name.startswith(("pruning.ratio.", "sparsity.amount.")):
            strong[each.name] = 0.5
        elif each.name.startswith("lowrank."):
            strong[each.name] = 0.7
        elif each.name == "distillation.transfer":
            strong[each.name] = "attention"
        else:
            strong[each.name] = 0.5 if each.name == "distillation.weight" else getattr(each, "high", each.neutral)
    strong |= {"recovery.learning_rate": 0.01}
    return context.space.recipe(strong, seed)


def make(context: TrialContext, recipe: Recipe) -> Made:
    torch.manual_seed(hash(recipe.items) % 1000)  # what was random before must not matter
    # A lane of its own: whatever is measured on this machine meanwhile does not hold it up.
    workshop = Workshop(context, Lane(context.artifacts / "lane"))
    making = workshop.begin(recipe)
    epochs = tuple(making.train({}))
    return Made(epochs, making.bake(), workshop, recipe)


def assert_same(first: Made, second: Made) -> None:
    """Compare all weights and the course, to the bit."""
    mine, theirs = first.model.state_dict(), second.model.state_dict()
    assert mine.keys() == theirs.keys()
    different = [name for name in mine if not torch.equal(mine[name], theirs[name])]
    assert not different
    plain = [[replace(epoch, inherited=False) for epoch in each.epochs] for each in (first, second)]
    assert plain[0] == plain[1]


def assert_answers(made: Made, context: TrialContext, folder: Path) -> None:
    """Check that the artifact answers nearly as the model does."""
    inputs = context.splits.validation.first(64).inputs.only
    with made.lowered(folder).unpacked() as path:
        answers = torch.as_tensor(TARGET.open(path)(inputs.numpy()))
    with torch.no_grad():
        expected = made.model(inputs)
    assert torch.isfinite(answers).all()
    assert (answers.argmax(1) == expected.argmax(1)).float().mean() > 0.9


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> TrialContext:
    return a_context(SPACES["pruning"], tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("name", SPACES)
def test_a_kept_parent_gives_the_same_as_one_that_is_trained(name: str, tmp_path: Path) -> None:
    context = a_context(SPACES[name], tmp_path)
    recipe = a_recipe(context, 4)
    trained = make(context, recipe)
    found = make(context, recipe)
    alone = make(replace(context, nursery=None), recipe)
    assert (trained.inherited, found.inherited) == ([False] * EPOCHS, [True, False, False])
    assert_same(trained, found)
    assert_same(trained, alone)
    sibling = make(context, a_recipe(context, 8, seed=6))
    assert sibling.inherited == [True, False, False]
    assert sibling.epochs[0] == found.epochs[0]
    assert_same(sibling, make(replace(context, nursery=None), sibling.recipe))
    if name in ("sparsity", "feature transfer"):
        assert_answers(sibling, context, tmp_path / "artifact")


def test_a_shortcut_of_option_a_comes_out_valid_from_a_kept_parent(tmp_path: Path) -> None:
    torch.manual_seed(0)
    context = a_context(SPACES["pruning"], tmp_path, Residual().eval())
    make(context, a_recipe(context, "none"))
    found = make(context, a_recipe(context, 8))  # in integers, where the shortcut has a layer in its place
    assert found.inherited == [True, False, False]
    assert_same(found, make(replace(context, nursery=None), found.recipe))
    assert_answers(found, context, tmp_path / "artifact")


def test_the_file_is_the_same_to_the_bit(plain: TrialContext, tmp_path: Path) -> None:
    context = replace(plain, nursery=Nursery(Cache(tmp_path / "cache"), "mine"))
    trained, found = (make(context, a_recipe(plain, 4)) for _ in range(2))
    assert found.inherited[0]
    assert trained.lowered(tmp_path / "a").sha256 == found.lowered(tmp_path / "b").sha256


def test_what_is_not_shared_is_trained_as_one(plain: TrialContext) -> None:
    context = replace(plain, share=False)
    first, second = (make(context, a_recipe(plain, 4)) for _ in range(2))
    assert_same(first, second)
    assert not any(first.inherited)
    assert sum(epoch.before is not None for epoch in first.epochs) == 1


def test_a_garbled_parent_is_trained_anew(plain: TrialContext, tmp_path: Path) -> None:
    context = replace(plain, nursery=Nursery(Cache(tmp_path / "cache"), "mine"))
    recipe = a_recipe(plain, 4)
    wanted = make(context, recipe)
    (kept,) = (tmp_path / "cache").glob("*.kept")
    whole = kept.read_bytes()
    for garbled in (whole[: len(whole) // 2], b"", whole[:-3] + b"xyz"):
        kept.write_bytes(garbled)
        found = make(context, recipe)
        assert not any(found.inherited)
        assert_same(found, wanted)
    assert make(context, recipe).inherited[0]


def test_a_cache_that_cannot_be_written_costs_only_time(plain: TrialContext, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    context = replace(plain, nursery=Nursery(Cache(tmp_path / "cache"), "mine"))
    first, second = (make(context, a_recipe(plain, 4)) for _ in range(2))
    assert not any(second.inherited)
    assert_same(first, second)
