"""A sampler: points of a Sobol sequence, which cover a space more evenly than random ones."""

from __future__ import annotations

import optuna

from paretrim.search.samplers import SamplerRequest


def quasi_random(request: SamplerRequest) -> optuna.samplers.BaseSampler:
    """Return Optuna's quasi-Monte-Carlo sampler."""
    return optuna.samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=request.seed)
