"""What a machine says of itself."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from paretrim.evaluators import machine

INTEL = """\
processor\t: 0
model name\t: Some Processor @ 2.60GHz
flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8
power management:

processor\t: 1
model name\t: Another Processor
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd0c\n\nprocessor\t: 1\n"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a folder, empty at first, in the place of the files that the system tells of itself in."""
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "_CORES", tmp_path)
    return tmp_path


def test_this_machine_tells_its_name_and_processor() -> None:
    found = machine.describe()
    assert found["host"] == platform.node()
    assert found["system"].startswith(platform.system())
    assert found["cpu"]
    assert int(found["cpu_cores"]) > 0
    assert all(found.values())


def test_the_first_processor_is_described_with_the_instruction_sets_that_matter(system: Path) -> None:
    (system / "cpuinfo").write_text(INTEL)
    found = machine.describe()
    assert found["cpu"] == "Some Processor @ 2.60GHz"
    assert found["cpu_sets"] == "avx2 avx512f avx512_vnni amx_int8"


def test_an_arm_processor_names_its_sets_otherwise(system: Path) -> None:
    (system / "cpuinfo").write_text(ARM)
    found = machine.describe()
    assert found["cpu_sets"] == "asimddp"
    assert found["cpu"] == (platform.processor() or platform.machine())


def test_the_governor_is_that_of_the_core_that_measures(system: Path) -> None:
    for core, governor in enumerate(("powersave", "performance")):
        (system / f"cpu{core}" / "cpufreq").mkdir(parents=True)
        (system / f"cpu{core}" / "cpufreq" / "scaling_governor").write_text(f"{governor}\n")
    assert machine.describe()["governor"] == "powersave"
    assert machine.describe(core=1)["governor"] == "performance"
    assert "governor" not in machine.describe(core=2)


def test_what_the_system_does_not_tell_is_left_out(system: Path) -> None:
    assert set(machine.describe()) <= {"host", "cpu", "cpu_cores", "system"}
    assert {"host", "cpu"} <= set(machine.describe())


@pytest.mark.parametrize(
    ("flags", "emulated"),
    [
        ("flags: fpu avx2 avx512f", {"bf16", "fp16"}),
        ("flags: fpu avx2 avx512f avx512_bf16 avx512_fp16", {"fp16"}),
        ("flags: fpu avx2 amx_bf16", {"fp16"}),
        ("Features: fp asimd", {"bf16", "fp16"}),
        ("Features: fp asimd asimdhp bf16", set()),
        ("nothing is told", set()),
    ],
)
def test_a_processor_emulates_the_halves_for_which_it_has_no_instructions(
    system: Path, flags: str, emulated: set[str]
) -> None:
    (system / "cpuinfo").write_text(flags)
    assert {precision for precision in ("32", "bf16", "fp16") if machine.emulates(precision)} == emulated
