"""The command: files and tables against one another and against `fit`, runs that were killed, what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayes_icl.attribute import AttributeSettings, attribute_curves, main, totals
from bayes_icl.attribute.outputs import ABLATION, REPAIR, TABLES
from bayes_icl.attribute.sentences import head_sentences
from bayes_icl.attribute.totals import agreement
from bayes_icl.collect import CollectSettings, collect_curves
from bayes_icl.collect import main as collect_main
from bayes_icl.core.errors import StatedError
from bayes_icl.curves import read_curves, write_netcdf
from bayes_icl.mechanism import ablation
from bayes_icl.mechanism.mean_outputs import TASK_MEANS
from bayes_icl.models import Model
from bayes_icl.tasks import load_tasks

LITTLE: dict[str, Any] = dict(top=3, placebos=3, workers=1, token=1)


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curves file of the random model; its log-odds of `category` drift with the prompt's length."""
    path = tmp_path_factory.mktemp("attribute") / "curves.nc"
    collect_main(CollectSettings(model="tiny", tasks=("category", "copy"), n_shots=14, n_seqs=10, out=path))
    return path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without figures, which take half of the time."""
    monkeypatch.setattr("bayes_icl.attribute.command.attribute_figures", lambda *_: {})


@pytest.fixture(scope="module")
def finished(curves: Path) -> Path:
    """The output of a whole run."""
    out = curves.parent / "whole" / "effects.nc"
    assert main(AttributeSettings(curves=curves, out=out, figures=out.parent / "figures", **LITTLE)) == 0
    return out


def tables(out: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_csv(out.with_name(f"{out.stem}.{name}.csv")) for name in TABLES}


def facts(out: Path) -> dict[str, Any]:
    return json.loads(out.with_name(f"{out.stem}.json").read_text())


# ------------------------------------------------------------------------------------------------- what is written


def test_the_effects_file_keeps_its_format(finished: Path, curves: Path) -> None:
    with xr.open_dataset(finished, engine="h5netcdf") as found, xr.open_dataset(curves, engine="h5netcdf") as read:
        dims = {
            "effect": ("task", "seq", "shot", "layer", "head"),
            "effect_by_source": ("task", "seq", "shot", "layer", "head", "source"),
            "mlp": ("task", "seq", "shot", "layer"),
            "rest": ("task", "seq", "shot"),
            "log_odds": ("task", "seq", "shot"),
        }
        for name, expected in dims.items():
            assert set(found[name].dims) == set(expected)
        parts = found.effect.sum(("layer", "head"), dtype=float) + found.mlp.sum("layer") + found.rest
        np.testing.assert_allclose(parts, found.log_odds, atol=1e-4)
        np.testing.assert_allclose(found.effect_by_source.sum("source"), found.effect, atol=1e-5)
        assert found.source.values.tolist() == ["sink", *map(str, range(1, 15)), "query"]
        shown = found.effect_by_source.notnull().any(("task", "seq", "layer", "head")).transpose("shot", "source")
        for n in range(15):  # the sink, n examples, the query
            assert shown.values[n].tolist() == [True] + [i < n for i in range(14)] + [True]
        record = json.loads(found.attrs["provenance"])
        assert record["model"]["model"] == "tiny" and curves.name in record["inputs"]
        assert {"method", "readout", "completeness"} <= set(found.attrs)
        np.testing.assert_array_equal(
            found.curve.sel(task="copy"), read.log_odds.sel(task="copy", readout="complement")
        )


def test_all_rows_of_a_task_add_up_to_delta(finished: Path) -> None:
    heads, own = tables(finished)["heads"], facts(finished)
    for task, part in heads.groupby("task"):
        every, part = part[part.kind == "all"], part[part.kind != "all"]
        assert part.slope.sum() == pytest.approx(own[task]["delta"]["mean"], abs=1e-6)
        assert every.slope.item() == pytest.approx(own[task]["delta"]["mean"], abs=1e-9)
        totals = [own[task][f"slope_{kind}"]["mean"] for kind in ("head", "mlp", "rest")]
        assert sum(totals) == pytest.approx(own[task]["delta"]["mean"], abs=1e-6)
        from_sources = sum(own[task][f"slope_{name}"]["mean"] for name in ("sink", "examples", "query"))
        assert from_sources == pytest.approx(totals[0], abs=1e-6)
        only = part[part.kind == "head"]
        assert only.slope_examples.sum() == pytest.approx(own[task]["slope_examples"]["mean"], abs=1e-6)


def test_delta_is_the_one_of_fit(finished: Path, curves: Path, tmp_path: Path) -> None:
    from bayes_icl.fit import FitSettings
    from bayes_icl.fit import main as fit_main

    fit_main(
        FitSettings(
            curves=curves,
            readout=("complement",),
            n_min=(1,),
            hypotheses=("constant", "additive", "power"),
            engine="fast",
            sensitivity=False,
            workers=1,
            out=tmp_path / "fits",
            figures=tmp_path / "figures",
        )
    )
    verdicts = json.loads((tmp_path / "fits/verdict.json").read_text())
    checks = pd.read_csv(tmp_path / "fits/checks.csv")
    slopes = checks[checks.check == "slope by sequence"].set_index("task")
    for task, own in facts(finished).items():
        # The slope of the best line by sequence; the verdict's is its posterior mean beside a smooth deviation.
        row = slopes.loc[task]
        assert list(own["delta_curve"].values()) == pytest.approx([row.estimate, row.low, row.high], rel=1e-9)
        width = own["delta_curve"]["hdi_high"] - own["delta_curve"]["hdi_low"]
        assert abs(own["delta_curve"]["mean"] - verdicts[task]["delta"]["mean"]) < 0.15 * width
        assert own["delta"] != own["delta_curve"]  # answers of several tokens: the first is not the whole


def test_tables_of_the_intervention(finished: Path) -> None:
    found, own = tables(finished), facts(finished)
    assert list(found["ablation"].columns) == ABLATION.names and list(found["repair"].columns) == REPAIR.names
    done = [task for task in own if own[task]["top"]]
    assert done, "the random model should drift on one task at least, or nothing is tested here"
    for task in done:
        heads = found["heads"][(found["heads"].task == task) & (found["heads"].kind == "head")].set_index("component")
        assert set(heads.index[heads.top]) == set(own[task]["top"])
        for way, column in (("mean", "lost"), ("mean_over_shots", "lost_over_shots")):
            ablation = found["ablation"]
            rows = ablation[(ablation.task == task) & (ablation.value == way)].set_index("set")
            assert rows.loc["top", "heads"].split() == own[task]["top"] == list(dict.fromkeys(own[task]["top"]))
            for name, row in rows.iterrows():
                assert row.n_seqs == 5  # chosen on one half, measured on the other
                if name == "none":
                    assert row.lost == row.predicted == row.lost_curve == 0
                elif str(name).startswith("placebo"):
                    assert not set(row["heads"].split()) & set(own[task]["top"])
                    assert row.n_heads == len(own[task]["top"])
                elif name != "top":
                    assert heads[column][name] == pytest.approx(row.lost)
            (repair,) = found["repair"][(found["repair"].task == task) & (found["repair"].value == way)].itertuples()
            assert repair.lost == pytest.approx(rows.loc["top", "lost"], abs=1e-5)
            assert repair.predicted == pytest.approx(rows.loc["top", "predicted"], abs=1e-5)
            assert repair.predicted == pytest.approx(
                sum(getattr(repair, name) for name in ("other_heads", "mlps", "norm", "lost")), abs=1e-6
            )


def test_nothing_is_taken_away_where_there_is_no_update(tiny: Model) -> None:
    """A task whose curve is level: its two halves in turn, so that delta's interval holds 0."""
    dataset = collect_curves(tiny, load_tasks(["times_ten"]), n_shots=8, n_seqs=8, readouts=("complement",))
    found = attribute_curves(tiny, dataset, **LITTLE)
    delta = found.facts["times_ten"]["delta"]
    assert delta["hdi_low"] <= 0 <= delta["hdi_high"], "choose another task: this one has an update"
    assert found.facts["times_ten"]["top"] == [] and not len(found.ablation) and not found.heads.stands_out.any()


