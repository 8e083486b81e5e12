from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from paretrim.errors import DataError, UsageError, UserCodeError
from paretrim.evaluators import metrics
from paretrim.evaluators.splits import Splits
from paretrim.search import outputs, usercode
from paretrim.search.job import Job

# What most of a user's modules begin with.
HEAD = """
import json, torch, paretrim
from torch import nn

def part(start, count=6, classes=3):
    x = torch.arange(start, start + count).float()[:, None].repeat(1, 4)
    return x, torch.arange(count) % classes

def splits(**changes):
    parts = dict(train=part(0), calibration=part(10), validation=part(20), test=part(30))
    return paretrim.Splits(**{**parts, **changes})
"""
Write = Callable[..., Job]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a user's module and return a job that names functions of it; the module is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)

    def writer(
        text: str, *, model: str = "model", data: str = "data", metric: object = "accuracy", where: str = "code"
    ) -> Job:
        folder = tmp_path / where
        folder.mkdir(exist_ok=True)
        (folder / "users_module.py").write_text(HEAD + text)
        usercode.use_folder(folder)
        return Job(model=f"users_module:{model}", data=f"users_module:{data}", metric=metric, folder=folder)

    yield writer
    for name in set(sys.modules) - before:
        if name.startswith("users_"):
            del sys.modules[name]


def line_of(text: str, part: str) -> int:
    """Return the number of the only line of a user's module that holds a text."""
    (found,) = [number for number, line in enumerate((HEAD + text).splitlines(), 1) if part in line]
    return found


def model_error(job: Job) -> str:
    with pytest.raises(UserCodeError) as caught:
        usercode.load_model(job)
    return str(caught.value)


def data_error(job: Job) -> str:
    with pytest.raises(UsageError) as caught:
        usercode.load_data(job)
    return str(caught.value)


def fit_error(job: Job) -> str:
    """Return what is wrong with a model and data that are each fine."""
    model, splits = usercode.load_model(job), usercode.load_data(job)
    with pytest.raises(UsageError) as caught:
        outputs.settle(model, splits.search.train.first(2).inputs, job.output, "the model")
        usercode.check_fit(model, splits, usercode.load_metric(job))
    return str(caught.value)


GOOD = """
def model():
    torch.manual_seed(0)
    return nn.Linear(4, 3)

def data():
    return splits()
"""


def test_a_good_model_and_good_data_are_loaded_and_fit(write: Write) -> None:
    job = write(GOOD)
    model, splits = usercode.load_model(job), usercode.load_data(job)
    usercode.check_fit(model, splits, usercode.load_metric(job))
    assert isinstance(model, nn.Linear)
    assert len(splits.search.train) == 6


def test_a_model_comes_in_evaluation_mode_and_on_the_cpu(write: Write) -> None:
    model = usercode.load_model(write("def model():\n    return nn.Linear(4, 3).train()\n"))
    assert not model.training
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_a_function_of_a_class_is_found(write: Write) -> None:
    job = write(
        "class Mine:\n    @staticmethod\n    def model():\n        return nn.Linear(4, 3)\n", model="Mine.model"
    )
    assert isinstance(usercode.load_model(job), nn.Linear)


def test_a_module_that_is_not_there_is_named_with_where_it_was_looked_for(write: Write, tmp_path: Path) -> None:
    job = write(GOOD).model_copy(update={"model": "users_nothing:model"})
    text = model_error(job)
    assert text.startswith("model: cannot import 'users_nothing': there is no module 'users_nothing'")
    assert str(tmp_path / "code") in text


def test_a_module_that_imports_what_is_not_there_names_that(write: Write) -> None:
    text = model_error(write("import users_dependency\n" + GOOD))
    assert "cannot import 'users_module': there is no module 'users_dependency'" in text


def test_a_module_that_raises_tells_what_and_where(write: Write, tmp_path: Path) -> None:
    text = "WEIGHTS = {}['resnet']\n" + GOOD
    found = model_error(write(text))
    assert found.startswith("model: importing 'users_module' raised KeyError: 'resnet'")
    place = f"{tmp_path / 'code' / 'users_module.py'}, line {line_of(text, 'WEIGHTS')}"
    assert place in found


