"""Does what paretrim does on an NVIDIA GPU hold? Training, timing, memory, sharing, the GPU's targets, a small search.

It takes under ten minutes on one GPU. With only torch and numpy installed it runs all that needs no more, and says of each
part that is left out which package is missing; a checkout of paretrim is enough, which need not be installed. The bars:

- training in 32 bits, bfloat16 and float16: the loss is finite and falls;
- latency by events, with and without a CUDA graph: two runs within 5%;
- memory: the allocator's peak within 5% of what the tensors must take;
- sharing: while two processes train on the GPU, a measurement under the lane is alone there, and its ratio is within 10% of
  what it is when nobody else is there;
- targets: answers as torch's, two runs within 5%, and memory on the device;
- search: every trial ends, and was trained on the GPU.

It exits with 1 when a bar is missed, and with 2 on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[1])
sys.path.insert(0, _ROOT)  # so that it also starts as a script

# No part begins later than this, so that the whole ends within ten minutes.
_LAST_START_S = 450.0
_SEARCH = ("ray", "optuna", "mlflow", "torch_pruning", "onnx", "onnxscript", "onnxruntime", "torchmetrics", "moocore",
           "pandas", "pydantic", "yaml", "rich", "plotly", "matplotlib", "safetensors", "sklearn", "sqlalchemy", "psutil",
           "requests", "paretrim.installed")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        part: Of the benchmark.
        what: Was measured.
        value: That was found, with its unit.
        bar: What it is held to; empty where it is only shown.
        met: Whether it was met; None where there is no bar.
    """

    part: str
    what: str
    value: str
    bar: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        name: What it is called.
        needs: Packages, by the names that they are imported by, beside torch and numpy.
        run: Measures; given whether to be quick.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[bool], Iterable[Row]]


def main(words: Sequence[str] | None = None, parts: Sequence[Part] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples and epochs (under 4 minutes)")
    parser.add_argument("--json", type=Path, help="write the findings to a file")
    parser.add_argument("--no-bar", action="store_true", help="print only; do not fail below the bar")
    options = parser.parse_args(words)
    why = absent()
    if why:
        print(f"nothing was measured: {why}")
        return 2
    rows = run(all_parts() if parts is None else parts, options.quick)
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))
    missed = [f"{row.part}: {row.what}" for row in rows if row.met is False]
    print(f"missed: {'; '.join(missed)}" if missed else "all bars are met")
    return int(bool(missed) and not options.no_bar)


def absent() -> str:
    """Return why there is nothing to measure on, or an empty string."""
    if not installed("torch"):
        return "torch is not installed"
    from paretrim.evaluators import torch_cuda

    return torch_cuda.missing()


def all_parts() -> tuple[Part, ...]:
    """Return the parts, those first that need nothing but torch."""
    from benchmarks import gpu_parts, gpu_targets

    return (
        Part("training", (), gpu_parts.training),
        Part("latency", (), gpu_parts.latency),
        Part("memory", (), gpu_parts.memory),
        Part("sharing", (), gpu_parts.sharing),
        Part("torch.compile", ("triton",), gpu_targets.torch_compile),
        Part("ONNX Runtime", ("onnx", "onnxscript", "onnxruntime"), gpu_targets.onnx_runtime),
        Part("search", _SEARCH, gpu_targets.search),
    )


def installed(name: str) -> bool:
    """Tell whether a package can be imported."""
    if name == "paretrim.installed":  # its techniques and targets are found by what an installation declares
        from importlib.metadata import entry_points

        return bool(entry_points(group="paretrim.targets"))
    return importlib.util.find_spec(name) is not None


def run(
    parts: Sequence[Part],
    quick: bool,
    there: Callable[[str], bool] = installed,
    now: Callable[[], float] = time.monotonic,
) -> list[Row]:
    """Run what can be run, and return the lines of the table; a part that fails is one that misses its bar.

    Args:
        parts: All of them.
        quick: Whether to be quick.
        there: Tells whether a package is installed.
        now: The time, in seconds.
    """
    began, rows = now(), list[Row]()
    for part in parts:
        missing = [name for name in part.needs if not there(name)]
        if missing:
            rows.append(Row(part.name, "left out", f"not installed: {', '.join(missing)}"))
            continue
        if now() - began > _LAST_START_S:
            rows.append(Row(part.name, "left out", f"{now() - began:.0f} s are over", "ten minutes in all", met=False))
            continue
        print(f"{part.name} ...", flush=True)
        since = now()
        try:
            for row in part.run(quick):
                rows.append(row)  # those before a failure stay
        except Exception as error:  # noqa: BLE001 - the others may still tell something
            traceback.print_exc()
            rows.append(
                Row(part.name, "failed", f"{type(error).__name__}: {error}".split("\n")[0][:200], "runs", met=False)
            )
        rows.append(Row(part.name, "took", f"{now() - since:.0f} s"))
    return rows


def within(part: str, what: str, first: float, second: float, share: float) -> Row:
    """Return the line of two numbers that must agree."""
    gap = abs(second / first - 1.0) if first > 0 else float("inf")
    return Row(part, what, f"{gap:.1%} apart", f"at most {share:.0%}", met=gap <= share)


def table(rows: Sequence[Row]) -> str:
    """Return the table as text; rich may not be installed."""
    verdicts = {None: "", True: "met", False: "MISSED"}
    cells = [("part", "what", "found", "bar", ""), *((r.part, r.what, r.value, r.bar, verdicts[r.met]) for r in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


if __name__ == "__main__":
    # The parts import this module by its name, and must find these classes rather than a second copy of them.
    sys.modules["benchmarks.gpu"] = sys.modules["__main__"]
    # Measuring processes are of this checkout too, whatever is installed.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
    sys.exit(main())