def test_files_and_figures_of_a_run(finished: Path) -> None:
    assert {path.name for path in finished.parent.iterdir()} == {
        *("effects.nc", "effects.json", "figures", ".effects.nc.json"),
        *(f"effects.{name}.csv" for name in TABLES),
    }
    drawn = {path.name for path in (finished.parent / "figures").iterdir()}
    names = [
        "share_map",
        "conventions",
        "cumulative",
        "total",
        *(f"{name}_{way}" for name in ("ablation", "repair") for way in TASK_MEANS),
    ]
    names += [f"{kind}_{task}" for kind in ("effects", "sources") for task in ("category", "copy")]
    assert drawn == {f"{name}.{end}" for name in names for end in ("png", "pdf")} | {"summary.txt", ".attribute.json"}


def test_the_summary_follows_the_numbers(finished: Path) -> None:
    found, own = tables(finished), facts(finished)
    task = next(task for task in own if own[task]["top"])
    parts = [table[table.task == task] for table in found.values()]
    before = head_sentences(own[task], *parts)
    moved = parts[1].copy()
    moved.loc[(moved.set == "top") & (moved.value == "mean_over_shots"), "lost"] = (
        -2 * own[task]["delta_measured"]["mean"]
    )
    after = head_sentences(own[task], parts[0], moved, parts[2])
    changed = [(a, b) for a, b in zip(before, after) if a != b]
    assert len(changed) == 2 and "-200%" in changed[0][1] and "3 of 3 placebo sets" in changed[1][1]
    none = own[task] | {"delta": {"mean": 0.0, "hdi_low": -1.0, "hdi_high": 1.0}}
    assert "no update" in head_sentences(none, *parts)[-1] and "%" not in " ".join(head_sentences(none, *parts))


