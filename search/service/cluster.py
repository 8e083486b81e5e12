"""A cluster that takes jobs, reached over HTTP through Ray Jobs."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paretrim.errors import ClusterError, UnknownJobError, UsageError, nearest
from paretrim.search.places import read_secret
from paretrim.search.service import answer, extra
from paretrim.search.service.answer import ADDRESS
from paretrim.search.service.home import Home

NAME, KIND = "paretrim.job", "paretrim.kind"
SEARCH, CALL = "search", "call"
SUCCEEDED, RUNNING = "SUCCEEDED", ("PENDING", "RUNNING")
_RAY_ADDRESSES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
_CALL_S, _POLL_S = 900.0, 0.3


@dataclass(frozen=True)
class Turn:
    """One time that a job was driven: its submission, or a resumption.

    Attributes:
        submission: Ray's name of it.
        job: The job's name.
        state: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``.
        message: What Ray says of it.
        started: When it began, in milliseconds of the epoch, or None.
        ended: When it ended, likewise.
        environment: Ray's runtime environment of it.
    """

    submission: str
    job: str
    state: str
    message: str
    started: int | None
    ended: int | None
    environment: Mapping[str, Any] = field(repr=False)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.state in RUNNING


class Cluster:
    """A cluster.

    Args:
        address: Where Ray takes jobs, such as ``http://HEAD:8265``.
        token: What lets this user in, or None where the cluster asks for none.

    Raises:
        ClusterError: Nothing answers there, or it refuses the token.
        MissingExtraError: The extra ``service`` is not installed.
    """

    def __init__(self, address: str, token: str | None) -> None:
        extra.require()
        from ray.job_submission import JobSubmissionClient  # noqa: PLC0415 - as slow as Ray to import

        # They set their own level when they are imported.
        for chatty in (
            "dashboard.modules.dashboard_sdk",
            "dashboard.modules.job.sdk",
            "_private.runtime_env.packaging",
        ):
            logging.getLogger(f"ray.{chatty}").setLevel(logging.WARNING)
        self.address = address
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        with self._told(), _without(_RAY_ADDRESSES):
            self._client = JobSubmissionClient(address, headers=headers)

    def turns(self, job: str | None = None) -> list[Turn]:
        """Return all turns of a job, or of all jobs, in the order in which they were submitted."""
        with self._told():
            found = self._client.list_jobs()
        turns = [_turn(each) for each in found if (each.metadata or {}).get(KIND) == SEARCH]
        wanted = [turn for turn in turns if job is None or turn.job == job]
        return sorted(wanted, key=lambda turn: turn.started or 0)

    def last(self, job: str) -> Turn:
        """Return the last turn of a job.

        Raises:
            UnknownJobError: The cluster knows none.
        """
        found = self.turns()
        mine = [turn for turn in found if turn.job == job]
        if not mine:
            names = sorted({turn.job for turn in found})
            there = f"; there are: {', '.join(names)}{nearest(job, names)}" if names else ""
            raise UnknownJobError(f"the cluster at {self.address} has no job '{job}'{there}")
        return mine[-1]

    def submit(
        self, submission: str, job: str, command: Sequence[str], environment: Mapping[str, Any], kind: str = SEARCH
    ) -> bool:
        """Let the cluster run a command; return whether it is new there.

        Args:
            submission: Names the turn; the same name twice is one.
            job: The job's name.
            command: The words of the command.
            environment: Ray's runtime environment for it.
            kind: Whether it is a search, or asks something of one.
        """
        # Ray takes a line for a shell, so each word is quoted for it.
        line = shlex.join(command)
        with self._told():
            if kind == SEARCH and any(each.submission_id == submission for each in self._client.list_jobs()):
                return False
            self._client.submit_job(
                entrypoint=line,
                submission_id=submission,
                runtime_env=dict(environment),
                metadata={NAME: job, KIND: kind},
            )
        return True

    def logs(self, turn: Turn) -> str:
        """Return what a turn has printed."""
        with self._told():
            return str(self._client.get_job_logs(turn.submission))

    def follow(self, turn: Turn) -> Iterator[str]:
        """Yield what a turn has printed and prints, until it ends."""
        # Ray's own way is asynchronous, and there is no other work meanwhile.
        loop, lines = asyncio.new_event_loop(), self._client.tail_job_logs(turn.submission)
        try:
            while True:
                with self._told():
                    try:
                        yield loop.run_until_complete(anext(lines))
                    except StopAsyncIteration:
                        return
        finally:
            for task in asyncio.all_tasks(loop):  # Ctrl-C leaves one waiting
                task.cancel()
                with suppress(asyncio.CancelledError):
                    loop.run_until_complete(task)
            loop.run_until_complete(lines.aclose())
            loop.close()

    def ask(self, job: str, command: Sequence[str], limit_s: float = _CALL_S) -> answer.Answer:
        """Run a command of paretrim's on the cluster and return what it answered.

        Args:
            job: The job that it is about.
            command: Its words, without ``paretrim``.
            limit_s: How long to wait for it.

        Raises:
            ClusterError: No answer came.
        """
        submission = f"{job}.call-{time.time_ns():x}"
        words = ["python", "-m", "paretrim.search.service.answer", *command]
        # With what the job had installed: its techniques and targets may come from there.
        turns = self.turns(job)
        installed = {"pip": turns[-1].environment["pip"]} if turns and "pip" in turns[-1].environment else {}
        self.submit(submission, job, words, installed, kind=CALL)
        deadline = time.monotonic() + limit_s
        with self._told():
            while (state := self._client.get_job_status(submission).value) in RUNNING:
                if time.monotonic() > deadline:
                    self._client.stop_job(submission)
                    raise ClusterError(
                        f"the cluster at {self.address} did not answer within {limit_s:.0f} s; is it busy?"
                    )
                time.sleep(_POLL_S)
            printed = str(self._client.get_job_logs(submission))
            message = str(self._client.get_job_info(submission).message)
            self._client.delete_job(submission)
        found = answer.read(printed)
        if found is None:
            raise ClusterError(
                f"the cluster at {self.address} could not answer ({state}): {message}\n{printed[-2000:]}"
            )
        return found

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say in our own words what is wrong with a cluster."""
        import aiohttp  # noqa: PLC0415 - as above
        import requests  # noqa: PLC0415 - as above
        from ray.exceptions import AuthenticationError  # noqa: PLC0415 - as above

        try:
            yield
        except ClusterError:
            raise
        except AuthenticationError as error:
            code = "401, no token" if "401" in str(error) or "missing" in str(error).lower() else "403, a wrong token"
            raise ClusterError(
                f"the cluster at {self.address} refuses ({code}); give the right one in the environment: RAY_AUTH_TOKEN, or "
                "RAY_AUTH_TOKEN_PATH with the name of a file"
            ) from None
        except (ConnectionError, requests.RequestException, aiohttp.ClientError) as error:
            raise ClusterError(
                f"no cluster answers at {self.address} ({error}); `paretrim up` starts one on this machine"
            ) from None
        except RuntimeError as error:
            raise ClusterError(f"the cluster at {self.address} refused: {error}") from error


