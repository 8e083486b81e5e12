from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paretrim.errors import UnknownJobError, UsageError
from paretrim.search.store import ENVIRONMENT, JobFolder, Store

HOLDER = """
import sys
from pathlib import Path
from paretrim.search.store import JobFolder
with JobFolder("digits-1", Path(sys.argv[1])).driven():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_drives(folder: JobFolder) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def started(store: Store, name: str, second: int) -> JobFolder:
    """Create a search that was started at a time."""
    folder = store.create(name)
    store.mark_started(folder)
    os.utime(folder.path / "started", (second, second))
    return folder


def test_searches_are_numbered_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = [store.create(name).name for name in ("digits", "digits", "other", "digits")]
    assert names == ["digits-1", "digits-2", "other-1", "digits-3"]


def test_two_stores_at_one_folder_never_give_one_number_twice(tmp_path: Path) -> None:
    names = {Store(tmp_path).create("digits").name for _ in range(5)}
    assert len(names) == 5


def test_a_search_that_was_not_started_is_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create("digits")
    assert store.names() == []


def test_names_come_in_the_order_in_which_searches_were_started(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, second in (("b", 300), ("a", 100), ("c", 200)):
        started(store, name, second)
    assert store.names() == ["a-1", "c-1", "b-1"]


def test_without_a_name_the_latest_search_is_opened(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, second in (("b", 300), ("a", 100)):
        started(store, name, second)
    assert store.open(None).name == "b-1"


def test_a_search_is_opened_by_its_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = started(store, "digits", 100)
    started(store, "digits", 200)
    assert store.open("digits-1") == folder


def test_an_unknown_search_is_told_which_there_are_and_which_may_be_meant(tmp_path: Path) -> None:
    store = Store(tmp_path)
    started(store, "digits", 100)
    with pytest.raises(UnknownJobError) as caught:
        store.open("digit-1")
    text = str(caught.value)
    assert f"no search 'digit-1' in the store {tmp_path}" in text
    assert text.endswith("there are: digits-1; did you mean 'digits-1'?")


@pytest.mark.parametrize("name", [None, "digits-1"])
def test_an_empty_store_is_told_how_to_start_a_search(tmp_path: Path, name: str | None) -> None:
    with pytest.raises(UnknownJobError, match="start one with `paretrim search`"):
        Store(tmp_path / "none").open(name)
    assert not (tmp_path / "none").exists()


def test_the_root_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "from-environment"))
    assert Store().root == tmp_path / "from-environment"
    assert Store(tmp_path / "given").root == tmp_path / "given"


@pytest.mark.parametrize("value", [None, ""])
def test_the_root_is_a_folder_here_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | None
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    if value is not None:
        monkeypatch.setenv(ENVIRONMENT, value)
    monkeypatch.chdir(tmp_path)
    assert Store().root == tmp_path / "paretrim-runs"


def test_a_store_outlives_a_change_of_the_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("runs"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.create("digits").path == tmp_path / "runs" / "jobs" / "digits-1"


def test_all_databases_and_files_lie_in_the_root(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.own.study == f"sqlite:///{tmp_path}/study.db"
    assert store.own.tracking == f"sqlite:///{tmp_path}/mlflow.db"
    assert store.own.tracking_artifacts == tmp_path / "mlartifacts"


def test_a_search_has_folders_for_artifacts_and_scratch(tmp_path: Path) -> None:
    folder = Store(tmp_path).create("digits")
    assert folder.artifacts.parent == folder.scratch.parent == folder.path
    assert folder.artifacts != folder.scratch


def test_a_store_at_a_file_says_that_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write the store .*file: .*--store or PARETRIM_STORE"):
        Store(tmp_path / "file").create("digits")


@contextmanager
def without_rights() -> Iterator[None]:
    """Act as a user to whom something is refused: nothing is to the superuser."""
    mine, nobody = os.geteuid(), 65534
    if mine == 0:
        os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_a_store_without_permission_says_that_it_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with (
            without_rights(),
            pytest.raises(UsageError, match=r"cannot write the store .*: Permission denied; name another folder"),
        ):
            Store(tmp_path).create("digits")
    finally:
        tmp_path.chmod(0o700)


def test_a_second_process_cannot_drive_a_search(tmp_path: Path) -> None:
    folder = Store(tmp_path).create("digits")
    with (
        another_process_drives(folder),
        pytest.raises(
            UsageError, match=r"digits-1 is driven by .* already; wait for it, or end it with: paretrim stop digits-1"
        ),
        folder.driven(),
    ):
        pytest.fail("two processes drive one search")


def test_a_killed_driver_frees_its_search(tmp_path: Path) -> None:
    folder = Store(tmp_path).create("digits")
    with another_process_drives(folder) as process:
        process.kill()
        process.wait()
        with folder.driven():
            assert process.returncode != 0


def test_a_driver_that_raises_frees_its_search(tmp_path: Path) -> None:
    folder = Store(tmp_path).create("digits")
    with pytest.raises(ValueError, match="broken"), folder.driven():
        raise ValueError("broken")
    with folder.driven():
        assert (folder.path / "driver.lock").exists()


def test_two_searches_can_be_driven_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = store.create("digits"), store.create("digits")
    with first.driven(), second.driven():
        assert first.path != second.path
