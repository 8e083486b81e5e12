"""The sensitivity of a model: kept as JSON, gathered by family, and drawn as heat maps."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from paretrim.tracking.heatmap import heatmap_page, label
from paretrim.tracking.sensitivity import SCHEMA, Effect, Profile

RATIO = "pruning.ratio"
EFFECTS = (
    Effect(f"{RATIO}.stem", 0.25, 0.02, -0.01, 1000.0, 0.001),
    Effect(f"{RATIO}.stem", 0.5, 0.4, -0.2, 2000.0, 0.002, measured=True),
    Effect(f"{RATIO}.blocks.0.conv1", 0.5, 0.1, -0.05, 4000.0, -0.003, measured=True),
    Effect("quantization.bits.head", 8, 0.0, 0.0, 900.0, None),
    Effect("depth.blocks", 1, None, None, 0.0, failed="it does not run without <one> block"),
)
PROFILE = Profile("accuracy", 512, 0.2, 0.95, 0.12, 80_000.0, EFFECTS)


def traces(page: str) -> list[dict[str, Any]]:
    """Return the heat maps that a page draws."""
    found = []
    for call in page.split("Plotly.newPlot(")[1:]:
        start = call.find("[{")
        if '"type":"heatmap"' in call:
            (trace,), _ = json.JSONDecoder().raw_decode(call, start)
            found.append(trace)
    return found


def test_it_is_read_as_it_was_written() -> None:
    assert Profile.from_json(PROFILE.to_json()) == PROFILE


def test_losses_that_are_no_numbers_are_kept_too() -> None:
    broken = replace(PROFILE, effects=(replace(EFFECTS[0], loss_increase=math.inf),))
    again = Profile.from_json(broken.to_json())
    assert again is not None
    assert again.effects[0].loss_increase == math.inf


def test_what_another_version_wrote_is_not_read() -> None:
    document = json.loads(PROFILE.to_json())
    assert document["schema"] == SCHEMA
    assert Profile.from_json(json.dumps({**document, "schema": SCHEMA + 1, "something": "new"})) is None


def test_effects_are_gathered_by_family_and_layer_in_order() -> None:
    found = PROFILE.families()
    assert {family: list(places) for family, places in found.items()} == {
        RATIO: ["stem", "blocks.0.conv1"],
        "quantization.bits": ["head"],
        "depth.blocks": [""],
    }
    assert found[RATIO]["stem"] == list(EFFECTS[:2])


@pytest.mark.parametrize(
    ("value", "shown"), [(0.125, "0.125"), (1 / 3, "0.333"), (8, "8"), ("none", "none"), (None, "None"), (True, "True")]
)
def test_values_stand_short_in_tables(value: object, shown: str) -> None:
    assert label(value) == shown


class TestHeatmap:
    def test_it_has_a_map_for_each_family_with_layers_against_values(self) -> None:
        ratios, bits, blocks = traces(heatmap_page("mine", PROFILE))
        assert (ratios["x"], ratios["y"]) == (["0.25", "0.5"], ["stem", "blocks.0.conv1"])
        assert [[cell is None for cell in row] for row in ratios["z"]] == [[False, False], [True, False]]
        assert (bits["x"], bits["y"], bits["z"]) == (["8"], ["head"], [[0.0]])
        assert (blocks["y"], blocks["z"]) == (["all"], [[None]])

    def test_a_colour_means_the_same_rise_of_the_loss_in_all_maps(self) -> None:
        effects = (*EFFECTS, Effect("quantization.bits.head", 4, 0.04, 0.0, 1000.0, None))
        maps = traces(heatmap_page("mine", replace(PROFILE, effects=effects)))
        assert {(each["zmin"], each["zmax"], each["colorscale"][-1][1]) for each in maps} == {(0, 3, "rgb(103,0,13)")}
        assert maps[0]["z"][0][1] == 3
        assert maps[1]["z"] == [[0.0, pytest.approx(2.0)]]  # a tenth of the worst
        assert [each["showscale"] for each in maps] == [True, False, False]
        assert maps[0]["colorbar"]["ticktext"] == ["to +0.0004", "+0.004", "+0.04", "+0.4"]

    def test_where_nothing_rises_all_is_pale(self) -> None:
        (bits,) = traces(heatmap_page("mine", replace(PROFILE, effects=(replace(EFFECTS[3], loss_increase=-0.1),))))
        assert (bits["z"], bits["zmax"]) == ([[0.0]], 3)

    @pytest.mark.parametrize("loss", [math.nan, math.inf])
    def test_a_loss_that_is_no_number_leaves_the_colours_of_the_others(self, loss: float) -> None:
        odd = replace(EFFECTS[0], loss_increase=loss)
        (ratios, *_) = traces(heatmap_page("mine", replace(PROFILE, effects=(odd, *EFFECTS[1:]))))
        assert ratios["z"][0] == [3, 3]
        assert ratios["colorbar"]["ticktext"][-1] == "+0.4"

    def test_a_cell_tells_the_score_and_the_loss_or_that_it_failed(self) -> None:
        ratios, _, blocks = traces(heatmap_page("mine", PROFILE))
        assert ratios["text"] == [["-0.010, loss +0.02", "-0.200, loss +0.4"], ["", "-0.050, loss +0.1"]]
        assert blocks["text"] == [["failed"]]

    def test_a_rise_that_is_as_good_as_none_reads_so(self) -> None:
        tiny = replace(EFFECTS[0], loss_increase=1e-5)
        same = replace(EFFECTS[0], value=0.1, loss_increase=0.0, score_change=0.0, bytes_saved=0.0)
        (ratios, *_) = traces(heatmap_page("mine", replace(PROFILE, effects=(same, tiny, *EFFECTS[1:]))))
        assert ratios["text"][0] == ["same", "-0.010, loss +0", "-0.200, loss +0.4"]

    def test_hovering_tells_what_was_measured_and_what_failed(self) -> None:
        ratios, _, blocks = traces(heatmap_page("mine", PROFILE))
        assert "accuracy -0.2000" in ratios["customdata"][0][1]
        assert "0.002 ms faster (measured)" in ratios["customdata"][0][1]
        assert "(predicted)" in ratios["customdata"][0][0]
        assert "0.003 ms slower" in ratios["customdata"][1][1]
        assert "does not run without &lt;one&gt; block" in blocks["customdata"][0][0]

    def test_it_shows_without_a_network_and_carries_its_script_once(self) -> None:
        page = heatmap_page("<mine>", PROFILE)
        assert "<script src" not in page.replace('<script type="text/javascript" src', "<script src")
        assert 3e6 < len(page) < 8e6
        assert "<title>&lt;mine&gt;: sensitivity</title>" in page
        assert "accuracy 0.9500, loss 0.2, 80 kB of weights, 0.12 ms" in page

    def test_a_model_of_which_nothing_can_be_turned_has_a_page_too(self) -> None:
        page = heatmap_page("mine", replace(PROFILE, effects=()))
        assert "80 kB of weights" in page
        assert traces(page) == []
