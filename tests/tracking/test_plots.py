from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from paretrim.tracking.constraints import parse
from paretrim.tracking.importance import Importance, Weight
from paretrim.tracking.page import MARKED
from paretrim.tracking.plots import front_page
from paretrim.tracking.progress import progress
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.testing import OBJECTIVES, sample_record, sample_summary
from paretrim.tracking.tracker import Summary

RECORDS = [
    sample_record(0, size_bytes=254_321.0),
    sample_record(3, accuracy=0.8765, latency_ms=0.4321),
    sample_record(4, accuracy=0.5, latency_ms=3.0),
    sample_record(5, state="failed", cause="the training loss is nan"),
]


class Page(HTMLParser):
    """What a browser would fetch, and what it would show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.scripts: list[str] = []
        self.cells: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = tag
        loads = {"src", "data", "poster"} | ({"href"} if tag in {"link", "base"} else set())
        self.fetched += [value or "" for name, value in attrs if name in loads]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        if self._inside in ("td", "th", "h1", "title"):
            self.cells.append(data)


def page_of(summary: Summary) -> Page:
    return Page(front_page(summary))


def drawn(page: Page, which: int = 0) -> tuple[list[Any], dict[str, Any]]:
    """Return the traces and the layout of one of the page's figures, by default the trade-offs."""
    figures = [text for text in page.scripts if "Plotly.newPlot(" in text and len(text) < 1_000_000]
    _, _, call = figures[which].partition("Plotly.newPlot(")
    decoder = json.JSONDecoder()
    traces, end = decoder.raw_decode(call, call.index("["))
    layout, _ = decoder.raw_decode(call, call.index("{", end))
    return traces, layout


def hovers(page: Page) -> str:
    """Return all that the chart shows under the mouse."""
    return "\n".join(text for trace in drawn(page)[0] for text in trace.get("text", []))


@pytest.fixture(scope="module")
def page() -> Page:
    return page_of(sample_summary(RECORDS))


def test_the_page_fetches_nothing(page: Page) -> None:
    assert page.fetched == []
    assert not {"link", "iframe", "img", "object", "base"} & set(page.tags)


def test_no_style_fetches_anything() -> None:
    head, _, _ = front_page(sample_summary(RECORDS)).partition("<body>")
    assert "@import" not in head
    assert "url(" not in head


def test_the_chart_library_is_in_the_page(page: Page) -> None:
    assert max(len(script) for script in page.scripts) > 1_000_000


def test_there_is_a_chart_for_each_cost(page: Page) -> None:
    _, layout = drawn(page)
    titles = [axis["title"]["text"] for name, axis in layout.items() if name.startswith("xaxis")]
    assert titles == ["latency (ms)", "size of the shipped file (kB)", "memory (MB)"]


def test_points_lie_at_their_measured_values(page: Page) -> None:
    traces, _ = drawn(page)
    (front,) = [trace for trace in traces if trace["name"] == "front" and trace["showlegend"]]
    assert front["x"] == [0.4321]
    assert front["y"] == [0.8765]


def test_only_complete_trials_are_in_the_chart(page: Page) -> None:
    shown = [f"trial {record.number} " in hovers(page) for record in RECORDS]
    assert shown == [True, True, True, False]


def test_the_recipe_shows_under_the_mouse(page: Page) -> None:
    assert "pruning.ratio.stem 0.25<br>quantization.bits.head none" in hovers(page)


def test_trials_front_and_baseline_stand_once_in_the_legend(page: Page) -> None:
    assert [trace["name"] for trace in drawn(page)[0] if trace["showlegend"]] == ["trials", "front", "baseline"]


def test_the_table_has_the_baseline_first_then_the_front(page: Page) -> None:
    kinds = [cell for cell in page.cells if cell in ("baseline", "search")]
    assert kinds == ["baseline", "search"]
    assert "254,321" in page.cells
    assert "0.8765" in page.cells


def test_a_name_is_shown_as_text_and_not_run() -> None:
    hostile = "<script>alert(1)</script>"
    page = page_of(sample_summary(RECORDS, job=hostile))
    assert not any("alert(1)" in script for script in page.scripts)
    assert f"{hostile}: the front" in page.cells


def test_a_kind_and_a_value_of_a_recipe_cannot_end_the_script() -> None:
    hostile = "</script><img src='http://example.com/x'>"
    records = [*RECORDS, sample_record(6, kind=hostile, accuracy=0.99, recipe={hostile: hostile})]
    page = page_of(sample_summary(records))
    assert page.fetched == []


def test_the_name_of_a_layer_is_shown_as_it_is_in_the_chart() -> None:
    records = [*RECORDS, sample_record(6, accuracy=0.99, recipe={"pruning.ratio.<b>stem</b>": 0.5})]
    assert "pruning.ratio.&lt;b&gt;stem&lt;/b&gt; 0.5" in hovers(page_of(sample_summary(records)))


