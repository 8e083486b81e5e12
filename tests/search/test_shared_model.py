"""A model in Ray's store: the same model, with weights that are not copied."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import torch
from torch import nn

from paretrim.search.shared_model import SharedModel


class Tied(nn.Module):
    """An embedding whose weights are also those of the last layer, one frozen layer, a buffer, a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.reader = nn.LSTM(8, 8, batch_first=True)
        self.normal = nn.BatchNorm1d(8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.narrow = nn.Parameter(torch.randn(8, dtype=torch.bfloat16))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.head = nn.Linear(8, 20)
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        read, _ = self.reader(self.table(ids))
        logits: torch.Tensor = self.head(self.frozen(self.normal(read[:, -1])) * self.narrow.float() * self.scale)
        return logits


def through_store(model: Tied) -> Tied:
    """Return a model as another process gets it, its arrays read-only as those of Ray's store."""
    arrays: list[pickle.PickleBuffer] = []
    sent = pickle.dumps(SharedModel(model), protocol=5, buffer_callback=arrays.append)
    assert len(sent) < 20_000
    held = [bytes(each.raw()) for each in arrays]
    found: SharedModel = pickle.loads(sent, buffers=held)
    opened = found.opened()
    assert isinstance(opened, Tied)
    return opened


class TestSharedModel:
    def test_it_is_the_same_model(self) -> None:
        torch.manual_seed(0)
        model, ids = Tied().eval(), torch.randint(0, 20, (4, 5))
        opened = through_store(model)
        assert torch.equal(opened(ids), model(ids))
        assert opened.head.weight is opened.table.weight
        kinds = {name: (p.dtype, p.requires_grad, p.shape) for name, p in model.named_parameters()}
        assert {name: (p.dtype, p.requires_grad, p.shape) for name, p in opened.named_parameters()} == kinds

    def test_the_model_that_was_sent_keeps_its_weights(self) -> None:
        model = Tied()
        before = {name: each.clone() for name, each in model.state_dict().items()}
        SharedModel(model)
        assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())

    def test_its_weights_lie_where_the_array_lies(self) -> None:
        model = nn.Linear(64, 64)
        shared = SharedModel(model)
        opened = shared.opened()
        assert np.shares_memory(next(opened.parameters()).detach().numpy(), model.weight.detach().numpy())

    def test_a_copy_of_it_can_be_trained(self) -> None:
        copied = copy.deepcopy(through_store(Tied()))
        optimizer = torch.optim.SGD(copied.parameters(), lr=0.1)
        before = copied.head.weight.detach().clone()
        copied(torch.randint(0, 20, (4, 5))).sum().backward()
        optimizer.step()
        assert not torch.equal(copied.head.weight, before)
