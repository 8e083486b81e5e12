"""The evaluator of docs/extending.md, as its reader would use it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from paretrim.evaluators.evaluator import Evaluator
from paretrim.evaluators.testing import EvaluatorContract

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


class TestTheExample(EvaluatorContract):
    @pytest.fixture
    def evaluator(self) -> Evaluator:
        names: dict[str, type[Evaluator]] = {}
        exec(blocks("python")[0], names)
        return names["NodesEvaluator"]()

    def test_it_takes_no_more_than_30_lines(self) -> None:
        assert len(blocks("python")[0].splitlines()) <= 30


def test_it_is_found_through_its_entry_point(tmp_path: Path) -> None:
    (tmp_path / "my_package.py").write_text(blocks("python")[0])
    about = tmp_path / "my_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    # pyproject.toml's table, as an installer writes it down.
    written = blocks("toml")[0].replace('[project.entry-points."paretrim.evaluators"]', "[paretrim.evaluators]")
    (about / "entry_points.txt").write_text(written.replace('"', ""))
    code = "from paretrim.evaluators import evaluator as e; print(e.installed()['nodes'].metrics)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "('nodes',)"
