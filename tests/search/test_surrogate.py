"""What is predicted: a Gaussian process, sums of what knobs do alone, and both together."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretrim.evaluators.measurement import Measurement
from paretrim.search import gaussian
from paretrim.search.encoding import Encoding, stack
from paretrim.search.judge import Terms
from paretrim.search.prior import Prior
from paretrim.search.surrogate import Surrogate
from paretrim.spaces.dimension import Choice, Range, Value
from paretrim.tracking.front import Objective
from paretrim.tracking.records import Epoch, Preview, TrialRecord
from paretrim.tracking.sensitivity import Effect, Profile

from .helper_recipes import NEUTRAL, OBJECTIVES, SPACE, anchors, drawn, failed, objectives, profile, search

Floats = npt.NDArray[np.float64]
ENCODING = Encoding(SPACE.searched, SPACE.constants)


def points(count: int, knobs: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Return summaries and knobs of some recipes."""
    rows = np.random.default_rng(seed).random((count, knobs))
    return rows[:, :1] - 0.5, rows


@pytest.mark.parametrize("seed", range(3))
def test_predictions_interpolate_and_are_surest_there(seed: int) -> None:
    trend, knobs = points(40, 3, seed)
    observed = np.sin(3.0 * knobs[:, 0]) + knobs[:, 1] ** 2
    process = gaussian.fit(trend, knobs, observed)
    expected, error = process.predict(trend, knobs)
    np.testing.assert_allclose(expected, observed, atol=0.1)
    far = np.full((1, 3), 6.0)
    _, unsure = process.predict(np.zeros((1, 1)), far)
    assert unsure[0] > 2.0 * error.max()
    between_trend, between = points(200, 3, seed + 50)
    truth = np.sin(3.0 * between[:, 0]) + between[:, 1] ** 2
    guessed, doubt = process.predict(between_trend, between)
    assert np.abs(guessed - truth).mean() < 0.35 * np.abs(truth - truth.mean()).mean()
    assert np.mean(np.abs(guessed - truth) < 3.0 * doubt) > 0.8


def test_errors_grow_with_the_distance_to_what_was_seen() -> None:
    knobs = np.full((6, 2), 0.5) + np.random.default_rng(0).normal(0.0, 0.01, (6, 2))
    process = gaussian.fit(np.zeros((6, 1)), knobs, np.array([1.0, 1.2, 0.9, 1.1, 1.0, 0.8]))
    steps = np.linspace(0.5, 3.0, 8)
    _, error = process.predict(np.zeros((8, 1)), np.stack([steps, np.full(8, 0.5)], axis=1))
    assert (np.diff(error) > -1e-12).all()
    assert error[-1] > error[0]


def test_a_trend_goes_on_beyond_what_was_seen() -> None:
    at = np.linspace(-1.0, 1.0, 20)[:, None]
    process = gaussian.fit(at, np.full((20, 2), 0.5), 3.0 * at[:, 0] + 7.0)
    expected, _ = process.predict(np.array([[2.0], [-2.0]]), np.full((2, 2), 0.5))
    np.testing.assert_allclose(expected, [13.0, 1.0], atol=0.3)
    assert process.noise < 0.3 * np.std(3.0 * at)


def test_noise_is_smoothed() -> None:
    trend, knobs = points(120, 2)
    noise = np.random.default_rng(1).normal(0.0, 0.3, 120)
    process = gaussian.fit(trend, knobs, knobs[:, 0] + noise)
    expected, _ = process.predict(trend, knobs)
    assert np.abs(expected - knobs[:, 0]).mean() < 0.5 * np.abs(noise).mean()


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=12), st.floats(1e-6, 1e6), st.booleans()
)
def test_any_numbers_are_predicted_from(observed: list[float], scale: float, alike: bool) -> None:
    trend, knobs = points(len(observed), 2)
    if alike:
        trend, knobs = trend * 0.0, knobs * 0.0  # the same recipe again and again
    process = gaussian.fit(trend, knobs, np.array(observed) * scale)
    expected, error = process.predict(*points(5, 2, seed=9))
    assert np.isfinite(expected).all()
    assert np.isfinite(error).all()
    assert (error > 0.0).all()


def test_scales_can_be_kept() -> None:
    trend, knobs = points(20, 2)
    chosen = gaussian.fit(trend, knobs, knobs[:, 0])
    assert gaussian.fit(trend, knobs, knobs[:, 1], chosen.scales).scales == chosen.scales


