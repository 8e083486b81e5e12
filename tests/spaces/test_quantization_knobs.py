"""The knobs of quantization: which there are on which target, what the ends keep, and what a job may say."""

from __future__ import annotations

from typing import Any

import pytest

from paretrim.evaluators.abilities import GRIDS, Abilities
from paretrim.evaluators.storage import Activation
from paretrim.spaces.anatomy import Anatomy, dissect
from paretrim.spaces.dimension import Choice, Condition, Value, existing
from paretrim.spaces.quantization import QuantizationOptions, WeightQuantization
from paretrim.spaces.testing import small_batch, small_net

from .helper_quantization import ABLE, LAYERS, recipe_of


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return dissect(small_net(), small_batch(2)[0], ABLE)


def names_of(able: Abilities, **options: Any) -> list[str]:
    found = dissect(small_net(), small_batch(2)[0], able)
    technique = WeightQuantization(QuantizationOptions.model_validate(options))
    return [
        each.name.removeprefix("quantization.") for each in technique.dimensions(found) if ".bits." not in each.name
    ]


class TestKnobs:
    def test_plain_settings_are_no_knobs(self) -> None:
        assert names_of(ABLE) == []

    def test_settings_are_knobs_that_exist_when_some_layer_is_narrow(self, anatomy: Anatomy) -> None:
        options = QuantizationOptions(
            families=("lsq", "uniform"), activations=("unsigned", "none"), calibration=("minmax", "entropy")
        )
        dimensions = {d.name: d for d in WeightQuantization(options).dimensions(anatomy)}
        narrow = tuple(Condition(f"quantization.bits.{name}", GRIDS) for name in LAYERS)
        assert dimensions["quantization.family"] == Choice("quantization.family", ("lsq", "uniform"), "uniform", narrow)
        assert dimensions["quantization.activations"] == Choice(
            "quantization.activations", ("unsigned", "none"), "target", narrow
        )
        given: dict[str, Value] = {
            name: each.values[0] for name, each in dimensions.items() if isinstance(each, Choice)
        }
        wide = given | {f"quantization.bits.{name}": "none" for name in LAYERS}
        assert set(wide) - set(existing(dimensions.values(), wide)) == {
            f"quantization.{knob}" for knob in ("family", "activations", "calibration")
        }
        floats = existing(dimensions.values(), given | {"quantization.activations": "none"})
        assert "quantization.family" in floats
        assert "quantization.calibration" not in floats

    def test_what_the_target_would_ignore_is_not_offered(self) -> None:
        asked = {"activations": ["unsigned", "signed", "none"], "calibration": ["minmax", "entropy"]}
        assert names_of(Abilities(), **asked) == []
        assert names_of(Abilities(integers=GRIDS), activations=["unsigned", "signed"]) == []
        assert names_of(ABLE, **asked) == ["activations", "calibration"]
        assert names_of(ABLE, weight_bits=[16, "none"]) == []

    def test_the_int8_of_every_table_stays_plain(self, anatomy: Anatomy) -> None:
        technique = WeightQuantization(QuantizationOptions(families=("lsq",), training=("post",)))
        dimensions = technique.dimensions(anatomy)
        neutral = {each.name: each.neutral for each in dimensions}
        made = existing(dimensions, neutral | dict(technique.anchors(anatomy)["int8"]))
        assert made["quantization.family"] == "uniform"
        assert made["quantization.training"] == "aware"

    @pytest.mark.parametrize(("least", "wanted"), [(8, (8, 16)), (4, (4, 8, 16)), (2, (2, 4, 8, 16)), (16, (16,))])
    def test_the_ends_have_their_own_least_width(self, least: int, wanted: tuple[int, ...], anatomy: Anatomy) -> None:
        options = QuantizationOptions.model_validate({"weight_bits": [2, 4, 8, 16], "ends_bits": least})
        first, middle, *_ = WeightQuantization(options).dimensions(anatomy)
        assert isinstance(first, Choice)
        assert isinstance(middle, Choice)
        assert (first.values, middle.values) == (wanted, (2, 4, 8, 16))

    @pytest.mark.parametrize(
        ("sign", "calibrator", "wanted"),
        [
            ("target", "minmax", None),
            ("none", "minmax", None),
            ("signed", "minmax", Activation("signed")),
            ("target", "entropy", Activation("target", "entropy")),
        ],
    )
    def test_the_target_is_told_of_activations(self, sign: str, calibrator: str, wanted: Activation | None) -> None:
        recipe = recipe_of(8, activations=sign, calibration=calibrator)
        assert WeightQuantization(QuantizationOptions()).activation(recipe) == wanted

    def test_without_quantized_activations_layers_compute_with_floats(self, anatomy: Anatomy) -> None:
        technique = WeightQuantization(QuantizationOptions())
        stored = technique.storage(small_net(), recipe_of(4, activations="none"), anatomy)
        assert {each.integers for each in stored.values()} == {False}

    def test_options_take_one_word_or_several(self) -> None:
        options = QuantizationOptions.model_validate({"training": "post", "families": ["lsq", "lsq", "noise"]})
        assert (options.training, options.families) == (("post",), ("lsq", "noise"))

    @pytest.mark.parametrize(
        "wrong", [{"families": []}, {"families": ["kmeans"]}, {"training": "later"}, {"ends_bits": 12}]
    )
    def test_other_settings_are_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            QuantizationOptions.model_validate(wrong)
