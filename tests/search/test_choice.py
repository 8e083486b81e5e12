"""The models of a search in MLflow's registry."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from mlflow import MlflowClient

from paretrim.search.choice import choose
from paretrim.search.result import Result, artifact_of
from paretrim.search.station import samples_path
from paretrim.search.store import Store
from paretrim.tracking.testing import sample_record

from .conftest import a_search, tiny_job
from .servers import free

NAME = "tiny"
LIMIT_S = 180.0


@pytest.fixture(scope="module")
def client(finished: Result) -> MlflowClient:
    return MlflowClient(tracking_uri=finished.store.own.tracking)


def test_the_chosen_are_registered_under_the_jobs_name(finished: Result, client: MlflowClient) -> None:
    picked, _ = choose(finished)
    champion = client.get_model_version_by_alias(NAME, "champion")
    assert champion.tags["paretrim.trial"] == str(picked)
    assert champion.tags["paretrim.search"] == finished.name
    for alias, metric in (("smallest", "size_bytes"), ("fastest", "latency_ms")):
        version = client.get_model_version_by_alias(NAME, alias)
        row = finished.pick(minimize=metric)
        assert version.tags["paretrim.artifact_sha256"] == row.sha256
        assert float(version.tags[metric]) == pytest.approx(row.metrics[metric], rel=1e-4)


def test_it_is_the_very_file_that_was_scored_with_signature_and_example(
    finished: Result, client: MlflowClient, tmp_path: Path
) -> None:
    version = client.get_model_version_by_alias(NAME, "champion")
    folder = Path(client.download_artifacts(version.run_id, "model", str(tmp_path)))
    artifact = artifact_of(finished, int(version.tags["paretrim.trial"]))
    assert hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest() == artifact.model_sha256
    assert {"signature", "saved_input_example_info"} <= set(_mlmodel(folder))


def _mlmodel(folder: Path) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load((folder / "MLmodel").read_text())
    return found


@pytest.mark.slow
def test_mlflow_serves_the_champion(finished: Result, client: MlflowClient) -> None:
    (port,) = free(1)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@champion"]
    command += ["--env-manager", "local", "--port", str(port), "--host", "127.0.0.1"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": finished.store.own.tracking}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        held = np.load(samples_path(artifact_of(finished, choose(finished)[0]).path))
        answer = _ask(f"http://127.0.0.1:{port}/invocations", {"inputs": held["inputs"].tolist()})
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    found = answer["predictions"]
    (outputs,) = found.values() if isinstance(found, dict) else (found,)
    np.testing.assert_allclose(np.array(outputs), held["outputs"], atol=1e-3)


def _ask(url: str, document: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            reply = requests.post(
                url, data=json.dumps(document), headers={"Content-Type": "application/json"}, timeout=30
            )
        except requests.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(1.0)
        else:
            assert reply.ok, reply.text
            found: dict[str, Any] = reply.json()
            return found


def test_a_search_without_files_chooses_but_registers_nothing(tmp_path: Path) -> None:
    result = a_search(Store(tmp_path), [sample_record(0), sample_record(3, latency_ms=0.1)], tiny_job())
    picked, models = choose(result)
    assert picked == 3
    assert models == ()
