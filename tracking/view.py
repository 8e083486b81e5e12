"""A ready-made view of a search in MLflow's UI: trade-off scatters and parallel coordinates of all trials.

MLflow keeps a shared view as JSON in a tag of the experiment; the format is not documented, and a version that reads it
otherwise shows its default charts instead. The version range in pyproject.toml is the one that was looked at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

KEY = "paretrim"
TAG = f"mlflow.sharedViewState.{KEY}"
_MOST_KNOBS = 8
_FRONT, _KNOBS, _REST = "paretrim-front", "paretrim-knobs", "paretrim-rest"


@dataclass(frozen=True)
class View:
    """What the charts show.

    Attributes:
        metric: Name of the job's metric: the vertical axis.
        costs: The other objectives: the horizontal axes.
        knobs: Names of the searched dimensions.
    """

    metric: str
    costs: Sequence[str]
    knobs: Sequence[str]

    def to_json(self) -> str:
        """Return the view as MLflow stores it."""
        columns = [f"metrics.`{name}`" for name in (self.metric, *self.costs)]
        state: dict[str, Any] = {
            "orderByKey": "tags.`pareto`",  # the front first
            "orderByAsc": False,
            "searchFilter": "",
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": [*columns, "tags.`pareto`", "tags.`paretrim.kind`"],
            "runsHiddenMode": "SHOW_ALL",
            "compareRunCharts": self._charts(),
            "compareRunSections": [
                _section(_FRONT, "Trade-offs", columns=3),
                # Side by side with others, a dozen axes lie on top of each other.
                _section(_KNOBS, "Knobs and objectives", columns=1, cardHeight=460),
                _section(_REST, "Model metrics", display=False),
            ],
            "isAccordionReordered": True,
            "autoRefreshEnabled": True,
            "hideEmptyCharts": True,
        }
        return json.dumps(state)

    def _charts(self) -> list[dict[str, Any]]:
        scatters = [
            _chart("SCATTER", f"{self.metric} against {cost}", xaxis=_axis(cost), yaxis=_axis(self.metric))
            for cost in self.costs
        ]
        lines = _chart(
            "PARALLEL",
            "knobs and objectives",
            metricSectionId=_KNOBS,
            selectedParams=list(self.knobs[:_MOST_KNOBS]),
            selectedMetrics=[self.metric, *self.costs],
            showAllRuns=True,
        )
        return [*scatters, lines]


def _chart(kind: str, title: str, **details: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": f"paretrim {title}",
        "displayName": title,
        "metricSectionId": _FRONT,
        "runsCountToCompare": 1000,
        "isGenerated": False,
        "deleted": False,
        **details,
    }


def _axis(metric: str) -> dict[str, str]:
    return {"key": metric, "type": "METRIC"}


def _section(identifier: str, name: str, *, display: bool = True, **layout: int) -> dict[str, Any]:
    kept = {"isReordered": True, "deleted": False, "isGenerated": False}
    return {"uuid": identifier, "name": name, "display": display, **kept, **layout}
