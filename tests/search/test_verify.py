"""Verifying bundles of a real search, whole and tampered with."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from paretrim.errors import UsageError
from paretrim.search.result import Result
from paretrim.search.verify import verify
from paretrim.search.verify_words import lines
from paretrim.tracking import sums
from paretrim.tracking.taken import MARK


@pytest.fixture(scope="module")
def bundles(finished: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle of a compressed model, and that of the baseline."""
    folder = tmp_path_factory.mktemp("bundles")
    finished.export(folder / "small", trial=2)
    finished.export(folder / "baseline", trial=0)
    return folder


@pytest.fixture
def bundle(bundles: Path, tmp_path: Path) -> Path:
    """A bundle of one's own to tamper with."""
    return shutil.copytree(bundles / "small", tmp_path / "small")


def test_a_bundle_that_is_whole_holds_and_is_left_as_it_was(bundle: Path) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    found = verify(bundle)
    assert found.holds
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert found.checks[0].what == "files"
    assert any(check.what.startswith("outputs on ") for check in found.checks)
    assert json.loads(found.to_json())["holds"] is True


def test_it_is_scored_by_the_jobs_data_and_timed_beside_the_baseline(
    bundle: Path, bundles: Path, job_file: Path
) -> None:
    found = verify(bundle, job_file, bundles / "baseline")
    by_name = {check.what: check for check in found.checks}
    assert by_name["accuracy, validation"].holds
    assert by_name["accuracy, validation"].decides
    timed = by_name["latency_ms, ratio to the baseline"]
    assert not timed.decides
    assert float(timed.here) == pytest.approx(float(timed.recorded), rel=0.8)
    assert found.holds


def test_another_model_as_the_baseline_is_said(bundle: Path) -> None:
    found = verify(bundle, baseline=bundle)
    (said,) = (check for check in found.checks if check.what == "baseline")
    assert (said.here, said.decides) == ("trial 2 of tiny-1", False)


def edit(folder: Path, name: str, old: bytes, new: bytes) -> None:
    data = (folder / name).read_bytes()
    assert old in data
    (folder / name).write_bytes(data.replace(old, new, 1))


