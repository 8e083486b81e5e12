"""What a trial under way tells comes through as it was."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from paretrim.evaluators.measurement import Measurement
from paretrim.search.candidate import Candidate
from paretrim.search.news import News
from paretrim.search.study import Asked
from paretrim.spaces.recipe import Recipe
from paretrim.tracking.records import Epoch, Preview, TrialRecord
from paretrim.tracking.savings import Savings, savings
from paretrim.tracking.testing import sample_record

NUMBERS = st.floats(allow_nan=False)
EPOCHS = st.builds(Epoch, loss=NUMBERS, score=st.none() | NUMBERS, before=st.none() | NUMBERS, inherited=st.booleans())
MEASUREMENTS = st.builds(Measurement, name=st.text(), value=NUMBERS, low=st.none() | NUMBERS, how=st.text())
PREVIEWS = st.builds(Preview, measurements=st.lists(MEASUREMENTS).map(tuple))


@given(st.builds(News, event=EPOCHS | PREVIEWS, seconds=st.dictionaries(st.text(), NUMBERS)))
def test_news_come_back_as_they_were_written(news: News) -> None:
    assert News.from_json(news.to_json()) == news


def test_a_number_that_is_none_comes_back_too() -> None:
    back = News.from_json(News(Epoch(math.nan, math.nan), {}).to_json())
    assert isinstance(back.event, Epoch)
    assert math.isnan(back.event.loss)
    assert back.event.score is not None
    assert math.isnan(back.event.score)


def candidate(epochs: int) -> Candidate:
    return Candidate(Asked(7, "search", Recipe.of({"recovery.epochs": epochs, "pruning.ratio.stem": 0.5}, 11)))


def test_a_trial_that_is_stopped_has_all_that_it_told() -> None:
    one = candidate(4)
    preview = Preview((Measurement("size_bytes", 100.0),))
    one.hear(News(preview, {"reshape": 0.5}))
    one.hear(News(Epoch(0.5, 0.75), {"reshape": 0.5, "recover": 2.0}))
    record = one.ended("stopped", "place 3 of 4")
    assert (record.number, record.kind, record.state, record.seed) == (7, "search", "stopped", 11)
    assert (record.preview, record.epochs, record.cause) == (preview, (Epoch(0.5, 0.75),), "place 3 of 4")
    assert record.seconds == {"reshape": 0.5, "recover": 2.0}
    assert record.recipe == {"recovery.epochs": 4, "pruning.ratio.stem": 0.5}
    assert TrialRecord.from_json(record.to_json()) == record


def test_a_trial_that_died_before_it_told_anything_has_its_time() -> None:
    assert candidate(4).ended("failed", "killed").seconds["total"] >= 0.0


def stopped(number: int, epochs: tuple[Epoch, ...], planned: int) -> TrialRecord:
    return TrialRecord(number, "search", "stopped", {"recovery.epochs": planned}, epochs=epochs)


def test_what_a_search_spared_itself() -> None:
    run, kept = Epoch(0.5), Epoch(0.5, inherited=True)
    complete = TrialRecord(5, "search", "complete", {"recovery.epochs": 4}, epochs=(kept, kept, run, run))
    records = [
        sample_record(0),  # with two epochs that were run
        stopped(3, (), 4),
        stopped(4, (kept, kept, run), 8),
        complete,
        sample_record(6, state="failed", recipe={"recovery.epochs": 9}),
        TrialRecord(7, "search", "stopped", {}),  # a job's own recipe may have no epochs
    ]
    assert savings(records) == Savings(
        never_trained=2,
        stopped_early=1,
        epochs_run=2 + 1 + 2 + 2,
        epochs_not_run=4 + 5 + 2 + 2,
        parents_shared=2,
    )
    assert savings([]) == Savings(0, 0, 0, 0, 0)
