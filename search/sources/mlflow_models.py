"""Models from MLflow, as far as they can be read without unpickling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from paretrim.errors import SourceError
from paretrim.search.sources.pt2 import from_pt2
from paretrim.search.sources.transformers_models import from_transformers

if TYPE_CHECKING:
    from paretrim.tracking.logged import LoggedModel

# What pipelines call the tasks.
_TASKS = {
    "text-classification": "sequence-classification",
    "sentiment-analysis": "sequence-classification",
    "token-classification": "token-classification",
    "ner": "token-classification",
    "image-classification": "image-classification",
    "audio-classification": "audio-classification",
    "question-answering": "question-answering",
    "fill-mask": "masked-lm",
    "text-generation": "causal-lm",
    "feature-extraction": "features",
}
_AGAIN = (
    "log it again with mlflow.pytorch.log_model(model, name=..., input_example=x, serialization_format='pt2'), where x has two "
    "samples or more"
)


def from_mlflow(uri: str, *, tracking_uri: str | None = None) -> nn.Module:
    """Return a model that was logged to MLflow.

    Two kinds can be read without running code of theirs: those of ``mlflow.pytorch`` with ``serialization_format='pt2'``, which
    MLflow 3.17 writes by default, as ``data/model.pt2`` (see `from_pt2`), and those of ``mlflow.transformers`` (see
    `from_transformers`).

    Args:
        uri: ``models:/name/1``, ``models:/name@alias``, ``runs:/id/model``, or a folder.
        tracking_uri: Of the tracking server and the registry; by default ``MLFLOW_TRACKING_URI``.

    Returns:
        The network in evaluation mode.

    Raises:
        SourceError: There is no such model, or it is pickled; says how to log it again.
        MissingExtraError: It is one of transformers, which is not installed.
    """
    from paretrim.tracking.logged import logged_model

    with logged_model(uri, tracking_uri) as logged:
        if "pytorch" in logged.flavors:
            return _program(logged, uri)
        if "transformers" in logged.flavors:
            return _pretrained(logged, uri)
        flavors = ", ".join(name for name in logged.flavors if name != "python_function")
        raise SourceError(
            f"'{uri}' is a model of {flavors or 'a function in Python'}, and only one of PyTorch can be searched; {_AGAIN}"
        )


def _program(logged: LoggedModel, uri: str) -> nn.Module:
    file = logged.folder / str(logged.flavors["pytorch"].get("model_data", "data")) / "model.pt2"
    if not file.is_file():
        raise SourceError(f"'{uri}' is pickled, and is not unpickled, since that could run any code; {_AGAIN}")
    try:
        return from_pt2(file)
    except SourceError as error:
        raise SourceError(f"'{uri}': {error}; {_AGAIN}") from None


def _pretrained(logged: LoggedModel, uri: str) -> nn.Module:
    flavor = logged.flavors["transformers"]
    folder = logged.folder / str(flavor.get("model_binary", "model"))
    if not folder.is_dir():
        raise SourceError(
            f"'{uri}' only refers to a model of the Hugging Face hub; log it with mlflow.transformers.log_model(..., "
            "save_pretrained=True)"
        )
    task = _TASKS.get(str(flavor.get("task")))
    if task is None:
        raise SourceError(
            f"'{uri}' is for '{flavor.get('task')}'; models for these are understood: {', '.join(_TASKS)}"
        )
    return from_transformers(folder, task)
