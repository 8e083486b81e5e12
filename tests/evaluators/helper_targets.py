"""Targets that behave or misbehave, for processes that find this module on their path; see the fixture `helpers`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from paretrim.errors import ArtifactError
from paretrim.evaluators import meters
from paretrim.evaluators.target import Array, MainMemory, Session, TargetSettings

TURN = 3_000_000
"""Microjoules at which the counters of `Metered` begin anew."""


class Echo(MainMemory):
    """Answers with its input, whatever the model file is."""

    def __init__(self, settings: TargetSettings) -> None:
        self.settings = settings

    def version(self) -> str:
        return "echo 1"

    def open(self, path: Path) -> Session:
        return self.answer

    def answer(self, inputs: Array) -> Array:
        return inputs


class Telling(Echo):
    """Answers with its process, and how many of the heavy modules it carries."""

    def answer(self, inputs: Array) -> Array:
        heavy = [name for name in ("torch", "onnxruntime", "pandas", "ray", "mlflow") if name in sys.modules]
        return np.array([os.getpid(), len(heavy)])


class Paced(Echo):
    """Takes as many microseconds of processor time for a call as the name of the model file says."""

    def open(self, path: Path) -> Session:
        def answer(inputs: Array) -> Array:
            end = time.process_time() + int(path.name) * 1e-6
            while time.process_time() < end:
                pass
            return inputs

        return answer


class Hungry(Echo):
    """Holds as many bytes as the name of the model file says."""

    def open(self, path: Path) -> Session:
        held = np.ones(int(path.name), np.uint8)
        return lambda inputs: inputs + held[:1].sum()


class Bound(Echo):
    """Tells as its device's memory the last core that it may use, and how many they are."""

    def device_peak(self) -> tuple[int, int] | None:
        cores = os.sched_getaffinity(0)
        return max(cores), len(cores)


class Metered(Echo):
    """Uses 5 millijoules for a call, beside 2 watts of an idle machine, by counters in the folder that COUNTERS names."""

    def __init__(self, settings: TargetSettings) -> None:
        super().__init__(settings)
        self._folder = Path(os.environ["COUNTERS"])
        self._used, self._started = 0, time.monotonic()
        meters.readable.__defaults__ = (self._folder,)
        self._tick()
        self._count("intel-rapl:1", 0)

    def answer(self, inputs: Array) -> Array:
        time.sleep(0.002)
        self._used += 5_000
        self._count("intel-rapl:1", self._used)
        return inputs

    def _tick(self) -> None:
        self._count("intel-rapl:0", round(2e6 * (time.monotonic() - self._started)))
        timer = threading.Timer(0.002, self._tick)
        timer.daemon = True
        timer.start()

    def _count(self, zone: str, microjoules: int) -> None:
        written = self._folder / zone / f"written-{time.monotonic_ns()}"
        written.write_text(f"{microjoules % TURN}\n")
        written.replace(self._folder / zone / "energy_uj")


class Printing(Echo):
    """Prints more than a pipe holds, in each way there is, when it is made, opened and called."""

    def __init__(self, settings: TargetSettings) -> None:
        super().__init__(settings)
        _say("made")

    def open(self, path: Path) -> Session:
        _say("opened")
        return super().open(path)

    def answer(self, inputs: Array) -> Array:
        _say("called")
        return inputs


class Moody(Echo):
    """Does what the first number of a batch says."""

    def answer(self, inputs: Array) -> Array:
        mood = int(inputs.flat[0])
        if mood == 1:
            raise RuntimeError("line one\nthe runtime is out of luck")
        if mood == 2:
            os.kill(os.getpid(), 11)
        if mood == 3:
            time.sleep(60)
        if mood == 4:
            os._exit(7)
        if mood == 5:
            return np.array([None])
        return inputs


class Refusing(Echo):
    """Prints, and does not load anything."""

    def open(self, path: Path) -> Session:
        sys.stdout.write("loading\n")
        raise ArtifactError(f"{path.name} is not to its taste")


class Sleeping(Echo):
    """Takes longer to load than anybody waits."""

    def open(self, path: Path) -> Session:
        time.sleep(60)
        return self.answer


def _say(what: str) -> None:
    line = f"{what} {'x' * 1000}"
    for _ in range(100):
        for stream in (sys.stdout, sys.stderr):
            stream.write(f"{line}\n")
            stream.flush()
        os.write(1, f"{line}\n".encode())
    subprocess.run(["echo", line], check=True)
