"""A recipe: one point of the space; all that is needed, with the job, to make the same model again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from paretrim.errors import UsageError
from paretrim.spaces.dimension import Value

SCHEMA = 1


@dataclass(frozen=True)
class Recipe:
    """Named values, typed, hashable, written as JSON.

    Attributes:
        items: (dimension name, value) pairs, sorted by name.
        seed: Seed of everything random in the making of the model.
    """

    items: tuple[tuple[str, Value], ...]
    seed: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Value], seed: int = 0) -> Recipe:
        """Build a recipe from a mapping of dimension names to values."""
        # 0 and 0.0 are equal, and must be written alike.
        whole = {n: int(v) if isinstance(v, float) and v.is_integer() else v for n, v in values.items()}
        return cls(tuple(sorted(whole.items())), seed)

    @property
    def values(self) -> dict[str, Value]:
        """The values by dimension name."""
        return dict(self.items)

    def number(self, name: str, default: float = 0.0) -> float:
        """Return a numeric value, or the default when the recipe has no such dimension."""
        value = self.values.get(name, default)
        if not isinstance(value, int | float):
            raise UsageError(f"the recipe's {name} is {value!r}; a number is needed")
        return float(value)

    def to_json(self) -> str:
        """Return the recipe as JSON, the same text for equal recipes."""
        return json.dumps({"schema": SCHEMA, "seed": self.seed, "values": self.values}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read a recipe written by `to_json`.

        Raises:
            UsageError: It was written by a version with another schema.
        """
        document = json.loads(text)
        if document.get("schema") != SCHEMA:
            raise UsageError(
                f"this recipe has schema {document.get('schema')}; this version of paretrim reads schema {SCHEMA}"
            )
        return cls.of(document["values"], document["seed"])
