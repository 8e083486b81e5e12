"""The bundle: a folder that holds an exported model and all that its receiver needs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from paretrim.errors import ArtifactError, OutputExistsError
from paretrim.evaluators import recorded
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.preprocessing import Preprocessing
from paretrim.evaluators.target import TargetSettings
from paretrim.tracking import manifest, sums
from paretrim.tracking.card import model_card
from paretrim.tracking.manifest import Input, Manifest, Model, Origin, Packed
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.report import Row

_SCHEMA = 1
SCRIPT, FIT, CARD, LICENCE = "predict.py", "fit.py", "MODEL_CARD.md", "LICENCE"
_HERE = Path(__file__).resolve().parent
_SCRIPT = _HERE / SCRIPT
WEIGHTS = ".safetensors"
"""How files end that hold weights alone."""
_CHECK_LIMIT_S = 300
_MOST_SAMPLES = 512 << 20


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle.

    Attributes:
        job: Name of the search.
        metric: Name of the job's metric.
        runtime: Name and version of the runtime that measured the artifact.
        target: Where it was measured.
        artifact: The shipped file.
        samples: File of recorded inputs and outputs.
        record: The trial.
        row: The trial beside the baseline.
        baseline: The baseline's row.
        origin: Where the model comes from.
        labels: Names of the classes, or None.
        preprocessing: What is done to raw inputs, or None.
        licence: A file of licence notes to take along, or None.
        by_name: Whether the torch network takes its inputs by name.
    """

    job: str
    metric: str
    runtime: str
    target: TargetSettings
    artifact: Artifact
    samples: Path
    record: TrialRecord
    row: Row
    baseline: Row
    origin: Origin
    labels: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    licence: Path | None = None
    by_name: bool = False


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
    name = f"model{contents.artifact.suffix}"
    (folder / name).write_bytes(contents.artifact.read())
    try:
        shutil.copyfile(contents.artifact.path, folder / f"{name}.xz")
        shutil.copyfile(contents.samples, folder / "samples.npz")
    except OSError as error:
        raise ArtifactError(f"the artifact of trial {contents.row.trial} is incomplete: {error}") from error
    for script in (SCRIPT, FIT) if contents.artifact.suffix == WEIGHTS else (SCRIPT,):
        shutil.copyfile(_HERE / script, folder / script)
    if contents.licence is not None:
        shutil.copyfile(contents.licence, folder / LICENCE)
    (folder / "recipe.json").write_text(_json({"seed": contents.record.seed, "values": dict(contents.row.recipe)}))
    (folder / "measurements.json").write_text(_json(_measurements(contents)))
    told = _manifest(contents)
    (folder / manifest.FILE).write_text(told.to_json(), encoding="utf-8")
    (folder / CARD).write_text(model_card(told, contents.row, contents.baseline), encoding="utf-8")
    sums.write(folder)


def _require_small(samples: Path) -> None:
    """Check that recorded samples do not fill the memory when they are read."""
    try:
        with zipfile.ZipFile(samples) as file:
            size = sum(part.file_size for part in file.infolist())
    except (OSError, zipfile.BadZipFile, NotImplementedError, UnicodeError) as error:
        raise ArtifactError(f"the bundle does not check: {samples.name} cannot be read: {error}") from None
    if size > _MOST_SAMPLES:
        raise ArtifactError(
            f"the bundle does not check: {samples.name} would take {size} bytes, and {_MOST_SAMPLES} is the most"
        )


def own_script() -> bytes:
    """Return the script that bundles get."""
    return _SCRIPT.read_bytes()


def require_self_contained(model: Path) -> None:
    """Check that a model file keeps all its weights inside, so that to open it reads no other file of this machine.

    Raises:
        ArtifactError: It does not, or is no ONNX file.
    """
    import onnx  # noqa: PLC0415 - not needed to write a bundle
    from onnx.external_data_helper import uses_external_data  # noqa: PLC0415

    try:
        proto = onnx.load(model, load_external_data=False)
    except Exception as error:  # noqa: BLE001 - of protobuf's own kinds
        raise ArtifactError(f"'{model.name}' is no ONNX file: {type(error).__name__}: {error}") from None
    nodes = (node for function in proto.functions for node in function.node)
    if any(uses_external_data(tensor) for tensor in (*_tensors(proto.graph), *_of_nodes(nodes))):
        raise ArtifactError(
            f"'{model.name}' keeps weights in other files; it is not opened, since these may be any of this machine"
        )


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    yield from _of_sparse(graph.sparse_initializer)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            yield from _of_sparse((attribute.sparse_tensor, *attribute.sparse_tensors))
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _of_sparse(found: Iterable[Any]) -> Iterator[Any]:
    for each in found:
        yield each.values
        yield each.indices


def check(folder: Path, *, answers: bool = True) -> tuple[str, ...]:
    """Open a bundle in a clean process, with nothing but the runtime and numpy, and check it against its manifest.

    Its own script is not run: who sent it may have changed it.

    Args:
        folder: The bundle.
        answers: Whether its model is opened and asked.

    Returns:
        What was checked, in words.

    Raises:
        ArtifactError: Hash, size or outputs differ from the record.
    """
    _require_small(folder / "samples.npz")
    # -I: no environment variables, no user site, no current folder: what a receiver's machine would have.
    what = "--check" if answers else "--files"
    command = [sys.executable, "-I", str(_SCRIPT), what, str(folder.resolve())]
    try:
        # In an empty folder: a runtime that looks for a model's other files finds none.
        with TemporaryDirectory(prefix="paretrim-") as empty:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_CHECK_LIMIT_S, check=False, cwd=empty
            )
    except subprocess.TimeoutExpired as error:
        raise ArtifactError(f"the bundle's check took more than {_CHECK_LIMIT_S} s") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise ArtifactError(f"the bundle does not check: {words[-1] if words else f'code {done.returncode}'}")
    return tuple(done.stdout.strip().splitlines())


def _manifest(contents: Contents) -> Manifest:
    artifact = contents.artifact
    return Manifest(
        job=contents.job,
        trial=contents.row.trial,
        metric=contents.metric,
        runtime=contents.runtime,
        target=contents.target,
        # A bundle leaves the house: the name of a machine in it is nobody's business.
        environment={name: value for name, value in contents.record.environment.items() if name != "host"},
        origin=contents.origin,
        model=Model.model_validate(
            {"file": f"model{artifact.suffix}", "sha256": artifact.model_sha256, "bytes": artifact.model_bytes}
        ),
        packed=Packed.model_validate(
            {"file": f"model{artifact.suffix}.xz", "sha256": artifact.sha256, "bytes": artifact.size_bytes}
        ),
        inputs=tuple(
            Input(name=name, shape=array.shape[1:], dtype=str(array.dtype))
            for name, array in recorded.read(contents.samples).inputs.items()
        ),
        by_name=contents.by_name,
        labels=contents.labels,
        preprocessing=contents.preprocessing,
    )


def _measurements(contents: Contents) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "trial": contents.row.to_plain(),
        "baseline": contents.baseline.to_plain(),
        "measurements": [asdict(m) for m in contents.record.measurements],
    }


def _json(document: Any) -> str:
    return json.dumps(document, indent=2) + "\n"
