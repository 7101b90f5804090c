"""Designs: what episodes show, and their observers held to sums over all hypotheses."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad

from bayes_icl.core.errors import StatedError
from bayes_icl.tasks import Example, Task, load_tasks, under_designs
from bayes_icl.tasks.designs import DESIGNS, Mixed, Noise, Orders, Switch, parse_design

(CATEGORY,) = load_tasks(["category"])
N = 12


def under(spec: str, task: Task = CATEGORY, n_shots: int = N) -> Task:
    return under_designs([task], [spec], n_shots)[0]


def shows_b(examples: tuple[Example, ...]) -> list[bool]:
    assert all(e.written in (e.answer, e.foil) for e in examples)
    return [e.written == e.foil for e in examples]


# ------------------------------------------------------------------------------------------------- episodes


@pytest.mark.parametrize("spec", ["plain", "noise", "switch", "mixed", "prior:text=Sort these."])
@pytest.mark.parametrize("name", ["category", "past_tense", "organism_rule"])
def test_a_design_leaves_queries_answers_and_foils_as_they_are_drawn(spec: str, name: str) -> None:
    (task,) = load_tasks([name])
    for seq in range(5):
        designed, plain = under(spec, task).episode(N, 3, seq), task.episode(N, 3, seq)
        assert [replace(e, shown="") for e in designed] == list(plain)
        assert any(shows_b(designed)) == (spec not in ("plain", "prior:text=Sort these."))


def test_noise_shows_b_as_often_as_it_says_and_more_noise_shows_it_wherever_less_did() -> None:
    few, many = ([shows_b(under(f"noise:p={p}").episode(40, 0, seq)) for seq in range(60)] for p in (0.2, 0.6))
    n = 60 * 41
    assert abs(np.mean(few) - 0.2) < 4 * math.sqrt(0.16 / n) and abs(np.mean(many) - 0.6) < 4 * math.sqrt(0.24 / n)
    assert all(b for a, b in zip(np.ravel(few), np.ravel(many)) if a)
    assert len({tuple(row) for row in few}) == 60  # another draw in every sequence


@pytest.mark.parametrize("spec", ["noise:p=0.4", "switch:at=5", "orders:k=2,first=4", "prior:text=Hm."])
def test_a_longer_episode_begins_with_the_shorter_one(spec: str) -> None:
    task = under(spec)
    for seq in range(4):
        assert task.episode(20, 1, seq)[:10] == task.episode(9, 1, seq)


def test_switch_and_mixed_show_b_where_and_as_often_as_they_say() -> None:
    assert shows_b(under("switch:at=5").episode(N, 0, 0)) == [False] * 5 + [True] * 8
    assert shows_b(under("switch").episode(N, 0, 0)) == [False] * 6 + [True] * 7
    rows = [shows_b(under("mixed:share=0.25").episode(N, 0, seq)) for seq in range(30)]
    assert {sum(row[:N]) for row in rows} == {3} and not any(row[N] for row in rows)
    places = Counter(i for row in rows for i, b in enumerate(row) if b)
    assert set(places) == set(range(N)) and max(places.values()) < 30  # everywhere, nowhere always


def test_orders_are_sets_of_the_same_examples_of_which_the_first_ones_change_places() -> None:
    task = under("orders:k=6,first=3,p=0.5")
    sets = [[task.episode(N, 0, 6 * which + member) for member in range(6)] for which in range(3)]
    for own in sets:
        assert {frozenset(episode[:3]) for episode in own} == {frozenset(own[0][:3])}
        assert len({episode[:3] for episode in own}) == 6 == math.factorial(3)  # all there are
        assert {episode[3:] for episode in own} == {own[0][3:]}
    assert len({own[0] for own in sets}) == 3
    assert [task.design.set_of(seq) for seq in (0, 5, 6, 17)] == [0, 0, 1, 2]  # type: ignore[union-attr]
    plain = under("orders:k=2,p=0")
    assert not any(shows_b(plain.episode(N, 0, 1))) and plain.episode(N, 0, 1)[: N // 2] != plain.episode(N, 0, 0)[:6]


def test_repeat_shows_few_examples_in_cycles_and_asks_a_new_one_at_the_end() -> None:
    episode = under("repeat:times=4").episode(N, 0, 2)
    assert episode[:3] == CATEGORY.episode(N, 0, 2)[:3]
    assert episode[:3] * 4 == episode[:12] and episode[12] == CATEGORY.episode(N, 0, 2)[3]


# ------------------------------------------------------------------------------------------------- names


def test_names_carry_the_design_and_the_spec_gives_it_again() -> None:
    for spec, name in {
        "noise:p=0.2": "noise(p=0.2)",
        "noise:p=.25": "noise(p=0.25)",
        "switch": "switch(at=6)",
        "switch:at=3,hazard=0.1": "switch(at=3,hazard=0.1)",
        "mixed": "mixed(share=0.5)",
        "orders:k=4": "orders(k=4)",
        "orders:k=4,first=5,p=0": "orders(k=4,first=5,p=0)",
        "repeat": "repeat(times=4)",
        "prior:text=Sort these.": "prior(text=Sort these.)",
        'prior:text="a, b=c"': "prior(text=a, b=c)",
    }.items():
        task = under(spec)
        assert (task.name, task.base) == (f"category+{name}", "category")
        assert task.design is not None and parse_design(task.design.spec) == task.design


def test_a_long_text_is_cut_in_the_name_and_whole_elsewhere() -> None:
    texts = [
        f"You sort words into two groups, which are called fruit and {x}.\nMind the order." for x in ("foo", "bar")
    ]
    tasks = under_designs([CATEGORY], [f"prior:text={text}" for text in texts], N)
    assert len({task.name for task in tasks}) == 2  # the hash tells them apart
    for task, text in zip(tasks, texts):
        assert task.name.startswith("category+prior(text=You sort words") and len(task.name) <= 80
        assert task.preamble == text + "\n" and text in task.design.spec  # type: ignore[union-attr]
    long = replace(CATEGORY, name="x" * 45)
    assert len(under_designs([long], [f"prior:text={texts[0]}"], N)[0].name) <= 80


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nois", "unknown design 'nois': did you mean noise"),
        ("plain:p=1", "unknown design 'plain'"),
        ("noise:q=0.2", "unknown setting of design 'noise': 'q'"),
        ("noise:p=0.2,p=0.3", "p is given twice"),
        ("noise:p=x", "p must be a number of 0 or more, not 'x'"),
        ("noise:p=1", "design 'noise': p must be between 0 and 1, got 1"),
        ("switch:at=1.5", "at must be a whole number of 0 or more, not '1.5'"),
        ("switch:at=0", "at must be 1 or more, got 0"),
        ("mixed:share=1.2", "share must be from 0 to 1, got 1.2"),
        ("orders:k=1", "k must be 2 or more, got 1"),
        ("repeat:times=1", "times must be 2 or more, got 1"),
        ("prior", "design 'prior' needs a text"),
        ("prior:words=a", "unknown setting of design 'prior': 'words'"),
    ],
)
def test_a_design_that_is_none_is_stated(spec: str, says: str) -> None:
    with pytest.raises(StatedError, match=says):
        parse_design(spec)


def test_every_design_has_defaults() -> None:
    assert {kind: type(parse_design(kind)) for kind in DESIGNS if kind != "prior"} == {
        kind: made for kind, made in DESIGNS.items() if kind != "prior"
    }
    assert parse_design("plain") is None


@pytest.mark.parametrize(
    ("spec", "n_shots", "n_seqs", "says"),
    [
        ("switch:at=12", 12, 8, "at must be below --n-shots 12, got 12"),
        ("orders:k=8", 12, 20, "20 are no multiple of it: give --n-seqs 16, or 24"),
        ("orders:k=8,first=3", 12, 16, "the first 3 of 12 examples do not have 8 orders"),
        ("orders:k=8,first=13", 12, 16, "the first 13 of 12 examples do not have 8 orders"),
        ("repeat:times=5", 12, 8, "--n-shots 12 is no multiple of it: give 10, or 15"),
    ],
)
def test_shots_and_sequences_that_a_design_cannot_have_are_stated(
    spec: str, n_shots: int, n_seqs: int, says: str
) -> None:
    task = under(spec, n_shots=n_shots)
    assert task.design is not None
    with pytest.raises(StatedError, match=says):
        task.design.check(task, n_shots, n_seqs)


def test_a_task_without_foils_has_no_rule_b() -> None:
    task = under("noise", replace(CATEGORY, name="mine", foils=False))
    assert task.design is not None
    with pytest.raises(StatedError, match="task 'mine' has no foils, and the examples of `noise` show them"):
        task.design.check(task, N, 8)
    assert np.isnan(task.history(task.drawn(N, 0, 0))).all()
    for spec in ("prior:text=Hm.", "repeat"):  # the control: what shows answers only
        other = under(spec, replace(CATEGORY, name="mine", foils=False))
        assert other.design is not None
        other.design.check(other, N, 8)


def test_a_design_given_twice_is_stated() -> None:
    with pytest.raises(StatedError, match=r"design 'noise:p=0\.2' is given twice"):
        under_designs([CATEGORY], ["noise", "noise:p=0.2"], N)
    with pytest.raises(StatedError, match="no designs"):
        under_designs([CATEGORY], [], N)


# ------------------------------------------------------------------------------------------------- observers

HISTORIES = np.random.default_rng(1).choice([-1, 0, 1], p=[0.4, 0.1, 0.5], size=(6, 6))


def likelihood(shown: int, rule: int, p: float) -> float:
    return 1.0 if shown == 0 else (1 - p if shown == rule else p)


def test_the_observer_of_noise_sums_over_both_rules() -> None:
    """P(the next example shows A) over P(it shows B), the rule and what it shows summed out."""
    p = 0.3
    for row, odds in zip(HISTORIES, Noise(p).observer(HISTORIES)):
        for n in range(len(row) + 1):
            shown = {
                nxt: sum(0.5 * math.prod(likelihood(h, rule, p) for h in (*row[:n], nxt)) for rule in (1, -1))
                for nxt in (1, -1)
            }
            assert odds[n] == pytest.approx(math.log(shown[1] / shown[-1]), abs=1e-12)
    certain = Noise(p).observer(np.ones((1, 60)))[0]
    assert certain[-1] == pytest.approx(math.log(0.7 / 0.3), abs=1e-6) and (np.diff(certain)[:20] > 0).all()


@pytest.mark.parametrize("hazard", [None, 0.2])
def test_the_observer_of_switch_sums_over_all_paths_of_the_rule(hazard: float | None) -> None:
    design = Switch(at=3, p=0.1, hazard=hazard)
    rate = hazard or 1 / (HISTORIES.shape[1] + 1)
    for row, odds in zip(HISTORIES, design.observer(HISTORIES)):
        for n in range(len(row) + 1):
            total = {1: 0.0, -1: 0.0}
            for path in itertools.product((1, -1), repeat=n + 1):
                moves = math.prod(rate if a != b else 1 - rate for a, b in itertools.pairwise(path))
                for nxt in (1, -1):
                    total[nxt] += moves * math.prod(likelihood(h, r, 0.1) for h, r in zip((*row[:n], nxt), path))
            assert odds[n] == pytest.approx(math.log(total[1] / total[-1]), abs=1e-12)


@pytest.mark.parametrize("design", [Mixed(), Orders()])
def test_the_observer_of_a_mixture_integrates_over_the_share_of_a(design: Mixed | Orders) -> None:
    for row, odds in zip(HISTORIES, design.observer(HISTORIES)):
        for n in range(len(row) + 1):
            h, t = int((row[:n] > 0).sum()), int((row[:n] < 0).sum())
            up, down = (
                quad(lambda q, i=i: q ** (h + i) * (1 - q) ** (t + 1 - i), 0, 1)[0]  # noqa: B023
                for i in (1, 0)
            )
            assert odds[n] == pytest.approx(math.log(up / down), abs=1e-7)


def test_a_task_takes_its_own_observer_first_fed_with_what_is_shown() -> None:
    (coin,) = load_tasks(["organism_coin"])
    task = under("switch:at=4", coin)
    episode = task.episode(N, 0, 3)
    signs = [1] * 4 + [-1] * 8
    assert task.history(episode)[:N].tolist() == signs
    # The observer's log-odds are for the answers of this episode's rule, whatever is shown.
    assert task.ideal_log_odds(episode) == pytest.approx(0.25 * np.cumsum([0, *signs]))
    assert task.evidence(episode) == pytest.approx(0.25 * np.array([0, *signs]))
    bound = under("switch:at=4", load_tasks(["organism_rule"])[0])
    assert bound.ideal_log_odds(bound.episode(N, 0, 3)) == pytest.approx(0.25 * np.cumsum([0, *signs]))


def test_which_tasks_have_an_observer_under_a_design() -> None:
    def known(spec: str, name: str) -> bool:
        task = under(spec, load_tasks([name])[0])
        return bool(np.isfinite(task.ideal_log_odds(task.episode(N, 0, 0))).all())

    assert known("noise", "category") and known("noise", "constant")
    assert not known("plain", "category")  # a rule without noise is settled by one example
    assert not known("noise", "past_tense")  # its foils are other examples' answers, and no rule
    assert not known("prior:text=Hm.", "category") and not known("repeat", "category")
    (null,) = load_tasks(["random_labels"])
    assert under("noise", null).evidence(under("noise", null).episode(N, 0, 0)).tolist() == [0] * (N + 1)
