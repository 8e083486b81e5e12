"""Verifying a bundle, here and now: its files, what it answers, and where asked what it scores and costs.

A bundle may be anybody's. So it is copied first, file by file as far as each is an ordinary one, and only the copy is looked at;
nothing of it is executed but the model, in ONNX Runtime or OpenVINO: its script is not run, and nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from paretrim.errors import ArtifactError, MeasurementError, ParetrimError, UsageError
from paretrim.evaluators import machine, recorded, target
from paretrim.evaluators.artifact import Artifact
from paretrim.evaluators.metrics import Metric
from paretrim.evaluators.splits import Splits
from paretrim.evaluators.target import TargetAddress
from paretrim.search import unlabelled, usercode
from paretrim.search.export import measured_again, scored_again
from paretrim.search.jobfile import load
from paretrim.tracking import bundle, manifest, sums
from paretrim.tracking.bundle import Comparison
from paretrim.tracking.manifest import Manifest
from paretrim.tracking.report import Row
from paretrim.tracking.taken import MARK, taken

# Of the machine, what numbers depend on.
_FACTS = ("cpu", "cpu_cores", "cpu_sets", "governor", "system")
# What opens ONNX files and nothing else: others may unpickle.
_RUNTIMES = ("onnxruntime", "onnxruntime-cuda", "openvino", "openvino-ir")
_ASKED = (".onnx", ".tar")
_ROW = TypeAdapter(Row)


@dataclass(frozen=True)
class Check:
    """One thing that was checked. Whatever cannot be printed in its words is written as an escape.

    Attributes:
        what: What it is.
        recorded: What the bundle says.
        here: What was found here.
        holds: Whether the two agree.
        decides: Whether the bundle fails where they do not.
    """

    what: str
    recorded: str
    here: str
    holds: bool
    decides: bool = True

    def __post_init__(self) -> None:
        """Take what steers a terminal out of the words."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, str):
                object.__setattr__(self, each.name, printable(value))


@dataclass(frozen=True)
class Verification:
    """What was found of a bundle.

    Attributes:
        folder: The bundle.
        checks: All that was checked.
        differences: What is different here from where it was measured, by name: there and here.
        sha256: Hash of the file that ships; empty where the bundle could not be read.
    """

    folder: Path
    checks: tuple[Check, ...]
    differences: Mapping[str, tuple[str, str]]
    sha256: str

    @property
    def holds(self) -> bool:
        """Whether nothing that decides has failed."""
        return all(check.holds for check in self.checks if check.decides)

    def to_json(self) -> str:
        """Return it as JSON."""
        document = {
            "schema": 1,
            "folder": str(self.folder),
            "holds": self.holds,
            "sha256": self.sha256,
            "checks": [asdict(check) for check in self.checks],
            "differences": {name: {"there": a, "here": b} for name, (a, b) in self.differences.items()},
        }
        return json.dumps(document, indent=2)


@dataclass(frozen=True)
class _Bundle:
    """A bundle's private copy, and what it says of itself."""

    folder: Path
    told: Manifest

    @property
    def artifact(self) -> Artifact:
        packed, model = self.told.packed, self.told.model
        return Artifact(self.folder / packed.file, packed.sha256, packed.bytes, model.sha256, model.bytes)


@dataclass(frozen=True)
class _Exam:
    """What a bundle is scored by: the user's own data and metric."""

    splits: Splits
    metric: Metric


