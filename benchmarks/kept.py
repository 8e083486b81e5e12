"""What trained models for benchmarks share: where their data lie, and weights that are trained once and kept.

The folder of the data is that of the environment variable ``PARETRIM_BENCHMARK_DATA``. ``sst2/{train,dev,test}.tsv`` are the
Stanford Sentiment Treebank's sentences with two classes (Socher et al., 2013), each line a sentence, a tab, and 0 or 1.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn import functional

import paretrim

FOLDER = "PARETRIM_BENCHMARK_DATA"
Samples = tuple[torch.Tensor | Mapping[str, torch.Tensor], torch.Tensor]


def data_folder() -> Path:
    """Return the folder of the data, which an environment variable names."""
    return Path(os.environ[FOLDER])


def sentences(split: str) -> tuple[list[str], list[int]]:
    """Return the sentences of SST-2's ``train``, ``dev`` or ``test``, and 1 for each that praises.

    A sentence that is in several splits stays in the one that is seen last only.
    """
    splits = ("train", "dev", "test")
    later = {text for other in splits[splits.index(split) + 1 :] for text, _ in _rows(other)}
    kept = [(text, label) for text, label in _rows(split) if text not in later]
    return [text for text, _ in kept], [label for _, label in kept]


def usual_splits(samples: Callable[[str], Samples], calibration: int) -> paretrim.Splits:
    """Return SST-2's splits, of which the first training samples are those to calibrate with.

    Args:
        samples: Gives inputs and labels of ``train``, ``dev`` or ``test``.
        calibration: How many.
    """
    inputs, labels = train = samples("train")
    few = (
        {name: part[:calibration] for name, part in inputs.items()}
        if isinstance(inputs, Mapping)
        else inputs[:calibration]
    )
    return paretrim.Splits(
        train=train, calibration=(few, labels[:calibration]), validation=samples("dev"), test=samples("test")
    )


def fit(net: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, *, epochs: int, batch: int) -> None:
    """Train a small classifier from scratch, in place."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    net.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(inputs)).split(batch):
            optimizer.zero_grad()
            functional.cross_entropy(net(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()


def _rows(split: str) -> list[tuple[str, int]]:
    with (data_folder() / "sst2" / f"{split}.tsv").open(encoding="utf-8", errors="replace", newline="") as file:
        return [(row[0], int(row[1])) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def trained(source: str, net: nn.Module, train: Callable[[], None], name: str | None = None) -> nn.Module:
    """Return a network with the weights that ``train`` gives it, which are kept in a cache.

    Args:
        source: The file that says how it is trained; a change to it trains anew.
        net: As it is before.
        train: Trains it in place.
        name: What it is called; by default as its file.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "paretrim"
    kept = (
        root / f"{name or Path(source).stem}-{hashlib.sha256(Path(source).read_bytes()).hexdigest()[:12]}.safetensors"
    )
    if not kept.exists():
        train()
        root.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        save_model(net, str(partial))
        partial.replace(kept)
    load_model(net, kept)
    return net.eval()