def test_total_effects_add_up_and_stand_beside_direct_ones(finished: Path) -> None:
    """Contributions of heads, and of heads and MLPs, are delta less delta at the reference; so are the sentences."""
    found, own = tables(finished), facts(finished)
    for task, part in found["heads"].groupby("task"):
        total, rows = own[task]["total"], part.set_index("kind")
        assert total["steps"] == 8 and total["reference"] == "mean_over_shots"
        assert rows.total["mlp"].isna().all() and rows.joint["mlp"].notna().all() and rows.joint["rest"].isna().all()
        for name, kinds in (("total", ["head"]), ("joint", ["head", "mlp"])):
            added = sum(rows[name][kind].sum() for kind in kinds)
            assert added == pytest.approx(rows[name]["all"], abs=0.002)
            at_reference = total["at_reference" if name == "total" else "joint_at_reference"]["mean"]
            assert rows[name]["all"] + at_reference == pytest.approx(own[task]["delta"]["mean"], abs=1e-5)
            np.testing.assert_allclose(rows[f"{name}_share"] * own[task]["delta"]["mean"], rows[name], atol=1e-8)
        assert total["head"]["mean"] == pytest.approx(rows.total["head"].sum(), abs=1e-8)
        assert total["joint_mlp"]["mean"] == pytest.approx(rows.joint["mlp"].sum(), abs=1e-8)
        assert total["examples"]["mean"] == pytest.approx(rows.total_examples["head"].sum(), abs=1e-8)


