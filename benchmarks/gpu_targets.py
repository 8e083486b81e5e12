"""The parts of the GPU's benchmark that need more than torch: the targets on GPUs, and a small search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import Row, within
from benchmarks.gpu_model import IMAGE, images, resnet
from benchmarks.gpu_parts import TWICE
from paretrim.evaluators import timing
from paretrim.evaluators.signature import Signature
from paretrim.evaluators.target import DeviceTarget, LoweringRequest, TargetSettings

# Convolutions may compute with TF32, which has 10 bits.
_GAP = 0.01
_BATCH = 8
_LAYOUTS = (3, 5)


def torch_compile(quick: bool) -> Iterator[Row]:  # noqa: ARG001
    """Compile the network, check what it answers, and time it twice."""
    from paretrim.evaluators.torch_target import TorchCompileCuda

    yield from _target("torch.compile", TorchCompileCuda(TargetSettings("torch-compile-cuda", batch_size=_BATCH)))


def onnx_runtime(quick: bool) -> Iterator[Row]:  # noqa: ARG001
    """Open the network in ONNX Runtime, check what it answers, and time it twice."""
    from paretrim.evaluators.onnx_cuda_target import OnnxRuntimeCuda

    target = OnnxRuntimeCuda(TargetSettings("onnxruntime-cuda", batch_size=_BATCH))
    reason = target.unavailable()
    if reason:
        yield Row("ONNX Runtime", "left out", reason)
        return
    yield from _target("ONNX Runtime", target)


def search(quick: bool) -> Iterator[Row]:
    """Search on the bundled example, whose trials train on the GPU two at a time."""
    import paretrim
    from paretrim.evaluators.onnx_cuda_target import OnnxRuntimeCuda
    from paretrim.search.job import Job
    from paretrim.search.jobfile import EXAMPLE, load

    runtime = "onnxruntime-cuda"
    if OnnxRuntimeCuda(TargetSettings(runtime)).unavailable():
        runtime = "onnxruntime"
    given = load(EXAMPLE).model_dump()
    given["budget"] |= {"trials": 5 if quick else 8, "parallel": 2, "trial_gpus": 0.5, "device": "cuda", "minutes": 2}
    given["target"] |= {"runtime": runtime}
    given["search"] |= {"finals": {"points": 0}}
    with TemporaryDirectory() as store:
        result = paretrim.search(Job(**given), store=store)
        records, report = result.records, result.require_report()
    yield from _of_search(runtime, records, len(report.front))


def _of_search(runtime: str, records: Any, points: int) -> Iterator[Row]:
    failed = [f"{each.number}: {each.cause.splitlines()[0]}" for each in records if each.state == "failed"]
    yield Row("search", f"front on {runtime}", f"{points} points of {len(records)} trials", "at least 1", points > 0)
    yield Row("search", "failed trials", "; ".join(failed) or "none", "none", not failed)
    done = [each for each in records if each.complete]
    gpus = {each.environment.get("gpu", "none") for each in done}
    yield Row("search", "trained on", ", ".join(sorted(gpus)), "a GPU", bool(done) and "none" not in gpus)
    how = next((m.how for each in done for m in each.measurements if m.name == "latency_ms"), "")
    yield Row("search", "latency", how)


def _target(name: str, target: Any) -> Iterator[Row]:
    assert isinstance(target, DeviceTarget)
    net, inputs = resnet(), images(_BATCH)[0]
    with TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "model"
        path.write_bytes(target.lower(net, LoweringRequest(Signature.single(IMAGE)), Path(folder)).read())
        target.forget_device_peak()
        plain = target.open(path)
        answer, expected = plain(inputs.numpy()), net(inputs).numpy()
        gap = float(np.abs(answer - expected).max() / np.abs(expected).max())
        yield Row(name, "answers against torch's", f"{gap:.2g} of their size", f"at most {_GAP}", gap <= _GAP)
        peak = target.device_peak() or (0, 0)
        found = f"{peak[0] / 1e6:.1f} MB, {peak[1] / 1e6:.1f} reserved"
        yield Row(name, "memory on the device", found, "not below the weights", peak[0] >= _weight_bytes(net))
        del plain
        rules = timing.Rules(processor_clock=False, layouts=_LAYOUTS)
        first, second = (timing.contest([lambda: target.open_timed(path)], [(inputs.numpy(),)], rules)[0] for _ in "12")
    yield Row(name, "latency", f"{first.latency_s * 1e3:.4f} and {second.latency_s * 1e3:.4f} ms")
    yield Row(name, "timed", first.how, "as a graph", "as a CUDA graph" in first.how)
    yield within(name, "latency again", first.latency_s, second.latency_s, TWICE)


def _weight_bytes(net: torch.nn.Module) -> int:
    return sum(each.nbytes for each in net.parameters())
