"""From the JSON of a program to its steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from paretrim.errors import SourceError
from paretrim.evaluators.signature import Signature
from paretrim.search.sources.pt2_file import DTYPES
from paretrim.search.sources.pt2_steps import Argument, Held, Here, Result, Step, names_in

Json = Mapping[str, Any]
Shape = Any  # of outputs: a Result or constant, a tuple of shapes, or a mapping of names to shapes

_LAYOUTS = {1: torch.sparse_coo, 2: torch.sparse_csr, 7: torch.strided}
_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_VALUES = {
    *("as_tensor", "as_tensors", "as_nested_tensors", "as_optional_tensor", "as_optional_tensors"),
    *("as_sym_int", "as_sym_ints", "as_sym_bool", "as_sym_bools", "as_sym_float", "as_sym_floats"),
}
_PLAIN = {"as_int", "as_bool", "as_string", "as_ints", "as_bools", "as_strings", "as_int_lists"}
_CHECKS = ("_assert_", "sym_constrain_range")
_SEQUENCES = {"builtins.tuple": tuple, "builtins.list": list}
_TRAINING = "the program was exported in training mode; call model.eval() before torch.export.export"


@dataclass(frozen=True)
class Entry:
    """One input of a program.

    Attributes:
        name: What the model calls it.
        result: What steps call it.
        sizes: Of each dimension, None for those that are free.
        dtype: Its type.
    """

    name: str
    result: str
    sizes: tuple[int | None, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Listing:
    """A program.

    Attributes:
        steps: In order.
        entries: Its inputs.
        outputs: What it gives.
    """

    steps: tuple[Step, ...]
    entries: tuple[Entry, ...]
    outputs: Shape


def listing(program: Json) -> Listing:
    """Return the steps of a program.

    Raises:
        SourceError: It does what a model that is to be trained and exported again cannot do.
    """
    graph, signature = program["graph"], program["signature"]
    reader = _Reader()
    entries = tuple(reader.take_inputs(graph, signature["input_specs"]))
    reader.take(graph)
    kinds = [next(iter(spec)) for spec in signature["output_specs"]]
    if set(kinds) != {"user_output"}:
        changed = ", ".join(sorted(set(kinds) - {"user_output"}))
        raise SourceError(f"the program changes its own state or inputs ({changed}); {_TRAINING}")
    call = program["module_call_graph"][0]["signature"]
    leaves = iter([reader.value(output) for output in graph["outputs"]])
    outputs = _shaped(json.loads(call["out_spec"])[1], leaves)
    return Listing(_alive(reader.steps, outputs), _named(entries, call), outputs)


@dataclass
class _Reader:
    """Gathers steps; names of values in the file lead to what they are."""

    prefix: str = ""
    steps: list[Step] = field(default_factory=list)
    known: dict[str, Any] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)

    def take_inputs(self, graph: Json, specs: Sequence[Json]) -> Iterator[Entry]:
        for spec in specs:
            ((kind, what),) = spec.items()
            if kind == "constant_input":
                self.known[what["name"]] = _constant(what["value"])
            elif kind == "user_input":
                yield from self._entry(graph, what["arg"])
            elif kind in ("parameter", "buffer", "tensor_constant"):
                self.known[what["arg"]["name"]] = Held(what[f"{kind}_name"])
            else:
                raise SourceError(
                    f"the program takes a {kind.replace('_', ' ')}, which is no tensor; export a model without"
                )

    def _entry(self, graph: Json, given: Json) -> Iterator[Entry]:
        ((kind, what),) = given.items()
        if kind != "as_tensor":
            raise SourceError(
                f"an input of the program is no tensor ({kind.removeprefix('as_')}); export a model whose inputs are tensors"
            )
        name = what["name"]
        meta = graph["tensor_values"][name]
        self.known[name] = Result(name)
        yield Entry(name, name, tuple(size.get("as_int") for size in meta["sizes"]), DTYPES[meta["dtype"]])

    def take(self, graph: Json) -> None:
        """Add the steps of a graph whose inputs are known."""
        self.ranks |= {name: len(meta["sizes"]) for name, meta in graph["tensor_values"].items()}
        for node in graph["nodes"]:
            if node["target"].startswith("torch.ops.higher_order."):
                self._take_inner(node)
            else:
                step = self._step(node)
                if not step.name.startswith(_CHECKS):
                    self.steps.append(step)

    def _step(self, node: Json) -> Step:
        arguments = tuple(
            Argument(each["name"], self.value(each["arg"]), each.get("kind") != 2) for each in node["inputs"]
        )
        names, single = _results(node["outputs"])
        self.known |= {name: Result(self.prefix + name) for name in names if name}
        results = tuple(name and self.prefix + name for name in names)
        scope, kind = _scope(node["metadata"].get("nn_module_stack", ""))
        return Step(_target(node["target"]), arguments, results, single, scope, kind, rank=self._rank(node))

    def _rank(self, node: Json) -> int:
        first = node["inputs"][0]["arg"] if node["inputs"] else {}
        return self.ranks.get(first["as_tensor"]["name"], 0) if "as_tensor" in first else 0

    def _take_inner(self, node: Json) -> None:
        """Take the steps of a graph within the graph, which a change of a mode of torch's makes.

        The mode itself is left out: without gradients, the same is computed.
        """
        kind = node["target"].rpartition(".")[2]
        given = [each["arg"] for each in node["inputs"]]
        graphs = [each["as_graph"]["graph"] for each in given if "as_graph" in each]
        modes = next((position for position, each in enumerate(given) if "as_graph" in each), 0)
        off = kind == "wrap_with_autocast" and given[2:3] == [{"as_bool": False}]
        if len(graphs) != 1 or not (kind == "wrap_with_set_grad_enabled" or off):
            raise SourceError(
                f"the program holds a graph within the graph ({kind}), such as a branch or a loop that depends on values; export "
                "a model whose computation is the same for all inputs"
            )
        (graph,) = graphs
        inner = _Reader(f"{self.prefix}{len(self.steps)}.")
        for name, outer in zip(_results(graph["inputs"])[0], given[modes + 1 :], strict=True):
            inner.known[str(name)] = self.value(outer)
        inner.take(graph)
        self.steps += inner.steps
        results, _ = _results(node["outputs"])
        for name, output in zip(results, graph["outputs"], strict=True):
            if name is not None:
                self.known[name] = inner.value(output)

    def value(self, given: Json) -> Any:
        """Return an argument as Python has it."""
        ((kind, what),) = given.items()
        if kind in ("as_none", "as_float", "as_floats", "as_scalar_type", *_PLAIN):
            return _constant(given)
        if kind in _VALUES:
            return self._known(what)
        if kind in ("as_memory_format", "as_layout"):
            return (_FORMATS if kind == "as_memory_format" else _LAYOUTS)[what]
        if kind == "as_device":
            return Here()
        raise SourceError(f"the program gives an operator a {kind.removeprefix('as_')}, which is not understood")

    def _known(self, what: Any) -> Any:
        if isinstance(what, list):
            return [self._known(part) for part in what]
        if "name" in what or "as_name" in what:
            return self.known[what.get("name") or what["as_name"]]
        ((kind, inner),) = what.items()
        return self._known(inner) if kind == "as_tensor" else _constant(what)


def _constant(given: Json) -> Any:
    ((kind, what),) = given.items()
    if kind == "as_none":
        return None
    if kind == "as_float":
        return float(what)  # infinity is written as a word
    if kind == "as_floats":
        return [float(each) for each in what]
    if kind == "as_scalar_type":
        return DTYPES[what]
    return what


def _results(outputs: Sequence[Json]) -> tuple[tuple[str | None, ...], bool]:
    """Return the names of a node's results, and whether they are one rather than a tuple."""
    if len(outputs) == 1 and "as_tensors" in outputs[0]:
        return tuple(each["name"] for each in outputs[0]["as_tensors"]), False
    names: list[str | None] = []
    for output in outputs:
        ((_, what),) = output.items()
        names.append(what.get("name") or what.get("as_name") if isinstance(what, Mapping) else None)
    return tuple(names), len(names) == 1


