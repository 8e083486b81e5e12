"""The bridge between Ray Tune and the study: Tune asks here for trials and tells here how they ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from paretrim.evaluators import child
from paretrim.search import losses
from paretrim.search.actor import NEWS, RECORD, hang_file
from paretrim.search.ahead import Ahead
from paretrim.search.candidate import Candidate
from paretrim.search.judge import Judge
from paretrim.search.longer import FINAL
from paretrim.search.monitor import Monitor
from paretrim.search.news import News
from paretrim.search.room import why_full, why_in, why_unwritten
from paretrim.search.study import Study
from paretrim.tracking.records import BASELINE, TrialRecord

_TOP_FRAMES = 12
_MOST_DEATHS = 3
# Machines come and go, and that is no fault of a trial; but one that takes each machine down with it must not go on.
_MOST_LOSSES = 10
# How long Tune's loop, in which other trials' epochs are seen, waits for the sampler.
_PATIENCE_S = 0.5


class StudySearcher(Searcher):  # type: ignore[misc]
    """Hands out trials of a study until its budget is used. It has no state of its own but what is under way.

    Args:
        study: The study.
        ahead: Gives the trials of the study.
        trials: Trials that may end in all, those of earlier runs included.
        allowed: Tells how many trials may be under way, now.
        limit_s: Time limit of a trial, for the message of one that exceeded it.
        scratch: Where processes leave notes.
        finished: Called with the record of each trial that ended.
        monitor: Shown what goes on.
        judge: Tells which trials shall stop early.
        adrift: Tells whether Ray itself died, and the trials under way with it.
        many: Whether trials run on machines that come and go, each with a disk of its own.
        last_phase: Queues those trials of the last phase that the study lacks; called when all others have ended.

    Attributes:
        closing: Set when no more trials shall be started.
        stopping: Set when those under way shall be given up too; they stay open in the study.
        fatal: Why the search cannot go on, empty while it can.
        unwritten: Why nothing can be written any more, empty while it can.
    """

    def __init__(
        self,
        study: Study,
        ahead: Ahead,
        *,
        trials: int,
        allowed: Callable[[], int],
        limit_s: float,
        scratch: Path,
        finished: Callable[[TrialRecord], None],
        monitor: Monitor,
        judge: Judge,
        adrift: Callable[[], bool] = lambda: False,
        many: bool = False,
        last_phase: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self._study = study
        self._ahead = ahead
        self._trials = trials
        self._allowed = allowed
        self._limit_s = limit_s
        self._scratch = scratch
        self._finished = finished
        self._monitor = monitor
        self._judge, self._last_phase, self._adrift = judge, last_phase, adrift
        self._many = many
        self._planned = self._enough = False
        self._under_way: dict[str, Candidate] = {}
        self._died: Counter[int] = Counter()
        self._lost: Counter[tuple[int, bool]] = Counter()
        self._why: dict[str, str] = {}
        self.stopping = False
        self.closing = False
        self.fatal = ""
        self.unwritten = ""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's config; None when all workers are busy, FINISHED when the budget is used."""
        with self.writing():
            return self._next(trial_id)
        return str(Searcher.FINISHED)

    def _next(self, trial_id: str) -> dict[str, Any] | str | None:
        self.look_round()
        while True:
            if self._used_up():
                if self._under_way:
                    return None
                if self.stopping or self.closing or not self._plan_last_phase():
                    return str(Searcher.FINISHED)
            if len(self._under_way) >= self._allowed():
                return None
            # Without a trial to go on with Tune ends the worker's process, and sleeps when no other is at work.
            asked = self._ahead.next(_PATIENCE_S if self._under_way else None)
            if asked is None:
                return None
            cause = self._study.cause_of_too_many_attempts(asked.number)
            if not cause:
                break
            self._end(Candidate(asked).ended("failed", cause))
        self._under_way[trial_id] = Candidate(asked)
        self._monitor.started(asked.number)
        return {"number": asked.number, "kind": asked.kind, "recipe": asked.recipe.to_json()}

    def left(self) -> int:
        """Return how many trials are to be started still."""
        return self._trials - self._study.ended - len(self._under_way)

    def _used_up(self) -> bool:
        return self.stopping or self.closing or self._enough or self.left() <= 0

    def _plan_last_phase(self) -> bool:
        """Queue the finalists' trials, once; tell whether there are any left to make."""
        self._ahead.recall()
        if not self._planned:
            self._last_phase()
        self._planned, self._enough = True, False
        left = self._study.left(FINAL)
        total = self._study.ended + left
        self._ahead.expect(total)
        self._monitor.more(total - self._trials)
        self._trials = total
        return left > 0

    def stop_searching(self) -> None:
        """Start no more trials but those of the last phase."""
        self._enough = not self._planned

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: what a trial tells comes by `judge` already."""

    def judge(self, trial_id: str, result: dict[str, Any]) -> str:
        """Take note of what a trial under way tells; return why it shall stop, or nothing when it goes on."""
        if NEWS not in result:
            return ""
        candidate = self._under_way[trial_id]
        candidate.hear(News.from_json(result[NEWS]))
        if candidate.epochs:
            self._monitor.trained(candidate.asked.number)
        candidate.verdict = self._judge.verdict(candidate, self._study.records())
        return candidate.verdict

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Write how a trial ended."""
        candidate = self._under_way.pop(trial_id)
        why = self._why.pop(trial_id, "")
        self.look_round()
        with self.writing():
            if result is not None and RECORD in result:
                record = TrialRecord.from_json(result[RECORD])
                self._settle(record, killed=record.state == "failed" and child.killed(record.cause))
            elif self.stopping:
                self._study.release(candidate.asked.number)
            elif candidate.verdict and not error:
                self._end(candidate.ended("stopped", candidate.verdict))
            else:
                self._bury(candidate, why)

    def look_round(self) -> None:
        """Stop when Ray died."""
        self.stopping = self.stopping or self._adrift()

    def give_back(self) -> None:
        """Give back to the study what is still under way."""
        while self._under_way:
            self._study.release(self._under_way.popitem()[1].asked.number)

    def failed(self, trial_id: str, why: str) -> None:
        """Take note of why a trial's process is gone; that it is Tune tells next.

        Args:
            trial_id: Tune's name of the trial.
            why: What Ray says.
        """
        self._why[trial_id] = why

    def _bury(self, candidate: Candidate, why: str) -> None:
        """Write how a trial ended that could not tell."""
        ended = candidate.ended("failed", why)
        if losses.machine_lost(why) and self._again(ended, "the machine that it ran on was lost"):
            return
        if losses.unfit(why) and self._again(
            ended, f"a machine could not begin it: {losses.last_line(why)}", last=True
        ):
            return
        late = self._where_it_hung(candidate.asked.number)
        cause = late or losses.cause(why)
        self._settle(candidate.ended("failed", cause), killed=not late and not losses.never_began(why))

    def _again(self, record: TrialRecord, why: str, *, last: bool = False) -> bool:
        """Give a trial back for what is its machine's fault; return whether that was done."""
        place = record.number, last
        if not self._many or self._lost[place] >= _MOST_LOSSES:
            return False
        self._lost[place] += 1
        self._judge.ended(record)
        # A machine that is unfit is free again, and would only be given the same trial.
        self._study.release(record.number, last=last)
        self._monitor.say(f"made again: trial {record.number}, since {why}")
        return True

    def _settle(self, record: TrialRecord, *, killed: bool = False) -> None:
        """Write how a trial ended; but a disk that is full is no fault of a trial, and what was killed is made again."""
        here = "" if record.state != "failed" else why_full(self._scratch)
        why = "" if record.state != "failed" else why_in(record.cause) or here
        if why and self._many and not here:
            # The store has room: it is the machine's own disk.
            if not self._again(record, f"its machine has no room: {losses.last_line(record.cause)}", last=True):
                self._end(record)
        elif why:
            self._study.release(record.number)
            self._halt(why)
        elif killed and self._has_another_try(record):
            self._died[record.number] += 1
            self._judge.ended(record)
            self._study.put_back(record.number)
            self._monitor.say(
                f"trial {record.number} is made again, since its process or one that measured it was killed"
            )
        else:
            self._end(record)

    def _has_another_try(self, record: TrialRecord) -> bool:
        # Want of memory, which kills too, may be the trial's own fault. Without a baseline there is no search.
        return self._died[record.number] < (_MOST_DEATHS if record.kind == BASELINE else 1)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Stop the search in order where the study cannot be written."""
        try:
            yield
        except Exception as error:
            # What stumbles over a file that was cut short does not say so.
            why = why_unwritten(error) or self.unwritten or why_full(self._scratch)
            if not why:
                raise
            self._halt(why)

    def _halt(self, why: str) -> None:
        self.unwritten, self.stopping = self.unwritten or why, True

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its searcher into snapshots, which nothing here ever reads: the study is the only state.
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the study is the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the study is the only state."""

    def _end(self, record: TrialRecord) -> None:
        if record.kind == BASELINE and not record.complete:
            # Nothing can be compared without it. It stays open in the study, so that `resume` tries it again.
            self.fatal, self.closing = record.cause, True
            return
        self._study.tell(record)
        self._judge.ended(record)
        self._finished(record)
        self._monitor.finished(record)

    def _where_it_hung(self, number: int) -> str:
        note = hang_file(self._scratch, number)
        stack = note.read_text(errors="replace").strip() if note.exists() else ""
        if not stack:
            return ""
        where = "\n".join(_trials_thread(stack).splitlines()[:_TOP_FRAMES])
        return f"took longer than {self._limit_s / 60:.3g} minutes and was stopped; it was here:\n{where}"


def _trials_thread(stack: str) -> str:
    """Return the part of a dump of all threads that belongs to the trial rather than to Ray."""
    threads = stack.split("\n\n")
    return next((thread for thread in threads if "actor.py" in thread and " in step" in thread), threads[-1])
