"""What the latency evaluator makes of the answers of its processes, which the tests write."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paretrim.evaluators import latency
from paretrim.evaluators.evaluator import Bench, Specimen
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.latency import LatencyEvaluator, latency_of, time_quietly
from paretrim.evaluators.measurement import Measurement

Answers = Sequence[Mapping[str, Any]]
Canned = Callable[[Answers], Callable[[], list[Any]]]
NAMES = {
    "latency_ms",
    "latency_ratio",
    "latency_raw_ms",
    "latency_crowded",
    "latency_attempts",
    "foreign_load_cores",
} | {f"latency_{name}_ms" for name in ("p50", "p90", "p99", "min", "mean", "std")}


def timed(
    milliseconds: float, ratio: float = 1.0, width: float = 0.01, spread: float = 0.02, how: str = ""
) -> dict[str, Any]:
    """Return a model's times as a measuring process tells them; width is half an interval's, as a share."""
    around = np.array([1.0, 1.0 - width, 1.0 + width])
    seconds = {
        f"{name}_s": milliseconds * k * 1e-3 for k, name in enumerate(("std", "min", "mean", "p50", "p90", "p99"))
    }
    return {
        "latency_s": (milliseconds * 1e-3 * around).tolist(),
        "ratio": (ratio * around).tolist(),
        "spread": spread,
        "layouts": 7,
        "calls": 1234,
        "how": how,
        **seconds,
    }


def told(*models: dict[str, Any], others: bool = False, **throughput: float) -> dict[str, Any]:
    """Return the answer of a measuring process."""
    return {
        "models": models,
        "crowd": {"foreign_cores": 0.5 if others else 0.0, "steal_share": None, "waiting_share": 0.0},
        "others_present": others,
        "throughput": {size.removeprefix("b"): value for size, value in throughput.items()},
    }


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "_PAUSE_S", 0.05)


def measured(subject: Specimen, bench: Bench, evaluator: LatencyEvaluator | None = None) -> dict[str, Measurement]:
    return {each.name: each for each in (evaluator or LatencyEvaluator()).measure(subject, bench)}


class TestNumbers:
    def test_all_are_given_with_what_they_are(self, canned: Canned, bench: Bench, subject: Specimen) -> None:
        canned([told(timed(2.0), timed(3.0, ratio=1.6), b1=400.0, b16=900.0)])
        found = measured(subject, bench)
        assert found.keys() == NAMES | {"throughput_b1_per_s", "throughput_b16_per_s"}
        assert set(LatencyEvaluator.metrics) <= found.keys()
        ratio, raw = found["latency_ratio"], found["latency_raw_ms"]
        assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.6, 1.584, 1.616))
        assert (raw.value, raw.low, raw.high) == pytest.approx((3.0, 2.97, 3.03))
        assert [found[f"latency_{name}_ms"].value for name in ("min", "p50", "p90", "p99")] == pytest.approx(
            [3, 9, 12, 15]
        )
        assert found["latency_p99_ms"].how == "of 1234 calls"
        assert found["throughput_b16_per_s"].value == 900.0
        assert found["latency_crowded"].value == 0.0
        assert found["latency_attempts"].value == 1

    def test_the_process_is_asked_for_the_baseline_and_the_model(
        self, canned: Canned, bench: Bench, subject: Specimen
    ) -> None:
        requests = canned([told(timed(2.0), timed(3.0))])
        measured(subject, bench)
        assert requests() == [
            {
                "target": bench.address.to_plain(),
                "models": [str(bench.baseline), str(subject.model)],
                "inputs": str(bench.inputs),
                "cores": [3],
                "throughput": [1, 16],
            }
        ]

    def test_without_a_reference_the_latency_is_what_the_clock_showed(
        self, canned: Canned, bench: Bench, subject: Specimen
    ) -> None:
        canned([told(timed(2.0), timed(3.0, ratio=1.6))])
        found = measured(subject, bench)["latency_ms"]
        assert (found.value, found.low, found.high) == pytest.approx((3.0, 2.97, 3.03))
        assert found.how == "fastest third of 7 layouts"

    @pytest.mark.parametrize("reference_ms", [1.0, 2.5])
    def test_the_reference_scales_the_ratio(
        self, canned: Canned, bench: Bench, subject: Specimen, reference_ms: float
    ) -> None:
        canned([told(timed(2.0), timed(3.0, ratio=1.6))])
        found = measured(subject, dataclasses.replace(bench, reference_ms=reference_ms))
        expected = tuple(reference_ms * value for value in (1.6, 1.584, 1.616))
        assert (found["latency_ms"].value, found["latency_ms"].low, found["latency_ms"].high) == pytest.approx(expected)
        assert f"times {reference_ms:.4g} ms" in found["latency_ms"].how
        assert found["latency_raw_ms"].value == pytest.approx(3.0), "what the clock showed is not scaled"

    def test_a_preview_is_rougher_and_taken_in_any_crowd(self, canned: Canned, bench: Bench, subject: Specimen) -> None:
        requests = canned([told(timed(2.0), timed(3.0, ratio=1.6, width=0.4, spread=0.9), others=True)])
        (found,) = LatencyEvaluator().preview(subject, dataclasses.replace(bench, reference_ms=2.5))
        assert found.name == "latency_ms"
        assert (found.value, found.low, found.high) == pytest.approx((4.0, 2.5 * 1.6 * 0.6, 2.5 * 1.6 * 1.4))
        (request,) = requests()
        assert request["models"] == [str(bench.baseline), str(subject.model)]
        assert request["layouts"] == [3, 3]
        assert request["throughput"] == []

    def test_latencies_of_finalists_are_told_alike(self, canned: Canned, bench: Bench) -> None:
        canned([told(timed(2.0), timed(3.0, ratio=1.6), timed(1.0, ratio=0.5))])
        contest, attempts = time_quietly([bench.baseline, Path("a"), Path("b")], bench, None)
        assert attempts == 1
        values = [latency_of(each, 2.0).value for each in contest.models]
        assert values == pytest.approx([2.0, 3.2, 1.0])

    def test_what_was_timed_on_a_device_is_told(self, canned: Canned, bench: Bench, subject: Specimen) -> None:
        canned([told(timed(2.0), timed(3.0, how="on the device, as a CUDA graph"))])
        found = next(each for each in LatencyEvaluator().measure(subject, bench) if each.name == "latency_ms")
        assert found.how.startswith("fastest third of 7 layouts, on the device, as a CUDA graph")


NOISY = [
    pytest.param(timed(2.0, width=0.05), r"its ratio is known to ±5.0% only", id="wide"),
    pytest.param(timed(2.0, spread=0.2), "half of its layouts are slower by 20% or more", id="spread"),
    pytest.param(
        timed(2.0, width=0.04, spread=0.3), "known to ±4.0% only; half of its layouts are slower by 30%", id="both"
    ),
]


class TestDoubt:
    @pytest.mark.parametrize(("model", "why"), NOISY)
    def test_noise_beside_others_is_taken_again_and_told(
        self, canned: Canned, bench: Bench, subject: Specimen, model: dict[str, Any], why: str
    ) -> None:
        requests = canned([told(timed(2.0), model, others=True)] * 3)
        found = measured(subject, bench)
        assert len(requests()) == found["latency_attempts"].value == 3
        assert found["latency_crowded"].value == 1.0
        assert why in found["latency_crowded"].how
        assert found["foreign_load_cores"].value == 0.5

    @pytest.mark.parametrize(("model", "why"), NOISY)
    def test_noise_without_others_is_the_models_own(
        self, canned: Canned, bench: Bench, subject: Specimen, model: dict[str, Any], why: str
    ) -> None:
        canned([told(timed(2.0), model)])
        found = measured(subject, bench)
        assert found["latency_crowded"].value == 0.0
        assert found["latency_attempts"].value == 1

    def test_others_alone_are_no_reason_for_doubt(self, canned: Canned, bench: Bench, subject: Specimen) -> None:
        canned([told(timed(2.0), timed(3.0), others=True)])
        found = measured(subject, dataclasses.replace(bench, reference_ms=2.0))
        assert (found["latency_crowded"].value, found["latency_attempts"].value) == (0.0, 1)

    def test_work_that_does_not_make_room_counts_as_others(
        self, canned: Canned, bench: Bench, subject: Specimen
    ) -> None:
        canned([told(timed(2.0), timed(2.0, width=0.05))] * 3)
        with Lane(bench.baseline.parent / "lane").working():
            found = measured(subject, bench)
        assert found["latency_crowded"].value == 1.0

    def test_it_is_over_when_others_are_gone(self, canned: Canned, bench: Bench, subject: Specimen) -> None:
        noisy = told(timed(2.0), timed(9.0, width=0.05), others=True)
        requests = canned([noisy, told(timed(2.0), timed(3.0), others=True)])
        found = measured(subject, bench)
        assert len(requests()) == found["latency_attempts"].value == 2
        assert found["latency_crowded"].value == 0.0
        assert found["latency_raw_ms"].value == pytest.approx(3.0)

    def test_one_without_doubt_is_given_before_a_narrower_one(
        self, canned: Canned, bench: Bench, subject: Specimen
    ) -> None:
        slower = told(timed(2.2), timed(9.0, width=0.001), others=True)
        canned([slower, told(timed(2.0), timed(3.0, width=0.02), others=True)])
        found = measured(subject, dataclasses.replace(bench, reference_ms=2.0))
        assert found["latency_raw_ms"].value == pytest.approx(3.0)
        assert found["latency_crowded"].value == 0.0

    def test_of_three_in_doubt_the_narrowest_is_given(self, canned: Canned, bench: Bench, subject: Specimen) -> None:
        contests = [(5.0, 0.06), (3.0, 0.04), (4.0, 0.05)]
        canned([told(timed(2.0), timed(ms, width=width), others=True) for ms, width in contests])
        found = measured(subject, bench)
        assert found["latency_raw_ms"].value == pytest.approx(3.0)
        assert "±4.0%" in found["latency_crowded"].how

    def test_a_pause_leaves_the_lane_to_others(
        self, canned: Canned, bench: Bench, subject: Specimen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(latency, "_PAUSE_S", 0.3)
        canned([told(timed(2.0), timed(2.0, width=0.05), others=True)] * 3)

        def enter() -> int:
            while not list((bench.baseline.parent / "canned").glob("request-*")):
                time.sleep(0.01)
            with Lane(bench.baseline.parent / "lane", patience_s=20.0).measuring() as alone:
                assert alone
                return len(list((bench.baseline.parent / "canned").glob("request-*")))

        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(enter)
            measured(subject, bench)
            assert 1 <= other.result() < 3


class TestTheQuiet:
    def test_a_baseline_slower_than_the_reference_beside_others_is_doubted(
        self, canned: Canned, bench: Bench, subject: Specimen
    ) -> None:
        canned([told(timed(2.2), timed(3.0), others=True)] * 3)
        found = measured(subject, dataclasses.replace(bench, reference_ms=2.0))
        assert found["latency_crowded"].value == 1.0
        assert found["latency_crowded"].how == "the baseline was slower by 10% than in the quiet"

    def test_without_others_a_slower_baseline_is_the_machines_own(
        self, canned: Canned, bench: Bench, subject: Specimen
    ) -> None:
        canned([told(timed(2.2), timed(3.0))])
        assert measured(subject, dataclasses.replace(bench, reference_ms=2.0))["latency_crowded"].value == 0.0

    def test_what_was_last_seen_in_the_quiet_counts(self, canned: Canned, bench: Bench, subject: Specimen) -> None:
        quiet, beside = told(timed(2.2), timed(3.0)), told(timed(2.2), timed(3.0), others=True)
        slower = told(timed(2.4), timed(3.0), others=True)
        canned([quiet, beside, *[slower] * 6, beside])
        place, evaluator = dataclasses.replace(bench, reference_ms=2.0), LatencyEvaluator()
        found = [measured(subject, place, evaluator)["latency_crowded"] for _ in range(5)]
        assert [each.value for each in found] == [0.0, 0.0, 1.0, 1.0, 0.0]
        assert found[2].how == "the baseline was slower by 9% than in the quiet"

    def test_each_baseline_has_its_own(self, canned: Canned, bench: Bench, subject: Specimen) -> None:
        canned([told(timed(2.0), timed(3.0)), told(timed(9.0), timed(3.0), others=True)])
        evaluator = LatencyEvaluator()
        measured(subject, bench, evaluator)
        other = dataclasses.replace(bench, baseline=Path("another"))
        assert measured(subject, other, evaluator)["latency_crowded"].value == 0.0
