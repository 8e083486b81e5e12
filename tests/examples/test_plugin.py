"""The example package of a technique, a target, an evaluator and a sampler: installed, tested, and searched with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).resolve().parents[2] / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the package into a folder of its own, and return an environment in which it is found."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(folder),
    ]
    subprocess.run([*command, str(PLUGIN)], check=True, timeout=120)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def run(installed: dict[str, str], *words: str, cwd: Path) -> str:
    done = subprocess.run(words, env=installed, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


CONTRACTS = """
import pytest
from paretrim.evaluators.target import TargetAddress, TargetSettings
from paretrim.evaluators.testing import EvaluatorContract, TargetContract
from paretrim.spaces.testing import TechniqueContract
from paretrim_plugin.clipping import Clipping, ClippingOptions
from paretrim_plugin.nodes import NodesEvaluator


class TestClipping(TechniqueContract):
    @pytest.fixture
    def technique(self):
        return Clipping(ClippingOptions())


class TestNodes(EvaluatorContract):
    @pytest.fixture
    def evaluator(self):
        return NodesEvaluator()


class TestPlain(TargetContract):
    @pytest.fixture
    def address(self):
        return TargetAddress("paretrim_plugin.plain_target:OnnxRuntimePlain", TargetSettings("onnxruntime-plain"))
"""


@pytest.mark.slow
def test_its_parts_keep_to_the_contracts(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "test_contracts.py").write_text(CONTRACTS)
    out = run(installed, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_contracts.py", cwd=tmp_path)
    assert " passed" in out


def test_a_job_is_told_of_its_parts_where_it_is_not_installed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "paretrim", "space", str(PLUGIN / "job.yaml")],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "unknown runtime 'onnxruntime-plain'" in done.stderr
    assert "clipping" in done.stderr


@pytest.mark.slow
def test_a_search_with_all_four_ends_with_a_front(installed: dict[str, str], tmp_path: Path) -> None:
    run(
        installed,
        sys.executable,
        "-m",
        "paretrim",
        "search",
        str(PLUGIN / "job.yaml"),
        "--store",
        "store",
        cwd=tmp_path,
    )
    out = run(installed, sys.executable, "-m", "paretrim", "front", "--json", "--store", "store", cwd=tmp_path)
    document: dict[str, Any] = json.loads(out)
    assert document["front"]
    rows = [document["baseline"], *document["front"]]
    assert all(row["metrics"]["nodes"] >= 5 for row in rows)
    searched = [row for row in rows if "clipping.share" in row["recipe"]]
    assert searched
    assert all(0.0 <= row["recipe"]["clipping.share"] <= 0.01 for row in searched)