def test_a_module_that_is_not_python_tells_where(write: Write, tmp_path: Path) -> None:
    found = model_error(write("def model(:\n"))
    assert "raised SyntaxError" in found
    assert f"{tmp_path / 'code' / 'users_module.py'}, line {line_of('def model(:', 'model(:')}" in found


def test_a_name_that_is_not_there_is_told_with_what_may_be_meant(write: Write) -> None:
    text = model_error(write(GOOD, model="modle"))
    assert text == "model: the module 'users_module' has no 'modle'; did you mean 'model'?"


def test_a_name_that_is_no_function_is_told_so(write: Write) -> None:
    assert model_error(write("weights = [1]\n", model="weights")).endswith("weights is a list; a function is needed")


@pytest.mark.parametrize("field", ["model", "data"])
def test_a_function_that_raises_tells_what_and_where(write: Write, tmp_path: Path, field: str) -> None:
    text = f"def {field}():\n    raise FileNotFoundError('no weights.pt')\n"
    job = write(text)
    found = model_error(job) if field == "model" else data_error(job)
    assert found.startswith(f"{field}: users_module:{field} raised FileNotFoundError: no weights.pt")
    assert f"{tmp_path / 'code' / 'users_module.py'}, line {line_of(text, 'raise')}" in found


def test_a_function_that_raises_inside_a_library_tells_the_users_own_line(write: Write, tmp_path: Path) -> None:
    text = "def model():\n    return json.loads('{')\n"
    found = model_error(write(text))
    assert f"{tmp_path / 'code' / 'users_module.py'}, line {line_of(text, 'json.loads')}" in found


def test_a_function_that_needs_arguments_is_told_without_a_line_of_ours(write: Write) -> None:
    text = model_error(write("def model(size):\n    return nn.Linear(4, size)\n"))
    assert "missing 1 required positional argument: 'size'" in text
    assert usercode.__file__ not in text
    assert "usercode.py" not in text


def test_a_module_that_exits_is_an_error_and_not_an_exit(write: Write) -> None:
    text = "import sys\nsys.exit(0)\n"
    assert "SystemExit" in model_error(write(text))


def test_a_usage_error_of_a_users_function_is_passed_on(write: Write) -> None:
    job = write("def data():\n    return splits(train=([], []))\n")
    with pytest.raises(DataError, match="the train split is empty; it needs at least one sample"):
        usercode.load_data(job)


@pytest.mark.parametrize(("returned", "kind"), [("None", "NoneType"), ("{'weight': 1}", "dict"), ("nn.Linear", "type")])
def test_a_model_that_is_something_else_is_told_what_to_return(write: Write, returned: str, kind: str) -> None:
    text = model_error(write(f"def model():\n    return {returned}\n"))
    assert text == f"model: users_module:model returned a {kind}; return a trained torch.nn.Module"


def test_a_model_without_parameters_is_refused(write: Write) -> None:
    text = model_error(write("def model():\n    return nn.Sequential(nn.ReLU())\n"))
    assert text.endswith("returned a module without parameters; there is nothing to compress")


def test_data_that_are_something_else_are_told_what_to_return(write: Write) -> None:
    text = data_error(write("def data():\n    return part(0), part(10)\n"))
    assert text.startswith("data: users_module:data returned a tuple; return paretrim.Splits(train=...")


OVERLAPS = [
    ("validation=part(0)", "6 samples of the validation split are also in the train split"),
    ("test=part(20)", "6 samples of the validation split are also in the test split"),
    ("test=part(3, 3)", "3 samples of the test split are also in the train split"),
    ("calibration=part(0)", None),
]


@pytest.mark.parametrize(("change", "found"), OVERLAPS)
def test_splits_may_not_overlap_but_for_the_calibration(write: Write, change: str, found: str | None) -> None:
    job = write(f"def data():\n    return splits({change})\n")
    if found is None:
        assert len(usercode.load_data(job).test) > 0
    else:
        assert f"{found}; scores would be too good, so remove them from one of the two" in data_error(job)


