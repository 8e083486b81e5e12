"""An evaluator: how many operators the exported graph has, which is what some accelerators are limited by."""

from __future__ import annotations

from typing import ClassVar

import onnx

from paretrim.evaluators.evaluator import Bench, Specimen
from paretrim.evaluators.measurement import Measurement


class NodesEvaluator:
    """Counts the nodes of the artifact's graph."""

    metrics: ClassVar[tuple[str, ...]] = ("nodes",)

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Return the number of nodes."""
        graph = onnx.load(str(specimen.model), load_external_data=False).graph
        return (Measurement("nodes", float(len(graph.node)), how="operators of the exported graph"),)

    def preview(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Return the same of a candidate that is not trained yet: weights do not change it."""
        return self.measure(specimen, bench)
