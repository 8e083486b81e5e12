"""Reading a program of `torch.export.save` as data: no code of the file runs.

What `torch.export.load` does with a file was read in torch 2.13, and tried with files made for it. It runs code of the file:
it unpickles example inputs without restriction where the restricted unpickler refuses them, and weights and constants
that are marked as pickles; it evaluates the sizes of tensors as Python expressions (`sympy.sympify`); it imports modules
that the structure of inputs or outputs names. `ExportedProgram.module` compiles the file's guards as Python code, and
runs them. So neither is called here: the archive's JSON and raw tensors are read by this module, and example inputs with
`torch.load(weights_only=True)`.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from paretrim.errors import SourceError

Tensor = torch.Tensor

_MAJOR = 8
_AGAIN = "save the program again with torch.export.save(torch.export.export(...), path)"
# The codes that the format has for types; see torch/_export/serde/schema.py.
DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}


@dataclass(frozen=True)
class Pt2File:
    """What a file holds.

    Attributes:
        program: Its graph, as JSON has it.
        tensors: Parameters (`torch.nn.Parameter`), buffers and constants, by name; tied parameters are one object.
        example: Positional and named inputs that the program was traced with, or None where they are not in the file.
        version: Of the torch that wrote it.
    """

    program: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    example: tuple[tuple[Any, ...], dict[str, Any]] | None
    version: str


def read(path: Path) -> Pt2File:
    """Read a file.

    Raises:
        SourceError: It is no such file, or holds what could only be read by running code of it.
    """
    if not path.is_file():
        raise SourceError(f"there is no file '{path}'; name one that torch.export.save wrote")
    try:
        with zipfile.ZipFile(path) as archive:
            return _contents(_Archive(archive, str(path)))
    except zipfile.BadZipFile:
        raise SourceError(f"'{path}' is no program of torch.export; {_AGAIN}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise SourceError(
            f"'{path}' is damaged, or written by another version of torch ({type(error).__name__}: {error}); {_AGAIN} with "
            f"torch {torch.__version__}"
        ) from error


class _Archive:
    """A zip file whose records lie in one folder."""

    def __init__(self, archive: zipfile.ZipFile, path: str) -> None:
        self._archive = archive
        self.path = path
        self._names = {name.partition("/")[2]: name for name in archive.namelist()}

    def models(self) -> list[str]:
        found = [name for name in self._names if name.startswith("models/") and name.endswith(".json")]
        return [name.removeprefix("models/").removesuffix(".json") for name in found]

    def read(self, name: str) -> bytes:
        return self._archive.read(self._names[name])

    def json(self, name: str) -> Any:
        return json.loads(self.read(name))


def _contents(archive: _Archive) -> Pt2File:
    models = archive.models()
    if len(models) != 1:
        found = (
            f"holds {len(models)} programs" if models else "holds no program that torch.export.save of torch 2.9 wrote"
        )
        raise SourceError(f"'{archive.path}' {found}; one is needed: {_AGAIN}")
    document = archive.json(f"models/{models[0]}.json")
    major = document["schema_version"]["major"]
    if major != _MAJOR:
        raise SourceError(
            f"'{archive.path}' is in version {major} of the format, and {_MAJOR} is what is understood; {_AGAIN} with torch "
            f"{torch.__version__}"
        )
    tensors = _tensors(archive, models[0], "weights") | _tensors(archive, models[0], "constants")
    return Pt2File(document["graph_module"], tensors, _example(archive, models[0]), document.get("torch_version", "?"))


def _tensors(archive: _Archive, model: str, kind: str) -> dict[str, Tensor]:
    entries = archive.json(f"data/{kind}/{model}_{kind}_config.json")["config"]
    found: dict[str, Tensor] = {}
    one: dict[str, Tensor] = {}
    for name, entry in entries.items():
        if entry["use_pickle"] or not entry["path_name"].startswith(("weight_", "tensor_")):
            raise SourceError(
                f"'{archive.path}' holds '{name}' as a pickle, which could run any code when it is read; export the model with "
                "plain tensors, without subclasses of torch.Tensor and without custom objects"
            )
        place = json.dumps([entry["path_name"], entry["tensor_meta"], entry["is_param"]])
        if place not in one:
            one[place] = _tensor(archive.read(f"data/{kind}/{entry['path_name']}"), entry)
        found[name] = one[place]
    return found


def _tensor(raw: bytes, entry: Mapping[str, Any]) -> Tensor:
    meta = entry["tensor_meta"]
    dtype = DTYPES[meta["dtype"]]
    sizes, strides = ([size["as_int"] for size in meta[part]] for part in ("sizes", "strides"))
    flat = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    tensor = flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"]).clone()
    if not entry["is_param"]:
        return tensor
    return nn.Parameter(tensor, requires_grad=bool(meta["requires_grad"]))


def _example(archive: _Archive, model: str) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    raw = archive.read(f"data/sample_inputs/{model}.pt")
    if not raw:
        return None
    try:
        positional, named = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise SourceError(
            f"'{archive.path}' holds example inputs that are more than tensors, which could run any code when they are read; "
            "export the model with tensors as its inputs"
        ) from error
    return tuple(positional), dict(named)
