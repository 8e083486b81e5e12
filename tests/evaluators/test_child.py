"""A measuring process that dies, hangs or answers nonsense, for real."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paretrim.errors import MeasurementError
from paretrim.evaluators.child import ask
from paretrim.evaluators.target import TargetAddress, TargetSettings
from paretrim.evaluators.testing import ONNX, FakeTarget, random_inputs, small_mlp, specimen

FAKE = TargetAddress(f"{FakeTarget.__module__}:{FakeTarget.__name__}", TargetSettings("fake"))
Replace = Callable[[str], None]


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Replace:
    """Give a function that puts a shell script in the place of the measuring process."""

    def replaced(script: str) -> None:
        path = tmp_path / "probe"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return replaced


class TestFailures:
    @pytest.mark.parametrize(
        ("script", "cause"),
        [
            ("kill -SEGV $$", "the process was killed by SIGSEGV"),
            ("kill -KILL $$", "the process was killed by SIGKILL"),
            ("kill -35 $$", "the process was killed by"),
            ("echo first >&2; echo 'out of luck' >&2; echo >&2; exit 3", "the process ended with code 3: out of luck"),
            ("exit 1", "the process ended with code 1$"),
            ("exit 0", "the answer is not JSON: ''"),
            ("echo hello", r"the answer is not JSON: 'hello\\n'"),
            ("echo 3", "the answer is"),
            ("echo '[]'", "the answer is"),
            (r"printf '\377'", "the answer is"),
        ],
        ids=["segv", "kill", "real-time signal", "code", "silent code", "silence", "words", "number", "list", "bytes"],
    )
    def test_the_cause_is_said(self, replace: Replace, script: str, cause: str) -> None:
        replace(script)
        with pytest.raises(MeasurementError, match=f"measuring latency: {cause}"):
            ask("latency", {})

    def test_a_process_that_hangs_is_stopped(self, replace: Replace, tmp_path: Path) -> None:
        replace(f"echo $$ > {tmp_path}/pid; exec sleep 60")
        started = time.monotonic()
        with pytest.raises(MeasurementError, match="measuring memory took more than 1 s and was stopped"):
            ask("memory", {}, limit_s=1.0)
        assert time.monotonic() - started < 20
        assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()

    def test_a_process_that_does_not_read_its_request_is_no_obstacle(self, replace: Replace) -> None:
        replace("echo '{\"peak_bytes\": 1}'")
        assert ask("memory", {"model": "x" * 1_000_000}) == {"peak_bytes": 1}


class TestRealProbe:
    @pytest.mark.parametrize("question", ["latency", "memory"])
    def test_a_broken_model_file_is_named_as_the_cause(self, question: str, tmp_path: Path) -> None:
        model, inputs = tmp_path / "model.onnx", tmp_path / "inputs.npy"
        model.write_bytes(b"this is no model")
        np.save(inputs, random_inputs(2)[:, None])
        request = {"target": ONNX.to_plain(), "model": str(model), "baseline": str(model), "inputs": str(inputs)}
        with pytest.raises(MeasurementError, match=r"ended with code 1: .*does not load the artifact"):
            ask(question, request)

    def test_a_missing_file_is_named_as_the_cause(self, tmp_path: Path) -> None:
        request = {"target": ONNX.to_plain(), "model": "", "inputs": str(tmp_path / "inputs.npy")}
        with pytest.raises(MeasurementError, match=r"FileNotFoundError: .*inputs\.npy"):
            ask("memory", request)

    def test_an_unknown_question_is_an_error(self) -> None:
        with pytest.raises(MeasurementError, match="KeyError: 'weight'"):
            ask("weight", {})

    def test_the_folder_of_the_user_cannot_shadow_modules(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subject = specimen(FAKE, small_mlp(), (6,), tmp_path)
        np.save(tmp_path / "inputs.npy", random_inputs(2)[:, None])
        (tmp_path / "json.py").write_text("raise RuntimeError('the wrong json')")
        monkeypatch.chdir(tmp_path)
        request = {"target": FAKE.to_plain(), "model": str(subject.model), "inputs": str(tmp_path / "inputs.npy")}
        assert ask("memory", request)["peak_bytes"] > 0
