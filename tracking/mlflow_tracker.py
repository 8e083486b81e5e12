"""MLflow: one experiment a search, its trials as flat runs in it, and one summary run.

Trials are not nested under a parent: MLflow's charts show only visible runs, and nested runs are folded away.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlparse
from urllib.request import url2pathname

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# A server that is away must not hold the search: what it misses is logged later. By default MLflow tries for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow.entities import Metric, Param, Run, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from paretrim.evaluators.measurement import Measurement
from paretrim.tracking import progress, registry
from paretrim.tracking.heatmap import heatmap_page
from paretrim.tracking.plots import front_page
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.report_page import report_page
from paretrim.tracking.settled import CROWDED, SEARCHED
from paretrim.tracking.tracker import Summary, TrackingError
from paretrim.tracking.view import KEY, TAG, View

_TRIAL, SUMMARY = "paretrim.trial", "paretrim.summary"
_PAGE = 1000
_MOST_TAG = 4000


def chart_pages(uri: str) -> dict[str, str]:
    """Return the path of each experiment's charts in MLflow's UI, by the experiment's name."""
    _quiet()
    query = f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={KEY}"
    found = MlflowClient(tracking_uri=uri).search_experiments()
    return {e.name: f"/#/experiments/{e.experiment_id}/runs?{query}" for e in found if TAG in e.tags}


class MlflowTracker:
    """A search in MLflow.

    Args:
        uri: Tracking URI.
        name: Name of the search: the experiment's name.
        artifacts: Folder for files, for a database without a server of its own; None leaves it to the server.
        view: What the ready-made charts show; None leaves MLflow's own.
        unsure: Whether somebody else may have left a run unfinished, or finished one without having said so.

    Raises:
        TrackingError: The server or database cannot be reached.
    """

    def __init__(
        self, uri: str, name: str, artifacts: Path | None, view: View | None = None, *, unsure: bool = False
    ) -> None:
        _quiet()
        self._uri = uri
        self._unsure = unsure
        self._local = artifacts is not None
        try:
            _log_ahead(uri)
            self._client = MlflowClient(tracking_uri=uri)
            self._experiment = self._find_or_create(name, artifacts)
            if view is not None:
                self._client.set_experiment_tag(self._experiment, TAG, view.to_json())
        except Exception as error:
            raise TrackingError(f"cannot use the tracking server at {uri}: {_brief(error)}") from error

    @property
    def experiment_id(self) -> str:
        """MLflow's identifier of the experiment."""
        return self._experiment

    def logged(self) -> set[int]:
        """Return the numbers of the trials that are wholly logged; delete runs that were left unfinished.

        Raises:
            TrackingError: The server or database cannot be reached.
        """
        try:
            return self._cleared()
        except Exception as error:
            raise TrackingError(f"cannot read what is logged at {self._uri}: {_brief(error)}") from error

    def log_trial(self, record: TrialRecord) -> None:
        """Write a run in four requests.

        Raises:
            TrackingError: The server or database cannot be reached.
        """
        try:
            # After a failure nobody knows how much of that run was written.
            if self._unsure and record.number in self._cleared():
                return
            self._unsure = True
            # The run's duration in MLflow is the trial's, not that of writing it.
            began = _now_ms() - int(sum(record.seconds.values()) * 1000)
            run = self._client.create_run(self._experiment, began, _tags(record), _run_name(record))
            params = [Param(name, str(value)) for name, value in {**record.recipe, "seed": record.seed}.items()]
            self._client.log_batch(run.info.run_id, _metrics(record), params)
            self._keep_record(run, record)
            status = RunStatus.FAILED if record.state == "failed" else RunStatus.FINISHED
            self._client.set_terminated(run.info.run_id, RunStatus.to_string(status))
            self._unsure = False
        except Exception as error:
            raise TrackingError(f"cannot log trial {record.number} at {self._uri}: {_brief(error)}") from error

    def _keep_record(self, run: Run, record: TrialRecord) -> None:
        """Write the record, and why it failed, beside the run: files of ours directly, which spares MLflow several queries."""
        files = {"record.json": record.to_json()}
        if record.state == "failed":
            files["failure.txt"] = record.cause
        where = urlparse(run.info.artifact_uri)
        if self._local and where.scheme == "file":
            folder = Path(url2pathname(where.path))
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
        else:
            for name, text in files.items():
                self._client.log_text(run.info.run_id, text, name)

    def _cleared(self) -> set[int]:
        numbers: set[int] = set()
        for run in self._runs(f"tags.`{_TRIAL}` != ''"):
            number = int(run.data.tags[_TRIAL])
            if run.info.status == RunStatus.to_string(RunStatus.RUNNING) or number in numbers:
                self._client.delete_run(run.info.run_id)
            else:
                numbers.add(number)
        return numbers

    def log_summary(self, summary: Summary) -> None:
        """Write the summary run in the place of an earlier one, and mark the runs of the front.

        Raises:
            TrackingError: The server or database cannot be reached.
        """
        try:
            for run in self._runs(f"tags.`{SUMMARY}` = 'true'"):
                self._client.delete_run(run.info.run_id)
            trials = self._mark(summary)
            run = self._client.create_run(
                self._experiment, run_name="summary", tags={SUMMARY: "true", **_prefixed(summary.notes)}
            )
            metrics = [_metric(name, value) for name, value in summary.figures.items()]
            self._client.log_batch(run.info.run_id, metrics=metrics)
            self._log_files(run.info.run_id, summary)
            self._client.set_terminated(run.info.run_id)
        except Exception as error:
            raise TrackingError(f"cannot log the summary at {self._uri}: {_brief(error)}") from error
        try:
            registry.register(self._client, trials, summary.model, summary.models)
        except Exception as error:
            raise TrackingError(f"cannot register the models at {self._uri}: {_brief(error)}") from error

    def _log_files(self, run_id: str, summary: Summary) -> None:
        self._client.log_table(run_id, summary.report.to_frame(), "front_table.json")
        with TemporaryDirectory(prefix="paretrim-") as folder:
            files = {
                "front.json": summary.report.to_json(),
                "front.csv": summary.report.to_csv(),
                **_page("front.html", front_page, summary),
                **_page("report.html", report_page, summary),
            }
            if summary.sensitivity is not None:
                files["sensitivity.html"] = heatmap_page(summary.report.job, summary.sensitivity)
                files["sensitivity.json"] = summary.sensitivity.to_json()
            if summary.progress:
                files["hypervolume.csv"] = progress.to_csv(summary.progress)
            if summary.importance is not None:
                files |= {
                    "importance.csv": summary.importance.to_csv(),
                    "importance.json": summary.importance.to_json(),
                }
            for name, text in files.items():
                Path(folder, name).write_text(text, encoding="utf-8")
            self._client.log_artifacts(run_id, folder)

    def _mark(self, summary: Summary) -> dict[int, Run]:
        """Mark the runs of the front, and return all trials' runs by number."""
        front = {row.trial for row in summary.report.front}
        found: dict[int, Run] = {}
        for run in self._runs(f"tags.`{_TRIAL}` != ''"):
            number = int(run.data.tags[_TRIAL])
            found[number] = run
            wanted = {"pareto": str(number in front).lower(), "feasible": str(number in summary.feasible).lower()}
            changed = [RunTag(key, value) for key, value in wanted.items() if run.data.tags.get(key) != value]
            if changed:
                self._client.log_batch(run.info.run_id, tags=changed)
            self._time_again(run, next((r for r in summary.records if r.number == number), None))
        return found

    def _time_again(self, run: Run, record: TrialRecord | None) -> None:
        """Log the latency that counts where it was taken again; MLflow keeps the earlier one in the metric's history."""
        if record is None or SEARCHED not in record.metrics:
            return
        now = {m.key: m for m in _metrics(record) if m.key in (SEARCHED, CROWDED) or m.key.startswith("latency_ratio")}
        now |= {m.key: m for m in _metrics(record) if m.key in ("latency_ms", "latency_ms_low", "latency_ms_high")}
        if any(run.data.metrics.get(key) != metric.value for key, metric in now.items()):
            self._client.log_batch(run.info.run_id, [Metric(m.key, m.value, _now_ms(), 1) for m in now.values()])

    def _runs(self, query: str) -> list[Run]:
        found: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment], query, ViewType.ACTIVE_ONLY, _PAGE, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _find_or_create(self, name: str, artifacts: Path | None) -> str:
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        location = None if artifacts is None else (artifacts / name).as_uri()
        return str(self._client.create_experiment(name, artifact_location=location))


