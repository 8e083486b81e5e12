"""A small decoder that writes film reviews letter by letter (the sentences of SST-2), judged by its perplexity.

It has no cache of keys and values: the exported graph takes a whole window of letters and says for each which comes next, as
one scores texts with it. Who writes with it computes the window anew for each letter. It is trained at the first call.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

import paretrim
from benchmarks.kept import sentences, trained, usual_splits

WINDOW, WIDTH, HEADS, LAYERS = 96, 128, 4, 4
EPOCHS, BATCH, CALIBRATION = 8, 32, 128
LETTERS = "\n abcdefghijklmnopqrstuvwxyz0123456789'`,.!?-:;$%&#/*+=()"


class Layer(nn.Module):
    """Attention to the letters before, and two linear layers; each is added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(N, letters, width)`` to the same."""
        normal = self.before(x)
        query, key, value = (
            part(normal).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.drop(self.out(mixed))
        written: torch.Tensor = x + self.drop(self.down(functional.gelu(self.up(self.after(x)))))
        return written


class Writer(nn.Module):
    """Letters and their places, embedded; four layers; what comes next."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(len(LETTERS), WIDTH), nn.Embedding(WINDOW, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(LETTERS))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Letters' ids ``(N, letters)`` to logits of the letters after each ``(N, letters, kinds)``."""
        x = self.letters(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for layer in self.layers:
            x = layer(x)
        logits: torch.Tensor = self.head(self.norm(x))
        return logits


def model() -> nn.Module:
    """Return the network with its trained weights."""
    net = Writer()
    return trained(__file__, net, lambda: _train(net))


def data() -> paretrim.Splits:
    """Return windows of the sentences of SST-2 in its usual splits, and for each letter the next one."""
    return usual_splits(_windows, CALIBRATION)


def _windows(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    text = "\n".join(sentences(split)[0]).lower()
    ids = torch.tensor([at for letter in text if (at := LETTERS.find(letter)) >= 0])
    count = (len(ids) - 1) // WINDOW
    return ids[: count * WINDOW].view(count, WINDOW), ids[1 : count * WINDOW + 1].view(count, WINDOW)


def _train(net: Writer) -> None:
    torch.manual_seed(0)
    ids, nexts = _windows("train")
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)
    steps = EPOCHS * -(-len(ids) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    net.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(ids)).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(net(ids[batch]).flatten(0, 1), nexts[batch].flatten()).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
