"""Energy of a call, by counters that the test's own target moves, and by those of this machine where it has any."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paretrim.evaluators import evaluator as evaluators
from paretrim.evaluators import meters
from paretrim.evaluators.energy import EnergyEvaluator
from paretrim.evaluators.evaluator import Bench, Specimen
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.target import TargetAddress, TargetSettings
from paretrim.evaluators.testing import random_inputs

Answers = Sequence[Mapping[str, Any]]
Canned = Callable[[Answers], Callable[[], list[Any]]]


def told(joules: float) -> dict[str, Any]:
    """Return the answer of a measuring process."""
    return {"meters": "RAPL intel-rapl:0", "joules_per_call": joules, "idle_watts": 12.345, "calls": 321}


@pytest.mark.usefixtures("helpers")
def test_what_a_call_uses_above_the_idle_machine_is_found(
    bench: Bench, subject: Specimen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for zone in ("intel-rapl:0", "intel-rapl:1"):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "max_energy_range_uj").write_text("3000000\n")
    monkeypatch.setenv("COUNTERS", str(tmp_path))
    np.savez(bench.inputs, random_inputs(2)[:, None])
    target = TargetAddress("helper_targets:Metered", TargetSettings("helper"))
    (found,) = EnergyEvaluator().measure(subject, dataclasses.replace(bench, address=target, cores=()))
    assert found.name == "energy_millijoules"
    assert found.value == pytest.approx(5.0, rel=0.2)
    assert found.how.startswith("RAPL intel-rapl:0, RAPL intel-rapl:1")
    watts = float(found.how.partition("less ")[2].partition(" W")[0])
    assert watts == pytest.approx(2.0, rel=0.2)


def test_it_is_told_in_millijoules_with_what_it_is_of(canned: Canned, bench: Bench, subject: Specimen) -> None:
    requests = canned([told(0.0042)])
    (found,) = EnergyEvaluator().measure(subject, bench)
    assert found.value == pytest.approx(4.2)
    assert found.how.startswith("RAPL intel-rapl:0 over 321 calls, less 12.3 W of the idle machine")
    assert requests()[0]["model"] == str(subject.model)


def test_less_than_the_idle_machine_is_nothing(canned: Canned, bench: Bench, subject: Specimen) -> None:
    canned([told(-0.001)])
    assert EnergyEvaluator().measure(subject, bench)[0].value == 0.0


def test_nothing_else_is_measured_meanwhile(canned: Canned, bench: Bench, subject: Specimen, tmp_path: Path) -> None:
    requests, folder = canned([told(1.0)]), tmp_path / "lane"
    patient = dataclasses.replace(bench, lane=Lane(folder, patience_s=20.0))
    with ThreadPoolExecutor(1) as pool:
        with Lane(folder).measuring():
            other = pool.submit(EnergyEvaluator().measure, subject, patient)
            time.sleep(0.2)
            assert requests() == []
        assert other.result()[0].value == 1000.0


def test_it_is_absent_exactly_where_no_meter_can_be_read() -> None:
    evaluator = evaluators.installed()["energy"]
    assert isinstance(evaluator, EnergyEvaluator)
    assert (evaluators.why_absent(evaluator) == "") == bool(meters.readable())


@pytest.mark.skipif(not meters.readable(), reason=meters.looked_for())
def test_the_meters_of_this_machine_count() -> None:
    found = meters.readable()
    before = [meter.read() for meter in found]
    while meters.joules(found, before) == 0.0:
        np.ones(1_000_000).sum()
    assert meters.joules(found, before) > 0.0