def test_heads_are_ablated_one_by_one_beside_their_total_effects(finished: Path) -> None:
    """All heads that were compared have their loss, which where the intervention has it too is the same."""
    found, own = tables(finished), facts(finished)
    for task in (task for task in own if own[task]["top"]):
        compared = own[task]["total"]["compared"]
        heads = found["heads"][found["heads"].task == task].set_index("component")
        wanted = [*compared["top"], *compared["placebos"]]
        assert len(compared["top"]) == 6 == len(compared["placebos"]) and len(set(wanted)) == 12
        assert compared["n_seqs"] == 5 and heads.lost_over_shots[wanted].notna().all()
        parts = [table[table.task == task] for table in found.values()]
        said = head_sentences(own[task], *parts)
        assert any("ablated one by one on the 5 sequences" in line for line in said)
        assert any("in total, through MLPs and later heads too, heads add" in line for line in said)
        rough = {
            **own[task],
            "total": own[task]["total"] | {"error": {"mean": 0.1, "largest": 0.5, "beyond": 3, "steps": 16}},
        }
        assert any("NOT within the bound in 3 of them" in line for line in head_sentences(rough, *parts))
    assert not any("NOT within" in line for line in said)


def test_agreement_of_gradients_and_ablation_is_ranks_and_a_slope() -> None:
    """Losses that are twice the total effects agree in rank and by 2; those drawn anew agree in nothing."""
    rng = np.random.default_rng(0)
    heads = np.linspace(-1, 2, 12)
    total = heads + 0.05 * rng.normal(size=(16, 12))
    same = agreement(total, 2 * total, 6)
    for name, expected in (("rank", 1.0), ("rank_top", 1.0), ("slope", 2.0)):
        assert same[name] == pytest.approx(dict.fromkeys(("mean", "low", "high"), expected))
    assert same["top_lost"] == pytest.approx(np.abs(2 * total.mean(0))[:6].mean())
    noisy = agreement(total, 2 * heads + rng.normal(size=(16, 12)), 6)
    sd = 0.25 / np.sqrt(total.mean(0) @ total.mean(0))  # of the slope, 16 sequences of sd 1
    assert abs(noisy["slope"]["mean"] - 2) < 3 * sd and noisy["rank"]["low"] > 0.5
    assert noisy["slope"]["high"] - noisy["slope"]["low"] == pytest.approx(2 * 1.96 * sd, rel=0.4)
    other = agreement(total, rng.normal(size=(16, 12)), 6)
    assert abs(other["slope"]["mean"]) < 0.5 and other["rank"]["mean"] < 0.9


def test_without_steps_there_are_no_total_effects(tiny: Model, curves: Path) -> None:
    found = attribute_curves(tiny, read_curves(curves), ["copy"], placebos=0, workers=1, total_steps=0)
    assert "total" not in found.facts["copy"] and found.heads.total.isna().all()
    assert not found.heads.total_stands_out.any()


# ------------------------------------------------------------------------------------------------- settings


def test_batches_and_sources_change_no_effect(tiny: Model, curves: Path) -> None:
    dataset = read_curves(curves)
    common: dict[str, Any] = dict(placebos=0, workers=1, total_steps=0)
    one = attribute_curves(tiny, dataset, ["copy"], **common)
    for other in (dict(batch_size=4), dict(by_source=False)):
        again = attribute_curves(tiny, dataset, ["copy"], **common, **other)
        np.testing.assert_allclose(again.effects.effect, one.effects.effect, atol=1e-5)
    assert "effect_by_source" not in again.effects and "further_example" not in again.facts["copy"]


def test_against_a_foil_nothing_is_left_over(tiny: Model, curves: Path) -> None:
    common: dict[str, Any] = dict(placebos=0, workers=1, total_steps=0)
    found = attribute_curves(tiny, read_curves(curves), ["copy"], readout="foil", **common).effects
    assert (found.entropy == 0).all()
    own = read_curves(curves).sel(task="copy")
    assert (own.foil_token >= 0).all() and (own.fork >= 0).all()


