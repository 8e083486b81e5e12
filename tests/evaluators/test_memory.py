"""What the memory evaluator makes of the answers of its processes, and of real ones."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paretrim.evaluators import memory
from paretrim.evaluators.evaluator import Bench, Specimen
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.memory import MemoryEvaluator
from paretrim.evaluators.target import TargetAddress, TargetSettings
from paretrim.evaluators.testing import random_inputs

Answers = Sequence[Mapping[str, Any]]
Canned = Callable[[Answers], Callable[[], list[Any]]]
MB = 1e6


def peaks(*resident: float, device: tuple[int, int] | None = None) -> list[dict[str, Any]]:
    """Return what processes with such peaks answer."""
    account = "peak on the device"
    return [{"peak_bytes": value, "device": device, "account": account} for value in resident]


def measured(evaluator: MemoryEvaluator, subject: Specimen, bench: Bench) -> dict[str, Measurement]:
    return {each.name: each for each in evaluator.measure(subject, bench)}


class TestAnswers:
    def test_a_small_model_is_served_by_two_processes_and_so_is_the_empty_one(
        self, canned: Canned, bench: Bench, subject: Specimen
    ) -> None:
        requests = canned(peaks(5 * MB, 4 * MB, 1 * MB, 1.5 * MB))
        (found,) = MemoryEvaluator().measure(subject, bench)
        assert found.name == "memory_bytes"
        assert (found.value, found.low, found.high) == (3.5 * MB, 2.5 * MB, 3.5 * MB)
        assert found.how == "largest peak of 2 processes, above one with an empty model"
        assert [request["model"] for request in requests()] == [str(subject.model)] * 2 + [str(bench.empty)] * 2
        assert all(request["cores"] == [3] for request in requests())

    def test_a_larger_one_is_served_by_six_of_which_the_most_counts(
        self, canned: Canned, bench: Bench, subject: Specimen
    ) -> None:
        canned(peaks(*(x * MB for x in (58, 58, 62, 58, 61, 58)), 1 * MB, 1 * MB))
        found = measured(MemoryEvaluator(), subject, bench)["memory_bytes"]
        assert (found.value, found.low, found.high) == (61 * MB, 57 * MB, 61 * MB)
        assert "of 6 processes" in found.how

    def test_where_processes_take_long_two_must_do(
        self, canned: Canned, bench: Bench, subject: Specimen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(memory, "_BUDGET_S", 0.0)
        canned(peaks(58 * MB, 62 * MB, 1 * MB, 1 * MB))
        assert "of 2 processes" in measured(MemoryEvaluator(), subject, bench)["memory_bytes"].how

    def test_a_preview_takes_one_process_beside_the_empty_ones(
        self, canned: Canned, bench: Bench, subject: Specimen
    ) -> None:
        requests = canned(peaks(*(x * MB for x in (58, 1, 1.5, 1, 0.5))))
        evaluator = MemoryEvaluator()
        (first,) = evaluator.preview(subject, bench)
        (second,) = evaluator.preview(subject, bench)
        assert (first.name, first.value, second.value) == ("memory_bytes", 56.5 * MB, 0.0)
        assert [Path(request["model"]).name for request in requests()].count("empty") == 2

    def test_the_empty_model_is_measured_once(self, canned: Canned, bench: Bench, subject: Specimen) -> None:
        requests = canned(peaks(*(x * MB for x in (5, 5, 1, 1, 4, 4, 3, 3, 2, 2))))
        evaluator = MemoryEvaluator()
        values = [measured(evaluator, subject, bench)["memory_bytes"].value for _ in range(2)]
        another = dataclasses.replace(bench, empty=Path("another"))
        values.append(measured(evaluator, subject, another)["memory_bytes"].value)
        assert values == [4 * MB, 3 * MB, 1 * MB]
        assert [Path(request["model"]).name for request in requests()].count("empty") == 2

    @pytest.mark.parametrize("yielding", [True, False])
    def test_its_processes_wait_for_a_latency_that_is_taken_on_their_cores(
        self, canned: Canned, bench: Bench, subject: Specimen, yielding: bool
    ) -> None:
        requests, folder = canned(peaks(5 * MB, 5 * MB, 1 * MB, 1 * MB)), bench.baseline.parent / "lane"
        place = dataclasses.replace(bench, lane=Lane(folder, yielding=yielding))
        with ThreadPoolExecutor(1) as pool:
            with Lane(folder).measuring():
                other = pool.submit(MemoryEvaluator().measure, subject, place)
                time.sleep(0.2)
                assert requests() == []
            assert other.result()[0].value == 4 * MB

    def test_less_than_the_empty_model_is_nothing(self, canned: Canned, bench: Bench, subject: Specimen) -> None:
        canned(peaks(1 * MB, 3 * MB, 2 * MB, 2 * MB))
        found = measured(MemoryEvaluator(), subject, bench)["memory_bytes"]
        assert (found.value, found.low) == (1 * MB, 0.0)

    def test_peaks_on_a_device_are_given_beside(self, canned: Canned, bench: Bench, subject: Specimen) -> None:
        ours = [*peaks(5 * MB, device=(100, 300)), *peaks(5 * MB, device=(200, 200))]
        canned([*ours, *peaks(1 * MB, 1 * MB, device=(0, 0))])
        found = measured(MemoryEvaluator(), subject, bench)
        assert found["device_memory_allocated_bytes"].value == 200
        assert found["device_memory_reserved_bytes"].value == 300
        assert found["device_memory_reserved_bytes"].how == "peak on the device"

    def test_memory_of_a_device_is_taken_while_nothing_trains_there(
        self, canned: Canned, bench: Bench, subject: Specimen
    ) -> None:
        ours, empty = peaks(5 * MB, 5 * MB, device=(100, 300)), peaks(1 * MB, 1 * MB, device=(0, 0))
        requests, folder = canned([*ours, *empty]), bench.baseline.parent / "lane"
        lane = Lane(folder).measuring_on(["a"])
        place = dataclasses.replace(bench, lane=lane, on_device=True)
        with ThreadPoolExecutor(1) as pool:
            with Lane(folder, yielding=False, gpus=["a"]).working():
                other = pool.submit(MemoryEvaluator().measure, subject, place)
                time.sleep(0.2)
                assert requests() == []
            assert other.result()[0].value == 4 * MB


@pytest.mark.usefixtures("helpers")
class TestProcesses:
    def test_so_much_as_a_model_takes_is_found_in_as_many_processes_as_told(
        self, bench: Bench, subject: Specimen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The real interpreter, and a note of each process that is started.
        counted = tmp_path / "counted"
        counted.write_text(f'#!/bin/sh\necho started >> {tmp_path}/log\nexec {sys.executable} "$@"\n')
        counted.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(counted))
        np.savez(bench.inputs, random_inputs(2)[:, None])
        target = TargetAddress("helper_targets:Hungry", TargetSettings("helper"))
        place = dataclasses.replace(bench, address=target, empty=Path("0"), cores=())
        evaluator, values, processes = MemoryEvaluator(), [], []
        for need in (4_000_000, 40_000_000):
            model = dataclasses.replace(subject, model=Path(str(need)))
            values.append(measured(evaluator, model, place)["memory_bytes"].value)
            processes.append((tmp_path / "log").read_text().count("started"))
        assert values == pytest.approx([4e6, 40e6], abs=1e6)
        assert processes == [2 + 2, 2 + 2 + 6]
