"""Energy: what a call of the artifact costs, where the machine has a meter for it; absent where it has none."""

from __future__ import annotations

from typing import ClassVar

from paretrim.evaluators import meters
from paretrim.evaluators.child import ask
from paretrim.evaluators.evaluator import Bench, Specimen
from paretrim.evaluators.measurement import Measurement


class EnergyEvaluator:
    """Gives the energy of one call above that of the idle machine, from the meters of the processor or the GPU."""

    metrics: ClassVar[tuple[str, ...]] = ("energy_millijoules",)

    def absent(self) -> str:
        """Return why this machine cannot measure energy, or nothing when it can."""
        return "" if meters.readable() else meters.looked_for()

    def measure(self, specimen: Specimen, bench: Bench) -> tuple[Measurement, ...]:
        """Return the energy of a call."""
        request = {
            "target": bench.address.to_plain(),
            "model": str(specimen.model),
            "inputs": str(bench.inputs),
            "cores": list(bench.cores),
        }
        with bench.lane.measuring():
            answer = ask("energy", request)
        how = (
            f"{answer['meters']} over {answer['calls']} calls, less {answer['idle_watts']:.3g} W of the idle machine; "
            "whatever else ran is in it"
        )
        return (Measurement("energy_millijoules", max(0.0, answer["joules_per_call"]) * 1e3, how=how),)
