"""A search as its tracker writes it and as MLflow shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from paretrim.tracking.mlflow_tracker import MlflowTracker

SUMMARY_FILES = {"front.json", "front.csv", "front.html", "front_table.json", "report.html"}


class Search:
    """A search in a database, as its tracker writes it and as MLflow shows it."""

    def __init__(self, uri: str, name: str, artifacts: Path | None) -> None:
        self.uri, self.name, self.artifacts = uri, name, artifacts
        self.tracker = self.reopened()
        self.client = MlflowClient(tracking_uri=uri)

    def reopened(self) -> MlflowTracker:
        return MlflowTracker(self.uri, self.name, self.artifacts)

    def runs(self, key: str = "paretrim.trial") -> list[Any]:
        found = self.client.search_runs([self.tracker.experiment_id], order_by=["attributes.start_time"])
        return [run for run in found if key in run.data.tags]

    def run(self, number: int) -> Any:
        (found,) = [run for run in self.runs() if run.data.tags["paretrim.trial"] == str(number)]
        return found

    def summary(self) -> Any:
        (found,) = self.runs("paretrim.summary")
        return found

    def files(self) -> set[str]:
        return {file.path for file in self.client.list_artifacts(self.summary().info.run_id)}

    def text(self, file: str, folder: Path) -> str:
        return Path(self.client.download_artifacts(self.summary().info.run_id, file, str(folder))).read_text()
