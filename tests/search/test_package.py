"""What goes along to a cluster of a user's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretrim.errors import UsageError
from paretrim.search.service.package import IGNORE_FILE, gather
from paretrim.search.service.submit import _packages


def fill(root: Path, *names: str, size: int = 10) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))


def test_the_code_goes_along_and_caches_and_results_do_not(tmp_path: Path) -> None:
    fill(tmp_path, "model.py", "src/data.py", "weights.pt", ".git/config", "__pycache__/model.pyc", ".venv/bin/python")
    fill(tmp_path, "paretrim-runs/study.db", "src/.mypy_cache/x", "mlruns/0/meta.yaml", ".env", "old.pyc")
    assert gather(tmp_path).files == ("model.py", "src/data.py", "weights.pt")


def test_weights_go_along_though_git_ignores_them(tmp_path: Path) -> None:
    fill(tmp_path, "model.py", "weights.pt")
    (tmp_path / ".gitignore").write_text("*.pt\n")
    assert gather(tmp_path).files == ("model.py", "weights.pt")


def test_an_ignore_file_leaves_out_what_it_names(tmp_path: Path) -> None:
    fill(tmp_path, "model.py", "raw/a.bin", "raw/keep.bin", "notes.txt")
    (tmp_path / IGNORE_FILE).write_text("# large\nraw/*\n!raw/keep.bin\n*.txt\n")
    assert gather(tmp_path).files == (IGNORE_FILE, "model.py", "raw/keep.bin")


def test_a_folder_that_is_too_large_names_its_largest_files(tmp_path: Path) -> None:
    fill(tmp_path, "small.py")
    fill(tmp_path, "big.bin", size=3_000_000)
    with pytest.raises(
        UsageError, match=r"has 3\.0 MB to send, and 2\.0 MB may be; the largest: big\.bin \(3\.0 MB\).*paretrimignore"
    ):
        gather(tmp_path, limit=2_000_000)


def test_the_digest_is_that_of_names_and_contents(tmp_path: Path) -> None:
    fill(tmp_path, "a.py", "b.py")
    before = gather(tmp_path).digest()
    assert gather(tmp_path).digest() == before
    fill(tmp_path, "__pycache__/a.pyc")
    assert gather(tmp_path).digest() == before
    (tmp_path / "b.py").write_text("x = 1")
    changed = gather(tmp_path).digest()
    (tmp_path / "b.py").rename(tmp_path / "c.py")
    assert len({before, changed, gather(tmp_path).digest()}) == 3


def test_links_are_followed_to_files_and_left_out_where_they_lead_nowhere(tmp_path: Path) -> None:
    fill(tmp_path, "code/model.py", "elsewhere/weights.pt")
    (tmp_path / "code" / "weights.pt").symlink_to(tmp_path / "elsewhere" / "weights.pt")
    (tmp_path / "code" / "gone.pt").symlink_to(tmp_path / "nowhere")
    package = gather(tmp_path / "code")
    assert package.files == ("model.py", "weights.pt")
    package.copy(tmp_path / "copy")
    assert (tmp_path / "copy" / "weights.pt").read_bytes() == bytes(10)
    assert not (tmp_path / "copy" / "weights.pt").is_symlink()


def test_requirements_with_a_secret_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("# mine\ntimm==1.0\ngit+ssh://git@example.org/mine.git\n")
    assert _packages(path) == ["timm==1.0", "git+ssh://git@example.org/mine.git"]
    for line in ("--extra-index-url https://me:secret@example.org/simple", "git+https://token@example.org/mine.git"):
        path.write_text(f"timm\n{line}\n")
        with pytest.raises(UsageError, match=r"line 2 of .* has a name or password in a URL"):
            _packages(path)