def test_the_whole_answer_is_read_unless_a_token_is_named(tiny: Model, curves: Path, tmp_path: Path) -> None:
    """Its delta is that of `fit`; both conventions add up to it, in tables, sentences and the figure."""
    out = tmp_path / "effects.nc"
    settings = AttributeSettings(curves=curves, tasks=("copy",), out=out, figures=tmp_path / "figures", workers=1)
    assert main(dataclasses.replace(settings, ablate=False, total_steps=0)) == 0
    own, heads = facts(out)["copy"], tables(out)["heads"]
    assert own["read"] == "whole answer" and own["delta"] == pytest.approx(own["delta_curve"], abs=1e-5)
    line = own["line"]
    added = sum(line[f"slope_{part}"]["mean"] for part in ("head", "mlp", "rest", "asked"))
    assert added == pytest.approx(own["delta"]["mean"], abs=1e-3) and line["error"] < 1e-3
    assert heads[heads.kind == "head"].line_slope.sum() == pytest.approx(line["slope_head"]["mean"], abs=1e-6)
    np.testing.assert_allclose(heads.line_share * own["delta"]["mean"], heads.line_slope, atol=1e-8)
    said = head_sentences(own, *tables(out).values())
    assert said[0].startswith("complement, whole answer (\u201c ") and "as fit has it" in said[0]
    assert "along the line from the mean stream at n = 1" in said[2] and "MORE than" not in said[2]
    far = own | {"line": line | {"error": 0.5}}
    assert "MORE than" in head_sentences(far, *tables(out).values())[2]
    assert (tmp_path / "figures/conventions.png").is_file()


def test_the_token_named_is_read(tiny: Model, finished: Path, curves: Path) -> None:
    """Of numbers the first digit, not the space before it; what is printed says which."""
    own, dataset = facts(finished), read_curves(curves)
    with xr.open_dataset(finished, engine="h5netcdf") as effects:
        assert effects.token.values.tolist() == [own[task]["token"] for task in effects.task.values.tolist()]
        of_copy = effects.log_odds.sel(task="copy").values
    assert own["copy"]["token"] == 1 and own["copy"]["token_differs"] > 0.8
    digits = own["copy"]["token_text"].split(", ")
    assert digits[-1] == "\u2026" and all(text[1:-1].isdigit() for text in digits[:-1]) and len(digits) == 4
    summary = (finished.parent / "figures/summary.txt").read_text(encoding="utf-8")
    assert f"complement, token 1 of the answer ({own['copy']['token_text']}), given those before it, n >= 1" in summary
    assert "drawn at random differ" not in summary
    first, second = (attribute_curves(tiny, dataset, ["copy"], token=i, placebos=0, workers=1) for i in (0, 1))
    np.testing.assert_allclose(second.effects.log_odds.values[0], of_copy, atol=1e-6)
    assert float(np.abs(first.effects.log_odds - second.effects.log_odds).max()) > 0.1
    # The space is the same in all answers, which is said.
    assert (first.facts["copy"]["token_text"], first.facts["copy"]["token_differs"]) == ("\u201c \u201d", 0)
    said = head_sentences(first.facts["copy"], first.heads, first.ablation, first.repair)
    assert "complement, token 0 of the answer (\u201c \u201d), n >= 1" in said[0]
    assert any("differ in this token in 0%" in sentence for sentence in said)


@pytest.mark.parametrize("token", [1, None])
def test_a_token_is_likelier_than_the_answer_that_it_is_of(tiny: Model, curves: Path, token: int | None) -> None:
    """In every sequence of the file: a curve that was altered after the first one is found."""
    dataset = read_curves(curves)
    dataset["log_odds"] = dataset.log_odds.copy()
    dataset.log_odds.loc[{"task": "copy", "seq": 3, "shot": 5, "readout": "complement"}] += 50
    with pytest.raises(StatedError, match="not what the curves have: task 'copy', complement, is off by"):
        attribute_curves(tiny, dataset, ["copy"], token=token, placebos=0, workers=1)


