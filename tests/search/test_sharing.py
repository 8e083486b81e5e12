"""How the searches of a cluster share it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paretrim.search.sharing import Ledger, Wish, shared_out

WISHES = st.lists(
    st.tuples(st.integers(-2, 2), st.integers(1, 8), st.sampled_from([1.0, 2.0, 4.0])), min_size=1, max_size=6
).map(lambda found: [Wish(f"job-{at}", *each) for at, each in enumerate(found)])


@given(WISHES, st.integers(0, 20))
def test_nobody_has_more_than_wished_and_together_no_more_than_there_is(wishes: list[Wish], cpus: int) -> None:
    found = shared_out(wishes, cpus)
    assert all(0 <= found[wish.job] <= wish.trials for wish in wishes)
    assert sum(found[wish.job] * wish.cpus for wish in wishes) <= cpus


@given(WISHES, st.integers(0, 20))
def test_a_lower_priority_takes_nothing_from_a_higher_one(wishes: list[Wish], cpus: int) -> None:
    found = shared_out(wishes, cpus)
    for priority in {wish.priority for wish in wishes}:
        above = [wish for wish in wishes if wish.priority >= priority]
        assert {wish.job: found[wish.job] for wish in above} == shared_out(above, cpus)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.integers(0, 30))
def test_searches_of_the_same_priority_share_evenly(trials: list[int], cpus: int) -> None:
    wishes = [Wish(f"job-{at}", 0, most, 1.0) for at, most in enumerate(trials)]
    found = shared_out(wishes, cpus)
    # Who has less than another by more than one has all that it wished for.
    most = max(found.values())
    assert all(found[wish.job] >= most - 1 or found[wish.job] == wish.trials for wish in wishes)
    assert sum(found.values()) == min(cpus, sum(trials))


def test_a_search_that_is_not_heard_of_any_more_frees_its_part() -> None:
    now = [0.0]
    ledger = Ledger(lambda: now[0])
    assert ledger.hear(Wish("a", 0, 4, 1.0), 4.0) == 4
    assert ledger.hear(Wish("b", 0, 4, 1.0), 4.0) == 2
    assert ledger.hear(Wish("a", 0, 4, 1.0), 4.0) == 2
    now[0] = 60.0
    assert ledger.hear(Wish("a", 0, 4, 1.0), 4.0) == 4
    ledger.hear(Wish("b", 1, 4, 1.0), 4.0)
    assert ledger.hear(Wish("a", 0, 4, 1.0), 4.0) == 0
    ledger.forget("b")
    assert ledger.hear(Wish("a", 0, 4, 1.0), 4.0) == 4


def test_gpus_are_shared_too() -> None:
    high, low = Wish("high", 1, 4, 1.0, 1.0), Wish("low", 0, 4, 1.0, 1.0)
    assert shared_out([low], 64.0, 4.0) == {"low": 4}
    assert shared_out([high, low], 64.0, 4.0) == {"high": 4, "low": 0}
    thirds = Wish("thirds", 0, 9, 1.0, 1 / 3)
    assert shared_out([thirds, Wish("none", 0, 2, 1.0)], 64.0, 2.0) == {"thirds": 6, "none": 2}
