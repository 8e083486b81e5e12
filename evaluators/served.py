"""An artifact that answers from a process of its own: when it crashes or hangs, it does so alone.

Batches and answers go through pipes as numpy's own format, without pickles.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from paretrim.errors import ArtifactError
from paretrim.evaluators.child import command, ending, kept_output, last_words
from paretrim.evaluators.target import Array, Session, TargetAddress

_LIMIT_S = 300.0
# For a process whose pipes are closed to be gone.
_ENDING_S = 5.0


@contextmanager
def served(address: TargetAddress, model: Path, limit_s: float = _LIMIT_S) -> Iterator[Session]:
    """Open a model file in a fresh process and yield a session that asks it.

    Args:
        address: The target.
        model: The unpacked model file.
        limit_s: Seconds for loading it, and for each batch, after which the process is killed.

    Raises:
        ArtifactError: The model does not load, or its process dies, hangs or answers nonsense.
    """
    request = json.dumps({"target": address.to_plain(), "model": str(model)})
    process = subprocess.Popen(
        [*command("paretrim.evaluators.served"), request],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    words = _Listener(process.stderr)
    try:
        with _within(process, limit_s, "loading", words):
            _read(process.stdout)  # an empty array: it is loaded

        def ask(*batch: Array) -> Array:
            with _within(process, limit_s, f"a batch of shape {', '.join(str(part.shape) for part in batch)}", words):
                _write(process.stdin, np.array(len(batch)))
                for part in batch:
                    _write(process.stdin, part)
                return _read(process.stdout)

        yield ask
    finally:
        process.kill()
        process.wait()
        words.close()
        for pipe in (process.stdin, process.stdout, process.stderr):
            _close(pipe)


class _Listener:
    """Keeps what a process writes to its standard error, which would block it when nobody reads."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        self._heard: list[bytes] = []
        self._thread = threading.Thread(target=self._listen, args=(pipe,), daemon=True)
        self._thread.start()

    def _listen(self, pipe: IO[bytes] | None) -> None:
        for line in pipe or ():
            self._heard = [*self._heard[-50:], line]

    def close(self) -> None:
        """Wait until the process has nothing more to say."""
        self._thread.join(timeout=5)

    def text(self) -> str:
        return b"".join(self._heard).decode(errors="replace")


@contextmanager
def _within(process: subprocess.Popen[bytes], limit_s: float, what: str, words: _Listener) -> Iterator[None]:
    """Kill the process when a step takes too long, and say what became of it when the step fails."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(limit_s, stop)
    timer.start()
    try:
        yield
    except (OSError, ValueError, EOFError) as error:
        if late.is_set():
            process.kill()
        try:
            code = process.wait(timeout=_ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            told = f"the artifact's process and this one do not understand each other at {what}: {error}"
            raise ArtifactError(told) from error
        words.close()
        if late.is_set():
            raise ArtifactError(f"the artifact took more than {limit_s:.0f} s for {what} and was stopped") from error
        raise ArtifactError(f"the artifact's process {ending(code)} at {what}{last_words(words.text())}") from error
    finally:
        timer.cancel()


class _Pipe:
    """A pipe as numpy can use it: for one that it takes to be a file, it would ask for a position."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.read, self.write = raw.read, raw.write


def _read(raw: IO[bytes] | None) -> Array:
    if raw is None:
        raise EOFError
    array: Array = np.lib.format.read_array(_Pipe(raw), allow_pickle=False)
    return array


def _write(raw: IO[bytes] | None, array: Array) -> None:
    if raw is None:
        raise EOFError
    np.lib.format.write_array(_Pipe(raw), np.ascontiguousarray(array), allow_pickle=False)
    raw.flush()


def _close(pipe: IO[bytes] | None) -> None:
    # What is still in the buffer of a process that died cannot be written any more.
    try:
        if pipe is not None:
            pipe.close()
    except BrokenPipeError:
        pass


def main() -> None:
    """Serve the model that the command line names, until standard input ends."""
    request: dict[str, Any] = json.loads(sys.argv[1])
    answers, batches = kept_output(), os.fdopen(0, "rb")
    session = TargetAddress.from_plain(request["target"]).build().open(Path(request["model"]))
    _write(answers, np.zeros(0))
    while batches.peek(1):
        _write(answers, session(*(_read(batches) for _ in range(_read(batches).item()))))


if __name__ == "__main__":
    main()
