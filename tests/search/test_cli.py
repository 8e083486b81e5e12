"""The command line as a user types it: exit codes, one clear error, no traceback."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from paretrim.search import engine
from paretrim.search.cli import main
from paretrim.search.result import Result
from paretrim.tracking.bundle import Verdict
from paretrim.tracking.testing import sample_record

from .conftest import a_search


def paretrim(*arguments: str, store: Path | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paretrim", *arguments, *(["--store", str(store)] if store else [])]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@dataclass(frozen=True)
class Typed:
    """How a command ended in this process, which spares the seconds that a new one takes to import torch."""

    capsys: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch

    def __call__(self, *arguments: str, store: Path) -> subprocess.CompletedProcess[str]:
        self.patch.setattr(sys, "argv", ["paretrim", *arguments, "--store", str(store)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        output, errors = self.capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), output, errors)


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    return Typed(capsys, monkeypatch)


def test_help_names_every_command() -> None:
    done = paretrim("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("search", "resume", "front", "export", "ui", "init"))


def test_help_does_not_wait_for_heavy_packages() -> None:
    code = "import sys; sys.argv = ['paretrim', '--help']; from paretrim.search.cli import main\ntry: main()\n"
    code += "except SystemExit: pass\nprint([m for m in ('torch', 'ray', 'mlflow', 'optuna') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_all_mistakes_of_a_job_file_at_once_with_exit_code_2(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("model: tiny\ndata: tiny:data\nbudget: {trails: 3}\nconstraints: [accuracy > much]\n")
    done = paretrim("search", str(job), store=tmp_path / "store")
    assert done.returncode == 2
    assert "3 mistakes" in done.stderr
    assert "line 1, model: 'tiny' is not an import path" in done.stderr
    assert "line 3, budget.trails: unknown key" in done.stderr
    assert "did you mean 'trials'?" in done.stderr
    assert "line 4, constraints.0: cannot read the constraint" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("search", "no-such.yaml"), "cannot read the job file 'no-such.yaml'"),
        (("front",), "no search in the store"),
        (("ui",), "no tracking database in the store"),
        (("front", "--bogus"), "No such option"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...], words: str, typed: Typed, tmp_path: Path
) -> None:
    done = typed(*arguments, store=tmp_path)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = paretrim("--debug", "front", store=tmp_path)
    assert "Traceback" in done.stderr
    assert "UnknownJobError" in done.stderr


def test_unknown_job_suggests_the_nearest(finished: Result, typed: Typed) -> None:
    done = typed("front", "tiny-11", store=finished.store.root)
    assert done.returncode == 2
    assert "did you mean 'tiny-1'?" in done.stderr


def test_front_prints_the_baseline_first_and_the_next_commands(finished: Result, typed: Typed) -> None:
    done = typed("front", store=finished.store.root)
    assert done.returncode == 0
    rows = [line for line in done.stdout.splitlines() if "(1.00)" in line]
    assert rows[0].split()[:2] == ["0", "baseline"]
    assert f"paretrim export {finished.name}" in done.stdout


def test_front_json_is_the_promised_shape(finished: Result, typed: Typed) -> None:
    document = json.loads(typed("front", finished.name, "--json", store=finished.store.root).stdout)
    assert document == json.loads(finished.require_report().to_json())
    assert list(document) == ["schema", "job", "baseline", "front", "knee"]


def test_front_csv_reads_as_a_table(finished: Result, typed: Typed) -> None:
    text = typed("front", "--csv", store=finished.store.root).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0]["kind"] == "baseline"
    assert {"trial", "validation_accuracy", "test_accuracy", "latency_ms_ratio"} <= set(rows[0])


def test_export_checks_and_says_where(finished: Result, typed: Typed, tmp_path: Path) -> None:
    condition = "accuracy >= baseline - 0.9"
    done = paretrim("export", "-o", str(tmp_path / "out"), "--where", condition, store=finished.store.root)
    assert done.returncode == 0, done.stderr
    assert "as recorded" in done.stdout
    assert (tmp_path / "out" / "model.onnx").exists()
    again = typed("export", "-o", str(tmp_path / "out"), store=finished.store.root)
    assert again.returncode == 2


def test_export_picks_by_a_rule_and_refuses_what_contradicts_it(
    finished: Result, typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, store = str(tmp_path / "out"), finished.store.root
    done = typed("export", "-o", out, "--pick", "knee", "--wish", "latency_ms=1", store=store)
    assert (done.returncode, "'wish' goes with nearest, and the rule is knee" in done.stderr) == (2, True)
    done = typed("export", "-o", out, "--pick", "smallest", store=store)
    assert "unknown pick rule 'smallest'; allowed: cheapest, knee, nearest, lexicographic" in done.stderr
    asked: dict[str, object] = {}

    def export(_: Result, folder: Path, rule: str | None, **more: object) -> Verdict:
        asked.update(more, rule=rule)
        return Verdict(folder, 3, "0" * 64, (), ())

    monkeypatch.setattr(Result, "export", export)
    typed("export", "-o", out, "--order", "size_bytes>accuracy", store=store)
    assert {name: value for name, value in asked.items() if value and name != "say"} == {"order": "size_bytes>accuracy"}


def test_front_tells_why_nothing_is_told_of_the_knobs(finished: Result, typed: Typed) -> None:
    done = typed("front", "--importance", store=finished.store.root)
    assert done.returncode == 0
    assert "Nothing is told of the knobs" in done.stdout
    document = json.loads(typed("front", "--importance", "--json", store=finished.store.root).stdout)
    assert document["knobs"] == {}
    assert "searched trials" in document["why_none"]


def test_export_that_nothing_meets_names_the_nearest(finished: Result, typed: Typed, tmp_path: Path) -> None:
    done = typed("export", "-o", str(tmp_path / "out"), "--where", "size_bytes <= 1", store=finished.store.root)
    assert done.returncode == 1
    assert "the nearest is trial" in done.stderr
    assert not (tmp_path / "out").exists()


def test_init_writes_a_job_that_works_as_it_is(tmp_path: Path) -> None:
    assert paretrim("init", "mine", cwd=tmp_path).returncode == 0
    again = paretrim("init", "mine", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists" in again.stderr
    # It loads the model, which is trained at the first time, and the data, and checks that they fit.
    done = paretrim("space", "mine/job.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "block1.conv1" in done.stdout


@pytest.mark.slow
def test_the_job_that_init_writes_is_searched(tmp_path: Path) -> None:
    assert paretrim("init", "mine", cwd=tmp_path).returncode == 0
    done = paretrim("search", "mine/job.yaml", "--trials", "4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "trial 0 (baseline) accuracy 0.9" in done.stdout
    assert (tmp_path / "paretrim-runs" / "study.db").exists()


def test_nothing_feasible_fails_and_says_why(
    job_file: Path, typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = tmp_path / "job.yaml"
    strict.write_text(job_file.read_text() + "constraints: [size_bytes <= 2% of baseline]\n")
    records = [sample_record(0), sample_record(1, size_bytes=50_000.0)]
    # What a search without a front is, tests/search/test_faults.py tells.
    monkeypatch.setattr(engine, "start", lambda job, store, _: a_search(store, records, job))
    done = typed("search", str(strict), store=tmp_path / "store")
    assert done.returncode == 1
    assert "the one that binds is 'size_bytes <= 2% of baseline'" in done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_ui_serves_mlflow_on_loopback_until_it_is_interrupted(finished: Result, typed: Typed) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "paretrim", "ui", "--port", str(port), "--store", str(finished.store.root)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert _answer(f"http://127.0.0.1:{port}/health") == "OK"
        taken = typed("ui", "--port", str(port), store=finished.store.root)
        assert taken.returncode == 2
        assert f"port {port} of 127.0.0.1 is taken" in taken.stderr
    finally:
        os.kill(server.pid, signal.SIGINT)
        output, _ = server.communicate(timeout=30)
    assert f"{finished.name}: http://127.0.0.1:{port}/#/experiments/" in output


def _answer(url: str) -> str:
    for _ in range(240):
        try:
            with urlopen(url, timeout=5) as response:
                return str(response.read().decode())
        except (URLError, ConnectionError):
            time.sleep(0.5)
    raise AssertionError(f"{url} does not answer")
