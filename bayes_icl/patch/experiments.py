"""The experiments of `patch` on one task, stage by stage; the rows of its tables as they come."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.errors import StatedError
from bayes_icl.core.files import read_table
from bayes_icl.core.intervals import flat, t_interval
from bayes_icl.curves import readouts_of
from bayes_icl.mechanism.ablation_values import REFERENCE_KINDS, AblationValues, places_ablated
from bayes_icl.mechanism.direct_effects import attribute_task
from bayes_icl.mechanism.episodes import Episode, token_text
from bayes_icl.mechanism.head_names import Heads, by_layer, heads_named, name_of
from bayes_icl.mechanism.placebos import placebo_sets
from bayes_icl.mechanism.redundancy import SingleAblations, ablate_sets, counts_ablated, half_gone, name_backups, orders
from bayes_icl.mechanism.rounds import backup_rows, carried, describe, has_rule, norms_taken, singles_of
from bayes_icl.mechanism.steps import (
    KNOCKOUTS,
    OTHER_QUERY,
    ablate_mlps,
    answers_of,
    attending,
    attention_by_role,
    form_of,
    induction_scores,
    shut_ways,
)
from bayes_icl.mechanism.thresholds import LEFT_LEAST
from bayes_icl.mechanism.transfer import Pair, pairs_of, permuted
from bayes_icl.models.model import Model
from bayes_icl.patch.outputs import DESCRIBED, PATCH_TABLES
from bayes_icl.patch.settings import PatchSettings
from bayes_icl.patch.steps import STEPS, experiment_row, judge

SETS_OF_FEW = 20  # placebo sets for the heads of steps 1 and 3

PAIRS_LEAST = 4

MOST_IN_STEP = 8  # heads that steps 1 and 3 ablate


class OneTask:
    """The experiments on one task, each a stage whose numbers are kept; rows of the tables as they come."""

    def __init__(
        self,
        model: Model,
        curves: xr.Dataset,
        task: str,
        settings: PatchSettings,
        parts: Checkpoint | None,
        progress: bool,
    ) -> None:
        self.model, self.curves, self.task, self.settings = model, curves, task, settings
        self.anatomy = model.anatomy
        self._parts, self._progress = parts, progress
        pairs = pairs_of(
            model, curves, task, n_examples=settings.n_examples, token=settings.token,
            position=settings.position, seed=settings.seed,
        )  # fmt: skip
        self.token = pairs[0].a.token or 0
        self.pairs: list[Pair] = pairs[: settings.n_seqs or None]
        self.chosen: Heads = heads_named(
            settings.ablate, self.anatomy.n_layers, self.anatomy.n_heads, _ranks(settings, task), settings.rank_by
        )
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in PATCH_TABLES}
        self.facts: dict[str, Any] = {}
        self.dataset: xr.Dataset

    def run(self) -> None:
        """All stages."""
        settings = self.settings
        runs = [pair.a for pair in self.pairs]
        if not all(places_ablated(run, settings.ablate_at).any() for run in runs):
            raise StatedError(f"--ablate-at {settings.ablate_at}: the prompts of {self.task!r} have no such token")
        shuffled = [permuted(run, settings.n_examples, settings.seed) for run in runs]
        references = shuffled if settings.reference == "shuffled" else runs[1:] + runs[:1]
        self.stand_ins: AblationValues = AblationValues(self.anatomy, runs, references)
        self.other_kind = "resample" if settings.kind != "resample" else "mean"
        kinds = (settings.kind, self.other_kind)
        places = {
            "rounds": lambda run: places_ablated(run, settings.ablate_at),
            "answers": answers_of,
            "last": self._last,
        }
        self.norms: dict[str, np.ndarray] = self._stage(
            "norms", lambda step: norms_taken(self.anatomy, self.pairs, self.stand_ins, kinds, places, step)
        )
        self.clean = self._carried("round 0", [], settings.kind)
        without_rule = [pair._replace(a=run) for pair, run in zip(self.pairs, shuffled)]
        self.no_rule = self._stage(
            "round 0, no rule",
            lambda step: carried(
                self.anatomy, without_rule, [], None, settings.kind, position=settings.position, on_pair=step
            ),
        )  # fmt: skip
        self.rule = self.clean["a"] - self.no_rule["a"]
        self.taught = has_rule(self.rule)
        self.alone = self._singles("alone", settings.kind, [])
        self.alone_other = self._singles(f"alone {self.other_kind}", self.other_kind, [])
        numbers = {"gain": self.clean["a"] - self.clean["b"], "rule": self.rule, "no_rule": self.no_rule["a"]}
        self.facts |= {
            "n_examples": settings.n_examples,
            "n_pairs": len(self.pairs),
            "token": self.token,
            "token_text": token_text(self.model, runs),
            "position": settings.position,
            "kind": settings.kind,
            "other_kind": self.other_kind,
            "kinds": list(REFERENCE_KINDS),
            "reference": settings.reference,
            "taught": self.taught,
            "singles_everywhere": settings.singles_everywhere,
            "rule_measured": float(self.rule[1::2].mean()),
        }
        for name, x in numbers.items():
            self.facts[name] = dict(zip(("mean", "low", "high"), map(float, t_interval(x))))
        self._rounds()
        self._redundancy()
        roles = self._steps() if settings.steps else {}
        self._heads(roles)
        self._effects()

    def _stage(self, name: str, compute: Any, n: int | None = None) -> dict[str, np.ndarray]:
        """Compute a stage with a progress bar of `n` steps (pairs, if None), or take it from an unfinished run."""

        def run() -> dict[str, np.ndarray]:
            total = len(self.pairs) if n is None else n
            with tqdm(total=total, unit="pair", disable=not self._progress or n == 1, dynamic_ncols=True) as bar:
                bar.set_description(f"{self.task}: {name}")
                return compute(bar.update)

        return self._parts.arrays(f"{name}/{self.task}", run) if self._parts else run()

    def _each(
        self, name: str, one: Callable[[Pair], Mapping[str, Any]], pairs: Sequence[Pair] | None = None
    ) -> dict[str, np.ndarray]:
        """A stage: what `one` finds of each pair, stacked by name."""
        pairs = self.pairs if pairs is None else pairs

        def compute(step: Any) -> dict[str, np.ndarray]:
            found = []
            for pair in pairs:
                found.append(one(pair))
                step()
            shared = set.intersection(*(set(x) for x in found))  # a readout that some answers do not have
            return {key: np.stack([x[key] for x in found]) for key in found[0] if key in shared}

        return self._stage(name, compute, len(pairs))

    def _carried(self, name: str, heads: Heads, kind: str) -> dict[str, np.ndarray]:
        return self._stage(
            name,
            lambda step: carried(
                self.anatomy, self.pairs, heads, self.stand_ins, kind,
                where=self.settings.ablate_at, position=self.settings.position, on_pair=step,
            ),
        )  # fmt: skip

    def _singles(self, name: str, kind: str, gone: Heads, heads: Heads | None = None) -> SingleAblations:
        found = self._stage(
            name,
            lambda step: singles_of(
                self.anatomy, self.pairs, self.stand_ins, kind, gone, where=self.settings.ablate_at, heads=heads,
                everywhere=self.settings.singles_everywhere, on_pair=step,
            )._asdict(),
        )  # fmt: skip
        return SingleAblations(**found)

    def _rounds(self) -> None:
        """The post's sequence."""
        settings = self.settings
        self.round_of: dict[tuple[int, int], int] = {}
        self.transfers: dict[str, dict[str, np.ndarray]] = {"no rule": self.no_rule}
        gone: list[tuple[int, int]] = []
        sought: list[int] = []
        ended = f"{settings.rounds} rounds were asked for"
        for number in itertools.count():
            rows: dict[str, dict[str, float]] = {}
            for kind in REFERENCE_KINDS:
                name = f"round {number}, {kind}"
                found = self._carried(name, gone, kind) if number else self.clean
                self.transfers[name] = found
                rows[kind] = describe(found, self.clean, self.no_rule, settings.seed)
                self._add_round(number, kind, "ablated", gone, found, rows[kind])
            if not number:
                self._add_transfer({"task": self.task, "round": 0, "kind": "", "set": "no rule"}, self.no_rule)
            if number and settings.placebos and self._room(gone):
                norms = self.norms[f"{settings.kind} rounds"]
                for i, placebo in enumerate(placebo_sets(norms, gone, settings.placebos, settings.seed), 1):
                    found = self._carried(f"round {number}, placebo {i}", placebo, settings.kind)
                    row = describe(found, self.clean, self.no_rule, settings.seed)
                    self._add_round(number, settings.kind, f"placebo {i}", placebo, found, row)
            own = rows[settings.kind]
            point = own["transfer_layer"]
            if number == 0:
                self.point = None if np.isnan(point) else int(point)
            if number >= settings.rounds:
                break
            if not self.taught:
                ended = "the examples teach no rule"
                break
            left = own["rule"] / self.rule.mean()
            found = self.transfers[f"round {number}, {settings.kind}"]
            if number and not has_rule(found["a"] - self.no_rule["a"]):
                ended = f"A has {own['rule']:.2f} nats of the rule left: too little to carry"
                break
            if number and not left >= LEFT_LEAST:
                ended = f"{left:.0%} of what the rule adds is left: too little to tell whether heads take over"
                break
            if np.isnan(point) and not (number == 0 and self.chosen):
                ended = f"no point carries the task{' any more' if number else ''}, though A has {left:.0%} of the rule"
                break
            if number == 0:
                layers = range(max(int(point) - settings.before, 0), int(point)) if not self.chosen else ()
                new = self.chosen or [(layer, head) for layer in layers for head in range(self.anatomy.n_heads)]
                if not new:
                    ended = "the task comes across from the embedding on: there is no layer before it"
                    break
            else:
                sought.append(number)
                new = self._backups(number, gone)
                if not new:
                    ended = "no head could be named that takes over"
                    break
            for head in new:
                self.round_of.setdefault((head[0], head[1]), number + 1)
            gone = [*gone, *(head for head in new if head not in gone)]
        self.facts |= {"ended": ended, "ablated": [name_of(head) for head in gone], "transfer_point": self.point}
        self.facts["backups_sought"] = sought  # rounds

    def _backups(self, number: int, gone: Heads) -> list[tuple[int, int]]:
        """Heads that take over from those that are gone, beside placebo sets and by another kind of ablation."""
        settings = self.settings
        after = self._singles(f"round {number}, alone", settings.kind, gone)
        named = name_backups(self.alone.lost, after.lost, self.rule, settings.backups)
        if not named:
            return []
        heads = [one.head for one in named]
        placebo = None
        if settings.placebos and 2 * len(gone) + len(heads) <= self.alone.lost[0].size:
            norms = self.norms[f"{settings.kind} rounds"]
            sets = placebo_sets(norms, gone, settings.placebos, settings.seed, besides=heads)
            beside = [
                self._singles(f"round {number}, alone, placebo {i}", settings.kind, one, heads)
                for i, one in enumerate(sets, 1)
            ]
            placebo = SingleAblations(*(np.mean(parts, axis=0) for parts in zip(*beside)))
        others = (
            self.alone_other,
            self._singles(f"round {number}, alone, {self.other_kind}", self.other_kind, gone, heads),
        )
        rows = backup_rows(named, self.alone, after, placebo, others, gone)
        self.rows["backups"] += [{"task": self.task, "round": number, **row} for row in rows]
        return [one.head for one, row in zip(named, rows) if row["backup"]]

    def _room(self, heads: Heads) -> bool:
        """Whether there are as many other heads."""
        return 2 * len(heads) <= self.anatomy.n_layers * self.anatomy.n_heads

    def _add_round(
        self,
        number: int,
        kind: str,
        name: str,
        heads: Heads,
        found: dict[str, np.ndarray],
        row: dict[str, float],
    ) -> None:
        about = {"task": self.task, "round": number, "kind": kind, "set": name}
        words = _layers_text(heads, self.anatomy.n_heads)
        names = " ".join(map(name_of, heads))
        self.rows["rounds"].append({**about, "n_heads": len(heads), "heads": names, "layers_text": words, **row})
        self._add_transfer(about, found)

    def _add_transfer(self, about: dict[str, Any], found: dict[str, np.ndarray]) -> None:
        three = {key: t_interval(found[key]) for key in ("own", "other")}
        firsts = {key: found[key].mean(0) for key in ("own_first", "other_first")}
        for point in range(found["own"].shape[1]):
            numbers = flat({key: [x[point] for x in t] for key, t in three.items()})
            numbers |= {key: float(x[point]) for key, x in firsts.items()}
            self.rows["transfer"].append({**about, "point": point, **numbers})

    def _redundancy(self) -> None:
        """How many heads can go."""
        settings = self.settings
        n_heads = self.anatomy.n_layers * self.anatomy.n_heads
        counts = counts_ablated(n_heads)
        in_turn = orders(self.alone.lost, settings.placebos, settings.seed)
        sets = [order[:n] for order in in_turn.values() for n in counts]

        def ablated(pair: Pair) -> dict[str, np.ndarray]:
            z = self.stand_ins.of(pair.a.seq, settings.kind)[0]
            return {"left": ablate_sets(self.anatomy, pair.a, z, sets).reshape(len(in_turn), len(counts))}

        curves = self._each("heads gone", ablated, self.pairs[1::2])["left"]
        full, without = self.clean["a"][1::2], self.no_rule["a"][1::2]
        for i, name in enumerate(in_turn):
            for count, x in zip([0, *counts], [full, *curves[:, i].T]):
                about = {"task": self.task, "order": name, "n_heads": count, "share": count / n_heads}
                self.rows["redundancy"].append(about | flat({"log_odds": t_interval(x)}))
        kinds = {"best first": curves[:, 0]}
        if settings.placebos:
            kinds["random"] = curves[:, 1:].mean(1)
        for name, x in kinds.items():
            gone = half_gone(x, counts, without, full, seed=settings.seed) if self.taught else (np.nan,) * 3
            row = flat({"share": [k / n_heads for k in gone]})
            left = float(x[:, -1].mean())
            self.rows["halves"].append(
                {"task": self.task, "order": name, **row, "n_heads_all": n_heads, "left_without_heads": left}
            )

    def _steps(self) -> dict[str, np.ndarray]:
        """The post's three steps; gives attention by role, shape (pair, layer, head)."""
        settings, rows = self.settings, []

        masses = self._each("attention by role", lambda pair: attention_by_role(self.anatomy, pair.a))
        words = {"answers": "answers", "last": "last position"}

        closed = self._each("ways shut", lambda pair: shut_ways(self.anatomy, pair.a))
        lost = {name: closed["clean"] - closed[name] for name in KNOCKOUTS}
        controls = {"bring": ["bring_other"], "to_answers": ["to_before", "to_queries"]}
        for name, about in KNOCKOUTS.items():
            beside = [lost[other] for other in controls.get(name, ())]
            rows.append(experiment_row(lost[name], self.rule, beside, **about._asdict(), kind="attention shut"))

        # Where answers are permuted, queries are not: a head that brings an answer its query hands on the same.
        runs = [pair.a for pair in self.pairs]
        twins = [permuted(run, settings.n_examples, settings.seed, queries=True) for run in runs]
        self.other_queries = AblationValues(self.anatomy, runs, twins)
        at_answers = {"answers": answers_of}
        norms_ = self._stage(
            "norms, other queries",
            lambda step: norms_taken(self.anatomy, self.pairs, self.other_queries, ("resample",), at_answers, step),
        )
        own = {kind: (self.stand_ins, kind, self.norms) for kind in (settings.kind, self.other_kind)}
        mean = {"mean": own["mean"]} if settings.kind == "resample" else {settings.kind: own[settings.kind]}
        ways = {1: mean | {OTHER_QUERY: (self.other_queries, "resample", norms_)}, 3: own}
        acting: dict[int, Heads] = {}
        for number, role, place in ((1, "bring", "answers"), (3, "to_answers", "last")):
            heads = acting[number] = attending(masses, role, MOST_IN_STEP)
            self.facts[f"heads_of_step_{number}"] = [name_of(head) for head in heads]
            if not heads:
                continue
            for kind, (stand_ins, by, norms) in ways[number].items():
                size = norms[f"{by} {place}"]
                placebos = placebo_sets(size, heads, SETS_OF_FEW, settings.seed) if self._room(heads) else []
                sets = [heads, *placebos]

                place_of = answers_of if number == 1 else self._last
                one = partial(self._without, stand_ins=stand_ins, kind=by, sets=sets, place_of=place_of)
                left = self._each(f"heads of step {number}, {kind}", one, self.pairs[1::2])["left"]
                gone = self.clean["a"][1::2, None] - left
                rows.append(
                    experiment_row(
                        gone[:, 0], self.rule[1::2], list(gone[:, 1:].T),
                        step=number, what=f"{len(heads)} heads that attend so, at the {words[place]}", decides="heads",
                        kind=kind, heads=" ".join(map(name_of, heads)),
                    )
                )  # fmt: skip
        rows += self._mlps(acting)
        # Where the rule adds nothing, shares of it mean nothing.
        nothing = dict.fromkeys(
            [f"{name}{end}" for name in ("share", "beyond") for end in ("", "_low", "_high")], np.nan
        )
        rows = [row if self.taught else row | nothing for row in rows]
        table = pd.DataFrame(rows)
        verdicts = judge(table) if self.taught else dict.fromkeys(STEPS, "nothing to explain")
        self.rows["steps"] += [{"task": self.task, "verdict": verdicts[row["step"]], **row} for row in rows]
        self.facts["steps"] = {str(step): verdict for step, verdict in verdicts.items()}
        scores = self._stage("induction", lambda _: induction_scores(self.anatomy, settings.seed), 1)
        return masses | {name: x[None] for name, x in scores.items()}

    def _without(
        self,
        pair: Pair,
        *,
        stand_ins: AblationValues,
        kind: str,
        sets: Sequence[Heads],
        place_of: Callable[[Any], np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Log-odds of A without each set of heads at some tokens."""
        z = stand_ins.of(pair.a.seq, kind)[0]
        return {"left": ablate_sets(self.anatomy, pair.a, z, sets, place_of(pair.a))}

    @staticmethod
    def _last(run: Episode) -> np.ndarray:
        return places_ablated(run, "last")

    def _mlps(self, acting: dict[int, Heads]) -> list[dict[str, Any]]:
        """MLPs by layer and place, and those between the heads of steps 1 and 3 together."""
        settings, measured = self.settings, self.pairs[1::2]
        answers = self.curves.answer.sel(task=self.task)
        starts = self.curves.answer_start.sel(task=self.task)
        stops = self.curves.answer_stop.sel(task=self.task)
        tokens = self.curves.tokens.sel(task=self.task)
        known = readouts_of(self.curves, self.task)
        labelled = "format" in known and not all(str(text).isdigit() for text in answers.values.ravel())
        labels: frozenset[int] = frozenset()
        if labelled:
            at = (starts + self.token).values.astype(int)
            labels = frozenset(np.take_along_axis(tokens.values, at, axis=1).ravel().astype(int).tolist())
        point = self.point if settings.position == "last" else None

        def form(pair: Pair) -> Any:
            start = int(starts.sel(seq=pair.a.seq)[settings.n_examples]) + self.token
            stop = int(stops.sel(seq=pair.a.seq)[settings.n_examples])
            whole = tokens.sel(seq=pair.a.seq).values[start:stop].astype(np.int64)
            return form_of(pair.a, whole, self.model.token_texts, labels, "parity" in known)

        def each(pair: Pair) -> dict[str, np.ndarray]:
            mlps = self.stand_ins.of(pair.a.seq, settings.kind)[1]
            found = ablate_mlps(self.anatomy, pair, mlps, form(pair), point)
            return {" ".join(name): x for name, x in found.items()}

        for name, x in self._each("MLPs", each, measured).items():
            place, readout = name.split(" ")
            for layer, three in enumerate(zip(*t_interval(x))):
                about = {"task": self.task, "layer": layer, "place": place, "readout": readout}
                self.rows["mlps"].append({**about, "kind": settings.kind, **flat({"lost": three})})

        first = min((layer for layer, _ in acting[1]), default=0)
        last = max((layer for layer, _ in acting[3]), default=self.anatomy.n_layers)
        layers = list(range(first, last)) or list(range(self.anatomy.n_layers))
        self.facts["mlp_layers"] = [layers[0], layers[-1]]
        # With the answers permuted the answer itself is another; with the queries permuted only what it belongs to.
        ways = {
            settings.kind: (self.stand_ins, settings.kind),
            OTHER_QUERY: (self.other_queries, "resample"),
        }
        rows = []
        for words, (stand_ins, kind) in ways.items():

            def together(pair: Pair, stand_ins: AblationValues = stand_ins, kind: str = kind) -> dict[str, np.ndarray]:
                found: dict[str, np.ndarray] = {}
                for place, instead in (("answers", stand_ins), ("others", self.stand_ins)):
                    mlps = instead.of(pair.a.seq, kind)[1]
                    one = ablate_mlps(
                        self.anatomy, pair, mlps, form(pair), None, layers=layers, places=(place,), together=True
                    )  # fmt: skip
                    found |= {" ".join(name): x for name, x in one.items()}
                return found

            taken = self._each(f"MLPs together, {words}", together, measured)
            gone, control = (taken[f"{place} complement"][:, 0] for place in ("answers", "others"))
            what = f"MLPs {layers[0]} to {layers[-1]} at "
            for name, x, beside in (("the answers", gone, [control]), ("other tokens", control, [])):
                row = experiment_row(
                    x, self.rule[1::2], beside,
                    step=2, what=f"{what}{name} of examples", decides="way" if beside else "",
                    kind=words if beside else kind,
                )  # fmt: skip
                rows.append(row)
        return rows

    def _heads(self, roles: dict[str, np.ndarray]) -> None:
        """The table that joins roles, effects and repair."""
        alone = self.alone._asdict()
        with np.errstate(invalid="ignore"):
            numbers = {
                name: t_interval(alone[name]) for name in ("direct", "lost", "taken", "other_heads", "mlps", "norm")
            }
            numbers[f"lost_{self.other_kind}"] = t_interval(self.alone_other.lost)
        for head in np.ndindex(self.anatomy.n_layers, self.anatomy.n_heads):
            row: dict[str, Any] = {"task": self.task, "component": name_of(head), "layer": head[0], "head": head[1]}
            row |= {name: float(x[:, *head].mean()) for name, x in roles.items()}
            row |= flat({name: [x[head] for x in three] for name, three in numbers.items()})
            self.rows["heads"].append(row | {"round": self.round_of.get(head, np.nan)})

    def _effects(self) -> None:
        """The effects format at the shot of A's query, with what was found of every pair."""
        seqs = [pair.a.seq for pair in self.pairs]
        here = self.curves.sel(seq=seqs).isel(shot=[self.settings.n_examples])
        runs = [pair.a for pair in self.pairs]
        dataset = attribute_task(self.model, here, self.task, by_source=False, episodes=runs, batch_size=1)
        names = list(self.transfers)
        parts = {key: np.stack([self.transfers[name][key] for name in names]) for key in ("own", "other", "a", "b")}
        coords = {"run": names, "seq": seqs, "point": np.arange(self.anatomy.n_layers + 1)}
        more: dict[str, Any] = {
            "transfer_own": (("run", "seq", "point"), parts["own"]),
            "transfer_other": (("run", "seq", "point"), parts["other"]),
            "log_odds_a": (("run", "seq"), parts["a"]),
            "log_odds_b": (("run", "seq"), parts["b"]),
            "lost_alone": (
                ("ablation", "seq", "layer", "head"),
                np.stack([self.alone.lost, self.alone_other.lost]),
            ),
        }
        coords["ablation"] = [self.settings.kind, self.other_kind]
        added = xr.Dataset(more, coords).expand_dims(task=[self.task])
        for name, text in DESCRIBED.items():
            added[name].attrs |= {"description": text, "units": "nats"}
        self.dataset = xr.merge([dataset, added], combine_attrs="override")


def _layers_text(heads: Heads, n_heads: int) -> str:
    """Whole layers as ranges, and how many single heads beside them."""
    whole = sorted(layer for layer, own in by_layer(heads).items() if len(set(own)) == n_heads)
    runs: list[list[int]] = []
    for layer in whole:
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    words = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs]
    single = len(heads) - len(whole) * n_heads
    text = (f"layer{'s' if len(whole) > 1 else ''} " + ", ".join(words)) if words else ""
    alone = f"{single} head{'s' if single > 1 else ''}" if single else ""
    return " and ".join(part for part in (text, alone) if part)


def _ranks(settings: PatchSettings, task: str) -> pd.DataFrame | None:
    """The table to rank heads by: its rows of the task, where it says so."""
    if not settings.ranks:
        return None
    try:
        table = read_table(settings.ranks)
    except ValueError as error:  # pandas' own errors, and what is no text
        raise StatedError(f"--ranks {settings.ranks} is not readable as CSV: {error}") from None
    if "task" not in table:
        return table
    if not (table.task == task).any():
        raise StatedError(f"the table {settings.ranks} has no row of task {task!r}: give --tasks, or another table")
    return table[table.task == task]
