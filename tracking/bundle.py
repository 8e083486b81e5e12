"""The bundle: a folder that holds an exported model and all that its receiver needs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from paretrim.errors import ArtifactError, OutputExistsError
from paretrim.evaluators.artifact import Artifact
from paretrim.tracking.card import model_card
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.report import Row

SCHEMA = 1
_SCRIPT = Path(__file__).resolve().parent / "bundle_script.py"
_CHECK_LIMIT_S = 300


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle.

    Attributes:
        job: Name of the search.
        metric: Name of the job's metric.
        runtime: Name and version of the runtime that measured the artifact.
        artifact: The shipped file.
        samples: File of recorded inputs and outputs.
        record: The trial.
        row: The trial beside the baseline.
        baseline: The baseline's row.
    """

    job: str
    metric: str
    runtime: str
    artifact: Artifact
    samples: Path
    record: TrialRecord
    row: Row
    baseline: Row


@dataclass(frozen=True)
class Comparison:
    """A number that was logged, measured again.

    Attributes:
        name: What it is.
        logged: As the search logged it.
        now: As measured for the export.
        agrees: Whether the two agree within the stated tolerance.
    """

    name: str
    logged: float
    now: float
    agrees: bool


@dataclass(frozen=True)
class Verdict:
    """An exported bundle and what its check found.

    Attributes:
        folder: The bundle.
        trial: Number of the trial.
        sha256: Hash of the shipped file.
        checks: What the clean process checked, in words.
        comparisons: Numbers measured again, beside what was logged.
    """

    folder: Path
    trial: int
    sha256: str
    checks: tuple[str, ...]
    comparisons: tuple[Comparison, ...]


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` when the block ends well, and vanishes otherwise.

    Raises:
        OutputExistsError: The folder exists.
    """
    if folder.exists():
        raise OutputExistsError(f"'{folder}' exists; name a folder that does not, or remove it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o755)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write(contents: Contents, folder: Path) -> None:
    """Write a bundle into an empty folder.

    Raises:
        ArtifactError: The artifact or its recorded samples are missing or damaged.
    """
    (folder / "model.onnx").write_bytes(contents.artifact.read())
    try:
        shutil.copyfile(contents.artifact.path, folder / "model.onnx.xz")
        shutil.copyfile(contents.samples, folder / "samples.npz")
    except OSError as error:
        raise ArtifactError(f"the artifact of trial {contents.row.trial} is incomplete: {error}") from error
    shutil.copyfile(_SCRIPT, folder / "run.py")
    (folder / "recipe.json").write_text(_json({"seed": contents.record.seed, "values": dict(contents.row.recipe)}))
    (folder / "measurements.json").write_text(_json(_measurements(contents)))
    (folder / "bundle.json").write_text(_json(_manifest(contents)))
    (folder / "README.md").write_text(model_card(contents.job, contents.runtime, contents.row, contents.baseline))


def check(folder: Path) -> tuple[str, ...]:
    """Open a bundle in a clean process, with nothing but the runtime and numpy, and check it against its manifest.

    Returns:
        What was checked, in words.

    Raises:
        ArtifactError: Hash, size or outputs differ from the record.
    """
    # -I: no environment variables, no user site, no current folder: what a receiver's machine would have.
    command = [sys.executable, "-I", str(folder / "run.py"), "--check"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ArtifactError(f"the bundle's check took more than {_CHECK_LIMIT_S} s") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise ArtifactError(f"the bundle does not check: {words[-1] if words else f'code {done.returncode}'}")
    return tuple(done.stdout.strip().splitlines())


def _manifest(contents: Contents) -> dict[str, Any]:
    artifact = contents.artifact
    return {
        "schema": SCHEMA,
        "job": contents.job,
        "trial": contents.row.trial,
        "runtime": contents.runtime,
        "model": {"file": "model.onnx", "sha256": artifact.model_sha256, "bytes": artifact.model_bytes},
        "packed": {"file": "model.onnx.xz", "sha256": artifact.sha256, "bytes": artifact.size_bytes},
    }


def _measurements(contents: Contents) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "trial": contents.row.to_plain(),
        "baseline": contents.baseline.to_plain(),
        "measurements": [asdict(m) for m in contents.record.measurements],
    }


def _json(document: Any) -> str:
    return json.dumps(document, indent=2) + "\n"