def add_a_file(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit")


def link_away(folder: Path) -> None:
    (folder / "samples.npz").unlink()
    (folder / "samples.npz").symlink_to("/etc/hostname")


def lose(folder: Path) -> None:
    (folder / "recipe.json").unlink()


def lose_the_hashes(folder: Path) -> None:
    (folder / sums.FILE).unlink()


def of_a_later_version(folder: Path) -> None:
    edit(folder, "bundle.json", b'"schema": 3', b'"schema": 4')
    sums.write(folder)


def name_another_file(folder: Path) -> None:
    edit(folder, "bundle.json", b'"file": "model.onnx.xz"', b'"file": "../../model.xz"')
    sums.write(folder)


def change_the_answers(folder: Path) -> None:
    held = dict(np.load(folder / "samples.npz"))
    np.savez_compressed(folder / "samples.npz", inputs=held["inputs"], outputs=held["outputs"] + 1.0)
    sums.write(folder)


def pickle_the_samples(folder: Path) -> None:
    np.savez(folder / "samples.npz", inputs=np.array([object()], dtype=object), outputs=np.zeros(1))
    sums.write(folder)


def keep_weights_outside(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    convert_model_to_external_data(model, location="outside", size_threshold=0)
    onnx.save(model, folder / "model.onnx")
    (folder / "outside").unlink(missing_ok=True)
    sums.write(folder)


def inflate(folder: Path) -> None:
    np.savez_compressed(folder / "samples.npz", inputs=np.zeros(3 << 28, np.uint8), outputs=np.zeros(1))
    sums.write(folder)


def wait_for_ever(folder: Path) -> None:
    (folder / "samples.npz").unlink()
    os.mkfifo(folder / "samples.npz")


def steer_the_terminal(folder: Path) -> None:
    (folder / "x\x1b]0;owned\x07").touch()


def lose_the_script(folder: Path) -> None:
    (folder / "predict.py").unlink()
    edit_json(
        folder, "measurements.json", lambda document: document["trial"].update(validation={"accuracy": float("inf")})
    )


def divide_by_nothing(folder: Path) -> None:
    edit_json(folder, "bundle.json", lambda document: document.update(preprocessing={"scale": 0.0}))


def ask_for_a_million_threads(folder: Path) -> None:
    edit_json(folder, "bundle.json", lambda document: document["target"].update(threads=10**6))


def append_a_second_stream(folder: Path) -> None:
    packed = (folder / "model.onnx.xz").read_bytes() + lzma.compress(bytes(1 << 20))
    (folder / "model.onnx.xz").write_bytes(packed)
    digest = hashlib.sha256(packed).hexdigest()
    edit_json(folder, "bundle.json", lambda document: document["packed"].update(sha256=digest, bytes=len(packed)))


def record_what_everything_agrees_with(folder: Path) -> None:
    held = dict(np.load(folder / "samples.npz"))
    held["outputs"][0, 0] = np.inf
    np.savez_compressed(folder / "samples.npz", **held)
    sums.write(folder)


def edit_json(folder: Path, name: str, change: Callable[[Any], object]) -> None:
    document = json.loads((folder / name).read_text())
    change(document)
    (folder / name).write_text(json.dumps(document))
    sums.write(folder)


TAMPERED: list[tuple[Callable[[Path], None], str]] = [
    (add_a_file, "'evil.py' is not in SHA256SUMS"),
    (link_away, "'samples.npz' is no ordinary file"),
    (lose, "'recipe.json' is missing"),
    (lose_the_hashes, "SHA256SUMS is missing"),
    (of_a_later_version, "no bundle that this version of paretrim reads: bundle.json: schema"),
    (name_another_file, "bundle.json: packed.file"),
    (change_the_answers, "the outputs differ from the recorded ones"),
    (pickle_the_samples, "the bundle does not check"),
    (keep_weights_outside, "keeps weights in other files"),
    (inflate, "samples.npz would take"),
    (wait_for_ever, "'samples.npz' is no ordinary file"),
    (steer_the_terminal, "is no name that a bundle's file has"),
    (divide_by_nothing, "neither scale nor a std may be zero"),
    (ask_for_a_million_threads, "1000000 threads"),
    (append_a_second_stream, "does not hold the"),
    (record_what_everything_agrees_with, "are not finite"),
]


@pytest.mark.parametrize(("tamper", "text"), TAMPERED, ids=[tamper.__name__ for tamper, _ in TAMPERED])
def test_a_tampered_bundle_fails_with_a_reason_and_is_marked(
    bundle: Path, tamper: Callable[[Path], None], text: str
) -> None:
    tamper(bundle)
    found = verify(bundle)
    assert not found.holds
    assert text in found.checks[-1].here
    assert text in (bundle / MARK).read_text()


def test_a_mark_that_is_a_link_is_not_followed(bundle: Path, tmp_path: Path) -> None:
    (precious := tmp_path / "precious").write_text("mine")
    (bundle / MARK).symlink_to(precious)
    add_a_file(bundle)
    assert not verify(bundle).holds
    assert precious.read_text() == "mine"
    assert not (bundle / MARK).is_symlink()


def test_nothing_that_steers_a_terminal_is_printed(bundle: Path) -> None:
    edit_json(bundle, "bundle.json", lambda document: document["environment"].update(cpu="\x1b[2Jgone"))
    found = verify(bundle)
    steer_the_terminal(bundle)
    told = "".join(str(line) for each in (found, verify(bundle)) for line in lines(each))
    assert "\x1b" not in told + (bundle / MARK).read_text()
    assert found.differences["cpu"][0] == "\\x1b[2Jgone"


def test_a_score_that_everything_agrees_with_fails(bundle: Path, job_file: Path) -> None:
    lose_the_script(bundle)
    found = verify(bundle, job_file)
    assert "not finite" in found.checks[-1].here
    assert not found.holds


def test_a_baseline_that_does_not_hold_is_no_fault_of_the_bundle(bundle: Path, bundles: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(bundles / "baseline", tmp_path / "damaged")
    add_a_file(damaged)
    with pytest.raises(UsageError, match=r"--baseline: .* does not hold: 'evil\.py' is not in SHA256SUMS"):
        verify(bundle, baseline=damaged)
    assert not (bundle / MARK).exists()


def test_a_runtime_that_may_unpickle_is_not_taken_from_a_bundle(bundle: Path, job_file: Path) -> None:
    edit_json(bundle, "bundle.json", lambda document: document["target"].update(runtime="torch-compile"))
    assert verify(bundle).holds
    with pytest.raises(
        UsageError, match="only onnxruntime, onnxruntime-cuda, openvino, openvino-ir are used to measure a bundle again"
    ):
        verify(bundle, job_file)


def test_a_mark_goes_when_the_bundle_holds_again(bundle: Path) -> None:
    intact = (bundle / "recipe.json").read_bytes()
    (bundle / "recipe.json").write_text("{}")
    assert not verify(bundle).holds
    (bundle / "recipe.json").write_bytes(intact)
    assert verify(bundle).holds
    assert not (bundle / MARK).exists()


def test_its_script_is_not_run(bundle: Path, tmp_path: Path) -> None:
    (bundle / "predict.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    sums.write(bundle)
    found = verify(bundle)
    assert found.holds
    assert [check.what for check in found.checks if not check.holds] == ["predict.py"]
    assert not (tmp_path / "ran").exists()


def test_what_differs_from_the_machine_that_measured_is_said(bundle: Path) -> None:
    told = json.loads((bundle / "bundle.json").read_text())
    told["environment"]["cpu"] = "Another Processor"
    (bundle / "bundle.json").write_text(json.dumps(told))
    sums.write(bundle)
    found = verify(bundle)
    assert found.holds
    assert found.differences["cpu"][0] == "Another Processor"
    assert any("measured on Another Processor, here " in str(line) for line in lines(found))


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder; name one that `paretrim export` wrote"):
        verify(tmp_path / "none")


def test_the_command_prints_a_table_and_fails_with_exit_code_1(bundle: Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "paretrim", "verify", str(bundle)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    good = run()
    assert (good.returncode, good.stderr) == (0, "")
    assert "the bundle holds" in good.stdout
    add_a_file(bundle)
    bad = run()
    assert bad.returncode == 1
    assert "the bundle FAILS" in bad.stdout
    assert "Traceback" not in bad.stderr
