"""What this machine knows of the service that was started on it: a file in the user's own folder."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from paretrim.errors import UsageError

ENVIRONMENT = "PARETRIM_HOME"
RAY, MLFLOW = "ray", "mlflow"
_DEFAULT = "~/.paretrim"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_STARTED_AT = 19
"""Place of a process's start, in ticks since the boot, in what follows its name in /proc/PID/stat."""


@dataclass(frozen=True)
class Process:
    """A process that was started, told from a later one with its number by when it began; no clock is asked for that.

    Attributes:
        pid: Its number.
        began: When it began, in ticks since the boot.
        boot: Which boot of the machine that was.
    """

    pid: int
    began: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return a process that runs."""
        return cls(pid, _began(pid) or 0, _BOOT.read_text().strip())

    def alive(self) -> bool:
        """Tell whether it runs still."""
        return self.boot == _BOOT.read_text().strip() and _began(self.pid) == self.began

    def left(self) -> list[int]:
        """Return the processes of its session, if that is its own still."""
        if self.boot != _BOOT.read_text().strip() or _began(self.pid) not in (None, self.began):
            return []
        return [pid for pid in psutil.pids() if _session(pid) == self.pid and (_began(pid) or 0) >= self.began]


def _began(pid: int) -> int | None:
    """Return when a process began, in ticks since the boot; None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[_STARTED_AT])


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


@dataclass(frozen=True)
class Service:
    """A service on this machine.

    Attributes:
        address: Where Ray takes jobs.
        tracking: Address of the MLflow server.
        store: Folder of the results.
        token: File of the token.
        processes: Its processes by name.
    """

    address: str
    tracking: str
    store: str
    token: str
    processes: dict[str, Process]

    def takes_jobs(self) -> bool:
        """Tell whether its Ray runs."""
        return RAY in self.processes and self.processes[RAY].alive()


class Home:
    """The folder in which the service of this user is noted.

    Args:
        folder: The folder; by default that of ``PARETRIM_HOME``, or ``~/.paretrim``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or Path(os.environ.get(ENVIRONMENT) or _DEFAULT).expanduser()).resolve()

    @property
    def logs(self) -> Path:
        """Folder of the logs of the service's own processes."""
        return self.folder / "logs"

    def make(self) -> None:
        """Make the folder, which is its owner's alone."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot write {self.folder}: {error.strerror}; name another folder in {ENVIRONMENT}"
            ) from error

    def token(self) -> Path:
        """Return the file of the token, which is made when there is none yet."""
        path = self.folder / "token"
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
        return path

    def service(self) -> Service | None:
        """Return the service that was started, whether or not it runs still."""
        try:
            plain = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        processes = {name: Process(**each) for name, each in plain.pop("processes").items()}
        return Service(**plain, processes=processes)

    def note(self, service: Service) -> None:
        """Note a service."""
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(service)), encoding="utf-8")
        partial.replace(self._file)

    def forget(self) -> None:
        """Note that there is none any more."""
        self._file.unlink(missing_ok=True)

    @property
    def _file(self) -> Path:
        return self.folder / "service.json"
