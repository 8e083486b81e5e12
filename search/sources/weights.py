"""Trained weights from a file, into a network made by code."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from paretrim.errors import SourceError, nearest

Tensor = torch.Tensor
Net = TypeVar("Net", bound=nn.Module)

_SAFE, _TORCH = (".safetensors",), (".pt", ".pth", ".bin", ".ckpt")
# Under what training loops keep the weights beside the optimizer's state, the likeliest first.
_WITHIN = ("state_dict", "model_state_dict", "model", "network", "net", "module", "weights")
# What torch's DataParallel and compile, and Lightning, put before every name.
_BEFORE = ("module.", "_orig_mod.", "model.", "network.", "net.")
_COUNTED = ".num_batches_tracked"
_TOLD = 8


def with_weights(network: Net, path: str | Path) -> Net:
    """Put trained weights into a network.

    The file is ``.safetensors``, or ``.pt``, ``.pth``, ``.bin`` or ``.ckpt`` as `torch.save` writes it, read with
    ``weights_only=True`` and never otherwise: nothing in it is run. Weights that lie within a checkpoint under ``state_dict``,
    ``model_state_dict``, ``model``, ``network``, ``net``, ``module`` or ``weights`` are found there. A prefix that all names
    have and none of the network's names has (``module.``, ``_orig_mod.``, ``model.``, ``network.``, ``net.``) is taken off.
    Counters of batch normalization (``num_batches_tracked``) may be missing, and so may one of two names of a shared tensor.

    Args:
        network: Of the shape that the weights have; changed in place.
        path: The file.

    Returns:
        The network, in evaluation mode.

    Raises:
        SourceError: The file cannot be read without unpickling, or its names and shapes are not the network's; all that differs
            is told at once.
    """
    place = Path(path)
    found = _matched(_read(place), network.state_dict())
    wrong = list(_differences(found, network.state_dict()))
    if wrong:
        raise SourceError(
            f"the weights in '{place}' do not fit the network:\n" + "\n".join(f"  - {line}" for line in wrong)
        )
    network.load_state_dict(found, strict=False)
    network.eval()
    return network


def _read(path: Path) -> dict[str, Tensor]:
    readers: dict[str, Callable[[Path], object]] = {
        **dict.fromkeys(_SAFE, _safetensors),
        **dict.fromkeys(_TORCH, _checkpoint),
    }
    reader = readers.get(path.suffix)
    if reader is None:
        raise SourceError(f"'{path}' ends with '{path.suffix}'; weights are read from {', '.join(readers)}")
    if not path.is_file():
        raise SourceError(f"there is no file '{path}'; paths are taken from {Path.cwd()}, or use Path(__file__).parent")
    found = _weights_in(reader(path))
    if found is None:
        raise SourceError(
            f"'{path}' holds no weights by name; save them with torch.save(model.state_dict(), path) or "
            "safetensors.torch.save_model(model, path)"
        )
    return found


def _safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise SourceError(f"'{path}' is no safetensors file: {error}; save the weights again") from error


def _checkpoint(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise SourceError(
            f"'{path}' is more than weights, or damaged, and is not unpickled, since that could run any code; where you trust "
            "it, load it once yourself and save torch.save(model.state_dict(), path) or safetensors.torch.save_model(model, path)"
        ) from error


def _weights_in(given: object) -> dict[str, Tensor] | None:
    """Return the weights in what a file holds, where there are some."""
    if not isinstance(given, Mapping):
        return None
    inner = (_weights_in(given[name]) for name in _WITHIN if isinstance(given.get(name), Mapping))
    found = next((each for each in inner if each), None)
    if found:
        return found
    tensors = {str(name): each for name, each in given.items() if isinstance(each, Tensor)}
    return tensors if tensors and len(tensors) == len(given) else None


def _matched(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without a prefix that the network does not have."""
    names = dict(found)
    while True:
        before = next((p for p in _BEFORE if _only_there(p, names, own)), None)
        if before is None:
            return names
        names = {name.removeprefix(before): each for name, each in names.items()}


def _only_there(before: str, names: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    return all(name.startswith(before) for name in names) and not any(name.startswith(before) for name in own)


def _differences(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Iterator[str]:
    given = {_place(own[name]) for name in found if name in own}
    missing = [n for n in own if n not in found and not n.endswith(_COUNTED) and _place(own[n]) not in given]
    unknown = [name for name in found if name not in own]
    others = [name for name in found if name in own and found[name].shape != own[name].shape]
    yield from _told([f"the network's {n} is not in the file{nearest(n, unknown)}" for n in missing])
    yield from _told([f"the file's {n} is not in the network{nearest(n, missing)}" for n in unknown])
    yield from _told(
        [f"{n} has shape {tuple(found[n].shape)} in the file and {tuple(own[n].shape)} in the network" for n in others]
    )


def _place(tensor: Tensor) -> tuple[object, ...]:
    """Return what two names of one tensor have in common."""
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride()) if tensor.numel() else (id(tensor),)


def _told(lines: list[str]) -> Iterator[str]:
    yield from lines[:_TOLD]
    if len(lines) > _TOLD:
        yield f"and {len(lines) - _TOLD} more of the same kind"
