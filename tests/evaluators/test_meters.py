"""Energy meters in a folder that looks like Linux's powercap."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretrim.evaluators.meters import Meter, joules, looked_for, readable

RANGE_J = 262_143.328850
Zone = Callable[..., Path]


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    folder = tmp_path / "powercap"
    (folder / "intel-rapl").mkdir(parents=True)
    return folder


@pytest.fixture
def zone(powercap: Path) -> Zone:
    """Give a function that makes a zone, and returns its counter."""

    def made(name: str, what: str, microjoules: int | str, wraps_at: int | None = round(RANGE_J * 1e6)) -> Path:
        folder = powercap / name
        folder.mkdir()
        (folder / "name").write_text(f"{what}\n")
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        if wraps_at is not None:
            (folder / "max_energy_range_uj").write_text(f"{wraps_at}\n")
        return folder / "energy_uj"

    return made


def packages(powercap: Path) -> list[Meter]:
    """Return the meters of processors; this machine may have a GPU."""
    return [meter for meter in readable(powercap) if meter.name.startswith("RAPL")]


def unprivileged(powercap: Path, code: str) -> str:
    """Return what code prints in a process that is nobody's, if this one is root's, within the folder."""
    become = "import os; os.getuid() or os.setuid(65534); from pathlib import Path; here = Path()"
    imports = "from paretrim.evaluators.meters import looked_for, readable"
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}; {become}; {code}"],
        cwd=powercap,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class TestPackages:
    def test_each_package_is_a_meter_and_its_parts_are_none(self, powercap: Path, zone: Zone) -> None:
        zone("intel-rapl:0", "package-0", 5_000_000)
        zone("intel-rapl:0:0", "core", 4_000_000)
        zone("intel-rapl:1", "package-1", 7_500_000)
        zone("intel-rapl:1:0", "core", 1)
        zone("intel-rapl-mmio:0", "package-0", 5_000_001)
        found = packages(powercap)
        assert [meter.name for meter in found] == ["RAPL intel-rapl:0", "RAPL intel-rapl:1"]
        assert [meter.read() for meter in found] == [5.0, 7.5]
        assert all(meter.wraps_at == pytest.approx(RANGE_J) for meter in found)

    def test_the_counter_of_the_whole_machine_is_not_added_to_its_packages(self, powercap: Path, zone: Zone) -> None:
        zone("intel-rapl:0", "package-0", 5_000_000)
        zone("intel-rapl:1", "psys", 50_000_000)
        assert [meter.name for meter in packages(powercap)] == ["RAPL intel-rapl:0"]

    def test_joules_of_all_packages_are_added(self, powercap: Path, zone: Zone) -> None:
        counters = [zone(f"intel-rapl:{i}", f"package-{i}", 1_000_000) for i in range(2)]
        found = packages(powercap)
        before = [meter.read() for meter in found]
        counters[0].write_text("3000000\n")
        counters[1].write_text("1500000\n")
        assert joules(found, before) == pytest.approx(2.5)

    def test_a_counter_that_began_anew_is_understood(self, powercap: Path, zone: Zone) -> None:
        counter = zone("intel-rapl:0", "package-0", round(RANGE_J * 1e6) - 1_000_000)
        found = packages(powercap)
        before = [meter.read() for meter in found]
        counter.write_text("2000000\n")
        assert joules(found, before) == pytest.approx(3.0)

    @pytest.mark.parametrize(("microjoules", "wraps_at"), [("", 1), ("none", 1), (5, None)])
    def test_a_package_that_tells_no_number_is_no_meter(
        self, powercap: Path, zone: Zone, microjoules: int | str, wraps_at: int | None
    ) -> None:
        zone("intel-rapl:0", "package-0", microjoules, wraps_at)
        zone("intel-rapl:1", "package-1", 7_500_000)
        assert [meter.name for meter in packages(powercap)] == ["RAPL intel-rapl:1"]


class TestLookedFor:
    def test_where_there_is_no_counter_the_folder_is_named(self, powercap: Path) -> None:
        assert packages(powercap) == []
        assert f"no processor energy counter under {powercap}" in looked_for(powercap)

    def test_a_folder_that_does_not_exist_is_no_error(self, tmp_path: Path) -> None:
        assert packages(tmp_path / "nowhere") == []
        assert str(tmp_path / "nowhere") in looked_for(tmp_path / "nowhere")

    def test_a_counter_for_root_only_is_named(self, powercap: Path, zone: Zone) -> None:
        zone("intel-rapl:0", "package-0", 5_000_000)
        locked = zone("intel-rapl:1", "package-1", 7_500_000)
        powercap.chmod(0o755)
        locked.chmod(0o000 if os.getuid() else 0o400)
        told = unprivileged(powercap, "print(looked_for(here)); print([m.name for m in readable(here)])")
        reason, names = told.splitlines()
        assert reason == "the processor's energy counter intel-rapl:1/energy_uj may be read by root only"
        assert "RAPL intel-rapl:0" in names
        assert "RAPL intel-rapl:1" not in names


@given(st.integers(1, 1 << 40).flatmap(lambda turn: st.tuples(st.just(turn), *[st.integers(0, turn - 1)] * 2)))
def test_less_than_a_turn_of_a_counter_is_told_as_it_was(counted: tuple[int, int, int]) -> None:
    turn, start, used = counted
    meter = Meter("a meter", lambda: float((start + used) % turn), float(turn))
    assert meter.since(float(start)) == used
