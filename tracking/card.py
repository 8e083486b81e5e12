"""The model card of a bundle."""

from __future__ import annotations

from paretrim.tracking.manifest import Manifest
from paretrim.tracking.report import Row

_UNITS = {
    **{f"latency{part}_ms": ("ms", 1.0) for part in ("", "_p50", "_p90", "_p99")},
    "size_bytes": ("kB", 1e-3),
    "memory_bytes": ("MB", 1e-6),
    "model_bytes": ("kB", 1e-3),
}
_FIRST = ("latency_ms", "size_bytes", "memory_bytes")
_WITH = {".onnx": "onnxruntime", ".tar": "openvino", ".pt2": "torch"}


def model_card(told: Manifest, row: Row, baseline: Row) -> str:
    """Return the card, in Markdown.

    Args:
        told: What the bundle says of itself.
        row: The exported point.
        baseline: The uncompressed model.
    """
    return f"""# {told.job}, trial {row.trial}

A compressed version of a model, found by [paretrim](https://pypi.org/project/paretrim/).

## What it can do, and what it costs

{_scores(row, baseline)}

{_costs(row, baseline)}

Choices were made on the validation data; the held-out test data was scored once, at the end of the search.

## How that was measured

{_measured(told)}

## Where it comes from

{_origin(told)}

## How it was made

{_recipe(row)}

## How to run it

{_running(told)}

| file | what it is |
|---|---|
| `{told.packed.file}` | the model as it ships; its bytes are the size above |
| `{told.model.file}` | the same file, unpacked |
{_scripts(told)}
| `samples.npz` | some inputs, and the outputs that the model gave when it was scored |
| `recipe.json` | how it was made |
| `measurements.json` | everything that was measured, with intervals |
| `bundle.json` | hashes, sizes, the machine that measured, names of classes, preprocessing |
| `SHA256SUMS` | hashes of all files, for `sha256sum --check` |

## Limits

{_limits(told, row)}
"""


def _running(told: Manifest) -> str:
    if told.model.suffix not in _WITH:
        return """```python
from fit import fitted
model = fitted(my_network())   # the uncompressed network, from the code that it was made with
```

`python fit.py --check MODULE:FUNCTION` checks the recorded outputs on the recorded samples with the network that a function
returns, and `python predict.py --files` the files."""
    return f"""```
python predict.py {"inputs.npy" if len(told.inputs) == 1 else "inputs.npz"} outputs.npy
```

{_inputs(told)} `python predict.py --check` checks the files, and the recorded outputs on the recorded samples; so does
`paretrim verify`, which can also measure again."""


def _scripts(told: Manifest) -> str:
    needed = _WITH.get(told.model.suffix)
    if needed is None:
        return "| `fit.py` | puts the weights into the network, with torch |\n| `predict.py` | checks the files |"
    return f"| `predict.py` | runs it with {needed} and numpy, and nothing else |"


def _measured(told: Manifest) -> str:
    target, where = told.target, told.environment
    facts = [
        ("runtime", told.runtime),
        ("threads, batch", f"{target.threads}, {target.batch_size}"),
        *((name, where[name]) for name in ("cpu", "cpu_cores", "cpu_sets", "gpu", "system") if where.get(name)),
    ]
    lines = [f"| {name} | {value} |" for name, value in facts]
    how = (
        "Every number was taken from the file in this folder, in a process of its own, on the machine of the search. "
        "Latency was timed in turns with the uncompressed model."
    )
    if told.model.suffix not in _WITH:
        how = (
            "Scores are those of the uncompressed network with the weights of this folder in it. Weights have no speed."
        )
    return "\n".join(
        [
            how,
            "",
            "| | |",
            "|---|---|",
            *lines,
        ]
    )


def _origin(told: Manifest) -> str:
    origin = told.origin
    splits = ", ".join(f"{count} {name}" for name, count in origin.samples.items())
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            f"| model | `{origin.model}`, weights {origin.model_sha256[:16]} |",
            f"| data | `{origin.data}`, {origin.data_sha256[:16]}; samples: {splits} |",
            f"| licence | {origin.licence or 'nothing was said of it; ask who made the uncompressed model'} |",
        ]
    )


def _inputs(told: Manifest) -> str:
    ready = "`inputs.npy` holds raw inputs, which `predict.py` prepares as `bundle.json` says."
    plain = "`inputs.npy` holds inputs of shape (N, ...) as the uncompressed model takes them."
    names = f" It names {len(told.labels)} classes." if told.labels else ""
    if len(told.inputs) > 1:
        arrays = ", ".join(f"`{each.name}` of shape (N, {', '.join(map(str, each.shape))})" for each in told.inputs)
        return f"`inputs.npz` holds the arrays {arrays}.{names}"
    return (plain if told.preprocessing is None else ready) + names


def _limits(told: Manifest, row: Row) -> str:
    ends = row.interval.get(told.metric)
    spread = f" (95% interval {ends[0]:.4f} to {ends[1]:.4f})" if ends else ""
    lines = [
        f"- The {told.metric} is that of {told.origin.samples.get('validation', 0)} validation samples{spread}. On data that "
        "differs from these it was not measured; compressed models tend to lose most on rare cases.",
        "- Latency and memory are of the machine above. Ratios to the uncompressed model carry over to like machines, not to "
        "others: `paretrim verify` measures them again.",
    ]
    if row.missed:
        lines.append(f"- It misses what was wished for: {row.missed}.")
    return "\n".join(lines)


def _scores(row: Row, baseline: Row) -> str:
    lines = ["| | this model | uncompressed |", "|---|---|---|"]
    for split, ours, theirs in (
        ("validation", row.validation, baseline.validation),
        ("held-out test", row.test, baseline.test),
    ):
        for name, value in ours.items():
            reference = f"{theirs[name]:.4f}" if name in theirs else "not scored"
            lines.append(f"| {name}, {split} | {value:.4f} | {reference} |")
    return "\n".join(lines)


def _costs(row: Row, baseline: Row) -> str:
    lines = ["| | this model | uncompressed | ratio |", "|---|---|---|---|"]
    for name in sorted(row.metrics, key=lambda name: name not in _FIRST):
        value = row.metrics[name]
        unit, factor = _UNITS.get(name, ("", 1.0))
        ratio = row.ratio.get(name)
        shown = "" if ratio is None else f"{ratio:.3f}"
        reference = baseline.metrics.get(name)
        other = "" if reference is None else _quantity(reference * factor, unit)
        lines.append(f"| {name} | {_quantity(value * factor, unit)} | {other} | {shown} |")
    return "\n".join(lines)


def _quantity(value: float, unit: str) -> str:
    return (f"{value:,.0f} {unit}" if abs(value) >= 1000 else f"{value:.4g} {unit}").strip()


def _recipe(row: Row) -> str:
    lines = ["| knob | value |", "|---|---|"]
    lines += [
        f"| {name} | {value:.4g} |" if isinstance(value, float) else f"| {name} | {value} |"
        for name, value in row.recipe.items()
    ]
    return "\n".join(lines)