# ------------------------------------------------------------------------------------------------- killed, again


def test_a_killed_run_goes_on_where_it_stopped(
    curves: Path, finished: Path, undrawn: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "effects.nc"
    settings = AttributeSettings(curves=curves, out=out, figures=tmp_path / "figures", **LITTLE)
    real, calls = ablation.ablate_episode, []

    def dying(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args, **more)

    monkeypatch.setattr("bayes_icl.attribute.intervention.ablate_episode", dying)
    with pytest.raises(KeyboardInterrupt):
        main(settings)
    assert not out.exists() and out.with_name("effects.nc.part").is_file()
    assert main(settings) == 0
    n_seqs, done = 5, sum(bool(own["top"]) for own in facts(out).values())
    assert len(calls) == 4 + n_seqs * done - 3  # three episodes were kept
    assert "of an unfinished run are kept" in capsys.readouterr().err
    for name, table in tables(finished).items():
        pd.testing.assert_frame_equal(tables(out)[name], table)
    with xr.open_dataset(out, engine="h5netcdf") as one, xr.open_dataset(finished, engine="h5netcdf") as other:
        xr.testing.assert_equal(one.load(), other.load())
    assert not out.with_name("effects.nc.part").exists()


def test_total_effects_of_a_killed_run_are_kept(
    curves: Path, finished: Path, undrawn: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed among batches and among heads ablated one by one; with other steps nothing of it is taken."""
    out = tmp_path / "effects.nc"
    settings = AttributeSettings(curves=curves, out=out, figures=tmp_path / "figures", **LITTLE)
    calls: dict[str, int] = {}

    def dying(name: str, at: int) -> None:
        real = getattr(totals, name)

        def call(*args: Any, **more: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            if calls[name] == at:
                raise KeyboardInterrupt
            return real(*args, **more)

        monkeypatch.setattr(totals, name, call)

    dying("total_effects", 13)
    dying("read_without", 3)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            main(settings)
    assert main(settings) == 0
    done = sum("compared" in own["total"] for own in facts(out).values())
    assert done and calls == {"total_effects": 2 * 2 * 10 + 1, "read_without": 5 * done + 1}
    for name, table in tables(finished).items():
        pd.testing.assert_frame_equal(tables(out)[name], table)
    assert facts(out) == facts(finished)
    with pytest.raises(StatedError, match="other curves or settings"):
        main(dataclasses.replace(settings, total_steps=4))


def test_a_finished_run_is_drawn_again_and_others_are_kept(finished: Path, curves: Path, capsys: Any) -> None:
    settings = AttributeSettings(curves=curves, out=finished, figures=finished.parent / "figures", **LITTLE)
    before = finished.read_bytes()
    assert main(settings) == 0
    said = capsys.readouterr()
    assert "drawn and printed again" in said.err and said.out.split()[-1] == str(finished)
    with pytest.raises(StatedError, match="other curves or settings"):
        main(dataclasses.replace(settings, token=0))
    assert finished.read_bytes() == before


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(tasks=("copi",)), "did you mean copy"),
        (dict(token=99), "--token 99"),
        (dict(token=-1), "--token must be 0 or more"),
        (dict(token=0, readout="foil"), "--token is for --readout complement"),
        (dict(n_min=13), "at least"),
        (dict(n_min=-1), "--n-min must be 0 or more"),
        (dict(placebos=0), "--no-ablate"),
        (dict(total_steps=-1), "--total-steps must be 0 or more"),
        (dict(top=7), "--top 7: at most 6"),
        (dict(out=Path("effects")), "ends in .nc"),
        (dict(model="no/such/model/here"), "model"),
        (dict(curves=Path("nowhere.nc")), "nowhere.nc"),
    ],
)
def test_bad_settings_are_stated(curves: Path, tmp_path: Path, change: dict, said: str) -> None:
    given = {"curves": curves, "out": tmp_path / "e.nc", "figures": tmp_path, **LITTLE} | change
    with pytest.raises(StatedError, match=said):
        main(AttributeSettings(**given))
    assert not (tmp_path / "e.nc").exists()


def test_curves_without_tokens_or_foils_are_stated(curves: Path, tmp_path: Path) -> None:
    settings = AttributeSettings(out=tmp_path / "e.nc", figures=tmp_path, **LITTLE | {"token": None})
    dataset = read_curves(curves)
    for drop, readout, said in (("tokens", "complement", "no tokens"), ("fork", "foil", "no fork")):
        path = tmp_path / f"{drop}.nc"
        write_netcdf(dataset.drop_vars(drop), path)
        with pytest.raises(StatedError, match=said):
            main(dataclasses.replace(settings, curves=path, readout=readout))  # type: ignore[arg-type]


def test_curves_of_another_model_are_stated(curves: Path, tmp_path: Path) -> None:
    dataset = read_curves(curves)
    record = json.loads(dataset.attrs["provenance"])
    record["model"]["weights_sha256"] = "0" * 64
    path = tmp_path / "other.nc"
    write_netcdf(dataset.assign_attrs(provenance=json.dumps(record)), path)
    with pytest.raises(StatedError, match="whose weights are not those"):
        main(AttributeSettings(curves=path, out=tmp_path / "e.nc", figures=tmp_path, **LITTLE))


def test_another_model_without_provenance_is_stated(tiny: Model, curves: Path) -> None:
    """Its numbers are not those of the file."""
    import copy

    other = dataclasses.replace(tiny, hf=copy.deepcopy(tiny.hf))
    other.hf.model.layers[0].mlp.down_proj.weight.data *= 1.5
    with pytest.raises(StatedError, match="does not give what the curves have"):
        attribute_curves(other, read_curves(curves), ["copy"], placebos=0)


def test_the_curves_file_is_never_overwritten(curves: Path) -> None:
    before = curves.read_bytes()
    with pytest.raises(StatedError, match="is an input of this run"):
        main(AttributeSettings(curves=curves, out=curves, figures=curves.parent / "f", force=True, **LITTLE))
    assert curves.read_bytes() == before


@pytest.mark.parametrize("at", [0.02, 0.99])
def test_damaged_parts_of_a_run_are_made_again(
    curves: Path, finished: Path, undrawn: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: float, capsys: Any
) -> None:
    out = tmp_path / "effects.nc"
    settings = AttributeSettings(curves=curves, out=out, figures=tmp_path / "figures", **LITTLE)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bayes_icl.core.outputs.Output.write", killed)
        with pytest.raises(KeyboardInterrupt):
            main(settings)
    parts = out.with_name("effects.nc.part")
    content = bytearray(parts.read_bytes())
    content[int(at * len(content))] ^= 1
    parts.write_bytes(content)
    capsys.readouterr()
    assert main(settings) == 0
    assert "is damaged or cut short: what follows is made again" in capsys.readouterr().err
    for name, table in tables(finished).items():
        pd.testing.assert_frame_equal(tables(out)[name], table)


def test_a_missing_table_is_made_again(curves: Path, finished: Path, tmp_path: Path) -> None:
    import shutil

    for path in (*finished.parent.glob("effects.*"), *finished.parent.glob(".effects.*")):
        shutil.copy(path, tmp_path)
    (tmp_path / "effects.heads.csv").unlink()
    settings = AttributeSettings(curves=curves, out=tmp_path / "effects.nc", figures=tmp_path / "f", **LITTLE)
    assert main(settings) == 0
    pd.testing.assert_frame_equal(tables(tmp_path / "effects.nc")["heads"], tables(finished)["heads"])