def verify(
    folder: Path, job: Path | None = None, baseline: Path | None = None, *, strict: bool = False
) -> Verification:
    """Verify a bundle, and mark it where it fails.

    Args:
        folder: The bundle.
        job: A job file whose data and metric it is scored by; without, it is not scored.
        baseline: The bundle of the uncompressed model, or of another one with which it is timed in turns; without, it is not
            timed.
        strict: Whether latency and memory decide too.

    Raises:
        UsageError: The folder, the job or the baseline does not do, or this machine lacks the runtime.
        DataError: The job's data does not do.
    """
    for each in (folder, baseline):
        if each is not None and not each.is_dir():
            raise UsageError(f"'{each}' is no folder; name one that `paretrim export` wrote")
    exam = None if job is None else _exam(job)
    checks: list[Check] = []
    with tempfile.TemporaryDirectory(prefix="paretrim-") as scratch:
        theirs = None if baseline is None else _baseline(baseline, Path(scratch) / "baseline")
        mine = _opened(folder, Path(scratch) / "bundle", checks)
        if mine is not None and (exam is not None or theirs is not None):
            address = _address(mine.told)
            checks += _guarded(_measured(mine, address, exam, theirs, strict=strict))
    told = None if mine is None else mine.told
    found = Verification(folder, tuple(checks), _differences(told), "" if told is None else told.packed.sha256)
    _mark(found)
    return found


