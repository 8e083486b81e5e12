"""Measuring processes whose answers a test decides, and targets that a process finds on its path."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.evaluator import Bench, Specimen
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.target import TargetAddress, TargetSettings
from paretrim.evaluators.testing import INPUT_SHAPE, ONNX, small_mlp, specimen

Replace = Callable[[str], None]
Answers = Sequence[Mapping[str, Any]]


@pytest.fixture(scope="session")
def small_onnx(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    """Give a small model for ONNX Runtime."""
    return specimen(ONNX, small_mlp(80), INPUT_SHAPE, tmp_path_factory.mktemp("small-onnx"))


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Replace:
    """Give a function that puts a shell script in the place of the measuring process."""

    def replaced(script: str) -> None:
        path = tmp_path / "probe"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return replaced


@pytest.fixture
def canned(replace: Replace, tmp_path: Path) -> Callable[[Answers], Callable[[], list[Any]]]:
    """Give a function that lets measuring processes answer, one after the other, what it is given.

    It returns one that tells the requests which they got.
    """
    folder = tmp_path / "canned"

    def prepared(answers: Answers) -> Callable[[], list[Any]]:
        folder.mkdir()
        for number, answer in enumerate(answers):
            (folder / f"answer-{number}").write_text(json.dumps(answer))
        replace(f'cd {folder}; n=$(ls | grep -c request); cat > "request-$n"; cat "answer-$n"')

        def requests() -> list[Any]:
            files = sorted(folder.glob("request-*"), key=lambda path: int(path.name.rpartition("-")[2]))
            return [json.loads(file.read_text()) for file in files]

        return requests

    return prepared


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Give a bench of files that do not exist, for processes whose answers are given."""
    address = TargetAddress("anything:Target", TargetSettings("anything"))
    return Bench(
        address,
        baseline=tmp_path / "baseline",
        empty=tmp_path / "empty",
        inputs=tmp_path / "inputs.npz",
        lane=Lane(tmp_path / "lane", patience_s=0.1),
        cores=(3,),
        throughput_batches=(1, 16),
    )


@pytest.fixture
def subject(tmp_path: Path) -> Specimen:
    """Give a specimen of files that do not exist."""
    return Specimen(Artifact(tmp_path / "packed", "0", 1, "0", 1), tmp_path / "model")


@pytest.fixture(scope="module")
def helpers() -> Iterator[None]:
    """Let processes import the targets of `helper_targets` by that name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield
