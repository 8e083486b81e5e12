"""A lesson as bytes: a model, its teacher and all that is hooked onto them, for another process of the same user."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from ray import cloudpickle
from torch import nn
from torch.nn.utils import parametrize

from paretrim.evaluators.splits import Split
from paretrim.spaces.lesson import Lesson

_Hook = Callable[[torch.Tensor], torch.Tensor | None]


@dataclass(frozen=True)
class Material:
    """What all lessons of a search have in common, which is not packed with each.

    Attributes:
        train: The training split.
        teacher: The teacher's outputs on it, or None.
        tutor: The model that teaches.
    """

    train: Split
    teacher: torch.Tensor | None
    tutor: nn.Module


@dataclass(frozen=True)
class _Parcel:
    lesson: Lesson
    hooks: Mapping[str, tuple[_Hook, ...]]


def packed(lesson: Lesson, material: Material) -> bytes:
    """Return a lesson as bytes, but for what is in the material, and for making room for measurements."""
    kept = replace(lesson, schooling=replace(lesson.schooling, working=nullcontext))
    buffer = io.BytesIO()
    _Packer(buffer, material).dump(_Parcel(kept, _hooks(lesson.model)))
    return buffer.getvalue()


def unpacked(data: bytes, material: Material) -> Lesson:
    """Return the lesson that `packed` has made bytes of."""
    parcel: _Parcel = _Unpacker(io.BytesIO(data), material).load()
    for name, hooks in parcel.hooks.items():
        for hook in hooks:
            parcel.lesson.model.get_parameter(name).register_hook(hook)
    return parcel.lesson


class _Packer(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, material: Material) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._names = {id(each): name for name, each in vars(material).items() if each is not None}

    def persistent_id(self, given: Any) -> str | None:
        """Return what names a part of the material, or None for anything else."""
        return self._names.get(id(given))

    def reducer_override(self, given: Any) -> Any:
        """Take parametrized modules apart, since torch refuses to pickle the classes that it makes for them."""
        if isinstance(given, nn.Module) and parametrize.is_parametrized(given):
            kind = parametrize.type_before_parametrizations(given)
            return kind.__new__, (kind,), dict(vars(given)), None, None, _fill
        return super().reducer_override(given)


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, material: Material) -> None:
        super().__init__(file)
        self._material = material

    def persistent_load(self, name: Any) -> Any:
        """Return a part of the material."""
        return getattr(self._material, name)


def _fill(module: nn.Module, state: dict[str, Any]) -> None:
    vars(module).update(state)
    parametrize._inject_new_class(module)
    for name in state["_modules"]["parametrizations"]:
        parametrize._inject_property(module, name)


def _hooks(model: nn.Module) -> dict[str, tuple[_Hook, ...]]:
    """Return the hooks on a model's parameters, which are not pickled with these."""
    return {
        name: tuple(each._backward_hooks.values()) for name, each in model.named_parameters() if each._backward_hooks
    }
