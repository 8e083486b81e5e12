"""The GPU's benchmark, but for what only a GPU can tell: which parts run, bars, the table, and what it imports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import Part, Row, run, table, within

ROOT = Path(__file__).resolve().parents[2]


def good(quick: bool) -> Iterator[Row]:
    yield Row("good", "speed", "3 ms", "at most 4 ms", met=True)
    yield Row("good", "quick", str(quick))


def bad(quick: bool) -> Iterator[Row]:
    yield Row("bad", "loss", "nan", "finite", met=False)


def broken(quick: bool) -> Iterator[Row]:
    yield Row("broken", "before", "1")
    raise RuntimeError("CUDA error: an illegal memory access\nmore")


GOOD, BAD, BROKEN = Part("good", (), good), Part("bad", (), bad), Part("broken", (), broken)


def said(rows: list[Row]) -> list[tuple[str, str, bool | None]]:
    return [(row.part, row.what, row.met) for row in rows if row.what != "took"]


class TestParts:
    def test_what_lacks_a_package_is_left_out_and_says_which(self) -> None:
        lacking = Part("search", ("numpy", "ray", "optuna"), bad)
        rows = run([GOOD, lacking], quick=True, there=lambda name: name == "numpy")
        assert said(rows) == [("good", "speed", True), ("good", "quick", None), ("search", "left out", None)]
        assert rows[-1].value == "not installed: ray, optuna"
        assert rows[1].value == "True"

    def test_one_that_fails_misses_its_bar_and_the_others_go_on(self) -> None:
        rows = run([BROKEN, GOOD], quick=False)
        assert said(rows)[:3] == [("broken", "before", None), ("broken", "failed", False), ("good", "speed", True)]
        assert rows[1].value == "RuntimeError: CUDA error: an illegal memory access"

    def test_none_begins_too_late(self) -> None:
        clock = iter([0.0, 1.0, 2.0, 440.0, 460.0, 460.0])
        rows = run([GOOD, GOOD], quick=False, now=lambda: next(clock))
        assert said(rows)[-1] == ("good", "left out", False)
        assert rows[-1].value == "460 s are over"

    def test_those_that_need_nothing_come_first(self) -> None:
        parts = gpu.all_parts()
        assert [part.name for part in parts if not part.needs] == ["training", "latency", "memory", "sharing"]
        assert [part.name for part in parts][:4] == ["training", "latency", "memory", "sharing"]
        assert "torch_pruning" in parts[-1].needs

    def test_all_that_the_search_needs_is_installed_here(self) -> None:
        assert [name for name in gpu.all_parts()[-1].needs if not gpu.installed(name)] == []
        assert not gpu.installed("no_such_package")


@pytest.mark.parametrize(
    ("first", "second", "met"), [(2.0, 2.09, True), (2.0, 1.91, True), (2.0, 2.11, False), (0.0, 1.0, False)]
)
def test_two_numbers_agree_within_a_share(first: float, second: float, met: bool) -> None:
    assert within("a", "b", first, second, 0.05).met is met


def test_the_table_shows_what_was_missed() -> None:
    lines = table([Row("a", "long words", "1", "2", met=False), Row("b", "c", "3")]).split("\n")
    assert lines[0].split() == ["part", "what", "found", "bar"]
    assert lines[2].split() == ["a", "long", "words", "1", "2", "MISSED"]
    assert lines[3].split() == ["b", "c", "3"]
    assert lines[2].index("1") == lines[3].index("3")


class TestMain:
    @pytest.fixture(autouse=True)
    def _a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "absent", lambda: "")

    @pytest.mark.parametrize(
        ("words", "parts", "code", "words_of_it"),
        [
            ([], [GOOD], 0, "all bars are met"),
            ([], [GOOD, BAD], 1, "missed: bad: loss"),
            (["--no-bar"], [GOOD, BAD], 0, "missed: bad: loss"),
        ],
    )
    def test_a_bar_that_is_missed_is_told_and_fails(
        self, words: list[str], parts: list[Part], code: int, words_of_it: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert gpu.main(words, parts) == code
        assert words_of_it in capsys.readouterr().out

    def test_findings_are_written(self, tmp_path: Path) -> None:
        gpu.main(["--json", str(tmp_path / "found.json")], [GOOD])
        found = json.loads((tmp_path / "found.json").read_text())
        assert found[0] == {"part": "good", "what": "speed", "value": "3 ms", "bar": "at most 4 ms", "met": True}


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu, "absent", lambda: "no CUDA device")
    assert gpu.main([], [BAD]) == 2
    assert capsys.readouterr().out == "nothing was measured: no CUDA device\n"


# As on a machine with nothing but torch, numpy and what these need; trains, and times a network, with calls of the processor
# in the place of the device's.
ALONE = """
import sys, time
from importlib.metadata import packages_distributions
kept = {"torch", "numpy", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock", "fsspec", "typing_extensions",
        "torchgen", "functorch", "setuptools", "_distutils_hack", "pkg_resources", "packaging", "paretrim", "benchmarks"}
for name in packages_distributions():
    if name not in kept and not name.startswith("__"):
        sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
from benchmarks import gpu, gpu_model, gpu_parts
from paretrim.evaluators import torch_cuda
assert [gpu.installed(name) for name in ("pydantic", "ray", "onnx", "numpy")] == [False, False, False, True]
assert all(part.run for part in gpu.all_parts())
torch_cuda.mark, torch_cuda.seconds = time.perf_counter, lambda start, end: end - start
torch_cuda.captured = lambda compute: compute
small = gpu_model.resnet(4)
gpu_parts.resnet = lambda *_: small
losses, seconds = gpu_parts._trained(gpu_parts.chosen("cuda"), 256, 3, "32")
assert losses[-1] < losses[0] and seconds > 0, losses
(found,) = gpu_parts.timed([gpu_parts._session(4, 2, True)], 2, (2, 2))
assert found.latency_s > 0
print("fine")
"""


def test_with_torch_and_numpy_alone_it_trains_and_times() -> None:
    command = [sys.executable, "-c", ALONE, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "fine\n", done.stderr[-2000:]
