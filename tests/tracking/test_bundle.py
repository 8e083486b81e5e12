from __future__ import annotations

import ast
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from paretrim.errors import ArtifactError, OutputExistsError
from paretrim.evaluators.artifact import Artifact, pack
from paretrim.evaluators.onnx_target import OnnxRuntimeCpu
from paretrim.evaluators.preprocessing import Preprocessing
from paretrim.evaluators.target import TargetSettings
from paretrim.tracking import bundle, manifest, predict, sums
from paretrim.tracking.bundle import Contents, appearing
from paretrim.tracking.manifest import Origin
from paretrim.tracking.report import row_of
from paretrim.tracking.testing import sample_record

FILES = {
    "MODEL_CARD.md", "SHA256SUMS", "bundle.json", "measurements.json", "model.onnx", "model.onnx.xz", "predict.py",
    "recipe.json", "samples.npz",
}  # fmt: skip
ORIGIN = Origin(
    model="mine:net", model_sha256="a" * 64, data="mine:data", data_sha256="b" * 64, samples={"train": 9, "validation": 4}
)  # fmt: skip
INPUTS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def linear_model() -> bytes:
    """Return an ONNX model of four inputs and three outputs."""
    weight = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weight"], ["output"])],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    ).SerializeToString()
    return model


def contents_of(artifact: Artifact, samples: Path) -> Contents:
    base, record = sample_record(0), sample_record(17, latency_ms=0.5, size_bytes=float(artifact.size_bytes))
    return Contents(
        job="digits-1",
        metric="accuracy",
        runtime=OnnxRuntimeCpu(TargetSettings()).version(),
        target=TargetSettings(),
        artifact=artifact,
        samples=samples,
        record=record,
        row=row_of(record, "accuracy", base.metrics, {}),
        baseline=row_of(base, "accuracy", base.metrics, {}),
        origin=ORIGIN,
        labels=("low", "middle", "high"),
        preprocessing=Preprocessing(scale=0.5, mean=(1.0, 0.0, 0.0, 0.0), std=(2.0, 1.0, 1.0, 1.0)),
    )


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    """Return a real packed model, with samples that the real runtime answered."""
    artifact = pack(linear_model(), tmp_path / "artifacts")
    samples = tmp_path / "artifacts" / "recorded.npz"
    with artifact.unpacked() as path:
        outputs = OnnxRuntimeCpu(TargetSettings()).open(path)(INPUTS)
    np.savez_compressed(samples, inputs=INPUTS, outputs=outputs)
    return contents_of(artifact, samples)


@pytest.fixture
def folder(contents: Contents, tmp_path: Path) -> Path:
    """Return a bundle."""
    path = tmp_path / "bundle"
    with appearing(path) as partial:
        bundle.write(contents, partial)
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def leave(folder: Path, error: BaseException) -> None:
    with appearing(folder) as partial:
        (partial / "file").touch()
        raise error


def test_a_folder_appears_when_the_block_ends_well(tmp_path: Path) -> None:
    with appearing(tmp_path / "new" / "bundle") as partial:
        (partial / "file").write_text("x")
        assert not (tmp_path / "new" / "bundle").exists()
    assert (tmp_path / "new" / "bundle" / "file").read_text() == "x"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["bundle"]


