"""The parts of the GPU's benchmark that need nothing but torch and numpy."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from benchmarks.gpu import Row, within
from benchmarks.gpu_model import IMAGE, images, recipe, resnet, schooling
from paretrim.evaluators import cuda_driver, timing, torch_cuda
from paretrim.evaluators.device_session import DeviceSession, example_batch
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.target import Batch
from paretrim.evaluators.torch_resident import TorchResident
from paretrim.spaces.device import chosen
from paretrim.spaces.training import recover

TWICE, MEMORY, BESIDE = 0.05, 0.05, 0.10
_TRAINER = Path(__file__).with_name("gpu_trainer.py")
_SIDE, _LAYERS = 4096, 4
_LAYOUTS, _QUICK_LAYOUTS = (9, 15), (5, 9)


def training(quick: bool) -> Iterator[Row]:
    """Train on the processor, then on the GPU in each precision."""
    name, count, epochs = "training", 1024 if quick else 4096, 3
    _, seconds = _trained(torch.device("cpu"), count, 1, "32")
    yield Row(name, f"processor, 32 bits, {torch.get_num_threads()} threads", f"{seconds:.2f} s an epoch")
    for precision in ("32", "bf16", "fp16"):
        torch_cuda.give_back()
        torch_cuda.forget_peak()
        losses, seconds = _trained(chosen("cuda"), count, epochs, precision)
        found = f"{seconds:.2f} s an epoch, peak {torch_cuda.peak()[0] / 1e6:,.0f} MB"
        yield Row(name, f"GPU, {precision}", found)
        fell = all(map(math.isfinite, losses)) and losses[-1] < losses[0]
        yield Row(name, f"GPU, {precision}: loss", " ".join(f"{each:.3f}" for each in losses), "finite and falls", fell)


def latency(quick: bool) -> Iterator[Row]:
    """Time the network by events, with and without a graph, each twice."""
    name, layouts = "latency", _QUICK_LAYOUTS if quick else _LAYOUTS
    for batch in (1, 32):
        for graph in (False, True):
            what = f"batch {batch}, {'as a graph' if graph else 'no graph'}"
            first, second = (timed([_session(32, batch, graph)], batch, layouts)[0] for _ in range(2))
            yield Row(name, what, f"{first.latency_s * 1e3:.4f} and {second.latency_s * 1e3:.4f} ms")
            yield within(name, f"{what}: again", first.latency_s, second.latency_s, TWICE)


def memory(quick: bool) -> Iterator[Row]:  # noqa: ARG001
    """Compare the allocator's peak with what the tensors take that must be there at once."""
    device, start = chosen("cuda"), torch.cuda.memory_allocated()
    with torch.inference_mode():
        net = nn.Sequential(*(nn.Linear(_SIDE, _SIDE, bias=False) for _ in range(_LAYERS))).to(device)
        inputs = torch.randn((_SIDE, _SIDE), device=device)
        net(inputs)  # what libraries take for themselves at their first call is there from now on
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch_cuda.forget_peak()
        net(inputs)
        torch.cuda.synchronize()
        risen = torch_cuda.peak()[0] - before
    # A layer's input is there until its output is; the first one's was there before.
    expected = 2 * _SIDE * _SIDE * 4
    yield Row("memory", "peak of a forward pass", f"{risen / 1e6:.1f} MB, {expected / 1e6:.1f} expected")
    yield within("memory", "against what was expected", expected, risen, MEMORY)
    weights = _LAYERS * _SIDE * _SIDE * 4 + _SIDE * _SIDE * 4
    held = before - start
    yield Row("memory", "weights and inputs before", f"{held / 1e6:.1f} MB, {weights / 1e6:.1f} without libraries")
    del net, inputs
    torch_cuda.give_back()
    left = torch.cuda.memory_allocated() - start
    yield Row("memory", "left when all is let go", f"{left / 1e6:.1f} MB", "below 100 MB", left < 100e6)


