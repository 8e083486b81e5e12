"""The teacher of a search: which model it is, and its outputs, computed once for all searches."""

from __future__ import annotations

import hashlib
import inspect
import re
from importlib.metadata import version

import torch
from safetensors.torch import load, save
from torch import nn

from paretrim.errors import DataError, UserCodeError
from paretrim.evaluators.splits import Split
from paretrim.search.cache import Cache, key
from paretrim.search.outputs import settle
from paretrim.search.space import Space
from paretrim.spaces.device import answers, described
from paretrim.spaces.distillation import Distillation
from paretrim.spaces.recovery import Recovery
from paretrim.spaces.schooling import CPU

_OUTPUTS = "outputs"
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def named_teacher(space: Space) -> str | None:
    """Return the import path of the model that teaches, or None where the uncompressed model does."""
    options = (part.options for part in space.techniques if isinstance(part, Distillation))
    return next((each.teacher for each in options), None)


def named_augmentation(space: Space) -> str | None:
    """Return the import path of the user's augmentation, if any."""
    options = (part.options for part in space.techniques if isinstance(part, Recovery))
    return next((each.augmentation for each in options), None)


def check_teacher(teacher: nn.Module, model: nn.Module, train: Split, path: str) -> None:
    """Check that a model can teach another.

    Raises:
        UserCodeError: It does not run on the data, or its outputs have another shape.
    """
    inputs = train.first(2).inputs
    settle(teacher, inputs, None, f"space.distillation.teacher: {path}")
    with torch.no_grad():
        taught, given = inputs.through(teacher), inputs.through(model)
    if taught.shape != given.shape:
        raise UserCodeError(
            f"space.distillation.teacher: {path} gives outputs of shape {tuple(taught.shape)} for two samples, and the model "
            f"{tuple(given.shape)}; a teacher needs the same outputs as the model"
        )


def outputs(teacher: nn.Module, weights: str, train: Split, cache: Cache, device: torch.device = CPU) -> torch.Tensor:
    """Return the teacher's outputs on a split, shape ``(N, ...)``; kept ones where any search has computed them before.

    Args:
        teacher: In evaluation mode.
        weights: Hash of its weights.
        train: The samples.
        cache: Where they are kept.
        device: Where they are computed.

    Raises:
        DataError: The teacher answers with NaN or infinity.
    """
    # Other processors round in other ways.
    name = key("teacher", weights, train.fingerprint(), code_of(teacher), described(device))
    kept = cache.get(name)
    if kept is not None:
        return load(kept)[_OUTPUTS]
    taught = answers(teacher, train.batches(256), device)
    if not bool(torch.isfinite(taught).all()):
        raise DataError("the teacher answers some training samples with NaN or infinite values; clean the data first")
    cache.put(name, save({_OUTPUTS: taught.contiguous()}))
    return taught


def code_of(model: nn.Module) -> str:
    """Return a hash of what, beside its weights, a model's outputs depend on: its modules' settings and source, and versions."""
    texts = {f"paretrim {version('paretrim')} torch {torch.__version__}", _ADDRESS.sub("", repr(model))}
    for kind in {type(module) for module in model.modules()}:
        texts.add(f"{kind.__module__}.{kind.__qualname__}")
        if kind.__module__.split(".")[0] != "torch":
            texts.add(_source(kind))
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # it was not read from a file
        return kind.__qualname__
