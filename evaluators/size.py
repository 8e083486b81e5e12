"""Size: the bytes that ship, and the bytes that the runtime holds."""

from __future__ import annotations

from typing import ClassVar

from paretrim.evaluators.child import ask
from paretrim.evaluators.evaluator import Bench, Specimen
from paretrim.evaluators.measurement import Measurement, Part


class SizeEvaluator:
    """Gives the bytes of the packed file that ships, of the model file inside, and of the weights once loaded."""

    metrics: ClassVar[tuple[str, ...]] = ("size_bytes", "model_bytes", "held_bytes")

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Return the three sizes; the model file's with the bytes of each tensor that it stores."""
        artifact = specimen.artifact
        with bench.lane.working():
            weights = ask("weigh", {"target": bench.address.to_plain(), "model": str(specimen.model)})
        parts = tuple(
            Part(tensor["name"], tensor["bytes"], f"{tensor['dtype']} {'x'.join(map(str, tensor['shape']))}".strip())
            for tensor in weights["tensors"]
        )
        return (
            Measurement("size_bytes", artifact.size_bytes, how="packed file that ships (xz)"),
            Measurement("model_bytes", artifact.model_bytes, how="unpacked model file", parts=parts),
            Measurement("held_bytes", weights["held_bytes"], how="weights that the runtime holds after loading"),
        )

    def preview(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:  # noqa: ARG002 - the seam's protocol
        """Return the size with the weights as they are before training, which trained ones come near to."""
        return (Measurement("size_bytes", specimen.artifact.size_bytes, how="packed file, before training"),)