def test_all_that_is_wrong_with_data_is_told_at_once(write: Write) -> None:
    text = data_error(
        write("def data():\n    x, y = part(20)\n    return splits(test=part(0), train=(x * float('nan'), y))\n")
    )
    assert text.startswith("the data has mistakes:")
    assert "the train split has inputs that are NaN or infinite; clean them" in text


@pytest.mark.parametrize("name", ["train", "calibration", "validation", "test"])
def test_an_empty_split_is_named(write: Write, name: str) -> None:
    text = data_error(write(f"def data():\n    return splits({name}=([], []))\n"))
    assert f"the {name} split is empty; it needs at least one sample" in text


def test_a_split_of_unequal_lengths_is_told_the_shapes(write: Write) -> None:
    text = data_error(write("def data():\n    x, y = part(0)\n    return splits(train=(x, y[:4]))\n"))
    assert "the train split has inputs of shape (6, 4) and labels of shape (4,)" in text


def test_a_model_that_answers_nan_is_asked_whether_it_is_trained(write: Write) -> None:
    model = "def model():\n    net = nn.Linear(4, 3)\n    net.weight.data.fill_(float('nan'))\n    return net\n"
    assert "NaN or infinite; is it trained?" in fit_error(write(model + "def data():\n    return splits()\n"))


def test_a_model_that_answers_a_tuple_is_asked_which_part_counts(write: Write) -> None:
    model = "class Two(nn.Linear):\n    def forward(self, x):\n        return super().forward(x), x\n"
    model += "def model():\n    return Two(4, 3)\ndef data():\n    return splits()\n"
    text = fit_error(write(model))
    assert text.startswith("the model gives outputs 0, 1; say with `output` in the job which of them counts")


def test_a_model_that_does_not_run_on_the_data_is_told_the_shape(write: Write) -> None:
    text = fit_error(write(GOOD.replace("nn.Linear(4, 3)", "nn.Linear(5, 3)")))
    assert text.startswith("the model does not run on inputs (torch.float32 of shape (2, 4)): RuntimeError")
    assert text.endswith("check that data and model belong together")


@pytest.mark.parametrize("name", ["train", "calibration", "validation", "test"])
def test_labels_out_of_range_are_told_with_their_split(write: Write, name: str) -> None:
    start = {"train": 0, "calibration": 10, "validation": 20, "test": 30}[name]
    text = fit_error(write(GOOD.replace("splits()", f"splits({name}=part({start}, 6, 5))")))
    assert text == (
        f"the {name} split does not fit the model: labels run from 0 to 4, but the model has 3 outputs: 0 to 2 fit"
    )


def test_labels_that_are_not_classes_are_told_what_is_needed(write: Write) -> None:
    data = "(lambda x, y: splits(train=(x, y.float())))(*part(0))"
    text = fit_error(write(GOOD.replace("splits()", data)))
    assert (
        "the train split does not fit the model: 'accuracy' does not fit outputs of shape (1, 3) (torch.float32)"
        in text
    )
    assert (
        "with labels of shape (1,) (torch.float32); it takes outputs (N, classes) with integer labels (N,); or" in text
    )


def test_labels_of_a_regression_must_have_the_shape_of_the_outputs(write: Write) -> None:
    job = write(GOOD, metric="mean_squared_error")
    assert "'mean_squared_error' does not fit outputs of shape (1, 3)" in fit_error(job)


def test_a_metric_by_name_is_torchmetrics(write: Write) -> None:
    assert usercode.load_metric(write(GOOD, metric="f1")) == metrics.by_name("f1")
    options = {"beta": 2.0, "average": "weighted"}
    named = usercode.load_metric(write(GOOD, metric={"name": "fbeta_score", **options}))
    assert named == metrics.by_name("fbeta_score", options)


OWN = """
def share(outputs, labels):
    outputs.clamp_(0, 1)
    return (outputs > 0).float().mean()

def broken(outputs, labels):
    return json.loads("{")

def picky(outputs, labels):
    return float("nan") if outputs.sum() else 1.0

def several(outputs, labels):
    return outputs.mean(dim=0)
"""
OUTPUTS = torch.tensor([[1.0, 2.0], [-1.0, 0.5]])


