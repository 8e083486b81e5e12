"""Cores are shared out between training and measuring: whole physical ones, and only where there are enough."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretrim.evaluators import cores
from paretrim.evaluators.cores import Plan, plan

Twins = Callable[[int], frozenset[int]]


def single(core: int) -> frozenset[int]:
    """Each logical core is a physical one."""
    return frozenset({core})


def paired(core: int) -> frozenset[int]:
    """Cores 0 and 1 are one, 2 and 3, and so on: how virtual machines number them."""
    return frozenset({core, core ^ 1})


def halved(of: int) -> Twins:
    """Return how most machines number them: the second half are the twins of the first."""
    return lambda core: frozenset({core, (core + of // 2) % of})


class TestPlan:
    @pytest.mark.parametrize(
        ("count", "workers", "threads", "twins", "expected"),
        [
            (1, 1, 1, single, Plan((0,), (0,), spare=False)),
            (2, 1, 1, single, Plan((1,), (0, 1), spare=False)),
            (2, 2, 1, single, Plan((1,), (0, 1), spare=False)),
            (2, 1, 1, paired, Plan((1,), (0, 1), spare=False)),
            (4, 2, 1, paired, Plan((3,), (0, 1, 2, 3), spare=False)),
            (4, 2, 1, halved(4), Plan((3,), (0, 1, 2, 3), spare=False)),
            (8, 3, 1, halved(8), Plan((7,), (0, 1, 2, 4, 5, 6), spare=True)),
            (4, 3, 1, single, Plan((3,), (0, 1, 2), spare=True)),
            (4, 4, 1, single, Plan((3,), (0, 1, 2, 3), spare=False)),
            (4, 1, 8, single, Plan((0, 1, 2, 3), (0, 1, 2, 3), spare=False)),
            (16, 4, 2, halved(16), Plan((14, 15), (0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13), spare=True)),
            (16, 13, 2, halved(16), Plan((14, 15), tuple(range(16)), spare=False)),
            (16, 12, 4, single, Plan((12, 13, 14, 15), tuple(range(12)), spare=True)),
        ],
    )
    def test_on_machines_of_1_2_4_and_16_cores(
        self, count: int, workers: int, threads: int, twins: Twins, expected: Plan
    ) -> None:
        assert plan(range(count), workers, threads, twins) == expected

    def test_without_any_cores_nothing_is_set_aside(self) -> None:
        assert plan((), 1, 1, single) == Plan((), (), spare=False)

    @given(
        st.sets(st.integers(0, 31), min_size=1).map(sorted),
        st.integers(1, 8),
        st.integers(1, 8),
        st.sampled_from([single, paired, halved(32)]),
    )
    def test_measuring_and_training_are_apart_exactly_when_there_are_spare_cores(
        self, usable: list[int], workers: int, threads: int, twins: Twins
    ) -> None:
        found = plan(usable, workers, threads, twins)
        assert set(found.measuring).isdisjoint(found.training) == found.spare
        assert set(found.measuring) | set(found.training) <= set(usable)
        assert len(found.measuring) == min(threads, len(usable))
        used = set(found.training).union(*(twins(core) for core in found.measuring))
        assert used >= set(usable), "a core neither trains nor lies on a physical core that measures"

    @given(
        st.sets(st.integers(0, 31), min_size=1).map(sorted),
        st.integers(1, 8),
        st.integers(1, 8),
        st.sampled_from([single, paired, halved(32)]),
    )
    def test_what_is_set_aside_is_whole_and_leaves_each_worker_a_core(
        self, usable: list[int], workers: int, threads: int, twins: Twins
    ) -> None:
        found = plan(usable, workers, threads, twins)
        if found.spare:
            assert len(found.training) >= workers
            assert all(twins(core).isdisjoint(found.training) for core in found.measuring)
        else:
            assert found.training == tuple(usable)


class TestTopology:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [("3", {3}), ("3,11", {3, 11}), ("2-3", {2, 3}), ("0-1,3,8-9", {0, 1, 3, 8, 9}), ("", {3}), ("many", {3})],
    )
    def test_the_system_tells_siblings_in_ranges(
        self, text: str, expected: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "cpu3" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(text + "\n")
        monkeypatch.setattr(cores, "_TOPOLOGY", tmp_path)
        assert cores.siblings(3) == expected

    def test_a_core_that_the_system_does_not_tell_of_is_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cores, "_TOPOLOGY", tmp_path)
        assert cores.siblings(5) == {5}

    def test_on_this_machine_siblings_are_each_others(self) -> None:
        for core in cores.usable():
            assert core in cores.siblings(core)
            assert all(cores.siblings(twin) == cores.siblings(core) for twin in cores.siblings(core))


def test_where_the_system_binds_no_process_to_cores_none_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores.usable() == cores.last(1) == ()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not bind processes to cores")
class TestUsable:
    def test_a_process_that_is_bound_to_a_core_may_use_that_one_only(self) -> None:
        core = cores.usable()[0]
        code = f"import os; os.sched_setaffinity(0, [{core}]); from paretrim.evaluators import cores; "
        code += "print(cores.usable(), cores.last(1), cores.last(4))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == f"({core},) ({core},) ({core},)"

    def test_a_model_is_measured_on_the_last_cores(self) -> None:
        assert cores.usable() == tuple(sorted(os.sched_getaffinity(0)))
        assert cores.last(1) == cores.usable()[-1:]
        assert cores.last(10_000) == cores.usable()
