from typing import Any

import pytest
from pydantic import ValidationError

from paretrim.errors import JobError
from paretrim.search.job import Job
from paretrim.spaces import technique
from paretrim.spaces.technique import TechniqueOptions

# Technique, settings of which the last does nothing, what its message says, and what makes it act.
CASES: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("pruning", {"step_epochs": 3}, "is 3, which does nothing with one step; give steps of 2 or more", {"steps": 2}),
    ("pruning", {"sparsity_strength": 0.1}, "give sparsity_epochs of 1 or more", {"sparsity_epochs": 1}),
    ("distillation", {"beta": 4.0}, "without the method decoupled", {"methods": ("logits", "decoupled")}),
    ("distillation", {"transfer_weight": (1.0, 2.0)}, "without a transfer", {"transfers": ("none", "attention")}),
    (
        "distillation",
        {"transfer_layers": 2},
        "name attention or similarity in transfers",
        {"transfers": ("similarity",)},
    ),
    ("recovery", {"augment_strength": "light"}, "is light, which does nothing without", {"augment": ("flip",)}),
    ("recovery", {"augment_strength": ("none", "full")}, "is none, full", {"augmentation": "mine:jitter"}),
    ("quantization", {"weight_bits": (16, "none"), "families": "lsq"}, "2 to 8 bits", {"weight_bits": (4,)}),
    ("quantization", {"weight_bits": (16,), "training": "post"}, "name one in weight_bits", {"weight_bits": (4,)}),
    (
        "quantization",
        {"activations": "none", "calibration": "entropy"},
        "floats stay between layers",
        {"activations": ("none", "target")},
    ),
]


def options(name: str, settings: dict[str, Any]) -> TechniqueOptions:
    return technique.find(name).Options.model_validate(settings)


@pytest.mark.parametrize(("name", "settings", "message", "mending"), CASES)
class TestASettingThatNothingHeeds:
    def test_is_refused_at_its_own_place(
        self, name: str, settings: dict[str, Any], message: str, mending: dict[str, Any]
    ) -> None:
        with pytest.raises(ValidationError, match=message) as raised:
            options(name, settings)
        assert [error["loc"] for error in raised.value.errors()] == [(list(settings)[-1],)]

    def test_is_taken_with_what_heeds_it(
        self, name: str, settings: dict[str, Any], message: str, mending: dict[str, Any]
    ) -> None:
        setting = list(settings)[-1]
        assert getattr(options(name, {**settings, **mending}), setting) != getattr(options(name, {}), setting)


@pytest.mark.parametrize(
    "name", ["pruning", "distillation", "recovery", "quantization", "sparsity", "lowrank", "depth"]
)
def test_a_job_that_was_written_down_names_all_settings_and_is_read_again(name: str) -> None:
    plain = options(name, {})
    assert options(name, plain.model_dump(mode="json")) == plain


def test_all_such_settings_of_a_job_are_told_at_once() -> None:
    space = {
        "pruning": {"step_epochs": 3, "sparsity_strength": 0.1},
        "distillation": {"beta": 2.0},
        "recovery": {"augment_strength": "light"},
    }
    with pytest.raises(JobError) as raised:
        Job(model="digits:model", data="digits:data", space=space)
    for place in (
        "space.pruning.step_epochs",
        "space.pruning.sparsity_strength",
        "space.distillation.beta",
        "space.recovery.augment_strength",
    ):
        assert place in str(raised.value)
