"""A measuring process that dies, hangs or answers nonsense, for real."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paretrim.errors import MeasurementError
from paretrim.evaluators import cores
from paretrim.evaluators.child import ask
from paretrim.evaluators.fakes import FakeTarget
from paretrim.evaluators.target import TargetAddress, TargetSettings
from paretrim.evaluators.testing import ONNX, random_inputs, small_mlp, specimen

FAKE = TargetAddress(f"{FakeTarget.__module__}:{FakeTarget.__name__}", TargetSettings("fake"))
Replace = Callable[[str], None]
PROMISED = {
    "latency": {"models", "crowd", "others_present", "throughput"},
    "memory": {"peak_bytes", "device", "account"},
}


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
    @pytest.mark.parametrize("question", ["latency", "memory", "weigh", "energy"])
    def test_a_broken_model_file_is_named_as_the_cause(self, question: str, tmp_path: Path) -> None:
        model, inputs = tmp_path / "model.onnx", tmp_path / "inputs.npz"
        model.write_bytes(b"this is no model")
        np.savez(inputs, random_inputs(2)[:, None])
        request = {"target": ONNX.to_plain(), "model": str(model), "models": [str(model)] * 2, "inputs": str(inputs)}
        with pytest.raises(MeasurementError, match=r"ended with code 1: .*does not load the artifact"):
            ask(question, request)

    def test_a_missing_file_is_named_as_the_cause(self, tmp_path: Path) -> None:
        request = {"target": ONNX.to_plain(), "model": "", "inputs": str(tmp_path / "inputs.npz")}
        with pytest.raises(MeasurementError, match=r"FileNotFoundError: .*inputs\.npz"):
            ask("memory", request)

    def test_an_unknown_question_is_an_error(self) -> None:
        with pytest.raises(MeasurementError, match="KeyError: 'weight'"):
            ask("weight", {})

    def test_the_folder_of_the_user_cannot_shadow_modules(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subject = specimen(FAKE, small_mlp(), (6,), tmp_path)
        np.savez(tmp_path / "inputs.npz", random_inputs(2)[:, None])
        (tmp_path / "json.py").write_text("raise RuntimeError('the wrong json')")
        monkeypatch.chdir(tmp_path)
        request = {"target": FAKE.to_plain(), "model": str(subject.model), "inputs": str(tmp_path / "inputs.npz")}
        assert ask("memory", request)["peak_bytes"] > 0

    @pytest.mark.usefixtures("helpers")
    @pytest.mark.parametrize("question", ["latency", "memory"])
    def test_what_a_runtime_prints_does_not_come_into_the_answer(self, question: str, tmp_path: Path) -> None:
        inputs = tmp_path / "inputs.npz"
        np.savez(inputs, random_inputs(2)[:, None])
        target = TargetAddress("helper_targets:Printing", TargetSettings("helper")).to_plain()
        answer = ask(question, {"target": target, "model": "", "models": [""], "inputs": str(inputs)})
        assert answer.keys() == PROMISED[question]

    @pytest.mark.usefixtures("helpers")
    def test_what_a_runtime_prints_does_not_hide_the_cause(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
        inputs = tmp_path / "inputs.npz"
        np.savez(inputs, random_inputs(2)[:, None])
        target = TargetAddress("helper_targets:Refusing", TargetSettings("helper")).to_plain()
        with pytest.raises(MeasurementError, match=r"code 1: .*some-file is not to its taste"):
            ask("memory", {"target": target, "model": "some-file", "inputs": str(inputs)})

    @pytest.mark.usefixtures("helpers")
    def test_it_runs_on_the_cores_that_are_asked_for(self, tmp_path: Path) -> None:
        inputs, core = tmp_path / "inputs.npz", cores.usable()[-1]
        np.savez(inputs, random_inputs(1)[:, None])
        target = TargetAddress("helper_targets:Bound", TargetSettings("helper")).to_plain()
        request = {"target": target, "model": "", "inputs": str(inputs), "cores": [core]}
        assert ask("memory", request)["device"] == [core, 1]

    @pytest.mark.usefixtures("helpers")
    def test_models_are_timed_against_the_first_and_the_last_one_tells_its_throughput(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "inputs.npz", random_inputs(6).reshape(2, 3, 6))
        target = TargetAddress("helper_targets:Paced", TargetSettings("helper")).to_plain()
        request = {
            "target": target,
            "models": ["50", "200"],
            "inputs": str(tmp_path / "inputs.npz"),
            "throughput": [1, 16],
        }
        answer = ask("latency", request)
        first, last = answer["models"]
        assert first["ratio"] == [1.0, 1.0, 1.0]
        assert last["ratio"][0] == pytest.approx(4.0, rel=0.2)
        assert last["latency_s"][0] == pytest.approx(200e-6, rel=0.2)
        for each in answer["models"]:
            assert each["min_s"] <= each["p50_s"] <= each["p90_s"] <= each["p99_s"]
        assert 1000 < answer["throughput"]["1"] <= 5000
        assert 16_000 < answer["throughput"]["16"] <= 80_000
