"""Small networks saved as programs of torch.export, and files that differ from them in one place."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Records = dict[str, bytes]


class Block(nn.Module):
    """A convolution with a shortcut, which is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, 1, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.norm(self.conv(x))) + x


class Picture(nn.Module):
    """Layers of many kinds, a buffer and a constant: ``(N, 1, 8, 8)`` and a mask ``(N, 8)`` to ``(N, 3)``."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.block = Block()
        self.wide = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.group = nn.GroupNorm(2, 8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)
        self.shift = torch.linspace(0, 1, 8)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.act(self.norm(self.stem(x)))
        x = functional.gelu(self.group(self.wide(self.block(self.block(x)))), approximate="tanh")
        x = x.mean(dim=(2, 3)).view(x.size(0), -1) * self.scale + self.shift
        return self.head(self.drop(x * mask))  # type: ignore[no-any-return]


class Words(nn.Module):
    """Attention over an embedding whose weights are the last layer's too, and two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(20, 16, padding_idx=0)
        self.place = nn.Parameter(torch.randn(5, 16) * 0.1)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.last = nn.Linear(16, 20, bias=False)
        self.last.weight = self.emb.weight

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.norm(self.block(self.emb(ids) + self.place))
        with torch.no_grad():
            weight = mask.float() / mask.sum(1, keepdim=True)
        pooled = (x * weight.unsqueeze(-1)).sum(1)
        return {"logits": self.last(pooled), "pooled": pooled}


def picture() -> Picture:
    torch.manual_seed(0)
    net = Picture()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
    return net.eval()


def words() -> Words:
    torch.manual_seed(0)
    return Words().eval()


def pictures(count: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return {"x": torch.randn(count, 1, 8, 8, generator=generator), "mask": torch.ones(count, 8)}


def sentences(count: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    ids = torch.randint(0, 20, (count, 5), generator=generator)
    return {"ids": ids, "mask": torch.ones(count, 5, dtype=torch.long)}


def save(net: nn.Module, path: Path, example: dict[str, torch.Tensor], *, free: bool = True) -> Path:
    """Export a network that takes its inputs by name."""
    batch = torch.export.Dim("batch")
    shapes = {name: {0: batch} for name in example} if free else None
    torch.export.save(torch.export.export(net, (), example, dynamic_shapes=shapes), path)
    return path


def changed(path: Path, change: Callable[[Records], None]) -> Path:
    """Write a file beside another one, changed."""
    with zipfile.ZipFile(path) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(records)
    other = path.with_name(f"changed-{path.name}")
    with zipfile.ZipFile(other, "w") as archive:
        for name, record in records.items():
            archive.writestr(f"any/{name}", record)
    return other


def in_program(change: Callable[[dict[str, Any]], None]) -> Callable[[Records], None]:
    """Return what changes a file's program, given what changes its JSON."""

    def apply(records: Records) -> None:
        document = json.loads(records["models/model.json"])
        change(document)
        records["models/model.json"] = json.dumps(document).encode()

    return apply
