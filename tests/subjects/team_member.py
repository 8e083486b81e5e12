"""One process of a team, without Ray: trains what test_team.py compares. Run with the rank, the size and a folder."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional

from paretrim.errors import TrialError
from paretrim.evaluators.splits import Split
from paretrim.spaces.processes import Processes
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import Schooling
from paretrim.spaces.team import Team
from paretrim.spaces.training import recover

PLAIN = {"recovery.epochs": 1, "recovery.batch_size": 96, "recovery.learning_rate": 1.0, "recovery.momentum": 0.0}
STEADY = {"recovery.schedule": "constant"}
MANY = {
    "recovery.epochs": 3,
    "recovery.batch_size": 16,
    "recovery.learning_rate": 0.01,
    "recovery.optimizer": "adamw",
    "recovery.schedule": "cosine",
    "recovery.accumulation": 2,
    "recovery.clip": 0.5,
    "recovery.weight_decay": 0.1,
}
WILD = {
    "recovery.epochs": 2,
    "recovery.batch_size": 16,
    "recovery.learning_rate": 0.05,
    "recovery.augment": "full",
    "recovery.augmented_by": "flip+brightness",
}
SHORT = WILD | {"recovery.batch_size": 3}


class Net(nn.Module):
    """Images of 2 x 4 x 4 to 3 classes; one of its weights is never used."""

    def __init__(self, wild: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6) if wild else nn.Identity()
        self.drop = nn.Dropout(0.3 if wild else 0.0)
        self.head = nn.Linear(6 * 16, 3)
        self.idle = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.drop(functional.relu(self.norm(self.conv(x))).flatten(1)))
        return logits


def split(count: int) -> Split:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    images = torch.randn((count, 2, 4, 4), generator=generator)
    images[:, 0] += labels[:, None, None]
    return Split((images, labels), "train")


def blended(outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
    assert teacher is not None
    return functional.cross_entropy(outputs, labels) + 0.1 * functional.mse_loss(outputs, teacher)


def schooling(count: int, team: Team) -> Schooling:
    data = split(count)
    teacher = torch.arange(3.0 * count).view(count, 3) / count
    return Schooling(lambda size, seed: data.batches(size, seed=seed), count, teacher, blended, nullcontext, team=team)


def course(team: Team, values: dict[str, Any], count: int = 97, wild: bool = False) -> dict[str, Any]:
    """Train, and return the losses, the weights before each batch and at the end, the buffers, and what was seen."""
    torch.manual_seed(3)
    net, seen = Net(wild), []
    net.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    steps: list[torch.Tensor] = []

    def flat() -> torch.Tensor:
        return torch.cat([each.detach().flatten() for each in net.parameters()])

    school = replace(schooling(count, team), advance=lambda _: steps.append(flat()))
    try:
        losses = list(recover(net, Recipe.of(values, 5), school))
    except TrialError as error:
        return {"error": str(error)}
    return {
        "losses": losses,
        "steps": torch.stack([*steps, flat()]),
        "buffers": [each.clone() for each in net.buffers()],
        "gradient": [each.grad is None for each in net.parameters()],
        "seen": seen,
    }


def all_courses(team: Team) -> dict[str, dict[str, Any]]:
    return {
        "one step": course(team, PLAIN | STEADY, count=95),
        "many": course(team, MANY),
        "half floats": course(team, MANY | {"recovery.precision": "fp16"}),
        "wild": course(team, WILD, wild=True),
        "short": course(team, SHORT, count=7, wild=True),
        "diverging": course(team, MANY | {"recovery.learning_rate": 1e30, "recovery.optimizer": "sgd"}),
    }


def main() -> None:
    torch.set_num_threads(1)
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    torch.save(all_courses(Processes()), folder / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