def of_two_layers() -> tuple[Encoding, Profile]:
    knobs = (
        Range("pruning.ratio.a", 0.0, 0.5, 0.0, step=0.25),
        Range("pruning.ratio.b", 0.0, 0.5, 0.0, step=0.25),
        Choice("quantization.bits.a", (4, 8, "none"), "none"),
        Range("recovery.learning_rate", 0.01, 0.1, 0.03, log=True),
    )
    effects = (
        Effect("pruning.ratio.a", 0.25, 0.2, None, 100.0),
        Effect("pruning.ratio.a", 0.5, 0.8, None, 200.0),
        Effect("pruning.ratio.b", 0.5, None, None, 300.0, failed="it does not run"),
        Effect("quantization.bits.a", 4, math.inf, None, 500.0),
        Effect("quantization.bits.a", 8, -0.1, None, 400.0),
        Effect("an.other", 1, 9.0, None, 999.0),
    )
    return Encoding(knobs, {}), Profile("accuracy", 10, 0.1, 0.9, 0.0, 1000.0, effects)


@pytest.mark.parametrize(
    ("values", "loss", "left"),
    [
        ({}, 0.0, 1.0),
        ({"pruning.ratio.a": 0.25}, 0.2, 0.9),
        ({"pruning.ratio.a": 0.5, "recovery.learning_rate": 0.1}, 0.8, 0.8),
        ({"pruning.ratio.a": 0.5, "pruning.ratio.b": 0.5}, 3.8, 0.5),  # 3 is ruin, and more counts as much
        ({"pruning.ratio.b": 0.25}, 1.5, 0.85),  # half way
        ({"quantization.bits.a": 4}, 3.0, 0.5),
        ({"quantization.bits.a": 8}, 0.0, 0.6),  # what does good is not counted on
        ({"pruning.ratio.a": 0.5, "quantization.bits.a": 8}, 0.8, 0.8 * 0.6),  # of what pruning leaves
    ],
)
def test_effects_add_up(values: dict[str, Value], loss: float, left: float) -> None:
    encoding, known = of_two_layers()
    prior = Prior(known, encoding)
    found = prior.sums(stack([encoding.encode(values)]))
    assert prior.known
    assert float(found[0][0]) == pytest.approx(loss)
    assert float(found[1][0]) == pytest.approx(left)


def test_without_a_profile_nothing_is_known() -> None:
    encoding, _ = of_two_layers()
    prior = Prior(None, encoding)
    loss, left = prior.sums(np.random.default_rng(0).random((3, 4)))
    assert not prior.known
    assert (loss.tolist(), left.tolist()) == ([0.0] * 3, [1.0] * 3)


def a_surrogate(*, profiled: bool = True) -> Surrogate:
    known = profile() if profiled else None
    return Surrogate(Terms("accuracy", OBJECTIVES, ()), ENCODING, Prior(known, ENCODING), 0)


SMALL = {**NEUTRAL, **{name: 0.5 for name in NEUTRAL if name.startswith("pruning.")}}
RECIPES = [drawn(np.random.default_rng(seed)) for seed in range(60)]


def test_before_any_search_a_smaller_recipe_is_expected_to_be_smaller_and_worse() -> None:
    surrogate = a_surrogate()
    assert not surrogate.ready
    surrogate.learn(anchors()[:1])
    assert surrogate.ready
    found = surrogate.predict([NEUTRAL, SMALL])
    for name in ("size_bytes", "latency_ms", "memory_bytes", "accuracy"):
        assert found.expected[name][1] < found.expected[name][0]


def test_trials_teach(seed: int = 5) -> None:
    few, many = a_surrogate(), a_surrogate()
    few.learn(search(8, seed))
    many.learn(search(60, seed))
    for name in ("size_bytes", "latency_ms", "memory_bytes"):
        true = np.array([math.log(objectives(recipe)[name]) for recipe in RECIPES])
        off = [np.abs(each.predict(RECIPES).expected[name] - true).mean() for each in (few, many)]
        assert off[1] < off[0]
        assert off[1] < 0.4 * np.abs(true - true.mean()).mean()
    score = np.array([objectives(recipe)["accuracy"] for recipe in RECIPES])
    found = many.predict(RECIPES)
    assert np.corrcoef(found.expected["accuracy"], score)[0, 1] > 0.5
    error = np.hypot(found.error["accuracy"], many.noise("accuracy"))
    assert np.mean(np.abs(found.expected["accuracy"] - score) < 2.0 * error) > 0.7


