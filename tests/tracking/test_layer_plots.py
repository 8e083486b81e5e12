from __future__ import annotations

from dataclasses import replace

from paretrim.evaluators.measurement import Measurement, Part
from paretrim.tracking.layer_plots import layers_chart, layers_of
from paretrim.tracking.records import TrialRecord, Value
from paretrim.tracking.testing import sample_record, sample_summary

PARTS = (Part("stem.weight", 4000.0, "int8 4x4"), Part("stem.bias", 16.0), Part("head.weight", 800.0))
RECIPE: dict[str, Value] = {
    "pruning.ratio.stem": 0.25,
    "quantization.bits.stem": 4,
    "quantization.bits.head": "none",
    "recovery.epochs": 3,
}


def with_parts(record: TrialRecord) -> TrialRecord:
    size = Measurement("model_bytes", 4816.0, parts=PARTS)
    return replace(record, measurements=(*record.measurements, size))


BASE = with_parts(sample_record(0))
SMALL = with_parts(sample_record(3, latency_ms=0.1, recipe=RECIPE))


def test_what_is_known_of_each_layer() -> None:
    assert layers_of(SMALL) == {
        "bits": {"stem": 4.0, "head": 32.0},
        "kept": {"stem": 75.0},
        "bytes": {"stem": 4.016, "head": 0.8},
    }


def test_one_point_is_shown_at_a_time_beside_the_baseline() -> None:
    other = with_parts(sample_record(4, size_bytes=10.0, recipe=RECIPE))
    summary = sample_summary([BASE, SMALL, other])
    figure = layers_chart(summary.report, summary.records)
    assert figure is not None
    assert [trace.name for trace in figure.data if trace.visible is not False].count("trial 3") in (0, 3)
    (menu,) = figure.layout.updatemenus
    assert {button.label for button in menu.buttons} == {"trial 3", "trial 4"}
    for button in menu.buttons:
        shown = [t.name for t, on in zip(figure.data, button.args[0]["visible"], strict=True) if on]
        assert shown.count(button.label) == 3
        assert not {"trial 3", "trial 4"} - {button.label} & set(shown)
        assert "baseline" in shown


def test_a_name_of_a_layer_is_no_markup() -> None:
    summary = sample_summary(
        [BASE, with_parts(sample_record(3, latency_ms=0.1, recipe={"pruning.ratio.<b>x</b>": 0.5}))]
    )
    figure = layers_chart(summary.report, summary.records)
    assert figure is not None
    assert any("&lt;b&gt;x&lt;/b&gt;" in trace.y for trace in figure.data)


def test_where_nothing_is_known_nothing_is_drawn() -> None:
    summary = sample_summary([sample_record(0), sample_record(3, latency_ms=0.1, recipe={"recovery.epochs": 2})])
    assert layers_chart(summary.report, summary.records) is None
