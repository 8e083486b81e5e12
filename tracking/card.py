"""The model card of a bundle."""

from __future__ import annotations

from paretrim.tracking.report import Row

_UNITS = {
    **{f"latency{part}_ms": ("ms", 1.0) for part in ("", "_p50", "_p90", "_p99")},
    "size_bytes": ("kB", 1e-3),
    "memory_bytes": ("MB", 1e-6),
    "model_bytes": ("kB", 1e-3),
}


def model_card(job: str, runtime: str, row: Row, baseline: Row) -> str:
    """Return the card, in Markdown.

    Args:
        job: Name of the search.
        runtime: Name and version of the runtime that measured.
        row: The exported point.
        baseline: The uncompressed model.
    """
    return f"""# {job}, trial {row.trial}

A compressed version of a model, found by [paretrim](https://pypi.org/project/paretrim/). Every number below was taken
from the file in this folder, in {runtime}, on the machine of the search.

{_scores(row, baseline)}

{_costs(row, baseline)}

Choices were made on the validation data; the held-out test data was scored once, at the end of the search.

## Files

| file | what it is |
|---|---|
| `model.onnx.xz` | the model as it ships; its bytes are the size above |
| `model.onnx` | the same file, unpacked |
| `run.py` | runs it with onnxruntime and numpy: `python run.py inputs.npy outputs.npy`; `--check` checks this folder |
| `samples.npz` | some inputs, and the outputs that the model gave when it was scored |
| `recipe.json` | how it was made |
| `measurements.json` | everything that was measured, with intervals |
| `bundle.json` | hashes and sizes |

## Recipe

{_recipe(row)}
"""


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
    for name, value in row.metrics.items():
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