def test_others_may_read_the_folder(tmp_path: Path) -> None:
    with appearing(tmp_path / "bundle"):
        pass
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ArtifactError("x"), KeyboardInterrupt()])
def test_nothing_is_left_after_an_exception(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        leave(tmp_path / "bundle", error)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine").touch()
    with pytest.raises(OutputExistsError, match=r"bundle' exists.*remove it"), appearing(tmp_path / "bundle"):
        pytest.fail("the block must not run")
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["mine"]


def test_a_bundle_has_its_files_and_no_others(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES


def test_the_model_in_a_bundle_is_what_was_packed(folder: Path, contents: Contents) -> None:
    assert (folder / "model.onnx").read_bytes() == linear_model()
    assert (folder / "model.onnx.xz").read_bytes() == contents.artifact.path.read_bytes()


def test_the_manifest_has_hashes_and_sizes_of_both_files(folder: Path) -> None:
    told = read(folder / "bundle.json")
    assert (told["schema"], told["job"], told["trial"]) == (3, "digits-1", 17)
    for part in (told["model"], told["packed"]):
        data = (folder / part["file"]).read_bytes()
        assert (part["bytes"], part["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_recipe_and_all_measurements_are_written(folder: Path, contents: Contents) -> None:
    assert read(folder / "recipe.json") == {"seed": contents.record.seed, "values": dict(contents.record.recipe)}
    measured = read(folder / "measurements.json")
    assert measured["trial"] == contents.row.to_plain()
    assert measured["baseline"] == contents.baseline.to_plain()
    assert [m["name"] for m in measured["measurements"]] == list(contents.record.metrics)
    assert measured["measurements"][0].keys() == {"name", "value", "low", "high", "how", "parts"}


def test_the_card_is_of_the_trial(folder: Path) -> None:
    assert (folder / "MODEL_CARD.md").read_text().startswith("# digits-1, trial 17\n")


def test_a_bundle_checks_in_a_clean_process_and_says_what_was_checked(folder: Path) -> None:
    packed, model, outputs = bundle.check(folder)
    assert packed.startswith("model.onnx.xz: ")
    assert model.startswith(f"model.onnx: {len(linear_model())} bytes, SHA-256 ")
    assert outputs.startswith("outputs on 6 samples: within ")


def test_a_bundle_that_was_moved_still_checks(folder: Path, tmp_path: Path) -> None:
    moved = folder.rename(tmp_path / "sent to someone")
    assert len(bundle.check(moved)) == 3


def flip_a_byte(folder: Path) -> None:
    path = folder / "model.onnx.xz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def record_a_wrong_output(folder: Path) -> None:
    samples = dict(np.load(folder / "samples.npz"))
    samples["outputs"][2, 1] += 1.0
    np.savez(folder / "samples.npz", **samples)


def record_another_shape(folder: Path) -> None:
    samples = dict(np.load(folder / "samples.npz"))
    np.savez(folder / "samples.npz", inputs=samples["inputs"], outputs=samples["outputs"][:, :2])


def record_a_nan(folder: Path) -> None:
    samples = dict(np.load(folder / "samples.npz"))
    samples["outputs"][0, 0] = np.nan
    np.savez(folder / "samples.npz", **samples)


def append_to_the_packed_file(folder: Path) -> None:
    with (folder / "model.onnx.xz").open("ab") as file:
        file.write(b"\0\0\0\0x")


def append_to_the_model(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")


def record_another_size(folder: Path) -> None:
    told = read(folder / "bundle.json")
    told["packed"]["bytes"] += 1
    (folder / "bundle.json").write_text(json.dumps(told))


def record_another_hash(folder: Path) -> None:
    told = read(folder / "bundle.json")
    told["packed"]["sha256"] = "0" * 64
    (folder / "bundle.json").write_text(json.dumps(told))


def change_the_recipe(folder: Path) -> None:
    (folder / "recipe.json").write_text("{}")


def lose_the_samples(folder: Path) -> None:
    (folder / "samples.npz").unlink()


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (flip_a_byte, r"model\.onnx\.xz"),
    (record_a_wrong_output, r"the outputs differ from the recorded ones by up to 1, where the largest is"),
    (record_another_shape, r"the outputs have shape \(6, 3\), \(6, 2\) was recorded"),
    (record_a_nan, r"the recorded outputs are not finite"),
    (append_to_the_packed_file, r"model\.onnx\.xz has \d+ bytes, \d+ were recorded"),
    (append_to_the_model, r"model\.onnx has \d+ bytes, \d+ were recorded"),
    (record_another_size, r"model\.onnx\.xz has \d+ bytes, \d+ were recorded"),
    (record_another_hash, r"model\.onnx\.xz does not have the recorded SHA-256"),
    (change_the_recipe, r"recipe\.json does not have the SHA-256 of SHA256SUMS"),
    (lose_the_samples, r"samples\.npz"),
]


@pytest.mark.parametrize(("damage", "text"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])
def test_a_damaged_bundle_does_not_check(folder: Path, damage: Callable[[Path], None], text: str) -> None:
    damage(folder)
    with pytest.raises(ArtifactError, match=text) as caught:
        bundle.check(folder)
    assert str(caught.value).startswith("the bundle does not check: ")


def test_outputs_that_differ_by_rounding_check(folder: Path) -> None:
    samples = dict(np.load(folder / "samples.npz"))
    samples["outputs"] = samples["outputs"] + np.float32(0.001 * np.abs(samples["outputs"]).max())
    np.savez(folder / "samples.npz", **samples)
    sums.write(folder)
    assert len(bundle.check(folder)) == 3


def test_a_damaged_artifact_is_not_written(contents: Contents, tmp_path: Path) -> None:
    contents.artifact.path.write_bytes(contents.artifact.path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="cannot read the artifact"), appearing(tmp_path / "bundle") as partial:
        bundle.write(contents, partial)
    assert not (tmp_path / "bundle").exists()


def test_an_artifact_without_its_samples_is_not_written(contents: Contents, tmp_path: Path) -> None:
    contents.samples.unlink()
    with pytest.raises(ArtifactError, match="the artifact of trial 17 is incomplete"):
        bundle.write(contents, tmp_path)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_script_prepares_raw_inputs_runs_the_model_and_names_classes(
    folder: Path, tmp_path: Path, contents: Contents
) -> None:
    raw = INPUTS * np.array([2.0, 1.0, 1.0, 1.0]) + np.array([1.0, 0.0, 0.0, 0.0])
    np.save(tmp_path / "in.npy", raw / 0.5)
    done = run(folder / "predict.py", tmp_path / "in.npy", tmp_path / "out.npy")
    assert (done.returncode, done.stderr) == (0, "")
    expected = np.load(contents.samples)["outputs"]
    assert np.allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)
    assert done.stdout.split() == [("low", "middle", "high")[each] for each in expected.argmax(axis=1)]


def test_without_preprocessing_and_labels_arrays_go_in_and_out_as_they_are(tmp_path: Path, contents: Contents) -> None:
    (plain := tmp_path / "plain").mkdir()
    bundle.write(replace(contents, labels=None, preprocessing=None), plain)
    np.save(tmp_path / "in.npy", INPUTS)
    done = run(plain / "predict.py", tmp_path / "in.npy", tmp_path / "out.npy")
    assert (done.returncode, done.stdout.strip()) == (0, "")
    assert np.allclose(np.load(tmp_path / "out.npy"), np.load(contents.samples)["outputs"], atol=1e-6)


def test_channels_are_moved_and_samples_get_their_shape(folder: Path) -> None:
    told = read(folder / "bundle.json")
    for given, made in (
        ({"channels_last": True, "shape": []}, np.moveaxis(np.ones((2, 5, 6, 3)), -1, 1).shape),
        ({"channels_last": False, "shape": [3, 5, 6]}, (2, 3, 5, 6)),
    ):
        told["preprocessing"] = {"scale": 1.0, "mean": [0.5, 0.5, 0.5], "std": [], **given}
        (folder / "bundle.json").write_text(json.dumps(told))
        found = predict.prepared(np.ones((2, 5, 6, 3) if given["channels_last"] else (2, 90)), folder)
        assert found.shape == made
        assert found.dtype == np.float32
        assert np.all(found == 0.5)


def test_the_script_called_wrongly_says_how_to_call_it(folder: Path) -> None:
    done = run(folder / "predict.py")
    assert done.returncode == 1
    assert "python predict.py inputs.npy outputs.npy" in done.stderr


def test_the_hashes_are_in_the_form_of_sha256sum(folder: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_licence_is_taken_along(contents: Contents, tmp_path: Path) -> None:
    (notes := tmp_path / "NOTES").write_text("for research only")
    (made := tmp_path / "made").mkdir()
    bundle.write(replace(contents, licence=notes, origin=ORIGIN.model_copy(update={"licence": "see LICENCE"})), made)
    assert (made / "LICENCE").read_text() == "for research only"
    assert "| licence | see LICENCE |" in (made / "MODEL_CARD.md").read_text()


def test_what_a_bundle_says_of_itself_is_read_back(folder: Path) -> None:
    told = manifest.read(folder)
    assert (told.trial, told.labels, told.target) == (17, ("low", "middle", "high"), TargetSettings())
    assert told.origin == ORIGIN


def test_the_script_loads_neither_torch_nor_paretrim(folder: Path) -> None:
    spy = "import runpy, sys; script, sys.argv[:] = sys.argv[1], ['predict.py', '--check']\n"
    spy += "runpy.run_path(script, run_name='__main__'); print(*{name.split('.')[0] for name in sys.modules})"
    done = run("-c", spy, folder / "predict.py")
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {"numpy", "onnxruntime"} <= loaded
    assert not {"torch", "paretrim", "onnx", "optuna", "mlflow", "ray", "pydantic"} & loaded


def test_the_script_imports_only_numpy_and_the_runtime_of_its_file() -> None:
    def imported(tree: ast.AST) -> set[str]:
        nodes = [*ast.walk(tree)]
        plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        named = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        return {name.split(".")[0] for name in plain | named} - set(sys.stdlib_module_names)

    tree = ast.parse(Path(predict.__file__).read_text())
    functions = {node.name: imported(node) for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name: found for name, found in functions.items() if found} == {
        "onnx": {"onnxruntime"},
        "openvino": {"openvino"},
        "pt2": {"torch"},
    }
    assert imported(tree) == {"numpy", "onnxruntime", "openvino", "torch"}


def later_zip() -> bytes:
    """Return a zip file of a version that no library reads yet."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr("inputs.npy", b"")
    entry = held.getvalue().index(b"PK\x01\x02")
    return held.getvalue()[: entry + 6] + b"\xff\x00" + held.getvalue()[entry + 8 :]


# Named, for the zip holds the time at which it is made: two workers that name a test after it collect two tests.
@pytest.mark.parametrize(
    ("held", "why"),
    [
        pytest.param(b"no zip file", "not a zip", id="no zip"),
        pytest.param(later_zip(), "zip file version 25.5", id="later zip"),
    ],
)
def test_samples_that_no_library_reads_are_refused(held: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "samples.npz").write_bytes(held)
    with pytest.raises(ArtifactError, match=rf"samples\.npz cannot be read: .*{why}"):
        bundle.check(tmp_path)
