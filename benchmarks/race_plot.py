"""The hypervolume of a race's searches, drawn over training seconds and over trials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from benchmarks.race import OURS, Run
from paretrim.tracking.progress import Step

# Colours that the colour-blind tell apart (Okabe and Ito), and lines that differ in black and white.
_STYLES = {
    OURS: ("#000000", "-"),
    "random": ("#999999", ":"),
    "tpe": ("#0072b2", "--"),
    "nsga2": ("#009e73", "-."),
    "gp": ("#d55e00", (0, (5, 1))),
    "moasha": ("#cc79a7", (0, (1, 1))),
}
_POINTS = 200


def at(steps: Sequence[Step], seconds: float) -> float:
    """Return the hypervolume that a search had reached after some seconds of training."""
    return max((step.hypervolume for step in steps if step.training_seconds <= seconds), default=0.0)


def draw(runs: Sequence[Run], file: Path) -> None:
    """Draw the mean of each method's searches, with the span from the worst seed to the best."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (by_time, by_trial) = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for method in dict.fromkeys(run.method for run in runs):
        mine = [run.steps for run in runs if run.method == method]
        colour, dashes = _STYLES[method]
        longest = max(steps[-1].training_seconds for steps in mine)
        moments = [longest * i / _POINTS for i in range(_POINTS + 1)]
        counts = list(range(max(len(steps) for steps in mine)))
        for axes, xs, curves in (
            (by_time, moments, [[at(steps, x) for x in moments] for steps in mine]),
            (by_trial, counts, [[steps[min(x, len(steps) - 1)].hypervolume for x in counts] for steps in mine]),
        ):
            columns = list(zip(*curves, strict=True))
            axes.fill_between(xs, [min(c) for c in columns], [max(c) for c in columns], color=colour, alpha=0.08, lw=0)
            axes.plot(xs, [mean(c) for c in columns], color=colour, linestyle=dashes, label=method)
    by_time.set(xlabel="training (processor seconds)", ylabel="hypervolume")
    by_trial.set(xlabel="trials")
    low = min(min(step.hypervolume for step in run.steps[3:]) for run in runs)
    by_time.set_ylim(bottom=max(0.0, low - 0.02))
    for axes in (by_time, by_trial):
        axes.grid(alpha=0.3)
    by_trial.legend(loc="lower right")
    figure.savefig(file, dpi=150)
    plt.close(figure)
