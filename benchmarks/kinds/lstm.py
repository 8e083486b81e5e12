"""A bidirectional LSTM over the words of a sentence, which tells praise from blame (SST-2); it is trained at the first call."""

from __future__ import annotations

from collections import Counter
from functools import cache

import torch
from torch import nn

import paretrim
from benchmarks.kept import fit, sentences, trained, usual_splits

LENGTH, EMBEDDED, HIDDEN = 40, 64, 64
EPOCHS, BATCH = 6, 64
CALIBRATION = 256
UNKNOWN = 1


class WordLstm(nn.Module):
    """Words, embedded, read in both directions; the largest of what was understood at each word decides."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, EMBEDDED, padding_idx=0)
        self.drop = nn.Dropout(0.4)
        self.reader = nn.LSTM(EMBEDDED, HIDDEN, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * HIDDEN, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Word ids ``(N, words)``, 0 for none, to logits ``(N, 2)``."""
        read, _ = self.reader(self.drop(self.words(ids)))
        read = read.masked_fill((ids == 0).unsqueeze(-1), -1.0)
        logits: torch.Tensor = self.head(self.drop(read.amax(1)))
        return logits


def model() -> nn.Module:
    """Return the network with its trained weights."""
    net = WordLstm(len(_vocabulary()) + 2)
    return trained(__file__, net, lambda: fit(net, *_ids("train"), epochs=EPOCHS, batch=BATCH))


def data() -> paretrim.Splits:
    """Return SST-2 in its usual splits, as ids of words that training sentences have at least twice."""
    return usual_splits(_ids, CALIBRATION)


@cache
def _vocabulary() -> dict[str, int]:
    counts = Counter(word for text in sentences("train")[0] for word in text.split())
    return {word: i for i, word in enumerate(sorted(w for w, n in counts.items() if n > 1), start=UNKNOWN + 1)}


def _ids(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    known, (texts, labels) = _vocabulary(), sentences(split)
    ids = torch.zeros(len(texts), LENGTH, dtype=torch.int64)
    for row, text in zip(ids, texts, strict=True):
        found = [known.get(word, UNKNOWN) for word in text.split()][:LENGTH]
        row[: len(found)] = torch.tensor(found)
    # Of sentences that are the same but for rare words, the first stays.
    first = {tuple(row.tolist()): at for at, row in reversed(list(enumerate(ids)))}
    kept = sorted(first.values())
    return ids[kept], torch.tensor(labels)[kept]
