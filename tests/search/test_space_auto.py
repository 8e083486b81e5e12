"""`space: auto`: what suits the model and target; and techniques that do not go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from paretrim.errors import JobError
from paretrim.search.job import Job
from paretrim.search.space import Space, build
from paretrim.spaces import technique
from paretrim.spaces.anatomy import Anatomy, dissect
from paretrim.spaces.technique import Technique, TechniqueOptions
from paretrim.spaces.testing import FakeOptions, FakeTechnique, small_batch, small_net

GIVEN = {"model": "mine:model", "data": "mine:data"}
DEFAULTS = {"pruning", "quantization", "distillation", "recovery"}


class Oil(FakeTechnique):
    name: ClassVar[str] = "oil"
    stage: ClassVar[int] = 42
    excludes: ClassVar[Mapping[str, str]] = {"water": "they do not mix"}


class Water(FakeTechnique):
    name: ClassVar[str] = "water"
    stage: ClassVar[int] = 41

    @classmethod
    def suited(cls, anatomy: Anatomy) -> TechniqueOptions | None:
        return FakeOptions(most=0.25)


class WaterToo(Water):
    stage: ClassVar[int] = 43


class EagerOil(Oil):
    @classmethod
    def suited(cls, anatomy: Anatomy) -> TechniqueOptions | None:
        return FakeOptions()


def add(patch: pytest.MonkeyPatch, *kinds: type[Technique]) -> None:
    known = {**technique.installed(), **{kind.name: kind for kind in kinds}}
    patch.setattr(technique, "installed", lambda: known)


def small() -> Anatomy:
    return dissect(small_net(), small_batch(2)[0])


def auto(anatomy: Anatomy) -> Space:
    return build(Job(**GIVEN), anatomy)


def names(space: Space) -> list[str]:
    return [part.name for part in space.techniques]


class TestExcluding:
    @pytest.mark.parametrize("order", [("oil", "water"), ("water", "oil")], ids="-".join)
    def test_a_job_with_both_is_refused_whichever_comes_first(
        self, order: tuple[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(monkeypatch, Oil, Water)
        with pytest.raises(JobError) as refused:
            Job(**GIVEN, space={name: {} for name in order})
        (problem,) = refused.value.problems
        assert problem.location == ("space", "oil")
        assert problem.message == "does not go together with water: they do not mix; turn one of them off"

    @pytest.mark.parametrize("space", [{"oil": {}}, {"water": {}}, {"oil": {}, "water": "off"}], ids=str)
    def test_a_job_with_one_of_them_is_fine(self, space: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        add(monkeypatch, Oil, Water)
        wanted = {name for name, settings in space.items() if settings != "off"} | DEFAULTS
        assert set(names(build(Job(**GIVEN, space=space), small()))) == wanted

    def test_it_is_told_with_the_other_mistakes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        add(monkeypatch, Oil, Water)
        with pytest.raises(JobError) as refused:
            Job(**GIVEN, space={"oil": {}, "water": {}, "pruning": {"step": 3}}, seed=-1)
        places = {problem.location for problem in refused.value.problems}
        assert places == {("space", "oil"), ("space", "pruning", "step"), ("seed",)}

    @pytest.mark.parametrize("water", [Water, WaterToo])
    def test_auto_takes_the_one_that_acts_first(self, water: type[Technique], monkeypatch: pytest.MonkeyPatch) -> None:
        add(monkeypatch, EagerOil, water)
        found = names(auto(small()))
        assert [name for name in found if name in ("oil", "water")] == ["water" if water is Water else "oil"]

    def test_of_the_installed_ones_none_excludes_what_is_not_there(self) -> None:
        known = technique.installed()
        assert all(set(kind.excludes) <= known.keys() - {name} for name, kind in known.items())


class TestAuto:
    def test_it_is_what_a_job_without_a_space_has(self) -> None:
        assert Job(**GIVEN).space == "auto"
        assert auto(small()).fingerprint() == build(Job(**GIVEN, space="auto"), small()).fingerprint()

    def test_it_has_the_defaults_and_zeros(self) -> None:
        assert set(names(auto(small()))) == DEFAULTS | {"sparsity"}

    def test_low_rank_is_for_wide_matrices(self) -> None:
        wide = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 3)).eval()
        assert "lowrank" in names(auto(dissect(wide, torch.zeros(2, 300))))

    def test_depth_is_for_models_of_many_blocks(self) -> None:
        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = nn.Linear(16, 16)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + torch.relu(self.inner(x))

        deep = nn.Sequential(nn.Linear(8, 16), *(Block() for _ in range(4)), nn.Linear(16, 3)).eval()
        assert names(auto(dissect(deep, torch.zeros(2, 8))))[0] == "depth"

    def test_a_technique_of_another_package_says_itself_whether_it_suits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        add(monkeypatch, Oil, Water)
        found = auto(small())
        assert "oil" not in names(found)
        assert next(part for part in found.techniques if part.name == "water").options == FakeOptions(most=0.25)

    def test_the_baseline_float16_and_int8_are_in_it(self) -> None:
        assert list(auto(small()).anchors(0)) == ["baseline", "float16", "int8"]

    def test_it_is_kept_as_the_word(self) -> None:
        job = Job(**GIVEN)
        assert job.model_dump(mode="json")["space"] == "auto"
        assert Job(**job.model_dump(mode="json")) == job
        assert Job(**GIVEN, space={}).identity() != job.identity()


class TestGroups:
    @pytest.mark.parametrize("groups", ["per-layer", "per-block", "global"])
    def test_they_are_part_of_what_must_not_change(self, groups: str) -> None:
        job = Job(**GIVEN, groups=groups)
        assert Job(**job.model_dump(mode="json")).groups == groups
        assert (job.identity() == Job(**GIVEN).identity()) is (groups == "per-layer")

    def test_an_unknown_one_is_told_with_those_that_are_allowed(self) -> None:
        with pytest.raises(JobError, match=r"groups: .*'per-layer', 'per-block' or 'global'"):
            Job(**GIVEN, groups="per-model")

    def test_globally_the_space_is_small(self) -> None:
        found = dissect(small_net(), small_batch(2)[0], granularity="global")
        searched = {each.name for each in build(Job(**GIVEN, space={"recovery": {}}), found).searched}
        assert {name for name in searched if name.startswith(("pruning.ratio", "quantization.bits"))} == {
            "pruning.ratio.all",
            "quantization.bits.all",
            "quantization.bits.stem",
            "quantization.bits.head",
        }
