"""What `paretrim space` tells of a job before anything is searched."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from paretrim.search import overview_words
from paretrim.search.cli import app
from paretrim.search.job import Job
from paretrim.search.overview import Knobs, Overview, overview
from paretrim.search.space import Space, build
from paretrim.spaces.anatomy import dissect
from paretrim.spaces.dimension import Choice, Condition, Range
from paretrim.spaces.testing import small_batch, small_net

from .conftest import SPACE

OFF = dict.fromkeys(["pruning", "quantization", "distillation", "recovery"], "off")


def space_of(net: nn.Module, example: torch.Tensor, **space: Any) -> Space:
    job = Job(model="mine:model", data="mine:data", space={**OFF, **space})
    return build(job, dissect(net.eval(), example, granularity=job.groups))


def small(**space: Any) -> Overview:
    return overview(space_of(small_net(), small_batch(2)[0], **space))


def knobs(found: Overview) -> dict[str, Knobs]:
    return {each.name: each for each in found.searched}


def shown(found: Overview, most: int | None = overview_words.FEW) -> str:
    console = Console(width=140, file=io.StringIO())
    for part in overview_words.lines(found, most):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_knobs_of_layers_stand_in_one_line() -> None:
    found = knobs(small(pruning={}, quantization={"weight_bits": [4, 8]}))
    assert found["pruning.ratio.*"].values == "0 to 0.75 in steps of 0.125"
    assert found["pruning.ratio.*"].places == ("stem", "conv1")
    # The ends have fewer widths than the rest: with one left, they are constant.
    assert found["quantization.bits.*"].values == "4, 8"
    assert found["quantization.bits.*"].places == ("conv1", "conv2")


def test_layers_with_other_values_stand_in_another_line() -> None:
    lines = [each for each in small(quantization={"weight_bits": [4, 8, "none"]}).searched if "bits" in each.name]
    assert [(each.values, each.places) for each in lines] == [
        ("8, none", ("stem", "head")),
        ("4, 8, none", ("conv1", "conv2")),
    ]


def test_what_is_constant_stands_apart_with_its_value() -> None:
    found = small(quantization={"weight_bits": [4, 8]}, recovery={"epochs": 3})
    constant = dict(found.constant)
    assert constant["recovery.epochs"] == "3"
    assert constant["quantization.bits.head"] == "8"
    assert not set(constant) & {each.name for each in found.searched}


def test_recipes_are_counted() -> None:
    found = small(pruning={"ratio": [0.0, 0.5], "step": 0.25}, recovery={"epochs": [2, 4]})
    assert 10**found.recipes == pytest.approx(3 * 3 * 2)
    assert found.continuous == 1  # the learning rate
    assert "4 knobs, 18 recipes, times 1 knobs that take any value of a range" in shown(found)


def test_a_knob_that_is_not_always_there_makes_the_count_a_bound() -> None:
    found = small(pruning={"importance": ["l1", "l2"]})
    assert knobs(found)["pruning.importance"].when == "pruning.ratio.* above 0"
    assert f"up to {7 * 7 * 2} recipes" in shown(found)


def test_conditions_are_told_by_value_or_bound() -> None:
    dimensions = (
        Range("a.share", 0.0, 1.0, 0.0),
        Choice("a.way", ("near", "far"), "near", when=(Condition("a.share", above=0.5),)),
        Range("a.reach", 1.0, 9.0, 1.0, log=True, when=(Condition("a.way", ("far",)), Condition("a.share", (1, 2)))),
    )
    found = knobs(overview(Space((), SPACE.anatomy, dimensions)))
    assert found["a.way"].when == "a.share above 0.5"
    assert found["a.reach"].when == "a.way is far, or a.share is 1 or 2"
    assert found["a.reach"].values == "1 to 9, by ratios"


def test_large_counts_are_powers_of_ten() -> None:
    text = shown(Overview((Knobs("a.b", "1", "", ()),), (), (), (), math.log10(3e9), 0))
    assert text.startswith("1 knobs, 10^9 recipes\n")


def test_a_setting_that_is_called_as_a_layer_is_no_layers_knob() -> None:
    net = nn.Sequential()
    for name, layer in (("epochs", nn.Conv2d(3, 16, 1)), ("flat", nn.Flatten()), ("momentum", nn.Linear(16, 3))):
        net.add_module(name, layer)
    found = overview(space_of(net, torch.zeros(2, 3, 1, 1), pruning={}, recovery={"epochs": [1, 2]}))
    assert knobs(found)["recovery.epochs"].places == ()
    assert knobs(found)["pruning.ratio.*"].places == ("epochs",)


def test_heads_of_attentions_stand_in_one_line() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    net = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten(), nn.Linear(48, 3))
    found = knobs(overview(space_of(net, torch.zeros(2, 3, 16), pruning={})))
    assert len(found["pruning.heads.*"].places) == 2


def test_layers_that_are_cut_together_are_named_with_their_channels() -> None:
    assert small(pruning={}).groups == (("stem", ("stem", "conv2"), 16), ("conv1", ("conv1",), 24))


def test_what_is_left_out_is_told_with_the_reason_and_brackets_are_no_markup() -> None:
    found = small(pruning={})
    assert ("pruning", "head", "gives the model's output") in found.left_out
    text = shown(Overview((), (), (), (("depth", "0", "IndexError: x[/i] of [bold] 3"),), 0.0, 0))
    assert "IndexError: x[/i] of [bold] 3" in text


def test_of_many_layers_a_few_are_named() -> None:
    found = Overview((Knobs("a.*", "1, 2", "", tuple(f"layer{i}" for i in range(9))),), (), (), (), 1.0, 0)
    assert "layer5 and 3 more" in shown(found)
    assert "layer6" not in shown(found)
    assert "layer7, layer8" in shown(found, None)
    assert "more" not in shown(found, None)


def test_layers_that_are_left_out_for_one_reason_share_a_row() -> None:
    coupled = [("pruning", f"layer{i}", "is coupled") for i in range(9)]
    left_out = (*coupled, ("depth", "layer1", "is first"))
    text = shown(Overview((), (), (), left_out, 0.0, 0))
    assert text.count("is coupled") == 1
    assert "layer5 and 3 more" in text
    assert "is first" in text


def test_with_everything_off_there_is_one_recipe() -> None:
    found = small()
    assert found.searched == ()
    assert "0 knobs, 1 recipes" in shown(found)


def test_the_command_shows_a_jobs_space_and_searches_nothing(job_file: Path, tmp_path: Path) -> None:
    shared = tmp_path / "job.yaml"
    shared.write_text(f"{job_file.read_text()}groups: global\n")
    done = CliRunner().invoke(app, ["space", str(shared)], catch_exceptions=False)
    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["pruning.ratio.*", "0", "to", "0.75", "in", "steps", "of", "0.125", "all"] in rows
    assert "gives the model's output" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.yaml"]