def printable(text: str) -> str:
    """Return a text in which what cannot be printed, such as what steers a terminal, is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _exam(path: Path) -> _Exam:
    job = load(path)
    usercode.use_folder(job.folder)
    return _Exam(unlabelled.data_of(job), usercode.load_metric(job))


def _baseline(folder: Path, copy: Path) -> _Bundle:
    """Open the bundle of another model; that it does not hold is no fault of the one that is verified."""
    checks: list[Check] = []
    found = _opened(folder, copy, checks)
    if found is None:
        raise UsageError(f"--baseline: '{folder}' does not hold: {checks[-1].here}")
    return found


def _opened(folder: Path, copy: Path, checks: list[Check]) -> _Bundle | None:
    """Copy a bundle, and check its files and answers; None where they do not hold."""
    told: list[Manifest] = []

    def steps() -> Iterator[Check]:
        taken(folder, copy)
        count = sums.check(copy)
        yield Check("files", f"{count} in {sums.FILE}", "all there, unchanged, and no others", holds=True)
        told.append(manifest.read(copy))
        script = copy / bundle.SCRIPT
        if not script.exists() or script.read_bytes() != bundle.own_script():
            other = "another one than this version writes; it was not run"
            yield Check(bundle.SCRIPT, "of paretrim", other, holds=False, decides=False)
        yield from _answers(copy, told[0])

    checks += _guarded(steps())
    holds = all(check.holds for check in checks if check.decides)
    return _Bundle(copy, told[0]) if told and holds else None


def _answers(copy: Path, told: Manifest) -> Iterator[Check]:
    """Check hashes and sizes, and what the model answers where to open it executes nothing else."""
    model = told.model
    if model.suffix == ".onnx":
        bundle.require_self_contained(copy / model.file)
    asked = model.suffix in _ASKED
    for line in bundle.check(copy, answers=asked):
        what, _, found = line.partition(": ")
        yield Check(what, "as recorded", found, holds=True)
    if not asked:
        why = "PyTorch may unpickle parts of it" if model.suffix == ".pt2" else "it holds weights alone"
        yield Check("outputs", "recorded", f"not compared: {why}; see {bundle.CARD}", holds=False, decides=False)


def _guarded(steps: Iterable[Check]) -> list[Check]:
    """Return the checks of some steps; whatever a bundle makes them stumble over is its own fault, and a check that fails."""
    found: list[Check] = []
    try:
        for check in steps:
            found.append(check)
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - as it says
        known = isinstance(error, ParetrimError)
        why = str(error) if known else f"it cannot be read: {type(error).__name__}: {error}"
        found.append(Check("the bundle", "whole", why, holds=False))
    return found


def _address(told: Manifest) -> TargetAddress:
    """Return the target that a bundle was measured on.

    Raises:
        UsageError: It is none that opens ONNX files alone, or cannot run here.
    """
    runtime = printable(told.target.runtime)
    if told.target.runtime not in _RUNTIMES:
        raise UsageError(
            f"the bundle was measured with the runtime '{runtime}', and only {', '.join(_RUNTIMES)} are used to measure a bundle "
            "again; leave --job and --baseline out"
        )
    address = target.find(told.target)
    reason = address.build().unavailable()
    if reason:
        raise UsageError(
            f"the bundle was measured with the runtime '{runtime}', which cannot run on this machine: {reason}"
        )
    return address


def _measured(
    mine: _Bundle, address: TargetAddress, exam: _Exam | None, baseline: _Bundle | None, *, strict: bool
) -> Iterator[Check]:
    row = _row(mine.folder)
    if exam is not None:
        yield from _scores(mine, address, row, exam)
    if baseline is not None:
        yield from _costs(mine, address, row, baseline, strict=strict)


def _scores(mine: _Bundle, address: TargetAddress, row: Row, exam: _Exam) -> Iterator[Check]:
    told, metric = mine.told, exam.metric
    if metric.name != told.metric or metric.name not in row.validation:
        recorded = ", ".join(row.validation) or "no score"
        raise UsageError(
            f"the bundle has {printable(recorded)} by {printable(told.metric)}, and the job's metric is {metric.name}; give the "
            "job file that it was made with"
        )
    same = exam.splits.fingerprint() == told.origin.data_sha256
    data = "the same" if same else "other data than the search had"
    yield Check("data", told.origin.data_sha256[:16], data, holds=same, decides=False)
    for each in scored_again(mine.artifact, address, row, metric, exam.splits):
        # On other data another score is no fault.
        yield _compared(each, decides=same)


def _costs(mine: _Bundle, address: TargetAddress, row: Row, baseline: _Bundle, *, strict: bool) -> Iterator[Check]:
    own, other = mine.told, baseline.told
    if other.trial != 0 or other.job != own.job:
        said = f"trial {other.trial} of {other.job}"
        yield Check("baseline", f"trial 0 of {own.job}", said, holds=False, decides=False)
    inputs = recorded.read(mine.folder / "samples.npz").inputs
    try:
        for each in measured_again(mine.artifact, baseline.artifact, address, row, inputs):
            yield _compared(each, decides=strict)
    except MeasurementError as error:
        yield Check("latency and memory", "measured", str(error), holds=False, decides=strict)


def _compared(each: Comparison, *, decides: bool) -> Check:
    return Check(each.name, f"{each.logged:.4f}", f"{each.now:.4f}", each.agrees, decides)


def _row(folder: Path) -> Row:
    try:
        plain: dict[str, Any] = json.loads((folder / "measurements.json").read_text(encoding="utf-8"))["trial"]
        row = _ROW.validate_python({"kind": "", "sha256": "", **plain})
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise ArtifactError(f"measurements.json cannot be read: {error}") from None
    numbers = [*row.validation.values(), *row.test.values(), *(each for each in row.ratio.values() if each is not None)]
    if not all(math.isfinite(number) for number in numbers):
        raise ArtifactError("measurements.json has numbers that are not finite, with which everything would agree")
    return row


def _differences(told: Manifest | None) -> dict[str, tuple[str, str]]:
    if told is None:
        return {}
    here = machine.describe()
    if told.target.runtime in _RUNTIMES:
        with suppress(Exception):  # it may not be installed here
            here["runtime"] = target.find(told.target).build().version()
    package = told.runtime.partition(" ")[0]
    if "runtime" not in here:
        with suppress(PackageNotFoundError):
            here["runtime"] = f"{package} {version(package)}"
    there = {**told.environment, "runtime": told.runtime}
    names = ("runtime", *_FACTS)
    return {
        name: (printable(there.get(name, "")), here.get(name, "not installed"))
        for name in names
        if there.get(name, "") != here.get(name, "")
    }


def _mark(found: Verification) -> None:
    """Leave a file in a bundle that fails, and take it away from one that does not; a link in its place is not followed."""
    failed = [
        f"{check.what}: {check.here} (recorded: {check.recorded})"
        for check in found.checks
        if check.decides and not check.holds
    ]
    with suppress(OSError):  # a bundle on a medium that cannot be written
        if found.holds:
            (found.folder / MARK).unlink(missing_ok=True)
            return
        text = "\n".join(["paretrim verify found this bundle wrong:", *failed, ""])
        number, partial = tempfile.mkstemp(prefix=".", dir=found.folder)
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        Path(partial).replace(found.folder / MARK)
