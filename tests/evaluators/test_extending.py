"""The evaluator and the technique of docs/extending.md, as its reader would use them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from paretrim.evaluators.evaluator import Evaluator
from paretrim.evaluators.testing import EvaluatorContract
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.technique import Technique
from paretrim.spaces.testing import TechniqueContract, small_batch, small_net, small_schooling

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def run(block: int) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(blocks("python")[block], names)
    return names


class TestTheExample(EvaluatorContract):
    @pytest.fixture
    def evaluator(self) -> Evaluator:
        made: Evaluator = run(0)["NodesEvaluator"]()
        return made

    def test_it_takes_no_more_than_30_lines(self) -> None:
        assert len(blocks("python")[0].splitlines()) <= 30


class TestTheTechnique(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        kind: type[Technique] = run(1)["Clipping"]
        return kind(kind.Options())

    def test_it_takes_little_more_than_30_lines(self) -> None:
        assert len(blocks("python")[1].splitlines()) <= 35

    def test_its_second_knob_hangs_on_the_first(self, technique: Technique) -> None:
        share, within = technique.dimensions(dissect(small_net(), small_batch(2)[0]))
        assert [condition.name for condition in within.when] == [share.name]

    @pytest.mark.parametrize("within", ["channel", "layer"])
    def test_it_clips_the_wanted_share(self, technique: Technique, within: str) -> None:
        model, anatomy = small_net(), dissect(small_net(), small_batch(2)[0])
        before = model.conv1.weight.detach().abs()
        recipe = Recipe.of({"clipping.share": 0.25, "clipping.within": within})
        technique.reshape(model, recipe, anatomy, small_schooling())
        after = model.conv1.weight.detach().abs()
        clipped = after < before
        assert clipped.float().mean() == pytest.approx(0.25, abs=0.01)
        channels = clipped.flatten(1).sum(dim=1)
        assert bool((channels == channels[0]).all()) == (within == "channel")
        assert torch.equal(after[~clipped], before[~clipped])


def test_they_are_found_through_their_entry_points(tmp_path: Path) -> None:
    (tmp_path / "my_package.py").write_text("\n\n".join(blocks("python")[:2]))
    about = tmp_path / "my_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    # pyproject.toml's tables, as an installer writes them down.
    written = re.sub(r'\[project\.entry-points\."(.*?)"\]', r"[\1]", blocks("toml")[0])
    (about / "entry_points.txt").write_text(written.replace('"', ""))
    code = (
        "from paretrim.evaluators import evaluator; print(evaluator.installed()['nodes'].metrics)\n"
        "from paretrim.search.job import Job\n"
        "job = Job(model='m:model', data='m:data', space={'clipping': {'most': 0.01}})\n"
        "print(job.techniques['clipping'].most)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["('nodes',)", "0.01"]
