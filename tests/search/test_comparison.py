"""Two searches side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from paretrim.errors import NothingFoundError, UsageError
from paretrim.search import drawing
from paretrim.search.comparison import compare
from paretrim.search.comparison_words import lines
from paretrim.search.result import Result
from paretrim.search.store import Store
from paretrim.tracking.front import hypervolume
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.testing import sample_record

from .conftest import a_search, tiny_job

BASE = sample_record(0, accuracy=0.9, latency_ms=1.0, size_bytes=100e3, memory_bytes=2e6)
SMALL = sample_record(3, accuracy=0.88, latency_ms=0.5, size_bytes=20e3, memory_bytes=1.5e6)
FAST = sample_record(4, accuracy=0.88, latency_ms=0.2, size_bytes=60e3, memory_bytes=1.5e6)


def searched(store: Path, *records: TrialRecord, model: str = "m", **changes: object) -> Result:
    result = a_search(Store(store), records, tiny_job(**changes))
    result.study.note("fingerprints", {"model": model, "data": "d"})
    return result


def slower(records: Sequence[TrialRecord], factor: float) -> list[TrialRecord]:
    """Return trials as a machine that is slower would have measured them."""
    return [
        replace(
            r,
            measurements=tuple(
                replace(m, value=m.value * factor) if m.name == "latency_ms" else m for m in r.measurements
            ),
        )
        for r in records
    ]


def text_of(first: Result, second: Result) -> str:
    console = Console(width=140)
    with console.capture() as said:
        for part in lines(compare(first, second)):
            console.print(part)
    return said.get()


def test_each_has_what_the_other_has_not(tmp_path: Path) -> None:
    first, second = searched(tmp_path, BASE, SMALL), searched(tmp_path, BASE, FAST)
    found = compare(first, second)
    one, other = found.sides
    assert (set(one.own), set(other.own)) == ({3}, {4})
    assert one.hypervolume == pytest.approx(hypervolume(first.records, first.objectives, first.job.bounds))
    together = hypervolume([BASE, SMALL, FAST], first.objectives, ())
    assert found.together == pytest.approx(together)
    assert max(one.hypervolume, other.hypervolume) < found.together
    assert found.notes == ()
    assert "matches none of these points of tiny-1: trials 3" in " ".join(text_of(first, second).split())


def test_a_search_has_nothing_that_its_twin_has_not(tmp_path: Path) -> None:
    first, second = (searched(tmp_path, BASE, SMALL, FAST) for _ in range(2))
    found = compare(first, second)
    assert [side.own for side in found.sides] == [(), ()]
    assert found.sides[0].hypervolume == found.sides[1].hypervolume == found.together
    assert "one that is as good in everything" in text_of(first, second)


def test_the_same_search_on_a_slower_machine_is_the_same_in_one_box(tmp_path: Path) -> None:
    first, second = searched(tmp_path, BASE, SMALL), searched(tmp_path, *slower([BASE, SMALL], 3.0))
    found = compare(first, second)
    assert found.sides[1].hypervolume == pytest.approx(found.sides[0].hypervolume)
    assert found.sides[1].front[3]["latency_ms"] == pytest.approx(0.5)


def test_different_models_are_held_against_each_other_as_they_were_measured(tmp_path: Path) -> None:
    first, second = searched(tmp_path, BASE, SMALL), searched(tmp_path, *slower([BASE, SMALL], 3.0), model="n")
    found = compare(first, second)
    assert found.sides[1].front[3]["latency_ms"] == pytest.approx(1.5)
    assert found.notes[0].startswith("they began with different models")


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    first = searched(tmp_path, BASE, SMALL)
    other = searched(tmp_path, metric="f1")
    with pytest.raises(UsageError, match="tiny-1 was scored by accuracy and tiny-2 by f1"):
        compare(first, other)
    with pytest.raises(UsageError, match="have only accuracy in common"):
        compare(first, searched(tmp_path, BASE, objectives=["accuracy", "latency_p99_ms"]))
    with pytest.raises(NothingFoundError, match="its baseline is not done yet"):
        compare(first, searched(tmp_path))


def test_a_search_is_not_compared_with_itself(tmp_path: Path) -> None:
    first = searched(tmp_path, BASE, SMALL)
    with pytest.raises(UsageError, match="tiny-1 is one search"):
        compare(first, first)


def test_fronts_whose_metric_is_no_objective_are_drawn(tmp_path: Path) -> None:
    costs = ["latency_ms", "size_bytes"]
    found = compare(searched(tmp_path, BASE, SMALL, objectives=costs), searched(tmp_path, BASE, FAST, objectives=costs))
    drawing.draw_comparison(found, tmp_path / "both.svg")
    assert found.sides[0].front[3]["accuracy"] == 0.88


def test_json_has_both_sides(tmp_path: Path) -> None:
    found = compare(searched(tmp_path, BASE, SMALL), searched(tmp_path, BASE, FAST))
    document = json.loads(found.to_json())
    assert document["schema"] == 1
    assert [side["job"] for side in document["sides"]] == ["tiny-1", "tiny-2"]
    assert document["sides"][1]["own"] == [4]


@pytest.mark.parametrize("name", ["both.png", "both.svg", "both.html"])
def test_both_fronts_are_drawn(name: str, tmp_path: Path) -> None:
    found = compare(searched(tmp_path, BASE, SMALL), searched(tmp_path, BASE, FAST))
    drawing.draw_comparison(found, tmp_path / name)
    check_picture(tmp_path / name, ("tiny-1", "tiny-2", "latency (ms)", "baseline"))


@pytest.mark.parametrize("name", ["front.png", "front.svg", "front.html"])
def test_a_front_is_drawn_with_its_bounds(name: str, tmp_path: Path) -> None:
    bounds = ["accuracy >= baseline - 0.05", "prefer latency_ms <= 40% of baseline", "size_bytes <= 80% of baseline"]
    result = searched(tmp_path, BASE, SMALL, FAST, constraints=bounds)
    drawing.draw_front(result, tmp_path / name)
    check_picture(tmp_path / name, ("tiny-1: the front", "latency (ms)", "baseline", "validation accuracy"))


def check_picture(file: Path, words: Sequence[str]) -> None:
    if file.suffix == ".png":
        with Image.open(file) as image:
            assert image.size[0] > 900
            assert len(set(image.convert("L").resize((200, 80)).tobytes())) > 20
        return
    text = file.read_text()
    assert [word for word in words if word not in text] == []


def test_the_same_picture_is_the_same_file(tmp_path: Path) -> None:
    result = searched(tmp_path, BASE, SMALL)
    for name in ("one.svg", "two.svg"):
        drawing.draw_front(result, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize(
    ("name", "words"), [("front.pdf", "ends in none of .png, .svg, .html"), ("no/front.png", "there is no folder")]
)
def test_a_file_that_cannot_be_drawn_is_refused(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        drawing.draw_front(searched(tmp_path, BASE, SMALL), tmp_path / name)
