"""The files of docs/cluster, as far as they can be checked without the machines that they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from paretrim.search.places import STUDY, TRACKING
from paretrim.search.store import ENVIRONMENT

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "cluster"


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def test_ray_takes_its_cluster_file() -> None:
    config = read("ray-cluster.yaml")
    validate_config(prepare_config(config))
    (head,) = [line for line in config["head_start_ray_commands"] if "--head" in line]
    (worker,) = [line for line in config["worker_start_ray_commands"] if "--address" in line]
    assert "--num-cpus=0" in head
    for line in (head, worker):
        assert "RAY_AUTH_MODE=token" in line
        assert f"{ENVIRONMENT}=/shared" in line
    assert f"{STUDY}_FILE=" in head
    assert f"{TRACKING}=http://" in head


def test_the_pods_of_kubernetes_have_store_token_and_databases() -> None:
    spec = read("kuberay.yaml")["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        given = {each["name"]: each for each in container["env"]}
        assert given["RAY_AUTH_MODE"]["value"] == "token"
        for secret in ("RAY_AUTH_TOKEN", STUDY, "MLFLOW_TRACKING_PASSWORD"):
            assert "secretKeyRef" in given[secret]["valueFrom"]
        assert given[ENVIRONMENT]["value"] == container["volumeMounts"][0]["mountPath"]
        assert pod["volumes"][0]["name"] == container["volumeMounts"][0]["name"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("service", ["postgres", "mlflow"])
def test_the_servers_of_compose_are_on_loopback_and_hold_no_secret(service: str) -> None:
    document = read("docker-compose.yaml")
    found = document["services"][service]
    assert all(port.startswith("127.0.0.1:") for port in found["ports"])
    assert set(found["secrets"]) <= document["secrets"].keys()
    assert "PASSWORD: " not in (FOLDER / "docker-compose.yaml").read_text().replace("PASSWORD_FILE: ", "")
