"""Feature transfer: layers of the compressed model are led towards what the teacher's layers give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from paretrim.spaces.anatomy import LAYER_TYPES, Anatomy, parts_of
from paretrim.spaces.schooling import TrainingBatch

TransferName = Literal["none", "attention", "similarity"]
TRANSFERS: tuple[TransferName, ...] = get_args(TransferName)

Tensor = torch.Tensor
Pair = tuple[str, str]
_Shape = tuple[int, ...]


class FeatureTransfer:
    """The distance between the features of a student and those of its teacher, at a few pairs of layers.

    Args:
        student: The model that is trained.
        tutor: The model that teaches, in evaluation mode.
        pairs: Module paths of layers, the student's and the tutor's.
        method: ``attention`` or ``similarity``.
        weight: What the mean distance is multiplied by.
    """

    def __init__(self, student: nn.Module, tutor: nn.Module, pairs: Sequence[Pair], method: str, weight: float) -> None:
        self._tutor, self._pairs, self._weight = tutor, tuple(pairs), weight
        self._distance = _DISTANCES[method]
        self._linear = [
            tuple(isinstance(m, nn.Linear) for m in (student.get_submodule(a), tutor.get_submodule(b)))
            for a, b in self._pairs
        ]
        self._given: dict[str, Tensor] = {}
        self._taught: dict[str, Tensor] = {}
        self._asked: Tensor | None = None
        self._handles: list[RemovableHandle] = [
            tutor.register_forward_pre_hook(self._noting_question(), with_kwargs=True)
        ]
        for mine, theirs in self._pairs:
            self._handles.append(student.get_submodule(mine).register_forward_hook(self._noting(self._given, mine)))
            self._handles.append(tutor.get_submodule(theirs).register_forward_hook(self._noting(self._taught, theirs)))

    def __call__(self, batch: TrainingBatch) -> Tensor:
        """Return the weighted distance, a scalar, after the student has answered the batch."""
        if self._asked is not batch.inputs.parts[0]:
            with torch.no_grad():
                batch.inputs.through(self._tutor)
        # Products of all activations of a sample are beyond the range of half floats.
        with _plain_precision(batch.labels.device.type):
            distances = [
                self._distance(self._given[mine].float(), self._taught[theirs].float(), *linear)
                for (mine, theirs), linear in zip(self._pairs, self._linear, strict=True)
            ]
        self._forget()
        return self._weight * torch.stack(distances).mean()

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._forget()

    def _forget(self) -> None:
        self._given.clear()
        self._taught.clear()
        self._asked = None

    # Hooks are functions and not methods, so that a copy of a model does not take this object along.

    def _noting_question(self) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def note(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            # The tutor may have answered this batch already, for the loss of the outputs.
            self._asked = next(iter((*inputs, *named.values())), None)

        return note

    def _noting(self, into: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def note(_: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ARG001 - torch's protocol
            # What the student answers outside of training, such as for its score, is not kept.
            if into is self._taught or torch.is_grad_enabled():
                into[name] = output

        return note


def pairs_of(student: nn.Module, tutor: nn.Module, anatomy: Anatomy, method: str, count: int) -> tuple[Pair, ...]:
    """Return pairs of layers to be matched, spread evenly over the depth and the last of them near the output.

    Where the tutor is the uncompressed model, they are pairs of what was one layer; a tutor of another architecture is
    met at the same relative depth.

    Args:
        student: Made from the model of the anatomy; layers that it has no more are left out.
        tutor: The model that teaches.
        anatomy: Of the uncompressed model.
        method: ``attention`` needs layers whose outputs have places: of images, or of sequences.
        count: How many pairs at most.
    """
    names = [layer.name for layer in anatomy.layers[:-1] if parts_of(student, layer.name)]
    mine = _usable(student, names, anatomy, method)
    layers = {name for name, module in tutor.named_modules() if isinstance(module, LAYER_TYPES)}
    own = layers.issuperset(layer.name for layer in anatomy.layers)
    theirs = _usable(
        tutor, names if own else [n for n, m in tutor.named_modules() if n in layers][:-1], anatomy, method
    )
    found = []
    for position, name in enumerate(mine):
        if own:
            partner = name if name in theirs else None
        else:
            fitting = [n for n, places in theirs.items() if method == "similarity" or places == mine[name]]
            partner = fitting[round(position / max(1, len(mine) - 1) * (len(fitting) - 1))] if fitting else None
        if partner is not None:
            found.append((name, partner))
    count = min(count, len(found))
    return tuple(found[round((i + 1) * len(found) / count) - 1] for i in range(count))


def attention_distance(student: Tensor, teacher: Tensor, student_linear: bool, teacher_linear: bool) -> Tensor:
    """Return how far apart the places are that two layers attend to, from 0 to 2.

    A map of attention is the sum of squared activations over channels, as a vector of length 1; the distance is that of
    Zagoruyko and Komodakis, "Paying More Attention to Attention", 2017, squared, as a mean over samples. Of two
    resolutions, the finer is averaged down to the coarser.

    Args:
        student: Activations, shape ``(N, C, ...)``, or ``(N, ..., C)`` of a linear layer.
        teacher: Activations of as many samples and dimensions of places.
        student_linear: Whether the student's come from a linear layer.
        teacher_linear: Whether the teacher's do.
    """
    mine = student.pow(2).mean(dim=-1 if student_linear else 1)
    theirs = teacher.pow(2).mean(dim=-1 if teacher_linear else 1)
    if mine.shape != theirs.shape:
        size = tuple(min(pair) for pair in zip(mine.shape[1:], theirs.shape[1:], strict=True))
        mine, theirs = _pooled(mine, size), _pooled(theirs, size)
    gap = functional.normalize(mine.flatten(1)) - functional.normalize(theirs.flatten(1))
    return gap.pow(2).sum(dim=1).mean()


def similarity_distance(student: Tensor, teacher: Tensor, *_: bool) -> Tensor:
    """Return how differently two layers see the samples of a batch as alike, from 0 to 4.

    The rows of the batch's matrix of inner products have length 1 (Tung and Mori, "Similarity-Preserving Knowledge
    Distillation", 2019). The squared distance is a mean over rows, so that it does not shrink as batches grow.

    Args:
        student: Activations, shape ``(N, ...)``.
        teacher: Activations of the same samples; all else may differ.
    """
    mine, theirs = student.flatten(1), teacher.flatten(1)
    gap = functional.normalize(mine @ mine.T) - functional.normalize(theirs @ theirs.T)
    return gap.pow(2).sum(dim=1).mean()


_DISTANCES: Mapping[str, Callable[..., Tensor]] = {"attention": attention_distance, "similarity": similarity_distance}


def _usable(model: nn.Module, names: Sequence[str], anatomy: Anatomy, method: str) -> dict[str, int]:
    """Return the layers that can be matched, with the number of dimensions of their outputs' places."""
    found = {}
    for name, shape in _shapes(model, names, anatomy).items():
        # A layer that sees parts of samples as samples gives nothing that belongs to one sample.
        if shape[:1] == (2,) and len(shape) > (2 if method == "attention" else 1):
            found[name] = len(shape) - 2
    return {name: found[name] for name in names if name in found}


def _shapes(model: nn.Module, names: Sequence[str], anatomy: Anatomy) -> dict[str, _Shape]:
    """Return the shapes of some modules' outputs for two samples; one that is not run has none."""
    shapes: dict[str, _Shape] = {}

    def noting(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(_: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001 - torch's protocol
            shapes[name] = tuple(output.shape) if isinstance(output, Tensor) else ()

        return note

    handles = [model.get_submodule(name).register_forward_hook(noting(name)) for name in names]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad(), _evaluating(model):
            anatomy.example().to(device).through(model)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _plain_precision(kind: str) -> AbstractContextManager[object]:
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def _pooled(maps: Tensor, size: _Shape) -> Tensor:
    pools = (functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d)
    pool: Callable[[Tensor, Any], Tensor] = pools[len(size) - 1]
    return pool(maps.unsqueeze(1), size).squeeze(1)
