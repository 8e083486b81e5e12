from __future__ import annotations

from dataclasses import replace

import pytest

from paretrim.evaluators.target import TargetSettings
from paretrim.tracking.card import model_card
from paretrim.tracking.manifest import Input, Manifest, Model, Origin, Packed
from paretrim.tracking.report import Row

BASE = Row(
    trial=0,
    kind="baseline",
    recipe={"pruning.ratio.stem": 0.0},
    validation={"accuracy": 0.95},
    test={"accuracy": 0.94},
    metrics={"latency_ms": 0.2, "size_bytes": 918_000.0, "memory_bytes": 4_000_000.0, "weights": 254_000.0},
    ratio={"latency_ms": 1.0, "size_bytes": 1.0, "memory_bytes": 1.0, "weights": 1.0},
    sha256="0" * 64,
)
ROW = replace(
    BASE,
    trial=17,
    kind="search",
    recipe={"pruning.ratio.stem": 1 / 3, "quantization.bits.head": "none", "recovery.epochs": 4},
    validation={"accuracy": 0.9412},
    test={"accuracy": 0.9387},
    metrics={"latency_ms": 0.0512, "size_bytes": 91_800.0, "memory_bytes": 900_000.0, "weights": 61_000.0},
    ratio={"latency_ms": 0.256, "size_bytes": 0.1, "memory_bytes": None, "weights": 0.2402},
)


def line(card: str, start: str) -> str:
    """Return the only line of a table that begins so."""
    (found,) = [text for text in card.splitlines() if text.startswith(f"| {start} |")]
    return found


TOLD = Manifest(
    job="digits-1",
    trial=17,
    metric="accuracy",
    runtime="onnxruntime 1.30",
    target=TargetSettings(threads=2),
    environment={"cpu": "A Fine Processor", "host": "secret-host"},
    origin=Origin(
        model="mine:net", model_sha256="a" * 64, data="mine:data", data_sha256="b" * 64, samples={"validation": 400}
    ),
    model=Model(sha256="c" * 64, bytes=9),
    packed=Packed(sha256="d" * 64, bytes=8),
    inputs=(Input(name="input", shape=(1, 8, 8), dtype="float32"),),
)


def a_card(row: Row = ROW, base: Row = BASE, told: Manifest = TOLD) -> str:
    return model_card(told, row, base)


def test_the_card_says_which_trial_of_which_search_it_is_and_what_measured_it() -> None:
    card = a_card()
    assert card.startswith("# digits-1, trial 17\n")
    assert "onnxruntime 1.30" in card


def test_scores_stand_beside_those_of_the_uncompressed_model() -> None:
    assert line(a_card(), "accuracy, validation") == "| accuracy, validation | 0.9412 | 0.9500 |"
    assert line(a_card(), "accuracy, held-out test") == "| accuracy, held-out test | 0.9387 | 0.9400 |"


def test_a_search_that_has_not_ended_has_no_held_out_score() -> None:
    assert "| accuracy, held-out test" not in a_card(replace(ROW, test={}))


def test_a_baseline_that_was_not_scored_on_the_held_out_data_is_said_to_be_so() -> None:
    assert line(a_card(base=replace(BASE, test={})), "accuracy, held-out test").endswith("| not scored |")


def test_costs_have_units_and_ratios() -> None:
    assert line(a_card(), "latency_ms") == "| latency_ms | 0.0512 ms | 0.2 ms | 0.256 |"
    assert line(a_card(), "size_bytes") == "| size_bytes | 91.8 kB | 918 kB | 0.100 |"


def test_a_ratio_that_does_not_exist_is_left_blank() -> None:
    assert line(a_card(), "memory_bytes") == "| memory_bytes | 0.9 MB | 4 MB |  |"


@pytest.mark.parametrize(("name", "value"), [("weights", 254_000.0), ("size_bytes", 12_345_678.0)])
def test_large_numbers_are_written_without_an_exponent(name: str, value: float) -> None:
    metrics = {**ROW.metrics, name: value}
    assert "e+" not in line(a_card(replace(ROW, metrics=metrics)), name)


def test_every_knob_of_the_recipe_is_listed() -> None:
    card = a_card()
    assert line(card, "pruning.ratio.stem") == "| pruning.ratio.stem | 0.3333 |"
    assert line(card, "quantization.bits.head") == "| quantization.bits.head | none |"
    assert line(card, "recovery.epochs") == "| recovery.epochs | 4 |"


def test_every_file_of_a_bundle_is_explained() -> None:
    files = [
        "model.onnx.xz",
        "model.onnx",
        "predict.py",
        "samples.npz",
        "recipe.json",
        "measurements.json",
        "bundle.json",
        "SHA256SUMS",
    ]
    assert [name for name in files if f"| `{name}` |" not in a_card()] == []


def test_the_card_says_where_and_on_what_it_was_measured_and_what_that_does_not_tell() -> None:
    card = a_card(replace(ROW, interval={"accuracy": (0.93, 0.95)}, misses={"latency_ms": 0.12}))
    assert line(card, "cpu") == "| cpu | A Fine Processor |"
    assert "secret-host" not in card
    assert line(card, "data") == f"| data | `mine:data`, {'b' * 16}; samples: 400 validation |"
    assert "400 validation samples (95% interval 0.9300 to 0.9500)" in card
    assert "It misses what was wished for: latency_ms by 12%." in card


def test_a_licence_that_nobody_gave_is_asked_for() -> None:
    assert "ask who made the uncompressed model" in line(a_card(), "licence")
    given = TOLD.origin.model_copy(update={"licence": "CC-BY-4.0"})
    assert line(a_card(told=TOLD.model_copy(update={"origin": given})), "licence") == "| licence | CC-BY-4.0 |"
