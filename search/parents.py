"""Parents: what recipes have in common that differ only in techniques that branch off late.

A pruned model is trained for the first half of its epochs with 32-bit floats; from there, recipes that differ in bits go
on each for itself. The parent depends on nothing but its own values, so whichever of them comes first makes it, and it
comes out the same for all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from safetensors.torch import load, save
from torch import nn

from paretrim.search.cache import Cache, key
from paretrim.spaces.device import described
from paretrim.spaces.recipe import Recipe
from paretrim.spaces.schooling import CPU
from paretrim.spaces.technique import Technique
from paretrim.tracking.records import Epoch

_EPOCHS = "recovery.epochs"


@dataclass(frozen=True)
class Phases:
    """A recipe's training in two phases.

    Attributes:
        parent: What comes first, without the techniques that branch off.
        branch: The recipe, with the epochs that are left.
    """

    parent: Recipe
    branch: Recipe


def phases(recipe: Recipe, techniques: Sequence[Technique], seed: int) -> Phases | None:
    """Split a recipe's training, or return None where nothing can be shared.

    Args:
        recipe: The recipe.
        techniques: Of the space.
        seed: Of the search, on which a parent's own seed depends.
    """
    epochs = int(recipe.number(_EPOCHS))
    branching = {part.name for part in techniques if part.branches}
    if epochs < 2 or not branching or "recovery.early_stop" in recipe.values:
        return None
    first = epochs // 2
    values = {name: value for name, value in recipe.items if name.partition(".")[0] not in branching}
    plain = Recipe.of({**values, _EPOCHS: first})
    digest = hashlib.sha256(f"{seed} {plain.to_json()}".encode()).digest()
    parent = replace(plain, seed=int.from_bytes(digest[:4], "big") >> 1)
    return Phases(parent, Recipe.of({**recipe.values, _EPOCHS: epochs - first}, recipe.seed))


@dataclass(frozen=True)
class Nursery:
    """Keeps parents.

    Attributes:
        cache: Where they lie.
        subject: Identifies all that a parent depends on beside its recipe: model, data, settings, versions.
    """

    cache: Cache
    subject: str

    def where(self, costs: Mapping[str, float], workers: int = 1, device: torch.device = CPU) -> Nursery:
        """Return the nursery of the parents that are trained as this process would train them now.

        Sums of floats depend on the threads and on the processor, and learned sparsity on measured costs.

        Args:
            costs: What a channel of each group costs, as `Schooling.channel_ms`.
            workers: Processes that share the work.
            device: Where they are trained.
        """
        made = f"{torch.get_num_threads()} {described(device)} {sorted(costs.items())}"
        made += f" {workers} workers" if workers > 1 else ""
        return replace(self, subject=f"{self.subject} {made}")

    def find(self, parent: Recipe, model: nn.Module) -> tuple[Epoch, ...] | None:
        """Give a model the weights of its trained parent, and return the course of that training; None if there is none.

        Args:
            parent: Its recipe.
            model: In the shape that the parent has after training.
        """
        kept = self.cache.get(self._name(parent))
        if kept is None:
            return None
        tensors = load(kept)
        course = tensors.pop(_COURSE)
        own = model.state_dict()
        if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
            return None
        model.load_state_dict(tensors)
        return tuple(replace(Epoch(**each), inherited=True) for each in json.loads(bytes(course.tolist())))

    def keep(self, parent: Recipe, model: nn.Module, course: Sequence[Epoch]) -> None:
        """Keep a trained parent."""
        text = json.dumps([asdict(each) for each in course]).encode()
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
        self.cache.put(self._name(parent), save({**tensors, _COURSE: torch.tensor(list(text), dtype=torch.uint8)}))

    def _name(self, parent: Recipe) -> str:
        return key("parent", self.subject, parent.to_json())


_COURSE = "paretrim.course"
