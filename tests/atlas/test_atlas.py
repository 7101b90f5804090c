"""The atlas of heads: found where heads are known, nothing where there is nothing; scores, groups, circuits, files."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handmade import induction_model, random_model
from scipy import stats

from bayes_icl.atlas import Atlas, AtlasSettings, atlas_curves, main
from bayes_icl.atlas.outputs import TABLES, read_atlas, wide
from bayes_icl.atlas.scores import text_scores
from bayes_icl.atlas.sentences import atlas_sentences
from bayes_icl.atlas.summaries import agreement_rows, named_heads
from bayes_icl.collect import CollectSettings, collect_curves
from bayes_icl.collect import main as collect_main
from bayes_icl.core.errors import StatedError
from bayes_icl.core.intervals import Interval
from bayes_icl.lens.edits import heads_replaced
from bayes_icl.mechanism.episodes import recorded_episodes
from bayes_icl.mechanism.function_vectors import function_vectors
from bayes_icl.mechanism.total_effects import ShotMeans, read_without_sets, total_effects
from bayes_icl.mechanism.transfer import cut, log_odds_of, permuted
from bayes_icl.models import Model, load_model
from bayes_icl.tasks import load_tasks

LITTLE = AtlasSettings(readout="foil", n_examples=4, placebos=2)


@pytest.fixture(scope="module")
def atlas_of() -> Callable[[str], Atlas]:
    @functools.cache
    def of(name: str) -> Atlas:
        model, tasks = load_model(f"organism:{name}", "cpu"), load_tasks([f"organism_{name}"])
        return atlas_curves(
            model, collect_curves(model, tasks, n_shots=10, n_seqs=8, readouts=("foil",)), settings=LITTLE
        )

    return of


def test_heads_of_coin_carry_delta(atlas_of: Callable[[str], Atlas]) -> None:
    """Layer 0 counts, and heads of layer 1 do nothing."""
    found = atlas_of("coin")
    own = found.atlas[found.atlas.score == "total"]
    assert own.share.sum() == pytest.approx(1, abs=0.05)
    assert own[own.named].component.tolist() == ["L0H0", "L0H1", "L0H2", "L0H3"]
    lesions = found.lesions[found.lesions["set"] == "top"].set_index("group")
    assert lesions.share["carriers"] > 0.4 and lesions.beyond_low["carriers"] > 0
    assert abs(lesions.share["cancellers"]) < 0.1
    nodes = found.circuits["organism_coin"]["nodes"]
    assert [name for name, node in nodes.items() if node["in_graph"] and "h" in name] == [f"a0.h{i}" for i in range(4)]


def test_nothing_is_named_on_constant(atlas_of: Callable[[str], Atlas]) -> None:
    found = atlas_of("constant")
    assert not found.atlas.named.any() and found.atlas.kind.isna().all()
    assert found.lesions.empty and not found.facts["organism_constant"]["groups"]
    assert not any(
        node["in_graph"] for name, node in found.circuits["organism_constant"]["nodes"].items() if "h" in name
    )


def test_in_redundant_the_second_group_takes_over(atlas_of: Callable[[str], Atlas]) -> None:
    """Without the heads of layer 1 that write, those of layer 2 carry more; no other layer does."""
    found = atlas_of("redundant")
    task = "organism_redundant"
    assert {name[:2] for name in found.facts[task]["groups"]["writers"]} == {"L1"}
    growth = wide(found.atlas, task).backup.groupby("layer").sum()
    assert growth[2] > 0.1 * found.facts[task]["delta"]["mean"] and growth[0] < 0


def test_an_induction_head_has_a_score_of_one(tiny: Model) -> None:
    scores = text_scores(induction_model(tiny).anatomy, seed=0)
    assert scores["previous_token"][:, 0, 0] == pytest.approx(1, abs=1e-3)
    assert scores["induction"][:, 1, 0] == pytest.approx(1, abs=1e-3)
    others = np.delete(scores["induction"].mean(0).ravel(), 2)
    assert (others < 0.05).all()
    random = text_scores(tiny.anatomy, seed=0)["induction"]
    assert random.mean() < 0.1


def test_false_alarms_are_no_more_than_stated(tiny: Model) -> None:
    """Heads whose scores are noise, of a whole that they do not make; and function vectors of a random model."""
    rng = np.random.default_rng(1)
    alarms = [
        named_heads(rng.normal(0, 0.1, (16, 6, 6)) * rng.lognormal(0, 1, (6, 6)), Interval(1, 0.9, 1.1)).mean()
        for _ in range(8)
    ]
    assert np.mean(alarms) <= 0.05
    curves = collect_curves(tiny, load_tasks(["capital"]), n_shots=4, n_seqs=8)
    found = atlas_curves(tiny, curves, settings=AtlasSettings(n_examples=4, placebos=0, total_steps=1))
    own = found.atlas[found.atlas.score == "function_vector"]
    assert own.named.mean() <= 0.05


def test_function_vectors_are_those_of_edited_runs(tiny: Model) -> None:
    """Against a run of its own for each head."""
    model = random_model("gpt2", tiny)
    curves = collect_curves(model, load_tasks(["copy"]), n_shots=3, n_seqs=3)
    cuts = [cut(e, 3, e.token or 0) for e in recorded_episodes(model, curves, "copy")]
    references = [permuted(e, 3, 0) for e in cuts]
    found = function_vectors(model.anatomy, cuts, references)
    import torch

    from bayes_icl.lens.edits import outputs_of, unembedding

    last = [outputs_of(model.anatomy, e.prompt.tokens)[0][:, -1] for e in cuts]
    mean = (last[1] + last[2]) / 2
    tokens = references[0].prompt.tokens
    for layer, head in ((0, 1), (1, 3)):
        values = torch.full((1, len(tokens), 1, mean.shape[-1]), torch.nan)
        values[0, -1, 0] = mean[layer, head]
        edits = {layer: ([head], values)}
        with torch.inference_mode(), unembedding(model.anatomy, [-1]), heads_replaced(model.anatomy, edits):
            logits = model.plain(input_ids=torch.from_numpy(tokens)[None], use_cache=False).logits[0]
        expected = log_odds_of(logits, [int(cuts[0].target.correct[0])])[0, 0] - found.permuted[0]
        assert found.effect[0, layer, head] == pytest.approx(expected, abs=1e-4)
    assert np.abs(found.effect).max() > 1e-2


def test_totals_without_a_group_start_where_it_is_ablated(tiny: Model) -> None:
    """The rest's contributions add up to what is left of delta, and the group's are 0."""
    model = random_model("llama", tiny)
    curves = collect_curves(model, load_tasks(["copy"]), n_shots=5, n_seqs=3)
    episodes = recorded_episodes(model, curves, "copy")
    means, weights = ShotMeans(model.anatomy, episodes), np.linspace(-1, 1, 6)
    group = [(0, 1), (1, 2)]
    read = read_without_sets(model.anatomy, episodes[0], {"group": group}, means)
    with heads_replaced(model.anatomy, means.edits(episodes[0], group)):
        found = total_effects(model.anatomy, episodes[:1], means, weights, steps=8)
    assert found.full[0] == pytest.approx(float(weights @ read["group"]), abs=1e-4)
    assert found.head.sum() == pytest.approx(found.full[0] - found.reference[0], abs=0.05)
    assert [found.head[0, layer, head] for layer, head in group] == pytest.approx([0, 0], abs=1e-6)


def test_rank_correlations_are_scipys(tiny: Model) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4, 5))
    values = {"direct": truth + rng.normal(0, 0.1, (9, 4, 5)), "total": truth + rng.normal(0, 0.1, (9, 4, 5))}
    values["induction"] = rng.normal(size=(6, 4, 5))
    rows = pd.DataFrame(agreement_rows("t", values, 0)).set_index(["a", "b"])
    x, y = (values[name].mean(0).ravel() for name in ("direct", "total"))
    assert rows["rank"]["direct", "total"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert rows.rank_low["direct", "total"] > 0.8 and rows.rank_low["direct", "direct"] > 0.8
    assert (
        rows.rank_low["direct", "induction"]
        < rows["rank"]["direct", "induction"]
        < rows.rank_high["direct", "induction"]
    )


def test_the_command_leaves_tables_circuits_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    curves, out = tmp_path / "curves.nc", tmp_path / "atlas"
    collect_main(CollectSettings(model="tiny", tasks=("copy",), n_shots=5, n_seqs=6, out=curves))
    settings = AtlasSettings(curves=curves, out=out, figures=tmp_path / "figures", placebos=1)
    capsys.readouterr()
    assert main(settings) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "figures"), str(out)]
    tables, facts = read_atlas(out)
    n_heads = 2 * 6
    assert set(tables) == set(TABLES) and tables["atlas"].groupby("score").size().eq(n_heads).all()
    circuit = json.loads((out / "copy.heads.json").read_text())
    assert circuit["cfg"] == {
        "n_layers": 2,
        "n_heads": 6,
        "parallel_attn_mlp": False,
        "d_model": circuit["cfg"]["d_model"],
    }
    assert (
        list(circuit["nodes"])[:6] == ["input", "a0.h0", "a0.h1", "a0.h2", "a0.h3", "a0.h4"] and circuit["edges"] == {}
    )
    total = tables["atlas"][tables["atlas"].score == "total"].value
    assert [circuit["nodes"][f"a{i // 6}.h{i % 6}"]["score"] for i in range(n_heads)] == pytest.approx(total.tolist())
    assert {path.name for path in (tmp_path / "figures").glob("*.png")} >= {"atlas_copy.png"}
    assert json.loads((out / "provenance.json").read_text())["model"]["model"] == "tiny"
    assert atlas_sentences(facts["copy"], {k: t[t.task == "copy"] for k, t in tables.items()})
    before = (out / "atlas.csv").read_bytes()
    assert main(settings) == 0 and (out / "atlas.csv").read_bytes() == before


def test_too_few_sequences_are_refused(tiny: Model) -> None:
    curves = collect_curves(tiny, load_tasks(["copy"]), n_shots=5, n_seqs=3)
    with pytest.raises(StatedError, match="3 sequences, an atlas needs 4 or more"):
        atlas_curves(tiny, curves)