def _target(target: str) -> str:
    return target.removeprefix("torch.ops.").removeprefix("_") if not target.startswith("torch.sym") else target


def _scope(stack: str) -> tuple[str, str]:
    """Return the path and the class of the innermost module of a stack as it is written: ``key,path,class;...``."""
    parts = stack.rpartition(";")[2].split(",")
    if len(parts) != 3 or parts[1] == parts[0]:
        return "", ""
    return parts[1].partition("@")[0], parts[2]  # the second call of a module is marked @1


def _shaped(spec: Json, leaves: Iterator[Any]) -> Shape:
    """Return outputs in the structure that the model gave them."""
    if spec["type"] is None:
        return next(leaves)
    parts = [_shaped(child, leaves) for child in spec["children_spec"]]
    if spec["type"] in _SEQUENCES:
        return tuple(parts)
    keys = json.loads(spec["context"]) if isinstance(spec["context"], str) else None
    if isinstance(keys, list) and len(keys) == len(parts) and all(isinstance(key, str) for key in keys):
        return dict(zip(keys, parts, strict=True))
    raise SourceError(
        f"the program gives its outputs as a {spec['type']}; give a tensor, a tuple, or a mapping of names"
    )


def _named(entries: tuple[Entry, ...], call: Json) -> tuple[Entry, ...]:
    """Return the inputs under the names that the model's ``forward`` has for them."""
    positional, named = json.loads(call["in_spec"])[1]["children_spec"]
    if any(child["type"] is not None for child in (*positional["children_spec"], *named["children_spec"])):
        raise SourceError(
            "the program takes a structure of tensors as one input; export a model that takes each tensor by itself"
        )
    names = call.get("forward_arg_names") or []
    count = len(positional["children_spec"]) + len(named["children_spec"])
    if len(names) != count or count != len(entries) or not all(str(name).isidentifier() for name in names):
        names = Signature.positions(len(entries))
    return tuple(
        Entry(name, entry.result, entry.sizes, entry.dtype) for name, entry in zip(names, entries, strict=True)
    )


def _alive(steps: Sequence[Step], outputs: Shape) -> tuple[Step, ...]:
    """Return the steps on which the outputs depend."""
    needed = set(names_in(_flat(outputs), Result))
    kept: list[Step] = []
    for step in reversed(steps):
        if step.changes() or needed.intersection(filter(None, step.results)):
            kept.append(step)
            needed |= {name for each in step.arguments for name in names_in(each.value, Result)}
    return tuple(reversed(kept))


def _flat(shape: Shape) -> list[Any]:
    if isinstance(shape, Mapping):
        return [leaf for part in shape.values() for leaf in _flat(part)]
    if isinstance(shape, tuple):
        return [leaf for part in shape for leaf in _flat(part)]
    return [shape]
