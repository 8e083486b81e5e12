"""The finalists, when nothing trains: timed again in turns with each other, and their scores compared in pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from paretrim.evaluators.accuracy import AccuracyEvaluator
from paretrim.evaluators.bootstrap import ties
from paretrim.evaluators.evaluator import Bench
from paretrim.evaluators.lane import Lane
from paretrim.evaluators.latency import latency_of, time_quietly
from paretrim.evaluators.measurement import Measurement
from paretrim.evaluators.metrics import Metric
from paretrim.evaluators.served import served
from paretrim.evaluators.splits import Split
from paretrim.search.result import Result, artifact_of, has_artifact
from paretrim.search.station import StationPlan, lay_out
from paretrim.tracking.front import contenders
from paretrim.tracking.records import TrialRecord
from paretrim.tracking.settled import Final

# A trial that was off the front may come onto it when another's latency is corrected; it is timed in the next round.
_ROUNDS = 3
# Models that are timed together are all in memory at once, twice.
_TOGETHER_BYTES = 512 << 20


def settle(result: Result, plan: StationPlan, validation: Split, say: Callable[[str], None]) -> None:
    """Time a front anew until all its points were timed together, and keep the numbers with the study.

    Args:
        result: The search, on the station's target.
        plan: The station.
        validation: The split that timed inputs are taken from.
        say: Told what the user should know.
    """
    with TemporaryDirectory(prefix="paretrim-") as folder:
        bench = lay_out(plan, validation, Path(folder), Lane())
        for _ in range(_ROUNDS):
            chosen = _finalists(result)
            known = result.finals
            if all(each.sha256 in known and not known[each.sha256].crowded for each in chosen):
                break
            found: dict[str, Final] = {}
            for group in _groups(chosen):
                found |= _time(result, group, bench)
            result.keep_finals({**known, **found})
    left = sum(final.crowded for final in result.finals.values())
    if left:
        say(
            f"{left} of the latencies on {plan.name} were disturbed by other processes and do not count; when the machine "
            f"is quieter, take them again with: paretrim resume {result.name}"
        )


def compare(result: Result, plan: StationPlan, metric: Metric, validation: Split) -> None:
    """Compare the scores of a front's points in pairs, on the same validation samples, and keep which are alike."""
    report = result.report
    if report is None:
        return
    evaluator = AccuracyEvaluator(metric, validation, plan.output_shape)
    answers: dict[str, torch.Tensor] = {}
    for row in report.front:
        if not has_artifact(result, row.trial):
            continue
        with artifact_of(result, row.trial).unpacked() as path, served(plan.address, path) as session:
            answers[row.sha256] = evaluator.answers(session)
    result.keep_alike(ties(metric, answers, evaluator.labels))


def _finalists(result: Result) -> list[TrialRecord]:
    """Return one trial for each artifact that is on the front, or would be if what was disturbed counted."""
    found = contenders(result.records, result.objectives, result.job.bounds)
    # What was deleted since cannot be timed again.
    return list({each.sha256: each for each in found if has_artifact(result, each.number)}.values())


def _groups(chosen: Sequence[TrialRecord]) -> Iterator[list[TrialRecord]]:
    group: list[TrialRecord] = []
    for each in chosen:
        group.append(each)
        if sum(record.metrics["model_bytes"] for record in group) > _TOGETHER_BYTES:
            yield group
            group = []
    if group:
        yield group


def _time(result: Result, group: Sequence[TrialRecord], bench: Bench) -> dict[str, Final]:
    with ExitStack() as stack:
        models = [stack.enter_context(artifact_of(result, each.number).unpacked()) for each in group]
        contest, _ = time_quietly((bench.baseline, *models), bench, bench.reference_ms)
    how = f"in turns with the baseline and {len(group) - 1} other finalists, when nothing trained"
    return {
        each.sha256: Final(
            latency_of(timed, bench.reference_ms), Measurement("latency_ratio", *timed.ratio, how), timed.crowded
        )
        for each, timed in zip(group, contest.models[1:], strict=True)
    }