def sharing(quick: bool) -> Iterator[Row]:
    """Measure a ratio alone, then under the lane beside two processes that train, then without the lane."""
    name, gpu, layouts = "sharing", cuda_driver.visible()[0], _QUICK_LAYOUTS if quick else _LAYOUTS
    models = [_session(32, 1, graph=True), _session(16, 1, graph=True)]

    def ratio() -> float:
        ours, theirs = timed(models, 1, layouts)
        return theirs.ratio(ours)[0]

    with TemporaryDirectory() as folder:
        lane = Lane(Path(folder)).measuring_on([gpu])
        with lane.measuring():
            alone = ratio()
        yield Row(name, "ratio, nobody else there", f"{alone:.3f}")
        with _trainers(2, folder, gpu) as epochs:
            for again in range(2):
                with lane.measuring() as first:
                    began = [each.done for each in epochs]
                    beside = ratio()
                    time.sleep(0.2)  # for what was printed to be read
                    paused = sum(each.done - before for each, before in zip(epochs, began, strict=True))
                yield Row(name, f"ratio under the lane, {again + 1}", f"{beside:.3f}, alone: {first}", "alone", first)
                # Each may have ended its epoch with the batch that the measurement waited for.
                yield Row(name, "epochs that ended meanwhile", str(paused), "at most 2", paused <= 2)
                yield within(name, "against nobody else there", alone, beside, BESIDE)
                _wait(lambda: all(each.done > 1 for each in epochs), 30.0)
            yield Row(name, "ratio without the lane", f"{ratio():.3f}")
            going = [each.done for each in epochs]
            resumed = _wait(lambda: all(e.done > g for e, g in zip(epochs, going, strict=True)), 30.0)
            yield Row(name, "training goes on", str(resumed), "it does", resumed)


def timed(
    sessions: Sequence[Callable[[], DeviceSession]], batch: int, layouts: tuple[int, int]
) -> list[timing.Clocked]:
    """Time models in turns by the GPU's clock."""
    inputs: list[Batch] = [(images(batch)[0].numpy(),)]
    return timing.contest(list(sessions), inputs, timing.Rules(processor_clock=False, layouts=layouts))


def _session(width: int, batch: int, graph: bool) -> Callable[[], DeviceSession]:
    net = resnet(width).to(chosen("cuda"))

    def opened() -> DeviceSession:
        resident = TorchResident(net, (example_batch((batch, *IMAGE), "float32"),), str(chosen("cuda")))
        if graph:
            resident.capture(torch_cuda.captured)
        return DeviceSession(resident, "")

    return opened


def _trained(device: torch.device, count: int, epochs: int, precision: str) -> tuple[list[float], float]:
    """Return the loss of each epoch, and the seconds of the last one."""
    net, losses, since, seconds = resnet(), [], time.perf_counter(), 0.0
    for loss in recover(net, recipe(epochs, precision), schooling(count, device)):
        losses.append(loss)
        since, seconds = time.perf_counter(), time.perf_counter() - since
    return losses, seconds


class _Trainer:
    """A process that trains, and how many epochs it has ended."""

    def __init__(self, folder: str, gpu: str) -> None:
        command = [sys.executable, str(_TRAINER), folder, gpu]
        self._out, theirs = os.pipe()
        self.process = subprocess.Popen(command, stdout=theirs)
        os.close(theirs)
        os.set_blocking(self._out, False)
        self._done = 0

    @property
    def done(self) -> int:
        """How many epochs have ended."""
        with contextlib.suppress(BlockingIOError):
            self._done += os.read(self._out, 1 << 20).count(b"\n")
        return self._done

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self._out)


@contextlib.contextmanager
def _trainers(count: int, folder: str, gpu: str) -> Iterator[list[_Trainer]]:
    """Give processes that train, each of which has ended an epoch."""
    found = [_Trainer(folder, gpu) for _ in range(count)]
    try:
        if not _wait(lambda: all(each.done for each in found), 120.0):
            raise RuntimeError("the training processes did not end an epoch in two minutes")
        yield found
    finally:
        for each in found:
            each.close()


def _wait(until: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
