"""What a search was made with: versions, the commit of the user's code, and what its model and data were."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import paretrim

_PACKAGES = ("torch", "onnx", "onnxruntime", "ray", "optuna", "mlflow", "numpy")
_GIT_S = 10.0


def origin(folder: Path, fingerprints: Mapping[str, str]) -> dict[str, str]:
    """Return it by name, for the environment of each trial.

    Args:
        folder: Of the user's code.
        fingerprints: Hashes of the model and the data.
    """
    found = {"python": platform.python_version(), "paretrim": paretrim.__version__}
    found |= {name: number for name in _PACKAGES if (number := _version(name))}
    found |= {f"{part}_fingerprint": fingerprints[part][:16] for part in ("model", "data") if part in fingerprints}
    commit = _commit(folder)
    return {**found, "commit": commit} if commit else found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit(folder: Path) -> str:
    """Return the commit that a folder is of, marked where files have changed since; nothing where git knows none."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return ""
    return f"{commit} and changes" if _git(folder, "status", "--porcelain", "--", ".") else commit


def _git(folder: Path, *words: str) -> str:
    try:
        command = ["git", "-C", str(folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