def stopped(record: TrialRecord, epochs: int) -> TrialRecord:
    """Return a trial as if it had been stopped, after so many epochs."""
    costs = tuple(m for m in record.measurements if m.name != "accuracy")
    return replace(
        record, state="stopped", measurements=(), preview=Preview(costs), epochs=record.epochs[:epochs]
    )  # fmt: skip


def predicted(records: list[TrialRecord], name: str) -> Floats:
    surrogate = a_surrogate(profiled=False)
    surrogate.learn(records)
    return surrogate.predict(RECIPES[:10]).expected[name]


def test_what_was_stopped_says_what_it_costs() -> None:
    records = search(20, 2)
    never = [*records[:12], *(stopped(record, 0) for record in records[12:])]
    np.testing.assert_allclose(predicted(never, "size_bytes"), predicted(records, "size_bytes"))
    np.testing.assert_allclose(predicted(never, "accuracy"), predicted(records[:12], "accuracy"))


def test_what_was_stopped_in_training_says_how_it_did_with_what_others_gained_after_that() -> None:
    # All trials of this problem gain 0.02 from their first epoch to the end.
    records = [replace(record, preview=Preview(())) for record in search(20, 2)]
    early = [*records[:12], *(stopped(record, 1) for record in records[12:])]
    np.testing.assert_allclose(predicted(early, "accuracy"), predicted(records, "accuracy"))


def test_what_failed_says_nothing_of_its_score() -> None:
    records = search(14, 2)
    failed = replace(records[5], state="failed", measurements=(), epochs=(Epoch(0.1, 0.0),), preview=None)
    without = [record for record in records if record.number != 5]
    np.testing.assert_allclose(predicted([*without, failed], "accuracy"), predicted(without, "accuracy"))


def test_what_failed_for_its_recipe_says_that_others_like_it_will() -> None:
    four = [{**NEUTRAL, "pruning.ratio.stem": ratio, "quantization.bits.head": 4} for ratio in (0.0, 0.25)]
    others = [{**NEUTRAL, "pruning.ratio.stem": ratio, "quantization.bits.head": 8} for ratio in (0.0, 0.25)]

    def fitness(unfit: bool) -> Floats:
        records = search(30, 2, ends=lambda r: failed(r, unfit=unfit) if r.recipe["quantization.bits.head"] == 4 else r)
        assert 5 < sum(r.state == "failed" for r in records) < 15
        surrogate = a_surrogate()
        surrogate.learn(records)
        return surrogate.fitness([*four, *others])

    assert fitness(unfit=False).tolist() == [1.0] * 4
    found = fitness(unfit=True)
    assert 0.0 < found[:2].max() < 0.35
    assert found[2:].min() > 0.65


@pytest.mark.parametrize("scale", [1e-4, 1e3])
@pytest.mark.parametrize("trials", [1, 14])
def test_errors_are_predicted_alike_whatever_their_unit(scale: float, trials: int) -> None:
    terms = Terms("error", (Objective("error"), *OBJECTIVES[1:]), ())

    def of_errors(unit: float) -> Floats:
        def turned(record: TrialRecord) -> TrialRecord:
            error = Measurement("error", (1.0 - record.metrics["accuracy"]) * unit)
            return replace(record, measurements=(*record.measurements[1:], error), epochs=())

        surrogate = Surrogate(terms, ENCODING, Prior(profile(), ENCODING), 0)
        surrogate.learn([turned(record) for record in search(14, 2)[:trials]])
        return surrogate.predict(RECIPES).expected["error"] / unit

    np.testing.assert_allclose(of_errors(scale), of_errors(1.0), rtol=1e-6)
    assert np.ptp(of_errors(scale)) > 0.005


def test_ruin_is_no_worse_than_what_the_box_tells_apart() -> None:
    records = search(14, 2)

    def scored(score: float) -> list[TrialRecord]:
        found = tuple(Measurement("accuracy", score) if m.name == "accuracy" else m for m in records[7].measurements)
        return [*records[:7], replace(records[7], measurements=found), *records[8:]]

    np.testing.assert_allclose(predicted(scored(0.1), "accuracy"), predicted(scored(0.5), "accuracy"))
    assert not np.allclose(predicted(scored(0.1), "accuracy"), predicted(scored(0.85), "accuracy"))
