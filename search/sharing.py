"""How the searches of a cluster share it: by priority, and evenly where that is the same.

Each driver says from time to time what it could use, to a ledger that lives as long as the cluster, and hears how many
trials it may have under way. Nothing that runs is ended for that: who has too many begins no more until it has few enough.
A driver that is not heard of any more has died, and what it had is free.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from paretrim.search.fleet import Share

_NAME, _NAMESPACE = "paretrim-ledger", "paretrim"
_EVERY_S, _FORGET_S, _ANSWER_S = 2.0, 20.0, 5.0
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Wish:
    """What a search could use.

    Attributes:
        job: Its name.
        priority: The higher, the earlier it is served.
        trials: Trials that it would have under way at most.
        cpus: Cores that each reserves.
        gpus: GPUs that each reserves.
    """

    job: str
    priority: int
    trials: int
    cpus: float
    gpus: float = 0.0


def shared_out(wishes: Iterable[Wish], cpus: float, gpus: float = 0.0) -> dict[str, int]:
    """Return how many trials each search may have under way.

    Higher priorities are served first; searches of the same one take a trial in turns until they have what they wish for,
    or nothing is left.

    Args:
        wishes: Of all searches.
        cpus: Cores of the cluster.
        gpus: Its GPUs.
    """
    found = {wish.job: 0 for wish in wishes}
    left = [cpus, gpus]
    for priority in sorted({wish.priority for wish in wishes}, reverse=True):
        hungry = sorted((wish for wish in wishes if wish.priority == priority), key=lambda wish: wish.job)
        while hungry:
            hungry = [wish for wish in hungry if found[wish.job] < wish.trials and _fits(wish, left)]
            for wish in hungry:
                if _fits(wish, left):
                    found[wish.job] += 1
                    left = [left[0] - wish.cpus, left[1] - wish.gpus]
    return found


def _fits(wish: Wish, left: Sequence[float]) -> bool:
    # Shares of a GPU, such as a third, add up to a little more than one.
    return wish.cpus <= left[0] + _ROUNDING and wish.gpus <= left[1] + _ROUNDING


class Ledger:
    """What all searches of a cluster wish for.

    Args:
        now: The time, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._wishes: dict[str, tuple[Wish, float]] = {}

    def hear(self, wish: Wish, cpus: float, gpus: float = 0.0) -> int:
        """Take note of a wish, and return how many trials that search may have under way.

        Args:
            wish: The wish.
            cpus: Cores of the cluster now.
            gpus: GPUs of the cluster now.
        """
        self._wishes[wish.job] = wish, self._now()
        heard = {job: each for job, each in self._wishes.items() if self._now() - each[1] < _FORGET_S}
        self._wishes = heard
        return shared_out([each for each, _ in heard.values()], cpus, gpus)[wish.job]

    def forget(self, job: str) -> None:
        """Take note that a search has ended."""
        self._wishes.pop(job, None)


class Allowance:
    """How many trials a search may have under way, as the ledger of the cluster says.

    Args:
        job: The search's name.
        priority: Its priority.
        parallel: Trials that it would have under way at most.
        share: What each reserves.
    """

    def __init__(self, job: str, priority: int, parallel: int, share: Share) -> None:
        # Searches of different stores may have the same name.
        run = ray.get_runtime_context().get_job_id()
        self._wish = Wish(f"{job} of {run}", priority, parallel, share.cpus, share.gpus)
        self._asked_s = float("-inf")
        self._allowed = parallel
        self._ledger: Any = None

    def __call__(self) -> int:
        """Return it; the ledger is asked every two seconds."""
        if time.monotonic() - self._asked_s >= _EVERY_S:
            self._ask()
            self._asked_s = time.monotonic()
        return self._allowed

    def end(self) -> None:
        """Give up what the search may have."""
        if self._ledger is not None:
            self._ledger.forget.remote(self._wish.job)

    def _ask(self) -> None:
        try:
            if self._ledger is None:
                kind = ray.remote(num_cpus=0)(Ledger)
                self._ledger = kind.options(
                    name=_NAME, namespace=_NAMESPACE, lifetime="detached", get_if_exists=True
                ).remote()  # fmt: skip
            there = ray.cluster_resources()
            cpus, gpus = float(there.get("CPU", 0.0)), float(there.get("GPU", 0.0))
            self._allowed = int(ray.get(self._ledger.hear.remote(self._wish, cpus, gpus), timeout=_ANSWER_S))
        except ray.exceptions.RayError:
            # It may have died with its machine; a new one hears of all within two seconds. Until then what was said counts.
            self._ledger = None
