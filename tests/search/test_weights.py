"""Weights from files: which are read, what is found in them, and what is told of those that do not fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from paretrim.errors import SourceError
from paretrim.models import with_weights


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 2)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(5, 3)
        self.last = nn.Linear(3, 5, bias=False)
        self.last.weight = self.emb.weight


def trained(net: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1.0)
    return net


def same(net: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))


State = Mapping[str, Any]
WRAPPED: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "parallel": lambda state: {f"module.{name}": each for name, each in state.items()},
    "compiled in parallel": lambda state: {f"module._orig_mod.{name}": each for name, each in state.items()},
    "a checkpoint": lambda state: {"epoch": 3, "state_dict": dict(state), "optimizer": {"state": {}, "lr": 0.1}},
    "under model": lambda state: {"model": dict(state), "best": 0.9},
    "Lightning": lambda state: {"state_dict": {f"model.{name}": each for name, each in state.items()}, "epoch": 1},
    "twice within": lambda state: {"model": {"state_dict": dict(state), "config": {}}},
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".ckpt"])
def test_weights_are_found_in_a_checkpoint(wrapped: Callable[[State], Any], ending: str, tmp_path: Path) -> None:
    net = trained(Net())
    torch.save(wrapped(net.state_dict()), tmp_path / f"net{ending}")
    found = with_weights(Net(), tmp_path / f"net{ending}")
    assert same(found, net)
    assert not found.training


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(trained(Net()).state_dict(), tmp_path / "net.safetensors")
    assert same(with_weights(Net(), str(tmp_path / "net.safetensors")), trained(Net()))


def test_one_name_of_a_shared_tensor_is_enough(tmp_path: Path) -> None:
    net = trained(Tied())
    save_model(net, str(tmp_path / "net.safetensors"))
    found = with_weights(Tied(), tmp_path / "net.safetensors")
    assert same(found, net)
    assert found.last.weight is found.emb.weight


def test_counters_of_batch_norm_may_be_missing(tmp_path: Path) -> None:
    state = {name: each for name, each in trained(Net()).state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "net.pt")
    assert torch.equal(with_weights(Net(), tmp_path / "net.pt").head.weight, state["head.weight"])


def test_a_prefix_that_the_network_has_too_stays(tmp_path: Path) -> None:
    net = nn.ModuleDict({"model": trained(Net())})
    torch.save(net.state_dict(), tmp_path / "net.pt")
    assert same(with_weights(nn.ModuleDict({"model": Net()}), tmp_path / "net.pt"), net)


def test_all_that_differs_is_told_at_once_with_the_nearest_names(tmp_path: Path) -> None:
    state = trained(Net(8)).state_dict()
    state["heads.weight"] = state.pop("head.weight")
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(SourceError) as error:
        with_weights(Net(), tmp_path / "net.pt")
    said = str(error.value)
    assert "the network's head.weight is not in the file; did you mean 'heads.weight'?" in said
    assert "the file's heads.weight is not in the network; did you mean 'head.weight'?" in said
    assert "stem.weight has shape (8, 1, 3, 3) in the file and (4, 1, 3, 3) in the network" in said


def test_of_many_that_differ_some_are_named_and_the_others_counted(tmp_path: Path) -> None:
    torch.save({f"layer{i}": torch.ones(1) for i in range(20)}, tmp_path / "net.pt")
    with pytest.raises(SourceError, match="and 12 more of the same kind"):
        with_weights(Net(), tmp_path / "net.pt")


def test_a_network_whose_weights_do_not_fit_is_left_as_it_was(tmp_path: Path) -> None:
    torch.save({**trained(Net()).state_dict(), "more": torch.ones(1)}, tmp_path / "net.pt")
    net = Net()
    before = net.head.weight.clone()
    with pytest.raises(SourceError):
        with_weights(net, tmp_path / "net.pt")
    assert torch.equal(net.head.weight, before)


class Hostile:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save({"state_dict": Net().state_dict(), "extra": Hostile(tmp_path / "ran")}, tmp_path / "net.pt")
    with pytest.raises(SourceError, match=r"is not unpickled.*torch\.save\(model\.state_dict"):
        with_weights(Net(), tmp_path / "net.pt")
    assert not (tmp_path / "ran").exists()


def test_a_whole_model_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "net.pt")
    with pytest.raises(SourceError, match="is more than weights"):
        with_weights(nn.Linear(2, 2), tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("net.h5", b"", r"ends with '\.h5'; weights are read from \.safetensors"),
        ("net.pt", None, "there is no file"),
        ("net.safetensors", b"nonsense", "is no safetensors file"),
        ("net.pt", b"nonsense", "is more than weights, or damaged"),
    ],
)
def test_other_files_are_refused(name: str, content: bytes | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=said):
        with_weights(Net(), tmp_path / name)


@pytest.mark.parametrize("given", [{"epoch": 3}, [torch.ones(2)], {"state_dict": {}}])
def test_a_file_without_weights_is_refused(given: object, tmp_path: Path) -> None:
    torch.save(given, tmp_path / "net.pt")
    with pytest.raises(SourceError, match="holds no weights by name"):
        with_weights(Net(), tmp_path / "net.pt")