def judged(job: Job) -> str:
    """Return what is wrong with a metric of the user's, when it is asked."""
    with pytest.raises(UserCodeError) as caught:
        usercode.load_metric(job)(OUTPUTS, torch.tensor([0, 0]))
    return str(caught.value)


@pytest.mark.parametrize(("direction", "maximize"), [(None, True), ("maximize", True), ("minimize", False)])
def test_a_metric_of_ones_own_is_called(write: Write, direction: str | None, maximize: bool) -> None:
    given = {"function": "users_module:share"} | ({"direction": direction} if direction else {})
    metric = usercode.load_metric(write(OWN, metric=given))
    assert (metric.name, metric.maximize) == ("share", maximize)
    before = OUTPUTS.clone()
    assert metric(OUTPUTS, torch.tensor([0, 0])) == 0.75
    assert torch.equal(OUTPUTS, before)


def test_a_metric_that_raises_tells_what_and_where(write: Write, tmp_path: Path) -> None:
    text = judged(write(OWN, metric="users_module:broken"))
    assert text.startswith("metric: users_module:broken raised JSONDecodeError: ")
    assert f"({tmp_path / 'code' / 'users_module.py'}, line {line_of(OWN, 'json.loads')})" in text
    assert text.endswith("it was given outputs of shape (2, 2) and labels of shape (2,) (torch.int64)")


def test_a_metric_that_answers_nan_is_blamed_itself(write: Write) -> None:
    text = judged(write(OWN, metric="users_module:picky"))
    assert text.startswith("metric: users_module:picky returned nan for outputs of shape (2, 2) and labels")
    assert text.endswith("of which all outputs are finite")


def test_a_metric_that_answers_several_numbers_is_told_to_return_one(write: Write) -> None:
    text = judged(write(OWN, metric="users_module:several"))
    assert text == "metric: users_module:several returned a Tensor; return one number"


def test_a_metric_of_ones_own_is_handed_to_other_processes(write: Write) -> None:
    metric = usercode.load_metric(write(OWN, metric="users_module:share"))
    assert pickle.loads(pickle.dumps(metric)) == metric


def test_a_metric_that_is_not_there_is_told_with_what_may_be_meant(write: Write) -> None:
    with pytest.raises(UserCodeError, match=r"metric: the module 'users_module' has no 'shar'; did you mean 'share'\?"):
        usercode.load_metric(write("def share(outputs, labels):\n    return 0.5\n", metric="users_module:shar"))


def test_a_folder_is_put_first_on_the_import_path(write: Write, tmp_path: Path) -> None:
    write(GOOD, where="first")
    write(GOOD, where="second")
    assert sys.path[0] == str(tmp_path / "second")
    usercode.use_folder(tmp_path / "first")
    assert sys.path[0] == str(tmp_path / "first")


def test_a_module_is_not_taken_for_its_namesake_in_another_folder(write: Write, tmp_path: Path) -> None:
    usercode.load_model(write(GOOD, where="first"))
    text = model_error(write(GOOD, where="second"))
    assert "this process has imported another module named 'users_module'" in text
    assert str(tmp_path / "first" / "users_module.py") in text


def test_one_module_can_be_used_by_several_jobs(write: Write) -> None:
    job = write(GOOD)
    usercode.load_model(job)
    usercode.use_folder(job.folder)
    assert isinstance(usercode.load_model(job), nn.Linear)


def test_a_test_split_of_another_width_is_found_before_the_search() -> None:
    def part(width: int, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(start, start + 4).float()[:, None].repeat(1, width), torch.zeros(4, dtype=torch.long)

    splits = Splits(train=part(3, 0), calibration=part(3, 10), validation=part(3, 20), test=part(5, 30))
    with pytest.raises(DataError, match=r"the test split is float32 of shape \(5,\)"):
        usercode.check_fit(nn.Linear(3, 2), splits, metrics.by_name("accuracy"))
