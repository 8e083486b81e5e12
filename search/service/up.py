"""Starting a Ray head and an MLflow server on this machine, and ending what was started."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir

import requests

from paretrim.errors import ClusterError, MissingExtraError, UsageError
from paretrim.search.places import TRACKING, read_secret
from paretrim.search.server import LOOPBACK, QUIET, command, require_free
from paretrim.search.service import extra
from paretrim.search.service.home import MLFLOW, RAY, Home, Process, Service
from paretrim.search.store import ENVIRONMENT as STORE
from paretrim.search.store import Store

_START_S, _END_S, _POLL_S = 120.0, 20.0, 0.2
_LAST_LINES = 15
_ADMIN = "admin"
_OTHERS = (
    "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "PARETRIM_ADDRESS", "MLFLOW_TRACKING_URI",
)  # fmt: skip
_ALL = ("0.0.0.0", "::")  # noqa: S104 - recognized, not chosen


@dataclass(frozen=True)
class Wishes:
    """How a service is to be started.

    Attributes:
        host: Address that it listens on.
        ray_port: Port of Ray's control store, which other machines join.
        jobs_port: Port at which Ray takes jobs.
        tracking_port: Port of the MLflow server.
        cpus: Cores that trials may reserve; by default those of the machine.
        token: File of the token; by default one of paretrim's own, on loopback only.
    """

    host: str = LOOPBACK
    ray_port: int = 6379
    jobs_port: int = 8265
    tracking_port: int = 5000
    cpus: int | None = None
    token: Path | None = None

    @property
    def local(self) -> bool:
        """Whether it listens to this machine alone."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def up(wishes: Wishes, store: Store, home: Home, say: Callable[[str], None]) -> Service:
    """Start a service, and note it.

    Raises:
        UsageError: One runs already, a port is taken, or it would be open to others without a token.
        ClusterError: Ray or MLflow does not start.
    """
    extra.require()
    _require_none(home)
    home.make()
    token = _token(wishes, home)
    ports = {"--port": wishes.jobs_port, "--tracking-port": wishes.tracking_port, "--ray-port": wishes.ray_port}
    for option, port in ports.items():
        require_free(wishes.host, port, option)
    store.root.mkdir(parents=True, exist_ok=True)
    service = Service(
        f"http://{_reached(wishes)}:{wishes.jobs_port}",
        f"http://{_reached(wishes)}:{wishes.tracking_port}",
        str(store.root),
        str(token),
        {},
    )
    try:
        say("starting the MLflow server")
        _start(service, home, MLFLOW, _mlflow(wishes, store), _of_mlflow(wishes, token, home))
        say("starting Ray")
        _start(service, home, RAY, _ray(wishes, home), _of_ray(wishes, service))
        _await(service, home, MLFLOW, f"{service.tracking}/health", {})
        bearer = {"Authorization": f"Bearer {read_secret(token, 'the token')}"}
        _await(service, home, RAY, f"{service.address}/api/jobs/", bearer)
    except BaseException:
        down(home)
        raise
    return service


def down(home: Home) -> Service | None:
    """End what was started, and nothing else; return it, or None when nothing runs."""
    service = home.service()
    if service is None:
        return None
    for process in service.processes.values():
        _end(process)
    home.forget()
    return service


def _require_none(home: Home) -> None:
    before = home.service()
    if before is None:
        return
    if any(each.alive() for each in before.processes.values()):
        raise UsageError(f"a service runs already at {before.address}; end it with: paretrim down")
    home.forget()


def _token(wishes: Wishes, home: Home) -> Path:
    if wishes.token is not None:
        if not read_secret(wishes.token, "--token-file").isascii() or " " in read_secret(wishes.token, "--token-file"):
            raise UsageError("--token-file: a token is a word of ASCII characters, such as openssl rand -hex 32 prints")
        return wishes.token.resolve()
    if not wishes.local:
        raise UsageError(
            f"--host {wishes.host} lets others reach a service that runs any code they send; give --token-file with a file "
            "that holds a secret of your own (for example: openssl rand -hex 32 > token; chmod 600 token)"
        )
    return home.token()


def _reached(wishes: Wishes) -> str:
    """Return the address by which the machines that shall reach it do."""
    return wishes.host if wishes.local else _own_address(wishes.host)