def without_intervals(record: TrialRecord) -> TrialRecord:
    return replace(record, measurements=tuple(replace(m, low=None, high=None) for m in record.measurements))


@pytest.mark.parametrize("records", [RECORDS[:1], [without_intervals(record) for record in RECORDS]])
def test_a_page_is_made_of_little(records: list[TrialRecord]) -> None:
    assert "trial 0 (baseline)" in hovers(page_of(sample_summary(records)))


def test_an_empty_front_leaves_the_baseline_in_the_table() -> None:
    page = page_of(sample_summary(RECORDS, constraints=[parse("accuracy >= 0.99")]))
    assert [cell for cell in page.cells if cell in ("baseline", "search")] == ["baseline"]


def test_no_point_lies_where_its_axis_cannot_show_it() -> None:
    records = [*RECORDS, sample_record(6, accuracy=0.99, memory_bytes=0.0)]
    traces, layout = drawn(page_of(sample_summary(records)))
    logarithmic = {
        f"x{name[5:]}" for name, axis in layout.items() if name.startswith("xaxis") and axis.get("type") == "log"
    }
    assert [trace["x"] for trace in traces if trace["xaxis"] in logarithmic and min(trace["x"], default=1) <= 0] == []


def test_the_knee_has_a_ring_and_its_name_in_the_table() -> None:
    records = [
        sample_record(0, size_bytes=254_321.0),
        sample_record(3, accuracy=0.89, latency_ms=0.5, size_bytes=25_000.0, memory_bytes=1.8e6),
        sample_record(4, accuracy=0.82, latency_ms=0.4, size_bytes=20_000.0, memory_bytes=1.7e6),
    ]
    page = page_of(sample_summary(records))
    (ring,) = [trace for trace in drawn(page)[0] if trace["name"] == "knee" and trace["showlegend"]]
    assert (ring["x"], ring["y"]) == ([0.5], [0.89])
    assert [cell for cell in page.cells if "knee" in cell] == ["search, knee"]


def test_the_course_of_a_search_is_drawn_over_trials_and_over_training() -> None:
    steps = progress(RECORDS, OBJECTIVES, [])
    page = page_of(replace(sample_summary(RECORDS), progress=steps))
    (over_trials, over_seconds), layout = drawn(page, -1)
    assert (over_trials["x"], over_seconds["x"]) == ([0, 3, 4, 5], [1.5, 3.0, 4.5, 6.0])
    assert over_trials["y"] == over_seconds["y"] == [step.hypervolume for step in steps]
    assert [layout[axis]["title"]["text"] for axis in ("xaxis", "xaxis2")] == ["trial", "seconds spent training"]
    assert sum(len(script) > 1_000_000 for script in page.scripts) == 1
    assert page.fetched == []


def test_the_importance_of_knobs_is_a_heat_map_without_what_chance_may_have_given() -> None:
    found = Importance(
        ("accuracy", "latency_ms"), {"pruning.<b>stem</b>": (Weight(0.7, clear=True), Weight(0.3, clear=False))}, 60
    )
    page = page_of(replace(sample_summary(RECORDS), importance=found))
    (heat,), _ = drawn(page, -1)
    assert (heat["z"], heat["text"]) == ([[0.7, 0.0]], [["70%", "(30%)"]])
    assert heat["y"] == ["pruning.&lt;b&gt;stem&lt;/b&gt;"]


def test_why_there_is_no_importance_is_said() -> None:
    found = Importance(("accuracy",), {}, 3, "it takes 50 trials; there are 3")
    text = front_page(replace(sample_summary(RECORDS), importance=found))
    assert "Nothing is told of the knobs: it takes 50 trials; there are 3." in text


def test_what_a_constraint_forbids_is_shaded_and_what_is_picked_is_marked() -> None:
    constraints = (parse("accuracy >= 0.7"), parse("prefer latency_ms <= 2.0"))
    summary = sample_summary(RECORDS, constraints=constraints)
    traces, layout = drawn(page_of(replace(summary, constraints=constraints, picked=3)))
    (picked,) = [trace for trace in traces if trace["name"] == "picked" and trace["showlegend"]]
    assert (picked["x"], picked["y"]) == ([0.4321], [0.8765])
    kinds = [shape["type"] for shape in layout["shapes"]]
    assert kinds.count("rect") == 3  # below the accuracy, in each plot; a soft bound is only a line
    dotted = [shape for shape in layout["shapes"] if shape["line"].get("dash") == "dot"]
    assert [shape["x0"] for shape in dotted] == [2.0]


def test_a_trial_is_named_by_its_points_so_that_plots_are_linked(page: Page) -> None:
    traces, _ = drawn(page)
    assert {number for trace in traces for number in trace.get("customdata", ())} == {0, 3, 4}
    rings = [(trace["xaxis"], trace["x"]) for trace in traces if trace["name"] == MARKED]
    assert rings == [("x", []), ("x2", []), ("x3", [])]
    assert any("plotly_hover" in script and MARKED in script for script in page.scripts)
