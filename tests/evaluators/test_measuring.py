"""Evaluators in general, and the three built-in ones on real models in real processes."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from paretrim.errors import MeasurementError
from paretrim.evaluators import evaluator as evaluators
from paretrim.evaluators import latency
from paretrim.evaluators.artifact import pack
from paretrim.evaluators.evaluator import Bench, Evaluator, Specimen
from paretrim.evaluators.fakes import FakeEvaluator, FakeTarget
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.latency import LatencyEvaluator
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.memory import MemoryEvaluator
from paretrim.evaluators.size import SizeEvaluator
from paretrim.evaluators.target import TargetAddress, TargetSettings
from paretrim.evaluators.testing import (
    INPUT_SHAPE,
    ONNX,
    EvaluatorContract,
    TargetContract,
    bench,
    random_inputs,
    small_mlp,
    specimen,
)

FAKE = TargetAddress(f"{FakeTarget.__module__}:{FakeTarget.__name__}", TargetSettings("fake", threads=1, batch_size=2))


class TestFakeTarget(TargetContract):
    @pytest.fixture
    def address(self) -> TargetAddress:
        return FAKE


class TestFakeEvaluator(EvaluatorContract):
    @pytest.fixture
    def evaluator(self) -> Evaluator:
        return FakeEvaluator()

    def address(self) -> TargetAddress:
        return FAKE


class TestSizeContract(EvaluatorContract):
    @pytest.fixture
    def evaluator(self) -> Evaluator:
        return SizeEvaluator()

    def address(self) -> TargetAddress:
        return FAKE


class TestLatencyContract(EvaluatorContract):
    @pytest.fixture
    def evaluator(self) -> Evaluator:
        return LatencyEvaluator()

    def address(self) -> TargetAddress:
        return FAKE


class TestMemoryContract(EvaluatorContract):
    @pytest.fixture
    def evaluator(self) -> Evaluator:
        return MemoryEvaluator()

    def address(self) -> TargetAddress:
        return FAKE


@dataclass(frozen=True)
class Scene:
    """A small model, one of more than 50 times its weights, and a bench with the small one as baseline."""

    small: Specimen
    large: Specimen
    bench: Bench


@pytest.fixture(scope="module")
def scene(small_onnx: Specimen, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    large = specimen(ONNX, small_mlp(640), INPUT_SHAPE, folder)
    return Scene(small_onnx, large, bench(ONNX, small_onnx, INPUT_SHAPE, folder))


@pytest.fixture(scope="module")
def memory() -> MemoryEvaluator:
    return MemoryEvaluator()


def measured(evaluator: Evaluator, subject: Specimen, place: Bench) -> dict[str, Measurement]:
    return {each.name: each for each in evaluator.measure(subject, place)}


class TestLatency:
    def test_a_model_is_about_as_fast_as_itself_and_all_is_told_of_it(self, scene: Scene) -> None:
        place = replace(scene.bench, reference_ms=7.0, throughput_batches=(1, 16))
        found = measured(LatencyEvaluator(), scene.small, place)
        ratio = found["latency_ratio"]
        assert 0.5 < ratio.value < 2.0
        assert found["latency_ms"].value == pytest.approx(7.0 * ratio.value)
        assert 0 < found["throughput_b1_per_s"].value < found["throughput_b16_per_s"].value
        p50, p90, p99 = (found[f"latency_{name}_ms"].value for name in ("p50", "p90", "p99"))
        assert 0 < found["latency_min_ms"].value <= p50 <= p90 <= p99
        assert found["latency_raw_ms"].value <= p99
        assert set(LatencyEvaluator.metrics) <= found.keys()
        assert all(math.isfinite(each.value) and each.value >= 0 for each in found.values())

    def test_a_model_of_50_times_the_weights_is_slower(self, scene: Scene) -> None:
        found = measured(LatencyEvaluator(), scene.large, scene.bench)
        assert scene.large.artifact.model_bytes > 50 * scene.small.artifact.model_bytes
        assert found["latency_ratio"].value > 1.0
        assert found["latency_ratio"].low is not None
        assert found["latency_ratio"].low > 1.0
        assert found["latency_ms"].value == found["latency_raw_ms"].value

    def test_it_is_doubted_and_taken_again_only_beside_others(
        self, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(latency, "_PAUSE_S", 0.1)
        monkeypatch.setattr(latency, "_ATTEMPTS", 2)
        crowded = replace(scene.bench, lane=Lane(tmp_path, patience_s=0.1), reference_ms=1e-6)
        with Lane(tmp_path).working():
            found = measured(LatencyEvaluator(), scene.small, crowded)
        assert found["latency_crowded"].value == 1.0
        assert "than in the quiet" in found["latency_crowded"].how
        assert found["latency_attempts"].value == 2

    def test_a_broken_model_raises_measurement_error(self, scene: Scene, tmp_path: Path) -> None:
        broken = Specimen(scene.small.artifact, tmp_path / "broken.onnx")
        broken.model.write_bytes(b"this is no model")
        with pytest.raises(MeasurementError, match="does not load the artifact"):
            LatencyEvaluator().measure(broken, scene.bench)


class TestMemory:
    def test_the_empty_model_needs_nothing(self, scene: Scene, memory: MemoryEvaluator) -> None:
        empty = Specimen(scene.small.artifact, scene.bench.empty)
        assert measured(memory, empty, scene.bench)["memory_bytes"].value < 2e6

    def test_a_model_of_50_times_the_weights_needs_more(self, scene: Scene, memory: MemoryEvaluator) -> None:
        small, large = (measured(memory, each, scene.bench)["memory_bytes"] for each in (scene.small, scene.large))
        assert large.value > small.value
        assert large.value > 0.9 * scene.large.artifact.model_bytes
        assert small.high is not None
        assert large.low is not None
        assert large.low > small.high


class TestSize:
    def test_both_files_are_told(self, scene: Scene) -> None:
        found = measured(SizeEvaluator(), scene.large, scene.bench)
        assert found["size_bytes"].value == scene.large.artifact.path.stat().st_size
        assert found["model_bytes"].value == scene.large.model.stat().st_size

    def test_the_parts_are_the_tensors_and_add_up_to_about_the_file(self, scene: Scene) -> None:
        whole = measured(SizeEvaluator(), scene.large, scene.bench)["model_bytes"]
        stored = sum(part.value for part in whole.parts)
        assert 0.98 * whole.value < stored < whole.value
        assert len({part.name for part in whole.parts}) == len(whole.parts)
        largest = max(whole.parts, key=lambda part: part.value)
        assert (largest.value, largest.what) == (640 * 640 * 4, "float32 640x640")

    def test_the_runtime_holds_the_weights_that_are_stored(self, scene: Scene) -> None:
        found = measured(SizeEvaluator(), scene.large, scene.bench)
        parameters = 6 * 640 + 640 * 640 + 640 * 4 + 640 + 640 + 4
        assert found["held_bytes"].value == pytest.approx(4 * parameters, rel=0.01)

    def test_a_scalar_has_no_shape_to_tell(self, tmp_path: Path) -> None:
        model = tmp_path / "model"
        with model.open("wb") as file:
            np.savez(file, np.zeros((2, 3), np.float32), np.float64(1.0))
        subject = Specimen(pack(model.read_bytes(), tmp_path), model)
        place = Bench(FAKE, model, model, model, Lane(tmp_path))
        found = measured(SizeEvaluator(), subject, place)
        assert [(part.name, part.value, part.what) for part in found["model_bytes"].parts] == [
            ("arr_0", 24, "float32 2x3"),
            ("arr_1", 8, "float64"),
        ]
        assert found["held_bytes"].value == 32

    def test_a_damaged_file_raises_measurement_error(self, scene: Scene, tmp_path: Path) -> None:
        broken = Specimen(scene.small.artifact, tmp_path / "broken.onnx")
        broken.model.write_bytes(b"this is no model")
        with pytest.raises(MeasurementError, match=r"measuring weigh: .*does not load the artifact"):
            SizeEvaluator().measure(broken, scene.bench)


class TestBench:
    @pytest.mark.parametrize(("samples", "size", "shape"), [(8, 1, (8, 1, 6)), (8, 3, (2, 3, 6)), (5, 16, (1, 16, 6))])
    def test_inputs_are_cut_into_batches_of_the_target(
        self, samples: int, size: int, shape: tuple[int, ...], tmp_path: Path
    ) -> None:
        address = TargetAddress(FAKE.factory, replace(FAKE.settings, batch_size=size))
        baseline = specimen(address, small_mlp(), INPUT_SHAPE, tmp_path)
        place = evaluators.set_up(
            address, baseline.artifact, {"input": random_inputs(samples)}, tmp_path, Lane(tmp_path / "lane")
        )
        inputs = np.load(place.inputs)["arr_0"]
        assert inputs.shape == shape
        assert np.array_equal(inputs.reshape(-1, 6)[:samples], random_inputs(samples)[: size * len(inputs)])

    def test_its_models_run_on_its_inputs(self, scene: Scene) -> None:
        target, inputs = scene.bench.address.build(), np.load(scene.bench.inputs)["arr_0"]
        assert np.array_equal(target.open(scene.bench.empty)(inputs[0]), inputs[0])
        assert target.open(scene.bench.baseline)(inputs[0]).shape == (1, 4)
        assert scene.bench.baseline.read_bytes() == scene.small.artifact.read()


class Silent:
    """Declares a metric that it does not measure."""

    metrics: ClassVar[tuple[str, ...]] = ("loudness",)

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        return (Measurement("silence", 1.0),)


class Negative(Silent):
    """Measures less than nothing."""

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        return (Measurement("loudness", -1.0),)


class Endless(Silent):
    """Measures more than everything."""

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        return (Measurement("loudness", float("inf")),)


class Outside(Silent):
    """Gives an interval beside its value."""

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        return (Measurement("loudness", 1.0, low=2.0, high=3.0),)


class Meddling(Silent):
    """Changes what it measures."""

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        specimen.model.write_bytes(b"")
        return (Measurement("loudness", 1.0),)


class Twice(Silent):
    """Declares a metric twice."""

    metrics: ClassVar[tuple[str, ...]] = ("loudness", "loudness")


class Foretelling(Silent):
    """Tells beforehand what is given."""

    told: ClassVar[tuple[Measurement, ...]] = ()

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        return (Measurement("loudness", 1.0),)

    def preview(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        return self.told


class FakeContract(EvaluatorContract):
    """Its contract on a quick target."""

    def address(self) -> TargetAddress:
        return FAKE


class TestContractHasTeeth:
    @pytest.mark.parametrize(
        ("broken", "complaint"),
        [
            (Silent, r"\['loudness'\] are declared in metrics, but not measured"),
            (Negative, "below zero"),
            (Endless, "not finite"),
            (Outside, "outside its interval"),
        ],
    )
    def test_a_wrong_number_is_caught(self, broken: type[Silent], complaint: str, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match=complaint):
            FakeContract().test_measurements_are_finite_and_cover_the_metrics(broken(), tmp_path)

    def test_a_changed_file_is_caught(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="changed the model file"):
            FakeContract().test_measuring_again_gives_the_same_names(Meddling(), tmp_path)

    @pytest.mark.parametrize(
        ("told", "complaint"),
        [
            ((), "the preview is empty"),
            ((Measurement("loudness", 1.0), Measurement("loudness", 2.0)), "a name is given twice"),
            ((Measurement("silence", 1.0),), r"\['silence'\] are told beforehand, but never measured"),
            ((Measurement("loudness", float("nan")),), "not finite"),
            ((Measurement("loudness", 3.0, low=1.0, high=2.0),), "outside its interval"),
        ],
    )
    def test_a_wrong_preview_is_caught(
        self, told: tuple[Measurement, ...], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Foretelling, "told", told)
        with pytest.raises(AssertionError, match=complaint):
            FakeContract().test_a_preview_tells_some_of_what_is_measured(Foretelling(), tmp_path)

    def test_a_name_given_twice_is_caught(self) -> None:
        with pytest.raises(AssertionError, match="a name twice"):
            EvaluatorContract().test_metrics_are_named(Twice())


def test_the_built_in_evaluators_are_installed() -> None:
    installed = evaluators.installed()
    assert {"size", "latency", "memory", "energy"} <= installed.keys()
    assert isinstance(installed["latency"], LatencyEvaluator)


def test_a_process_that_serves_the_fake_target_does_not_carry_torch(tmp_path: Path) -> None:
    subject = specimen(FAKE, small_mlp(), INPUT_SHAPE, tmp_path)
    code = "import sys; sys.modules['torch'] = sys.modules['onnxruntime'] = None; from pathlib import Path; "
    code += "from paretrim.evaluators.fakes import FakeTarget; from paretrim.evaluators.testing import random_inputs; "
    code += f"print(FakeTarget(None).open(Path({str(subject.model)!r}))(random_inputs(3)).shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(3, 4)", done.stderr


def test_the_contracts_run_on_artifacts_that_are_packed(tmp_path: Path) -> None:
    subject = specimen(FAKE, small_mlp(), INPUT_SHAPE, tmp_path)
    assert pack(subject.model.read_bytes(), tmp_path) == subject.artifact
