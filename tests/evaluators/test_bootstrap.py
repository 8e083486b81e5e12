"""Bootstrap intervals: that they hold what they should, and that pairs tell more than values apart."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paretrim.evaluators.bootstrap import difference, interval, resample, ties
from paretrim.evaluators.metrics import Metric, by_name
from paretrim.evaluators.statistics import share_interval

METRICS = ["accuracy", "f1", "auroc", "hamming_distance"]


def answers(right: torch.Tensor, labels: torch.Tensor, classes: int = 3) -> torch.Tensor:
    """Return logits ``(N, classes)`` that are right or wrong where told."""
    given = torch.where(right, labels, (labels + 1) % classes)
    return torch.nn.functional.one_hot(given, classes).float()


def noisy(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs ``(N, 3)`` of a mediocre model, and labels."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=random)
    return torch.randn((count, 3), generator=random) + torch.nn.functional.one_hot(labels, 3), labels


@settings(max_examples=20)
@given(st.sampled_from(METRICS), st.lists(st.booleans(), min_size=6, max_size=40), st.integers(0, 5))
def test_the_interval_holds_the_value(name: str, right: list[bool], seed: int) -> None:
    labels = torch.from_numpy(np.random.default_rng(seed).permutation(np.arange(len(right)) % 3))
    found = interval(by_name(name), answers(torch.tensor(right), labels), labels)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("name", ["accuracy", "mean_squared_error"])
def test_the_interval_is_as_wide_as_the_theory_says(name: str) -> None:
    outputs, labels = noisy(400)
    if name == "accuracy":
        spread = (outputs.argmax(1) == labels).double().std()
        found = interval(by_name(name), outputs, labels)
    else:
        numbers = outputs[:, 0], labels.float()
        spread = ((numbers[0] - numbers[1]) ** 2).double().std()
        found = interval(by_name(name), *numbers)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * float(spread) / 20, rel=0.1)


def test_a_mean_is_resampled_as_the_metric_itself_would_be() -> None:
    outputs, labels = noisy(50)
    accuracy = by_name("accuracy")
    quick = resample(accuracy, outputs, labels)
    slow = resample(Metric("slow", True, accuracy), outputs, labels)
    assert slow.values == pytest.approx(quick.values[: len(slow.values)], abs=1e-6)
    assert slow.value == quick.value


def test_the_same_answers_have_the_same_interval() -> None:
    outputs, labels = noisy(200)
    for name in ("accuracy", "f1"):
        assert interval(by_name(name), outputs, labels) == interval(by_name(name), outputs.clone(), labels)


@pytest.mark.parametrize("name", ["accuracy", "f1", "auroc"])
@pytest.mark.parametrize("right", [True, False])
def test_where_all_is_right_or_all_is_wrong_wilson_tells_the_interval(name: str, right: bool) -> None:
    labels = torch.arange(60) % 3
    found = interval(by_name(name), answers(torch.full((60,), right), labels), labels)
    if right or name != "auroc":
        assert (found.low, found.high) == share_interval(float(right), 60)


def test_an_error_of_zero_is_no_share() -> None:
    assert interval(by_name("mean_squared_error"), torch.ones(9, 1), torch.ones(9)) == (0.0, 0.0, 0.0)


def test_pairs_tell_a_small_gain_that_the_values_do_not() -> None:
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (500,), generator=random)
    right = torch.rand(500, generator=random) < 0.8
    better = right.clone()
    better[torch.nonzero(~right)[:10, 0]] = True  # two points more, and nothing lost
    ours, theirs = answers(better, labels), answers(right, labels)
    metric = by_name("accuracy")
    mine, other = interval(metric, ours, labels), interval(metric, theirs, labels)
    assert mine.low is not None
    assert other.high is not None
    assert mine.low < other.high
    gain = difference(metric, ours, theirs, labels)
    assert gain.value == 0.02
    assert gain.low is not None
    assert gain.low > 0.005
    assert not gain.holds_zero


@pytest.mark.parametrize("name", ["accuracy", "f1"])
def test_a_difference_the_other_way_round_is_its_negative(name: str) -> None:
    labels = noisy(150)[1]
    ours, theirs = noisy(150, 1)[0], noisy(150, 2)[0]
    there, back = (difference(by_name(name), *pair, labels) for pair in ((ours, theirs), (theirs, ours)))
    assert there.low is not None
    assert there.high is not None
    assert back == pytest.approx((-there.value, -there.high, -there.low))


def test_models_that_answer_alike_are_ties() -> None:
    labels = torch.arange(300) % 3
    right = torch.arange(300) % 5 != 0
    other = torch.arange(300) % 5 != 1
    worse = right & (torch.arange(300) % 7 != 0)
    models = {
        1: answers(right, labels),
        2: answers(right, labels),
        3: answers(other, labels),
        4: answers(worse, labels),
    }
    assert ties(by_name("accuracy"), models, labels) == {frozenset(pair) for pair in ((1, 2), (1, 3), (2, 3))}


def test_resamples_without_a_value_are_left_out() -> None:
    labels = (torch.arange(40) < 2).long()  # one resample in eight has no positive
    outputs = torch.linspace(1, -1, 40)[:, None]
    outputs[0] = -0.5
    found = resample(by_name("auroc"), outputs, labels)
    assert 0.05 < np.isnan(found.values).mean() < 0.25
    assert found.interval().low == pytest.approx(np.nanquantile(found.values, 0.025))


def test_a_metric_that_is_hardly_ever_defined_has_no_interval() -> None:
    outputs, labels = torch.tensor([[1.0], [0.5], [0.7]]), torch.tensor([0.1, 0.2, 0.2])
    only_all = Metric("all", True, lambda o, y: 1.0 if len(o.unique()) == 3 else float("nan"))
    assert interval(only_all, outputs, labels) == (1.0, None, None)
    assert difference(only_all, outputs, outputs, labels).holds_zero


def test_a_slow_function_takes_its_time_for_a_hundred_resamples_only() -> None:
    def slow(outputs: torch.Tensor, labels: torch.Tensor) -> float:
        time.sleep(0.03)
        return float((outputs[:, 0] - labels).abs().mean())

    started = time.monotonic()
    found = resample(Metric("slow", False, slow), *(torch.rand(20, 1), torch.rand(20)))
    assert 100 <= len(found.values) < 1000
    assert time.monotonic() - started < 10
    assert found.interval().low is not None


def test_a_function_that_is_far_too_slow_gives_no_interval_and_soon() -> None:
    def stuck(outputs: torch.Tensor, labels: torch.Tensor) -> float:
        time.sleep(0.3)
        return float((outputs[:, 0] - labels).abs().mean())

    started = time.monotonic()
    found = resample(Metric("stuck", False, stuck), torch.rand(20, 1), torch.rand(20))
    assert time.monotonic() - started < 5
    assert found.interval() == (found.value, None, None)


def test_large_splits_are_resampled_less_often() -> None:
    outputs, labels = noisy(20_000)
    assert len(resample(by_name("accuracy"), outputs, labels).values) == 1000
    assert len(resample(by_name("f1"), outputs, labels).values) == 100
