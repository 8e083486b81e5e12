"""Timing models against each other in one process: what a measuring process does for a latency.

Three things make one model's time differ from the next run's, and each has its remedy here:

- whatever disturbs a call only makes it slower: calls are grouped in blocks, and a block keeps its fastest;
- where weights and buffers happen to lie in memory moves a small model's time by up to a tenth: all models are loaded
  anew several times (a *layout*), and the fastest third of the layouts counts;
- the machine drifts: blocks of all models alternate within each layout, and ratios are formed between them.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from paretrim.evaluators.device_session import TimingSession
from paretrim.evaluators.floors import fastest_third, ratio_interval, third_interval
from paretrim.evaluators.target import Batch, Session

Floats = npt.NDArray[np.float64]
Open = Callable[[], Session]

_BLOCK_S = 0.003
_BLOCKS = 8
_FEWEST_BLOCKS = 2
_LAYOUT_S = 0.1
_WARM_UP_S, _WARM_UP_LIMIT_S = 0.02, 0.5
_STEADY = 0.05
# Below so many calls a block may not hold an undisturbed one, so the processor's own clock is read at each call.
_FEW_CALLS = 20
_KEPT_OF_BLOCK = 64


@dataclass(frozen=True)
class Rules:
    """When a measurement is enough.

    Attributes:
        narrow: Half width of the ratios' 95% intervals, as a share, at which to stop.
        budget_s: Seconds after which to stop anyway.
        layouts: How often all models are loaded anew, at the least and at the most.
        processor_clock: Whether a call's time is at most the processor time that the process used for it; true where
            one thread computes in this process, so that waiting for a core does not count.
    """

    narrow: float = 0.015
    budget_s: float = 6.0
    layouts: tuple[int, int] = (9, 15)
    processor_clock: bool = True


@dataclass
class Clocked:
    """The times of one model.

    Attributes:
        floors: Fastest call of the blocks of each layout, in seconds: their lower quartile.
        calls: Wall time of calls, in seconds; an even sample of them where they are many.
        how: What was timed, where that is not the wall time of calls.
    """

    floors: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    how: str = ""

    @property
    def latency_s(self) -> float:
        """The latency: the mean of the fastest third of the layouts."""
        return fastest_third(np.array(self.floors))

    def interval_s(self) -> tuple[float, float]:
        """Return the 95% interval of `latency_s`."""
        return third_interval(np.array(self.floors))

    def ratio(self, other: Clocked) -> tuple[float, float, float]:
        """Return the latency over that of another model timed in the same contest, and its 95% interval."""
        return ratio_interval(np.array(self.floors), np.array(other.floors))

    def spread(self) -> float:
        """Return by how much the median layout is slower than the fastest third, as a share."""
        return float(np.median(self.floors)) / self.latency_s - 1.0


def contest(models: Sequence[Open], inputs: Sequence[Batch], rules: Rules) -> list[Clocked]:
    """Time models in turns until the ratios of all to the first are narrow.

    Args:
        models: Each opens its model anew.
        inputs: Different batches, taken in turns.
        rules: When to stop.

    Returns:
        The times of each, in the given order.
    """
    found = [Clocked() for _ in models]
    order = random.Random(0)
    started = time.perf_counter()
    least, most = rules.layouts
    for layout in range(most):
        # The previous sessions are let go only when these are open, which therefore lie elsewhere in memory.
        sessions = [open_model() for open_model in models]
        _time_layout(sessions, inputs, found, order, rules)
        if layout + 1 >= least and (_narrow(found, rules) or time.perf_counter() - started > rules.budget_s):
            break
    return found


def _time_layout(
    sessions: list[Session], inputs: Sequence[Batch], found: list[Clocked], order: random.Random, rules: Rules
) -> None:
    calls = [max(1, round(_BLOCK_S / warm_up(session, inputs))) for session in sessions]
    floors: list[list[float]] = [[] for _ in sessions]
    started = time.perf_counter()
    turns = list(range(len(sessions)))
    blocks_of = [_device_block if isinstance(session, TimingSession) else _block for session in sessions]
    for block in range(_BLOCKS):
        if block >= _FEWEST_BLOCKS and time.perf_counter() - started > _LAYOUT_S * len(sessions):
            break
        order.shuffle(turns)
        for i in turns:
            batches = [inputs[(block * calls[i] + call) % len(inputs)] for call in range(calls[i])]
            fastest, walls = blocks_of[i](sessions[i], batches, rules.processor_clock)
            floors[i].append(fastest)
            # From a random one on: the first call after another model's is slower, and is kept no more often than others.
            step = math.ceil(calls[i] / _KEPT_OF_BLOCK)
            found[i].calls.extend(walls[order.randrange(step) :: step].tolist())
    for each, session, blocks in zip(found, sessions, floors, strict=True):
        each.floors.append(float(np.quantile(blocks, 0.25)))
        each.how = session.how if isinstance(session, TimingSession) else each.how


def warm_up(session: Session, inputs: Sequence[Batch]) -> float:
    """Call a model until its calls are no longer getting faster, and return the fastest, in seconds."""
    started = time.perf_counter()
    fastest, previous, calls = float("inf"), float("inf"), 0
    while True:
        chunk = time.perf_counter()
        best = float("inf")
        while best == float("inf") or time.perf_counter() - chunk < _WARM_UP_S / 2:
            before = time.perf_counter()
            session(*inputs[calls % len(inputs)])
            best = min(best, time.perf_counter() - before)
            calls += 1
        fastest = min(fastest, best)
        elapsed = time.perf_counter() - started
        if elapsed > _WARM_UP_LIMIT_S or (elapsed >= _WARM_UP_S and best > previous * (1 - _STEADY)):
            return fastest
        previous = best


def _block(session: Session, batches: Sequence[Batch], processor_clock: bool) -> tuple[float, Floats]:
    """Call a model with each batch, and return its fastest call and the wall times of all, in seconds."""
    walls = np.empty(len(batches))
    if len(batches) >= _FEW_CALLS or not processor_clock:
        for i, batch in enumerate(batches):
            before = time.perf_counter()
            session(*batch)
            walls[i] = time.perf_counter() - before
        return float(walls.min()), walls
    fastest = float("inf")
    for i, batch in enumerate(batches):
        used, before = time.process_time(), time.perf_counter()
        session(*batch)
        walls[i] = time.perf_counter() - before
        fastest = min(fastest, float(walls[i]), time.process_time() - used)
    return fastest, walls


def _device_block(session: Session, batches: Sequence[Batch], processor_clock: bool) -> tuple[float, Floats]:  # noqa: ARG001
    """Do as `_block` by the device's clock, and return the mean call instead of the fastest.

    Calls are queued there: one that seems short is one that the call before it has delayed.
    """
    assert isinstance(session, TimingSession)  # noqa: S101 - tells the type checker what was looked at before
    seconds = session.clock(batches)
    return float(seconds.mean()), seconds


def _narrow(found: Sequence[Clocked], rules: Rules) -> bool:
    for each in found[1:]:
        ratio, low, high = each.ratio(found[0])
        if (high - low) / 2 > rules.narrow * ratio:
            return False
    return True


def throughput(session: Session, batch: Batch, seconds: float = 0.05) -> float:
    """Return samples per second at a batch size: the median of at least three calls after a first one."""
    session(*batch)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        session(*batch)
        times.append(time.perf_counter() - before)
    return len(batch[0]) / float(np.median(times))
