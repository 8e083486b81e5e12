from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paretrim.errors import JobError, UsageError
from paretrim.search.job import Job
from paretrim.search.jobfile import EXAMPLE, load
from paretrim.spaces.quantization import QuantizationOptions

NEEDED = "model: mine:model\ndata: mine:data\n"
# Left out of a file, these have other values than the example shows; there is no other way for the name and the bounds.
ITS_OWN = {"name", "constraints", "budget.trials", "budget.trial_minutes"}


def a_file(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(folder: Path, text: str) -> list[str]:
    """Return the lines of the message for a file, the first one left out."""
    path = a_file(folder, text)
    with pytest.raises(JobError) as caught:
        load(path)
    head, *found = str(caught.value).splitlines()
    assert head == f"{path} has {len(found)} mistake{'s' if len(found) != 1 else ''}:"
    return [line.removeprefix("  - ") for line in found]


def leaves(document: Any, path: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted path."""
    if not isinstance(document, dict):
        return {path: document}
    found: dict[str, Any] = {}
    for name, value in document.items():
        found |= leaves(value, f"{path}.{name}" if path else name)
    return found


def test_a_file_is_the_same_job_as_in_python(tmp_path: Path) -> None:
    text = NEEDED + "seed: 3\nspace:\n  pruning: off\n  recovery: {epochs: 2}\nbudget:\n  trials: 7\n"
    wanted = Job(
        model="mine:model",
        data="mine:data",
        seed=3,
        space={"pruning": "off", "recovery": {"epochs": 2}},
        budget={"trials": 7},
        folder=tmp_path,
    )
    assert load(a_file(tmp_path, text)) == wanted


@pytest.mark.parametrize("word", ["off", "'off'", "no", "false"])
def test_a_technique_that_is_off_is_none(tmp_path: Path, word: str) -> None:
    assert load(a_file(tmp_path, f"{NEEDED}space:\n  pruning: {word}\n")).techniques["pruning"] is None


@pytest.mark.parametrize("word", ["", "on", "{}"])
def test_a_technique_without_settings_is_on(tmp_path: Path, word: str) -> None:
    assert load(a_file(tmp_path, f"{NEEDED}space:\n  pruning: {word}\n")).techniques["pruning"] is not None


def test_null_and_none_among_the_bits_are_the_same(tmp_path: Path) -> None:
    job = load(a_file(tmp_path, f"{NEEDED}space:\n  quantization:\n    weight_bits: [8, null]\n"))
    assert job.techniques["quantization"] == QuantizationOptions(weight_bits=(8, "none"))


def test_modules_are_looked_for_beside_the_file(tmp_path: Path) -> None:
    assert load(a_file(tmp_path, NEEDED)).folder == tmp_path.resolve()


def test_a_folder_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    assert load(a_file(tmp_path, f"{NEEDED}folder: code\n")).folder == (tmp_path / "code").resolve()


def test_a_folder_that_is_not_there_is_a_mistake_with_its_line(tmp_path: Path) -> None:
    (found,) = mistakes(tmp_path, f"{NEEDED}folder: code\n")
    assert found == f"line 3, folder: '{tmp_path.resolve() / 'code'}' is not a folder"


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = """\
modle: mine:model
data: mine
metric: acuracy
space:
  prunning: {}
  pruning:
    ratio: [0.5, 1.5]
    importance: l3
objectives:
  - accuracy
  - latency
constraints:
  - accuracy >= 0.5
  - accuracy is good
budget:
  trails: 5
  minutes: soon
"""
    found = [line.partition(":")[0] for line in mistakes(tmp_path, text)]
    assert found == [
        "model",
        "line 1, modle",
        "line 2, data",
        "line 3, metric",
        "line 5, space.prunning",
        "line 7, space.pruning.ratio.1",
        "line 8, space.pruning.importance",
        "line 11, objectives.1",
        "line 14, constraints.1",
        "line 16, budget.trails",
        "line 17, budget.minutes",
    ]


def test_a_mistake_tells_what_was_given_what_is_allowed_and_what_may_be_meant(tmp_path: Path) -> None:
    text = f"{NEEDED}budget:\n  trails: 5\nspace:\n  pruning:\n    importance: l3\n"
    assert mistakes(tmp_path, text) == [
        "line 4, budget.trails: unknown key; allowed: trials, minutes, training_seconds, patience, trial_workers, trial_cpus, "
        "trial_gpus, device, parallel, trial_minutes; did you mean 'trials'?",
        "line 7, space.pruning.importance: input should be one of l1, l2, taylor, geometric_median, bn_scale, random; given 'l3'",
    ]


def test_a_key_that_stands_twice_is_a_mistake(tmp_path: Path) -> None:
    found = mistakes(tmp_path, f"{NEEDED}seed: 1\nseed: 2\n")
    assert found == ["line 4, seed: stands twice, first in line 3; keep one"]


def test_a_nested_key_that_stands_twice_is_a_mistake_beside_others(tmp_path: Path) -> None:
    text = f"{NEEDED}budget:\n  trials: 3\n  trials: 4\nsed: 1\n"
    found = mistakes(tmp_path, text)
    assert [line.partition(":")[0] for line in found] == ["line 5, budget.trials", "line 6, sed"]


def test_one_name_in_two_places_is_no_mistake(tmp_path: Path) -> None:
    text = f"{NEEDED}target: {{batch_size: 2}}\nspace:\n  recovery: {{batch_size: 8}}\n"
    assert load(a_file(tmp_path, text)).target.batch_size == 2


def test_impossible_constraints_are_told_with_the_line_of_the_list(tmp_path: Path) -> None:
    (found,) = mistakes(tmp_path, f"{NEEDED}constraints:\n  - accuracy >= 1.5\n  - latency_ms <= -1\n")
    assert found.startswith("line 3, constraints: 'accuracy >= 1.5' asks for accuracy of 1.5")
    assert "'latency_ms <= -1'" in found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "it is empty; a mapping with at least 'model' and 'data' is needed"),
        ("# only a comment\n", "it is empty; a mapping with at least 'model' and 'data' is needed"),
        ("- model\n- data\n", "it is a list; a mapping with at least 'model' and 'data' is needed"),
        ("model\n", "it is a str; a mapping with at least 'model' and 'data' is needed"),
        ("5: x\n", "it has keys that are not words"),
    ],
)
def test_a_file_that_is_no_mapping_is_told_what_is_needed(tmp_path: Path, text: str, found: str) -> None:
    assert mistakes(tmp_path, text) == [found]


@pytest.mark.parametrize(
    ("text", "line"),
    [("model: [a\n", 2), ("model: a\n\tdata: b\n", 2), ("model: 'a\n", 2), ("a: b: c\n", 1), ("model: @x\n", 1)],
)
def test_a_file_that_is_not_yaml_is_told_where(tmp_path: Path, text: str, line: int) -> None:
    (found,) = mistakes(tmp_path, text)
    assert found.startswith(f"line {line}: is not YAML: ")


def test_a_yaml_file_with_two_documents_is_refused(tmp_path: Path) -> None:
    assert "is not YAML" in mistakes(tmp_path, f"{NEEDED}---\nseed: 1\n")[0]


def test_a_yaml_file_that_refers_to_itself_is_refused(tmp_path: Path) -> None:
    assert mistakes(tmp_path, f"{NEEDED}space: &all\n  pruning: *all\n")


def test_a_missing_file_is_told_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "none.yaml")
    assert str(caught.value) == (
        f"cannot read the job file '{tmp_path / 'none.yaml'}': No such file or directory; "
        "`paretrim init DIR` writes one to start from"
    )


def test_a_folder_is_not_a_job_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Is a directory"):
        load(tmp_path)


def test_a_file_that_is_not_text_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(b"model: \xff\xfe\n")
    with pytest.raises(UsageError, match="cannot read the job file"):
        load(tmp_path / "job.yaml")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("model: data-[]{}&*!|>'\"#\n\t,5.") | st.characters(max_codepoint=300), max_size=60))
def test_any_text_is_a_job_or_a_usage_error(tmp_path: Path, text: str) -> None:
    try:
        job = load(a_file(tmp_path, text))
    except UsageError as error:
        assert str(error)
    else:
        assert job.model


def test_the_bundled_example_loads() -> None:
    job = load(EXAMPLE)
    assert (job.name, job.model, job.data) == ("digits", "digits:model", "digits:data")
    assert job.folder == EXAMPLE.parent


def test_a_key_left_out_of_the_example_has_the_value_shown_there() -> None:
    shown = leaves(load(EXAMPLE).model_dump())
    left_out = leaves(Job(model="digits:model", data="digits:data", folder=EXAMPLE.parent).model_dump())
    other = {name: (value, left_out[name]) for name, value in shown.items() if left_out[name] != value}
    assert {name: pair for name, pair in other.items() if name not in ITS_OWN} == {}


def test_the_example_shows_every_setting() -> None:
    shown = set(leaves(yaml.safe_load(EXAMPLE.read_text())))
    named = (
        "minutes",
        "training_seconds",
        "patience",
        "trial_workers",
        "trial_cpus",
        "trial_gpus",
        "device",
        "parallel",
    )
    budget = {f"budget.{name}" for name in named}
    storage = {f"storage.{name}" for name in ("folder", "study", "tracking", "keep_mb")}
    commented = {
        *budget,
        *storage,
        "licence",
        "output",
        "priority",
        "cross_validation",
        "also",
        "target.name",
        "sampler",
        "earlier",
    }
    assert set(leaves(load(EXAMPLE).model_dump())) - shown - commented == {"folder"}


def test_the_commented_settings_of_the_example_are_allowed_too(tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    for name in ("minutes", "parallel", "  - latency_ms", "  - size_bytes"):
        assert f"\n#  {name.strip()}" in text
        text = text.replace(f"\n#  {name.strip()}", f"\n  {name.strip()}")
    for name in (
        "storage",
        "  folder",
        "  study",
        "  tracking",
        "  keep_mb",
        "licence",
        "output",
        "priority",
        "cross_validation",
        "also",
    ):
        assert f"\n# {name}" in text
        text = text.replace(f"\n# {name}", f"\n{name}")
    job = load(a_file(tmp_path, text))
    assert (job.budget.minutes, job.budget.parallel, job.storage.tracking) == (30.0, 2, "http://127.0.0.1:5000")
    assert job.storage.study == "postgresql+psycopg://db/studies"
    assert len(job.bounds) == 3
    assert job.cross_validation == 5
    assert list(job.targets) == ["onnxruntime", "four"]


@pytest.mark.parametrize("given", ["maybe", "[1]"])
def test_a_switch_says_what_it_may_be(tmp_path: Path, given: str) -> None:
    (line,) = mistakes(tmp_path, NEEDED + f"search:\n  preview: {given}\n")
    assert line.startswith("line 4, search.preview: is a switch: allowed are true and false; given ")