def _ray(wishes: Wishes, home: Home) -> list[str]:
    return [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats",
        "--node-ip-address", _reached(wishes), "--port", str(wishes.ray_port),
        "--temp-dir", str(_temporary(home)),
        "--dashboard-host", wishes.host, "--dashboard-port", str(wishes.jobs_port), "--include-dashboard", "true",
        # Chosen by the system: the usual ones may be another Ray's.
        "--dashboard-agent-listen-port", str(_free()), "--dashboard-agent-grpc-port", str(_free()),
        "--runtime-env-agent-port", str(_free()), "--ray-client-server-port", str(_free()),
        "--metrics-export-port", str(_free()),
        # Ray's usual range for them, 10002 to 19999, would refuse all ports of ours in it.
        "--min-worker-port", "0", "--max-worker-port", "0",
        *([] if wishes.cpus is None else ["--num-cpus", str(wishes.cpus)]),
    ]  # fmt: skip


def _temporary(home: Home) -> Path:
    """Return a folder for Ray's own files: of this service alone, so that no other Ray is taken for it, and of a short name."""
    return Path(gettempdir()) / f"prt-{hashlib.sha256(str(home.folder).encode()).hexdigest()[:8]}"


def _of_ray(wishes: Wishes, service: Service) -> dict[str, str]:
    # All of Ray's processes inherit it, the jobs too: it is where these find the store and the MLflow server.
    guarded = {}
    if not wishes.local:
        password = read_secret(Path(service.token), "the token")
        guarded = {"MLFLOW_TRACKING_USERNAME": _ADMIN, "MLFLOW_TRACKING_PASSWORD": password}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {
        "PATH": path,  # where jobs find the Python that has paretrim
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": service.token,
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # nothing that runs would be waited for in vain
        # Without, Ray takes the machine's outer address in the place of loopback.
        **({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if wishes.local else {}),
        STORE: service.store,
        TRACKING: service.tracking,
        **guarded,
    }


def _mlflow(wishes: Wishes, store: Store) -> list[str]:
    names = {_reached(wishes), wishes.host, socket.gethostname(), socket.getfqdn(), "localhost", LOOPBACK}
    allowed = ",".join(sorted({*names, *(f"{name}:{wishes.tracking_port}" for name in names)}))
    guarded = [] if wishes.local else ["--app-name", "basic-auth", "--allowed-hosts", allowed]
    return command(store, wishes.host, wishes.tracking_port, guarded)


def _of_mlflow(wishes: Wishes, token: Path, home: Home) -> dict[str, str]:
    return QUIET if wishes.local else {**QUIET, **_guard(token, home)}


def _guard(token: Path, home: Home) -> dict[str, str]:
    """Return the settings by which MLflow lets in its administrator alone, with the token as the password."""
    if find_spec("flask_wtf") is None:  # what MLflow's own authentication needs
        raise MissingExtraError(
            "an MLflow server that others reach needs its own authentication: pip install 'paretrim[service]'"
        )
    path, users = home.folder / "mlflow-auth.ini", home.folder / "mlflow-auth.db"
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    users.unlink(missing_ok=True)  # it holds the administrator alone, under an earlier token
    secret = read_secret(token, "the token")
    path.write_text(
        "[mlflow]\ndefault_permission = NO_PERMISSIONS\n"
        f"database_uri = sqlite:///{users}\n"
        f"admin_username = {_ADMIN}\nadmin_password = {secret.replace('%', '%%')}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
        encoding="utf-8",
    )
    return {"MLFLOW_AUTH_CONFIG_PATH": str(path), "MLFLOW_FLASK_SERVER_SECRET_KEY": secret}


def _start(service: Service, home: Home, name: str, words: Sequence[str], settings: Mapping[str, str]) -> None:
    with (home.logs / f"{name}.log").open("w") as log:
        # In a session of its own, so that it outlives the shell.
        started = subprocess.Popen(
            words, env={**_plain(), **settings}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, cwd=home.folder,
        )  # fmt: skip
    service.processes[name] = Process.of(started.pid)
    home.note(service)


def _plain() -> dict[str, str]:
    """Return the environment without what would lead a service to another one."""
    return {name: value for name, value in os.environ.items() if name not in _OTHERS}


def _await(service: Service, home: Home, name: str, url: str, headers: Mapping[str, str]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if not service.processes[name].alive():
            break
        try:
            if requests.get(url, headers=dict(headers), timeout=5).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(_POLL_S)
    log = home.logs / f"{name}.log"
    last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:])
    raise ClusterError(f"{name} does not start; the end of {log}:\n{last}")


def _end(process: Process) -> None:
    """End a process in order, and then all that it has left in its session."""
    if process.alive():
        os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _END_S
        while process.alive() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    for pid in process.left():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _free() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _own_address(host: str) -> str:
    """Return the address by which other machines reach this one."""
    if host not in _ALL:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # an address for examples: nothing is sent
        found: str = probe.getsockname()[0]
        return found
