"""Models from MLflow: those that need no unpickling are taken, the others refused with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
import torch
import yaml
from mlflow.tracking import MlflowClient
from torch import nn

from paretrim.errors import SourceError
from paretrim.models import from_mlflow


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()


@dataclass(frozen=True)
class Registry:
    """Models that were logged: as a program, as one for a single sample, pickled, and one that is no PyTorch model."""

    tracking: str
    program: str
    fixed: str
    pickled: str
    run: str


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("mlflow")
    before = mlflow.get_tracking_uri()
    tracking = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(tracking)
    mlflow.create_experiment("models", artifact_location=str(folder / "artifacts"))
    mlflow.set_experiment("models")
    example, options = torch.zeros(2, 1, 8, 8).numpy(), {"pip_requirements": ["torch"]}
    try:
        with mlflow.start_run() as run:
            program = mlflow.pytorch.log_model(
                net(),
                name="net",
                input_example=example,
                serialization_format="pt2",
                registered_model_name="tiny",
                **options,
            )
            fixed = mlflow.pytorch.log_model(
                net(), name="fixed", input_example=example[:1], serialization_format="pt2", **options
            )
            pickled = mlflow.pytorch.log_model(net(), name="pickled", serialization_format="pickle", **options)
        MlflowClient().set_registered_model_alias("tiny", "champion", "1")
        yield Registry(tracking, program.model_uri, fixed.model_uri, pickled.model_uri, run.info.run_id)
    finally:
        mlflow.set_tracking_uri(before)


def test_a_program_is_found_by_version_alias_run_and_its_own_name(registry: Registry) -> None:
    x = torch.randn(3, 1, 8, 8)
    for uri in ("models:/tiny/1", "models:/tiny@champion", f"runs:/{registry.run}/net", registry.program):
        found = from_mlflow(uri, tracking_uri=registry.tracking)
        torch.testing.assert_close(found(x), net()(x))
        assert {type(each) for each in found.modules()} >= {nn.Conv2d, nn.ReLU, nn.Linear}


def test_a_folder_is_taken_as_it_is(registry: Registry, tmp_path: Path) -> None:
    mlflow.artifacts.download_artifacts(artifact_uri=registry.program, dst_path=str(tmp_path))
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(from_mlflow(str(tmp_path))(x), net()(x))


def test_a_program_for_one_sample_is_refused_with_how_to_log_it(registry: Registry) -> None:
    with pytest.raises(
        SourceError, match=r"fixed number of samples.*log it again with .*input_example=x.*two samples or more"
    ):
        from_mlflow(registry.fixed, tracking_uri=registry.tracking)


def test_a_pickled_model_is_refused_with_how_to_log_it(registry: Registry) -> None:
    with pytest.raises(SourceError, match=r"is pickled, and is not unpickled.*serialization_format='pt2'"):
        from_mlflow(registry.pickled, tracking_uri=registry.tracking)


def test_a_model_that_is_not_there_is_told_with_the_servers_address(registry: Registry) -> None:
    with pytest.raises(SourceError, match=r"MLflow at sqlite:.* has no model 'models:/huge/1'"):
        from_mlflow("models:/huge/1", tracking_uri=registry.tracking)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no file MLmodel in it"):
        from_mlflow(str(tmp_path))


@pytest.mark.parametrize(
    ("flavors", "said"),
    [
        ({"python_function": {}, "sklearn": {"pickled_model": "model.pkl"}}, "is a model of sklearn"),
        ({"python_function": {}}, "is a model of a function in Python"),
        ({"transformers": {"task": "text-classification"}}, "only refers to a model of the Hugging Face hub"),
        ({"transformers": {"task": "text-to-speech", "model_binary": "."}}, "is for 'text-to-speech'"),
    ],
)
def test_models_of_other_flavors_are_refused(flavors: dict[str, object], said: str, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    with pytest.raises(SourceError, match=said):
        from_mlflow(str(tmp_path))
