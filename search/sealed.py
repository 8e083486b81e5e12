"""What all workers of a search take from Ray's store, opened where it is needed and not before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import ray
from torch import nn

from paretrim.search.context import TrialContext
from paretrim.search.shared_model import SharedModel


@dataclass(frozen=True)
class Sealed:
    """What trials share, in Ray's store. It stays there until `opened` is asked for: a model may not load in a worker.

    Attributes:
        reference: Ray's reference to it.
    """

    reference: Any

    def opened(self) -> TrialContext:
        """Return what trials share; the weights of its models are in the store, for all processes of the node at once."""
        context, models = ray.get(self.reference)
        model, tutor = (None if each is None else each.opened() for each in models)
        found: TrialContext = replace(context, model=model, tutor=tutor)
        return found


def sealed(context: TrialContext) -> Sealed:
    """Put into Ray's store what trials share."""
    models = [None if each is None else SharedModel(each) for each in (context.model, context.tutor)]
    return Sealed(ray.put((replace(context, model=nn.Identity(), tutor=None), models)))
