"""Nothing in a program's file is run: each place from which torch.export.load takes code is tried."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paretrim.errors import SourceError
from paretrim.models import from_pt2
from paretrim.search.sources.pt2_steps import function

from .helper_programs import Records, changed, in_program, picture, pictures, save

Change = Callable[[Records], None]


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(picture(), tmp_path_factory.mktemp("honest") / "net.pt2", pictures(2))


def pickled(what: object) -> bytes:
    file = io.BytesIO()
    torch.save(what, file)
    return file.getvalue()


def with_inputs(folder: Path) -> Change:
    def change(records: Records) -> None:
        records["data/sample_inputs/model.pt"] = pickled(((Hostile(folder),), {}))

    return change


def with_weights(folder: Path) -> Change:
    def change(records: Records) -> None:
        config = json.loads(records["data/weights/model_weights_config.json"])
        entry = next(iter(config["config"].values()))
        entry["use_pickle"] = True
        records[f"data/weights/{entry['path_name']}"] = pickled(Hostile(folder))
        records["data/weights/model_weights_config.json"] = json.dumps(config).encode()

    return change


def with_object(folder: Path) -> Change:
    def change(records: Records) -> None:
        config = json.loads(records["data/constants/model_constants_config.json"])
        next(iter(config["config"].values()))["path_name"] = "opaque_obj_0"
        records["data/constants/opaque_obj_0"] = pickled(Hostile(folder))
        records["data/constants/model_constants_config.json"] = json.dumps(config).encode()

    return change


def with_operator(folder: Path) -> Change:
    def change(document: dict[str, Any]) -> None:
        node = document["graph_module"]["graph"]["nodes"][-1]
        node["target"] = "torch.os.mkdir"
        node["inputs"] = [{"name": "", "arg": {"as_string": str(folder)}, "kind": 1}]

    return in_program(change)


def with_sizes(folder: Path) -> Change:
    def change(document: dict[str, Any]) -> None:
        for value in document["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = f"__import__('os').mkdir('{folder}') or 2"

    return in_program(change)


def with_guards(folder: Path) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["guards_code"] = [f"__import__('os').mkdir('{folder}') is None"]

    return in_program(change)


@pytest.mark.parametrize(
    ("hostile", "said"),
    [
        (with_inputs, "example inputs that are more than tensors"),
        (with_weights, "as a pickle"),
        (with_object, "as a pickle"),
        (with_operator, r"calls 'torch\.os\.mkdir'"),
    ],
)
def test_what_could_only_be_run_is_refused(
    hostile: Callable[[Path], Change], said: str, honest: Path, tmp_path: Path
) -> None:
    path = changed(honest, hostile(tmp_path / "ran"))
    with pytest.raises(SourceError, match=said):
        from_pt2(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("hostile", [with_sizes, with_guards])
def test_what_need_not_be_read_is_not_run(hostile: Callable[[Path], Change], honest: Path, tmp_path: Path) -> None:
    net = from_pt2(changed(honest, hostile(tmp_path / "ran")))
    with torch.no_grad():
        torch.testing.assert_close(net(**pictures(3)), picture()(**pictures(3)))
    assert not (tmp_path / "ran").exists()


def test_the_structure_of_outputs_imports_nothing(honest: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        call = document["graph_module"]["module_call_graph"][0]["signature"]
        context = {"default_factory_module": "antigravity", "default_factory_name": "geohash", "dict_context": ["a"]}
        spec = {
            "type": "collections.defaultdict",
            "context": context,
            "children_spec": [json.loads(call["out_spec"])[1]],
        }
        call["out_spec"] = json.dumps([1, spec])

    with pytest.raises(SourceError, match=r"its outputs as a collections\.defaultdict"):
        from_pt2(changed(honest, in_program(change)))
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "target",
    [
        "aten.from_file.default",
        "aten.__class__.default",
        "aten.relu.__class__",
        "operator.attrgetter",
        "operator.methodcaller",
        "torch.load",
        "torch.hub.load",
        "math.ceil.__self__",
        "mine.relu.default",
    ],
)
def test_only_operators_of_torch_on_tensors_are_called(target: str) -> None:
    with pytest.raises(SourceError, match="only operators of torch itself"):
        function(target)
