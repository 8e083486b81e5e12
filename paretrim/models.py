"""Where a model comes from: functions that return a network in one line, for a job's ``model``.

See docs/bring-your-own.md. None of them unpickles anything, or runs code that lies beside a model.
"""

from __future__ import annotations

from paretrim.search.sources.mlflow_models import from_mlflow
from paretrim.search.sources.pt2 import from_pt2
from paretrim.search.sources.timm_models import from_timm
from paretrim.search.sources.transformers_models import from_transformers
from paretrim.search.sources.weights import with_weights

__all__ = ["from_mlflow", "from_pt2", "from_timm", "from_transformers", "with_weights"]
