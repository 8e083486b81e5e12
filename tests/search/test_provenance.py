"""What a search was made with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

import paretrim
from paretrim.search.provenance import origin
from paretrim.search.result import Result


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_versions_and_fingerprints_are_noted(tmp_path: Path) -> None:
    found = origin(tmp_path, {"model": "a" * 64, "data": "b" * 64, "space": "c"})
    assert found["torch"] == torch.__version__
    assert found["paretrim"] == paretrim.__version__
    assert found["python"] == sys.version.split()[0]
    assert (found["model_fingerprint"], found["data_fingerprint"]) == ("a" * 16, "b" * 16)
    assert "commit" not in found


def test_the_commit_of_the_users_code_and_whether_it_was_changed(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "mine.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert origin(tmp_path, {})["commit"] == commit
    (tmp_path / "mine.py").write_text("x = 2\n")
    assert origin(tmp_path, {})["commit"] == f"{commit} and changes"


def test_every_trial_carries_it(finished: Result) -> None:
    for record in finished.records:
        assert record.environment["torch"] == torch.__version__
        assert record.environment["host"]
        assert len(record.environment["data_fingerprint"]) == 16
