"""The targets of a job."""

from __future__ import annotations

from typing import Any

import pytest

from paretrim.evaluators.target import TargetSettings

from .helper_job import a_job, mistakes


def test_the_target_is_handed_to_the_evaluators() -> None:
    wanted = TargetSettings("onnxruntime", 2, 4, "signed", "basic")
    given = {"threads": 2, "batch_size": 4, "activations": "signed", "optimization": "basic"}
    assert a_job(target=given).target.settings == wanted


SIGNED = {"name": "signed", "activations": "signed"}


def test_further_targets_stand_beside_the_first_by_name() -> None:
    job = a_job(also=[SIGNED, {"runtime": "openvino"}])
    assert list(job.targets) == ["onnxruntime", "signed", "openvino"]
    assert job.targets["signed"].settings == TargetSettings("onnxruntime", 1, 1, "signed")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"also": [{"activations": "signed"}]}, "onnxruntime"),
        ({"also": [SIGNED, SIGNED]}, "signed"),
        ({"target": {"name": "mine"}, "also": [{**SIGNED, "name": "mine"}]}, "mine"),
        ({"target": {"name": "openvino"}, "also": [{"runtime": "openvino"}]}, "openvino"),
    ],
)
def test_two_targets_of_one_name_are_refused(given: dict[str, Any], name: str) -> None:
    assert mistakes(**given) == {"also": f"two targets are called {name}; give one of them another 'name'"}


def test_a_wrong_first_target_hides_no_clash_of_the_others() -> None:
    assert set(mistakes(target={"thread": 2}, also=[SIGNED, SIGNED])) == {"target.thread", "also"}
