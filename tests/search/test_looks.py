"""Looks at the far end of a space, and what is learned from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from paretrim.errors import LoweringError
from paretrim.evaluators.measurement import Measurement
from paretrim.search import looks
from paretrim.search import profile as profile_module
from paretrim.search.context import TrialContext
from paretrim.search.encoding import Encoding
from paretrim.search.extremes import families
from paretrim.search.judge import Terms
from paretrim.search.looks import LOOK, look, looked_at
from paretrim.search.prior import Prior
from paretrim.search.profile import glance
from paretrim.search.result import Result
from paretrim.search.surrogate import Surrogate
from paretrim.spaces.dimension import Value
from paretrim.tracking.records import Preview, TrialRecord

from .helper_recipes import OBJECTIVES, SPACE, anchors, profile


def test_each_technique_is_looked_at_alone_and_left_out(context: TrialContext) -> None:
    sensitivity = glance(context)
    parts = families(context.space, sensitivity)
    assert len(parts) >= 2
    turned = []
    for recipe in looked_at(context, sensitivity):
        on = {name for name, knobs in parts.items() if all(recipe.values[knob] == v for knob, v in knobs.items())}
        off = {
            name
            for name, knobs in parts.items()
            if all(recipe.values.get(knob) in (None, _neutral(context, knob)) for knob in knobs)
        }
        assert on | off == set(parts)
        turned.append(on)
    assert len(turned) == len({frozenset(on) for on in turned})
    assert {len(on) for on in turned} == {1, len(parts) - 1}


def test_a_glance_that_takes_long_says_how_far_it_is(context: TrialContext, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    quick = glance(context, said.append)
    assert said == []
    monkeypatch.setattr(profile_module, "_SAYING_S", 0.0)
    assert glance(context, said.append) == quick
    count = len(quick.effects)
    assert said == [f"looked at {done} of {count} values" for done in range(count)]


def _neutral(context: TrialContext, knob: str) -> Value:
    return next(d.neutral for d in context.space.dimensions if d.name == knob)


def test_a_look_tells_costs_and_no_score(context: TrialContext) -> None:
    found = look(context, glance(context))
    assert found
    for record in found:
        assert (record.kind, record.state, record.metrics) == (LOOK, "stopped", {})
        assert record.preview is not None
        assert {"latency_ms", "memory_bytes", "size_bytes"} <= record.preview.metrics.keys()


def test_what_cannot_be_made_is_left_out(context: TrialContext, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = looks._Looker._preview
    count = []

    def at_times(self: looks._Looker, recipe: object) -> Preview:
        count.append(recipe)
        if len(count) == 1:
            raise LoweringError("the target does not take it")
        return whole(self, recipe)  # type: ignore[arg-type]

    monkeypatch.setattr(looks._Looker, "_preview", at_times)
    found = look(context, glance(context))
    assert len(found) == len(count) - 1


def test_a_search_keeps_what_it_looked_at(finished: Result) -> None:
    noted = [TrialRecord.from_json(text) for text in finished.study.noted("looks")]
    assert {record.kind for record in noted} == {LOOK}
    assert not {record.kind for record in finished.records} & {LOOK}


def test_costs_at_the_far_end_are_predicted_as_they_were_seen() -> None:
    """Where 8-bit layers take longer than floats once channels are gone, a search knows before its first trial."""
    encoding = Encoding(SPACE.searched, SPACE.constants)
    ratios: dict[str, Value] = {d.name: 0.75 for d in SPACE.searched if d.name.startswith("pruning.")}
    bits: dict[str, Value] = {d.name: 4 for d in SPACE.searched if d.name.startswith("quantization.bits.")}
    surrogate = Surrogate(Terms("accuracy", OBJECTIVES, ()), encoding, Prior(profile(), encoding), 0)
    seen = [looked(0, ratios, 0.2), looked(1, bits, 0.6), looked(2, {**ratios, **bits}, 0.4)]
    surrogate.learn([*anchors(), *seen])
    guess = np.exp(surrogate.predict([ratios, {**ratios, **bits}]).expected["latency_ms"])
    assert guess[0] < 0.75 * guess[1]
    surrogate.learn(anchors())
    blind = np.exp(surrogate.predict([ratios, {**ratios, **bits}]).expected["latency_ms"])
    assert blind[0] > blind[1]


def looked(number: int, values: dict[str, Value], latency_ms: float) -> TrialRecord:
    recipe = SPACE.recipe(values, 0)
    measured = {"latency_ms": latency_ms, "memory_bytes": 5e5, "size_bytes": 2e4}
    preview = Preview(tuple(Measurement(name, value) for name, value in measured.items()))
    return replace(TrialRecord(number, LOOK, "stopped", recipe.values, 0), preview=preview)
