"""Models of the timm library, with weights from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from paretrim.errors import SourceError, nearest
from paretrim.search.sources.extra import extra
from paretrim.search.sources.weights import with_weights


def from_timm(name: str, weights: str | Path, **options: Any) -> nn.Module:
    """Return a model of the timm library with weights from a file; the network is never asked.

    timm needs torchvision, of which a build that fits torch must be installed.

    Args:
        name: Of the architecture, such as ``resnet18``.
        weights: The file; see `with_weights`.
        options: What `timm.create_model` takes, such as ``num_classes``.

    Returns:
        The model in evaluation mode.

    Raises:
        MissingExtraError: The extra ``timm`` is not installed, or does not import.
        SourceError: timm has no such architecture, or the weights do not fit.
    """
    library = extra("timm")
    names = library.list_models()
    if name not in names:
        raise SourceError(f"timm {library.__version__} has no architecture '{name}'{nearest(name, names)}")
    network: nn.Module = library.create_model(name, pretrained=False, **options)
    return with_weights(network, weights)
