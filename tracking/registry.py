"""MLflow's model registry: the models of a search that people ask for first, under the job's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from paretrim.evaluators import recorded
from paretrim.tracking.tracker import Chosen

_SHA, _SEARCH = "paretrim.artifact_sha256", "paretrim.search"
_PLACE = "model"
_ALREADY = "RESOURCE_ALREADY_EXISTS"


def register(client: MlflowClient, trials: Mapping[int, Run], name: str, models: Sequence[Chosen]) -> None:
    """Register models, each file once, and point the aliases at them.

    Args:
        client: Of the tracking server.
        trials: The runs of the search's trials by number; a model's files lie in its trial's.
        name: Of the registered model.
        models: The models.
    """
    if not models:
        return
    _ensure(client, name)
    for chosen in models:
        version = _known(client, name, chosen) or _added(client, trials[chosen.trial], name, chosen)
        for alias in chosen.aliases:
            client.set_registered_model_alias(name, alias, version)


def _ensure(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name, description="Compressed by paretrim; each version is a trial of a search.")
    except MlflowException as error:
        if error.error_code != _ALREADY:
            raise


def _known(client: MlflowClient, name: str, chosen: Chosen) -> str | None:
    """Return the version that is this trial's already; a search that goes on chooses the same ones again."""
    for version in client.search_model_versions(f"name = '{name}'"):
        same = version.tags.get(_SHA) == chosen.artifact.sha256 and version.tags.get(_SEARCH) == chosen.search
        if same and client.get_run(version.run_id).info.lifecycle_stage == LifecycleStage.ACTIVE:
            return str(version.version)
    return None


def _added(client: MlflowClient, run: Run, name: str, chosen: Chosen) -> str:
    with TemporaryDirectory(prefix="paretrim-") as folder:
        path = Path(folder) / "model"
        _save(chosen, path)
        client.log_artifacts(run.info.run_id, str(path), _PLACE)
    tags = {_SHA: chosen.artifact.sha256, "paretrim.trial": str(chosen.trial), _SEARCH: chosen.search}
    tags |= {metric: f"{value:.6g}" for metric, value in chosen.metrics.items()}
    version = client.create_model_version(
        name,
        source=f"{run.info.artifact_uri}/{_PLACE}",
        run_id=run.info.run_id,
        tags=tags,
        description=f"Trial {chosen.trial} of {chosen.search}: {chosen.words}",
    )
    return str(version.version)


def _save(chosen: Chosen, path: Path) -> None:
    """Write MLflow's model folder, with the very file that was scored."""
    import mlflow.onnx  # noqa: PLC0415 - slow to import, needed once a search
    import onnx  # noqa: PLC0415
    from mlflow.models import infer_signature  # noqa: PLC0415

    held = recorded.read(chosen.samples)
    inputs = dict(held.inputs) if len(held.inputs) > 1 else next(iter(held.inputs.values()))
    example = {name: part[:1] for name, part in inputs.items()} if isinstance(inputs, dict) else inputs[:1]
    model = chosen.artifact.read()
    mlflow.onnx.save_model(
        onnx.load_model_from_string(model),
        str(path),
        signature=infer_signature(inputs, held.outputs),
        input_example=example,
        pip_requirements=["mlflow", "onnx", *chosen.requirements],
        onnx_execution_providers=["CPUExecutionProvider"],
        onnx_session_options={"intra_op_num_threads": chosen.threads},
        save_as_external_data=False,
    )
    (path / "model.onnx").write_bytes(model)
