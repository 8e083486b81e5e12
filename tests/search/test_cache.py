"""The cache on disk: whole files or none, several processes, a limit, and disks that do not help."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paretrim.search.cache import Cache, key

BOTH_WRITE = """
import sys
from pathlib import Path
from paretrim.search.cache import Cache
cache, wrong = Cache(Path(sys.argv[1]), 3000), 0
for turn in range(150):
    name = f"name{turn % 7}"
    found = cache.get(name)
    wrong += found is not None and found != name.encode() * 200
    cache.put(name, name.encode() * 200)
print(wrong)
"""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def file_of(cache: Cache, name: str) -> Path:
    return cache.root / f"{name}.kept"


def used(cache: Cache, name: str, at: int) -> None:
    """Say when something was used last."""
    os.utime(file_of(cache, name), (at, at))


def test_what_was_put_is_got_and_nothing_else(cache: Cache) -> None:
    assert cache.get("a") is None
    cache.put("a", b"one")
    cache.put("b", b"")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"one", b"", None)
    cache.put("a", b"two")
    assert Cache(cache.root).get("a") == b"two"


@given(parts=st.lists(st.text(st.characters(exclude_characters="\0"))), other=st.lists(st.text()))
@example(parts=["\ud800"], other=[])  # a file's name that is no text
def test_keys_differ_as_what_they_depend_on_does(parts: list[str], other: list[str]) -> None:
    assert (key(*parts) == key(*other)) == ("\0".join(parts) == "\0".join(other))
    assert key("a", "bc") != key("ab", "c")


@settings(max_examples=25, deadline=None)
@given(data=st.binary(min_size=1, max_size=60), how=st.data())
def test_a_file_that_was_cut_or_changed_is_as_good_as_none(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, how: st.DataObject
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"))
    cache.put("a", data)
    whole = file_of(cache, "a").read_bytes()
    place = how.draw(st.integers(0, len(whole) - 1))
    file_of(cache, "a").write_bytes(whole[:place])
    assert cache.get("a") is None
    file_of(cache, "a").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert cache.get("a") is None
    cache.put("a", data)
    assert cache.get("a") == data


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=3 * 132)
    for at, name in enumerate("abc", 1000):
        cache.put(name, name.encode() * 100)
        used(cache, name, at)
    assert cache.get("a") == b"a" * 100  # used just now
    cache.put("d", b"d" * 100)
    assert [name for name in "abcd" if cache.get(name) is not None] == ["a", "c", "d"]


def test_what_never_fits_drives_nothing_out(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=200)
    cache.put("a", b"a" * 100)
    cache.put("b", b"b" * 169)
    assert (cache.get("a"), cache.get("b")) == (b"a" * 100, None)


def test_what_a_killed_process_left_half_written_goes_too(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=300)
    left = tmp_path / "x.0123.partial"
    left.write_bytes(b"0" * 200)
    os.utime(left, (1000, 1000))
    cache.put("a", b"a" * 100)
    assert cache.get("a") is not None
    assert not left.exists()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine" * 100)
    cache = Cache(tmp_path, limit_bytes=200)
    cache.put("a", b"a" * 100)
    cache.put("b", b"b" * 100)
    assert (tmp_path / "notes.txt").exists()
    assert cache.get("b") is not None


def test_two_processes_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BOTH_WRITE, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        output, errors = process.communicate(timeout=60)
        assert (output.strip(), errors) == ("0", "")
    files = [path for path in tmp_path.iterdir() if path.name != "lock"]
    assert files
    assert all(path.suffix == ".kept" for path in files)
    assert sum(path.stat().st_size for path in files) <= 3000


def test_a_full_disk_costs_nothing_but_time(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put("a", b"old")
    original = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        original(path, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    cache.put("a", b"new")
    cache.put("b", b"more")
    assert (cache.get("a"), cache.get("b")) == (b"old", None)
    assert sorted(path.name for path in cache.root.iterdir()) == ["a.kept", "lock"]


def test_a_file_in_the_place_of_the_folder_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    cache = Cache(tmp_path / "cache")
    cache.put("a", b"one")
    assert cache.get("a") is None


def test_a_folder_that_may_only_be_read_is_read(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put("a", b"one")

    def refuse(*given: object, **named: object) -> None:
        raise PermissionError(30, "Read-only file system")

    # Not by the folder's mode, which the administrator's processes do not heed.
    for owner, name in ((os, "utime"), (Path, "write_bytes"), (Path, "mkdir"), (Path, "replace")):
        monkeypatch.setattr(owner, name, refuse)
    cache.put("b", b"two")
    assert (cache.get("a"), cache.get("b")) == (b"one", None)


def test_the_hash_stands_before_the_content(cache: Cache) -> None:
    cache.put("a", b"one")
    assert file_of(cache, "a").read_bytes() == hashlib.sha256(b"one").digest() + b"one"
