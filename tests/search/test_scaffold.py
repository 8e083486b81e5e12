from __future__ import annotations

from pathlib import Path

import pytest

from paretrim.errors import OutputExistsError
from paretrim.search import scaffold
from paretrim.search.jobfile import EXAMPLE, load


def test_the_example_is_written_into_a_new_folder(tmp_path: Path) -> None:
    written = scaffold.write(tmp_path / "new" / "job")
    assert written == [tmp_path / "new" / "job" / "job.yaml", tmp_path / "new" / "job" / "digits.py"]
    assert written[0].read_bytes() == EXAMPLE.read_bytes()
    assert written[1].read_bytes() == EXAMPLE.with_name("digits.py").read_bytes()


def test_what_was_written_loads_from_where_it_lies(tmp_path: Path) -> None:
    job_file, module = scaffold.write(tmp_path / "job")
    job = load(job_file)
    assert (job.folder, job.model) == (tmp_path / "job", f"{module.stem}:model")


def test_a_folder_with_other_files_is_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    scaffold.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "job.yaml", "digits.py"}


@pytest.mark.parametrize("taken", ["job.yaml", "digits.py"])
def test_no_file_is_overwritten_and_none_is_written_beside_it(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(OutputExistsError, match=rf"{tmp_path / taken} exists; name another folder"):
        scaffold.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


def test_both_files_that_exist_are_named(tmp_path: Path) -> None:
    scaffold.write(tmp_path)
    with pytest.raises(OutputExistsError, match=r"job\.yaml and .*digits\.py exist"):
        scaffold.write(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job").write_text("mine")
    with pytest.raises(OutputExistsError, match="job exists"):
        scaffold.write(tmp_path / "job")
