"""`paretrim profile`: which layer hurts, taken once and kept."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

from paretrim.errors import TrialError
from paretrim.search import prepare, profile_words, profiles
from paretrim.search.cli import app
from paretrim.search.context import TrialContext
from paretrim.search.job import Job
from paretrim.search.profile import _levels, profile
from paretrim.search.profiles import Profiles
from paretrim.search.space import Space
from paretrim.search.store import Store
from paretrim.spaces.anatomy import Anatomy
from paretrim.spaces.dimension import Choice, Condition, Dimension, Range
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.technique import Technique, TechniqueOptions
from paretrim.tracking.sensitivity import Effect, Profile

from .conftest import tiny_job


def profiled_job() -> Job:
    # Few knobs, of which each kind is there: a ratio, bits at the ends and between, and two that only train.
    space = {
        "pruning": {"ratio": [0.0, 0.5], "step": 0.25},
        "quantization": {"weight_bits": [4, 8, "none"]},
        "recovery": {"epochs": [1, 2]},
    }
    return tiny_job(space=space, groups="global")


@dataclass(frozen=True)
class Taken:
    store: Store
    job: Job
    found: Profile
    page: Path
    told: list[tuple[int, int, str]]

    def effect(self, knob: str, value: object) -> Effect:
        (found,) = (each for each in self.found.effects if (each.knob, each.value) == (knob, value))
        return found


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    store, job = Store(tmp_path_factory.mktemp("profiled")), profiled_job()
    told: list[tuple[int, int, str]] = []
    found, page = profiles.take(job, store, print, lambda *step: told.append(step))
    return Taken(store, job, found, page, told)


@pytest.fixture(scope="module")
def subject(taken: Taken) -> prepare.Subject:
    return prepare.load(taken.job)


def test_each_value_of_each_knob_that_acts_has_an_effect(taken: Taken) -> None:
    assert [(each.knob, each.value) for each in taken.found.effects] == [
        ("pruning.ratio.all", 0.25),
        ("pruning.ratio.all", 0.5),
        ("quantization.bits.stem", 8),
        ("quantization.bits.all", 4),
        ("quantization.bits.all", 8),
        ("quantization.bits.head", 8),
    ]
    assert [name for _, _, name in taken.told] == [each.knob for each in taken.found.effects]
    assert [(done, total) for done, total, _ in taken.told] == [(i, 6) for i in range(6)]


def test_loss_and_score_of_the_baseline_are_those_of_the_model(taken: Taken, subject: prepare.Subject) -> None:
    batch = subject.splits.search.train.first(512)
    with torch.no_grad():
        outputs = batch.inputs.through(subject.model)
    assert taken.found.samples == len(batch.inputs) == 400
    assert taken.found.loss == pytest.approx(float(functional.cross_entropy(outputs, batch.labels)), rel=1e-4)
    assert taken.found.score == pytest.approx(float((outputs.argmax(1) == batch.labels).float().mean()))
    assert taken.found.weight_bytes == 4 * sum(each.numel() for each in subject.model.parameters())


def test_bytes_are_those_of_the_bits_and_of_the_channels(taken: Taken) -> None:
    assert taken.effect("quantization.bits.head", 8).bytes_saved == 320 * 3
    # With 7 bits, where 8 would overflow, a weight or two become zero, which saves a byte more.
    assert taken.effect("quantization.bits.all", 8).bytes_saved == pytest.approx(2 * 9216 * 3, rel=1e-3)
    assert taken.effect("quantization.bits.all", 4).bytes_saved == 2 * 9216 * 3.5
    half, quarter = taken.effect("pruning.ratio.all", 0.5), taken.effect("pruning.ratio.all", 0.25)
    # Of the middle layers a quarter is left, of the others a half, and of the norm and the biases too.
    assert half.bytes_saved == 4 * (2 * 9216 * 3 / 4 + (288 + 320 + 4 * 32) / 2)
    assert 0 < quarter.bytes_saved < half.bytes_saved


def test_what_hurts_more_has_the_higher_loss(taken: Taken) -> None:
    increases = [taken.effect("pruning.ratio.all", value).loss_increase for value in (0.25, 0.5)]
    assert increases[0] is not None
    assert increases[1] is not None
    assert 0 < increases[0] < increases[1]
    coarse, fine = (taken.effect("quantization.bits.all", bits).loss_increase for bits in (4, 8))
    assert abs(fine or 0.0) < abs(coarse or 0.0)
    assert (taken.effect("pruning.ratio.all", 0.5).score_change or 0.0) < 0


def test_the_strongest_is_timed_and_the_rest_is_predicted(taken: Taken) -> None:
    assert not any(each.failed for each in taken.found.effects)
    timed = {(each.knob, each.value) for each in taken.found.effects if each.measured}
    assert timed == {
        ("pruning.ratio.all", 0.5),
        ("quantization.bits.stem", 8),
        ("quantization.bits.all", 4),
        ("quantization.bits.head", 8),
    }
    assert taken.found.latency_ms > 0
    # 4 bits run as 8 do; of channels, less is saved where less is cut.
    assert taken.effect("quantization.bits.all", 8).ms_saved == taken.effect("quantization.bits.all", 4).ms_saved
    half, quarter = taken.effect("pruning.ratio.all", 0.5), taken.effect("pruning.ratio.all", 0.25)
    assert half.ms_saved is not None
    assert quarter.ms_saved == pytest.approx(half.ms_saved * quarter.bytes_saved / half.bytes_saved)
    assert half.ms_saved < taken.found.latency_ms


def test_it_is_taken_once(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "profile", None)
    again, page = profiles.take(profiled_job(), taken.store, print, lambda *_: None)
    assert (again, page) == (taken.found, taken.page)
    assert page.read_text().startswith("<!doctype html>")
    assert sorted(path.suffix for path in page.parent.iterdir()) == [".html", ".json"]


def test_another_model_space_target_or_metric_has_another(taken: Taken, subject: prepare.Subject) -> None:
    kept = Profiles(taken.store)
    assert kept.kept(taken.job, subject) == taken.found
    others = [
        (tiny_job(target={"threads": 2}), subject),
        (tiny_job(metric="f1"), subject),
        *(
            (taken.job, replace(subject, fingerprints={**subject.fingerprints, part: "other"}))
            for part in ("model", "data", "space")
        ),
    ]
    paths = {kept.path(job, other) for job, other in others}
    assert len(paths) == 5
    assert taken.page.with_suffix(".json") not in paths
    assert [kept.kept(job, other) for job, other in others] == [None] * 5


def test_the_command_shows_a_table_and_where_the_heat_map_lies(taken: Taken, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        f"name: tiny\nmodel: tiny:model\ndata: tiny:data\nfolder: {taken.job.folder}\ngroups: global\n"
        "space: {pruning: {ratio: [0.0, 0.5], step: 0.25}, quantization: {weight_bits: [4, 8, none]}, "
        "recovery: {epochs: [1, 2]}}\n"
    )
    done = CliRunner().invoke(app, ["profile", str(job), "--store", str(taken.store.root)], catch_exceptions=False)
    assert done.exit_code == 0
    assert f"heat map: {taken.page}" in done.stdout
    assert "pruning.ratio: change of accuracy when this alone is changed, without recovery" in done.stdout


class Fragile(Technique):
    """Cannot be turned far; one of its knobs is there only where another one is turned."""

    name: ClassVar[str] = "fragile"
    stage: ClassVar[int] = 30

    def __init__(self, options: TechniqueOptions) -> None:
        super().__init__(options)
        self.seen: list[Recipe] = []

    def dimensions(self, anatomy: Anatomy) -> tuple[Dimension, ...]:
        far, turned = Range("fragile.far", 0.0, 1.0, neutral=0.0), (Condition("fragile.far"),)
        return (
            far,
            Choice("fragile.way", ("a", "b"), "a", when=turned),
            Choice("fragile.how", ("in steps",), "at once", when=turned),
            Choice("fragile.steps", (3,), 1, when=turned),
        )

    def reshape(self, model: nn.Module, recipe: Recipe, anatomy: Anatomy, schooling: Schooling) -> None:
        self.seen.append(recipe)
        if recipe.number("fragile.far") > 0.5:
            raise TrialError("it broke")


def test_what_cannot_be_made_is_told_and_the_rest_is_taken(context: TrialContext) -> None:
    technique, anatomy = Fragile(TechniqueOptions()), context.space.anatomy
    space = Space((technique,), anatomy, technique.dimensions(anatomy))
    found = profile(replace(context, space=space), lambda *_: None)
    assert [each.failed for each in found.effects] == ["", "it broke", "it broke"]
    first, *broken = found.effects
    assert first.loss_increase == 0.0
    assert first.measured
    assert all((each.loss_increase, each.ms_saved, each.bytes_saved) == (None, None, 0.0) for each in broken)
    # Of what hangs on the knob, numbers stay neutral; ways of doing it are those that the job allows.
    found_ways = {tuple(value for name, value in recipe.items if name != "fragile.far") for recipe in technique.seen}
    assert found_ways == {("in steps", 1, "a")}


@pytest.mark.parametrize(
    ("knob", "levels"),
    [
        (Range("a.b", 0.0, 0.75, 0.0, step=0.125), [0.25, 0.5, 0.75]),
        (Range("a.b", 0.0, 0.5, 0.0, step=0.5), [0.5]),
        (Range("a.b", 0.5, 0.75, 0.0, step=0.125), [0.5, 0.75]),
        (Range("a.b", 0.7, 1.0, 1.0, step=0.05), [0.9, 0.8, 0.7]),
        (Range("a.b", 0.0, 0.9, 0.0), [0.3, 0.6, 0.9]),
        (Choice("a.b", (4, 8, "none"), "none"), [4, 8]),
        (Choice("a.b", ("none",), "none"), []),
    ],
    ids=repr,
)
def test_a_knob_is_turned_to_a_few_values_that_the_search_could_choose(knob: Dimension, levels: list[float]) -> None:
    assert list(_levels(knob, 3)) == pytest.approx(levels)


def shown(found: Profile) -> str:
    console = Console(width=140, file=io.StringIO())
    for part in profile_words.lines(found):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_tables_have_a_row_a_layer_and_a_column_a_value() -> None:
    effects = (
        Effect("pruning.ratio.stem", 0.25, 0.1, -0.01, 1000.0, 0.001),
        Effect("pruning.ratio.stem", 0.5, 0.3, -0.2, 2000.0, 0.002, measured=True),
        Effect("pruning.ratio.inner", 0.25, 0.0, 0.0, 0.0),
        Effect("pruning.ratio.inner", 0.5, 0.0, 0.0, 4000.0),
        Effect("depth.blocks", 1, None, None, 0.0, failed="it broke [/here]"),
    )
    text = shown(Profile("accuracy", 400, 0.25, 0.9, 0.125, 80_000.0, effects))
    assert "uncompressed: accuracy 0.9000, loss 0.25 on 400 training samples; 80 kB of weights; 0.125 ms" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["stem", "-0.0100", "-0.2000", "+0.3", "2.0", "0.0020"] in rows
    assert ["inner", "same", "+0.0000", "+0", "4.0"] in rows
    assert ["all", "0.0"] in rows
    assert ["layer", "0.25", "0.5", "loss", "kB", "saved", "ms", "saved"] in rows
    assert "depth.blocks: it broke [/here]" in text