def _page(name: str, make: Callable[[Summary], str], summary: Summary) -> dict[str, str]:
    """Return a page by its name, or why it could not be made: the numbers are logged without it."""
    try:
        return {name: make(summary)}
    except Exception:  # noqa: BLE001 - as it says
        return {f"{name}.failed.txt": traceback.format_exc()}


def _tags(record: TrialRecord) -> dict[str, str]:
    tags = {
        _TRIAL: str(record.number),
        "paretrim.kind": record.kind,
        "paretrim.state": record.state,
        "paretrim.artifact_sha256": record.sha256,
        "paretrim.model_sha256": record.model_sha256,
        "pareto": "false",
    }
    tags |= {f"paretrim.{name}": value[:_MOST_TAG] for name, value in record.environment.items()}
    return {**tags, "paretrim.cause": record.cause[:_MOST_TAG]} if record.cause else tags


def _metrics(record: TrialRecord) -> list[Metric]:
    found = {"trial": float(record.number), **_numbers(record.measurements)}
    for target, there in record.elsewhere.items():
        found |= {f"{target}/{name}": value for name, value in _numbers(there.measurements).items()}
    found |= {f"{stage}_seconds": value for stage, value in record.seconds.items()}
    curves = [
        Metric(name, value, _now_ms(), step)
        for step, epoch in enumerate(record.epochs, 1)
        for name, value in (("train_loss", epoch.loss), ("validation_while_training", epoch.score))
        if value is not None
    ]
    return [*(_metric(name, value) for name, value in found.items()), *curves]


def _numbers(measurements: Sequence[Measurement]) -> dict[str, float]:
    found: dict[str, float] = {}
    for m in measurements:
        found[m.name] = m.value
        if m.low is not None and m.high is not None:
            found |= {f"{m.name}_low": m.low, f"{m.name}_high": m.high}
    return found


def _metric(name: str, value: float) -> Metric:
    return Metric(name, float(value), _now_ms(), 0)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _run_name(record: TrialRecord) -> str:
    return f"{record.number:04d} {record.kind}"


def _prefixed(notes: Mapping[str, str]) -> dict[str, str]:
    return {f"paretrim.{name}": text[:_MOST_TAG] for name, text in notes.items()}


def _brief(error: Exception) -> str:
    lines: Sequence[str] = str(error).splitlines() or [""]
    kind = "" if isinstance(error, MlflowException) else f"{type(error).__name__}: "
    return f"{kind}{lines[0][:300]}"


def _log_ahead(uri: str) -> None:
    """Let a SQLite file keep a write-ahead log, which the file remembers: a commit then waits for the disk once."""
    if uri.startswith("sqlite:///"):
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=60)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")


def _quiet() -> None:
    # Creating the database logs dozens of migration steps.
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
