"""A model of transformers and its texts, from folders that save_pretrained wrote. Needs paretrim[transformers,datasets]."""

from __future__ import annotations

from pathlib import Path

from torch import nn

import paretrim

HERE = Path(__file__).parent


def model() -> nn.Module:
    """Return the model; its output `logits` counts. Another task: token-classification, masked-lm, causal-lm, ..."""
    return paretrim.models.from_transformers(HERE / "model", task="sequence-classification")


def data() -> paretrim.Splits:
    """Return the four splits: texts and their labels from a file, as the tokenizer's input_ids and attention_mask."""
    return paretrim.data.from_datasets(HERE / "texts.parquet", tokenizer=HERE / "model", text="text", length=32)
