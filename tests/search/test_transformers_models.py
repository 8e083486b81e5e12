"""Models of transformers and timm: skipped where the package is missing, but for what is said then."""

from __future__ import annotations

import copy
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from paretrim import models
from paretrim.errors import MissingExtraError, SourceError
from paretrim.evaluators import onnx_export
from paretrim.evaluators.inputs import Inputs
from paretrim.search.outputs import settle
from paretrim.spaces.anatomy import dissect

from .helper_programs import save

KINDS = ("bert", "distilbert", "gpt2")


def imports(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None and importlib.import_module(package) is not None
    except Exception:  # noqa: BLE001 - whatever a broken installation raises
        return False


with_transformers = pytest.mark.skipif(not imports("transformers"), reason="transformers is not installed")
with_timm = pytest.mark.skipif(
    not imports("timm"), reason="timm is not installed, or has no torchvision that fits torch"
)


def sentences(count: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 60, (count, 8), generator=torch.Generator().manual_seed(count))
    mask = torch.ones(count, 8, dtype=torch.long)
    mask[0, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def made(kind: str) -> Any:
    import transformers

    torch.manual_seed(0)
    if kind == "bert":
        config: Any = transformers.BertConfig(
            vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
        )
        return transformers.BertForSequenceClassification(config).eval()
    if kind == "distilbert":
        config = transformers.DistilBertConfig(vocab_size=60, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
        return transformers.DistilBertForSequenceClassification(config).eval()
    config = transformers.GPT2Config(
        vocab_size=60, n_embd=32, n_layer=2, n_head=2, n_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    return transformers.GPT2ForSequenceClassification(config).eval()


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / request.param
    made(request.param).save_pretrained(place)
    return place  # type: ignore[no-any-return]


@with_transformers
def test_a_folder_gives_the_model_that_was_saved(folder: Path) -> None:
    found = models.from_transformers(folder)
    with torch.no_grad():
        torch.testing.assert_close(
            found(**sentences(3)).logits, made(folder.name)(**sentences(3)).logits, rtol=1e-4, atol=1e-5
        )
    assert not found.training


@with_transformers
def test_it_exports_for_any_number_of_samples(folder: Path) -> None:
    net = models.from_transformers(str(folder))
    settle(net, Inputs.of(sentences(2)), None, "the model")
    exported = onnx_export.export(copy.deepcopy(net), Inputs.of(sentences(2)).signature)
    session = onnxruntime.InferenceSession(exported.proto.SerializeToString())
    for count in (1, 5):
        given = session.run(None, {name: x.numpy() for name, x in sentences(count).items()})[0]
        np.testing.assert_allclose(given, net(**sentences(count)).detach().numpy(), rtol=1e-3, atol=1e-4)


@with_transformers
def test_there_is_something_to_compress_in_each(folder: Path) -> None:
    net = models.from_transformers(folder)
    settle(net, Inputs.of(sentences(2)), None, "the model")
    anatomy = dissect(net, Inputs.of(sentences(2)))
    assert len(anatomy.layers) >= 9
    assert anatomy.groups
    assert anatomy.heads


@with_transformers
def test_a_program_of_one_answers_as_it_does(folder: Path, tmp_path: Path) -> None:
    net = models.from_transformers(folder)
    found = models.from_pt2(save(net, tmp_path / "net.pt2", sentences(2)))
    with torch.no_grad():
        torch.testing.assert_close(found(**sentences(4))["logits"], net(**sentences(4)).logits)
    assert {name for name, _ in found.named_parameters()} == {name for name, _ in net.named_parameters()}


@with_transformers
def test_a_head_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    made("bert").save_pretrained(tmp_path / "net")
    with pytest.raises(SourceError, match=r"has no weights for .*so it is not trained for masked-lm"):
        models.from_transformers(tmp_path / "net", "masked-lm")


@with_transformers
def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    net = made("bert")
    net.config.save_pretrained(tmp_path)
    torch.save(net.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(SourceError, match=r"does not load .*model\.safetensors"):
        models.from_transformers(tmp_path)


@with_transformers
def test_code_beside_a_model_is_not_run(tmp_path: Path) -> None:
    made("bert").save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    odd = config.replace('"model_type": "bert"', '"model_type": "odd", "auto_map": {"AutoConfig": "odd.C"}')
    (tmp_path / "config.json").write_text(odd)
    (tmp_path / "odd.py").write_text(f"open('{tmp_path / 'ran'}', 'w')")
    with pytest.raises(SourceError, match="an architecture that transformers itself has"):
        models.from_transformers(tmp_path)
    assert not (tmp_path / "ran").exists()


@with_transformers
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_network(tmp_path: Path) -> None:
    for place in (tmp_path / "nothing", str(tmp_path / "nothing"), "./nothing"):
        with pytest.raises(SourceError, match="there is no folder"):
            models.from_transformers(place)


def test_an_unknown_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(SourceError, match="did you mean 'sequence-classification'"):
        models.from_transformers("anything", "sequence-clasification")


@pytest.mark.parametrize("package", ["transformers", "timm"])
def test_a_missing_package_is_told_with_its_extra(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'paretrim\[{package}\]'"):
        models.from_transformers(tmp_path) if package == "transformers" else models.from_timm("resnet18", tmp_path)


def test_a_linear_layer_takes_the_place_of_one_whose_weight_is_the_other_way_round() -> None:
    from paretrim.search.sources.transformers_models import unfold_transposed

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight + self.bias

    net = nn.Sequential(nn.Sequential(Turned()), nn.ReLU())
    x = torch.randn(2, 4, 3)
    before = net(x)
    unfold_transposed(net, Turned)
    assert type(net.get_submodule("0.0")) is nn.Linear
    torch.testing.assert_close(net(x), before)


@with_timm
def test_a_model_of_timm_takes_weights_from_a_file(tmp_path: Path) -> None:
    import timm

    net = timm.create_model("resnet10t", pretrained=False, num_classes=3).eval()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    found = models.from_timm("resnet10t", tmp_path / "net.pt", num_classes=3)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(found(x), net(x))


@with_timm
def test_an_unknown_architecture_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="did you mean 'resnet10t'"):
        models.from_timm("resnet10tt", tmp_path / "net.pt")