def find(address: str | None, home: Home) -> Cluster | None:
    """Return the cluster at an address, that of the environment, or the service of this machine; None when there is none.

    Raises:
        ClusterError: It does not answer, or refuses.
    """
    service = home.service()
    address = address or os.environ.get(ADDRESS)
    if address is None:
        if service is None or not service.takes_jobs():
            return None
        address = service.address
    if not address.startswith(("http://", "https://")):
        raise UsageError(f"--address: '{address}' is no address such as http://HEAD:8265")
    own = Path(service.token) if service is not None and service.address == address else None
    return Cluster(address.rstrip("/"), _token(own))


def required(address: str | None, home: Home) -> Cluster:
    """Return what `find` does.

    Raises:
        UsageError: There is none.
        ClusterError: It does not answer, or refuses.
    """
    found = find(address, home)
    if found is None:
        raise UsageError(
            f"no cluster is named and none runs on this machine; give --address or {ADDRESS}, or start one: paretrim up"
        )
    return found


def _token(own: Path | None) -> str | None:
    given, path = os.environ.get("RAY_AUTH_TOKEN"), os.environ.get("RAY_AUTH_TOKEN_PATH")
    if own is not None:
        return read_secret(own, "the service's token")
    if given:
        return given
    if path:
        return read_secret(Path(path), "RAY_AUTH_TOKEN_PATH")
    usual = Path.home() / ".ray" / "auth_token"
    return usual.read_text(encoding="utf-8").strip() if usual.exists() else None


def _turn(details: Any) -> Turn:
    return Turn(
        submission=details.submission_id,
        job=details.metadata[NAME],
        state=details.status.value,
        message=details.message or "",
        started=details.start_time,
        ended=details.end_time,
        environment=details.runtime_env or {},
    )


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """Hide variables that Ray would prefer to what it is told."""
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
