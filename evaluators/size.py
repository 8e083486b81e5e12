"""Size: the bytes that ship."""

from __future__ import annotations

from typing import ClassVar

from paretrim.evaluators.evaluator import Bench, Specimen
from paretrim.evaluators.measurement import Measurement


class SizeEvaluator:
    """Gives the bytes of the packed file that ships, and of the model file inside."""

    metrics: ClassVar[tuple[str, ...]] = ("size_bytes", "model_bytes")

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:  # noqa: ARG002
        """Return both sizes."""
        artifact = specimen.artifact
        return (
            Measurement("size_bytes", artifact.size_bytes, how="packed file that ships (xz)"),
            Measurement("model_bytes", artifact.model_bytes, how="unpacked model file"),
        )
