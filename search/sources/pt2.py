"""A program of `torch.export` as a network to work on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from paretrim.errors import SourceError
from paretrim.search.sources.pt2_assembly import assemble
from paretrim.search.sources.pt2_file import Pt2File, read
from paretrim.search.sources.pt2_graph import Entry, Listing, listing
from paretrim.search.sources.pt2_network import Network

Tensor = torch.Tensor
_CLOSE = 1e-4
# Convolutions of all kinds have one base in torch.
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


def from_pt2(path: str | Path) -> nn.Module:
    """Return the network of a program that `torch.export.save` wrote.

    Convolutions, linear layers, embeddings, batch, layer and group norms, activations and dropouts become modules again, under
    the paths of their parameters, so that they can be pruned, factorized, quantized and trained; what is between them runs
    as it stands in the program. Inputs are taken by position or by name, as the model's own ``forward`` took them, and
    outputs are given in its structure, in tuples and dictionaries.

    The file is read as data. `torch.export.load` is not called, since in torch 2.13 it runs what a file tells it to: it
    unpickles example inputs, weights and constants, evaluates sizes as Python expressions, and imports modules by their
    names; see `paretrim.search.sources.pt2_file`. A file that can only be read by such means is refused, and so is one that
    calls operators of others than torch.

    Args:
        path: The file, as a rule ``.pt2``; written by torch 2.9 or later from a model in evaluation mode, with a free number of
            samples, and not decomposed (`ExportedProgram.run_decompositions`).

    Returns:
        The network in evaluation mode on the CPU. What gets whose shape from the program, such as a reshape to a number of
        channels, keeps that number.

    Raises:
        SourceError: The file is none of these; says what to do.
    """
    place = Path(path)
    file = read(place)
    try:
        found = listing(file.program)
        _check_free(found)
        network = assemble(found, file.tensors)
        plain = assemble(found, file.tensors, layers=False)
    except SourceError as error:
        raise SourceError(f"'{place}': {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise SourceError(
            f"'{place}', written by torch {file.version}, is not understood ({type(error).__name__}: {error}); export it again "
            f"with torch {torch.__version__}"
        ) from error
    _check_layers(network, place, file.version)
    _check_answers(network, plain, _example(file, found), str(place))
    return network


def _check_layers(network: nn.Module, place: Path, version: str) -> None:
    if not any(isinstance(module, _LAYERS) for module in network.modules()):
        raise SourceError(
            f"'{place}', written by torch {version}, has no convolution or linear layer that can be told to be one, so there is "
            "nothing to compress; export the model as it is trained: not decomposed (run_decompositions), and with plain weights"
        )


def _check_free(program: Listing) -> None:
    fixed = [entry for entry in program.entries if entry.sizes[:1] != (None,)]
    if fixed:
        held = "; ".join(f"'{entry.name}' of shape {entry.sizes}" for entry in fixed)
        names = ", ".join(f"'{entry.name}': {{0: batch}}" for entry in program.entries)
        raise SourceError(
            f"the program holds a fixed number of samples ({held}); export it with a free one: batch = "
            f"torch.export.Dim('batch'); torch.export.export(model, example, dynamic_shapes={{{names}}}), where the example has "
            "two samples or more"
        )


def _example(file: Pt2File, program: Listing) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if file.example is not None:
        positional, named = file.example
        return tuple(x for x in positional if isinstance(x, Tensor)), {
            name: x for name, x in named.items() if isinstance(x, Tensor)
        }
    return tuple(_zeros(entry) for entry in program.entries), {}


def _zeros(entry: Entry) -> Tensor:
    return torch.zeros([2 if size is None else size for size in entry.sizes], dtype=entry.dtype)


def _check_answers(
    network: Network, plain: Network, example: tuple[tuple[Any, ...], dict[str, Any]], path: str
) -> None:
    """Check that a network answers as the program does, operator by operator."""
    positional, named = example
    with torch.no_grad():
        try:
            expected = plain(*positional, **named)
        except SourceError as error:
            raise SourceError(f"'{path}': {error}") from None
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise SourceError(
                f"'{path}' does not run on its own example inputs: {type(error).__name__}: {error}; does the model in it run?"
            ) from error
        given = network(*positional, **named)
    for one, other in zip(_tensors(expected), _tensors(given), strict=True):
        if one.shape != other.shape or not torch.allclose(one, other, rtol=_CLOSE, atol=_CLOSE, equal_nan=True):
            raise SourceError(
                f"'{path}' answers otherwise when its layers are restored; was it exported in training mode? Call model.eval() "
                "before torch.export.export"
            )


def _tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Mapping):
        return [tensor for part in outputs.values() for tensor in _tensors(part)]
    if isinstance(outputs, tuple):
        return [tensor for part in outputs for tensor in _tensors(part)]
    return [outputs] if isinstance(outputs, Tensor) else []
