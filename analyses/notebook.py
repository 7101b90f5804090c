# ---
# jupyter:
#   jupytext:
#     cell_markers: '"""'
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
"""
# From curves to heads, in ten cells

The functions that the commands call, on curves that come with the repository. This file is a notebook: Jupyter with
jupytext opens it ("Open as notebook"), `jupytext --to ipynb analyses/notebook.py` converts it, and
`python analyses/notebook.py` runs it as a script in seconds.
"""

# %%
import warnings
from pathlib import Path

import arviz as az
import matplotlib.pyplot as plt
import seaborn as sns

import bayes_icl
from bayes_icl.attribute import attribute_curves
from bayes_icl.collect import collect_curves
from bayes_icl.curves import read_curves, readouts_of, select
from bayes_icl.fit import Case, fit_curves, judge_cases
from bayes_icl.fit import figures as fit_figures
from bayes_icl.fit.outputs import comparison_table
from bayes_icl.hypotheses import HYPOTHESES, hypothesis
from bayes_icl.inference.idata import inference_data
from bayes_icl.models import load_model
from bayes_icl.tasks import load_tasks
from bayes_icl.writing import style

plt.rcParams.update(style.STYLE)
warnings.filterwarnings("ignore", "IProgress not found")  # tqdm, where Jupyter has no widgets: bars are text then

# %% [markdown]
"""
## Curves

What `python -m bayes_icl.collect` writes: log P(correct)/P(incorrect), in nats, after 0 to 32 examples. It is an
`xarray.Dataset`; `make demo` collects these very ones from SmolLM2-135M.
"""

# %%
curves = read_curves(Path(bayes_icl.__file__).parent.parent / "data/example.nc")
print(curves)
print({str(task): readouts_of(curves, task) for task in curves.task.values})

# %%
table = curves.log_odds.sel(readout="complement").to_dataframe().reset_index()
figure, ax = plt.subplots(figsize=(2 * style.COLUMN, 3), layout="constrained")
sns.lineplot(table, x="shot", y="log_odds", hue="task", errorbar=("ci", 95), ax=ax)
ax.set(xlabel="examples shown, n", ylabel="log-odds of the correct answer (nats)")

# %% [markdown]
"""
## Laws, and the verdict

Four of the rival laws on one task from n = 1 on, by the fast engine: each has its score with a sequence left out
(`elpd_diff`, nats below the best) and with the second half of the shots left out (`lfo_diff`). The verdict is about
`additive`: every example adds the same. `HYPOTHESES` holds all laws.
"""

# %%
task, laws = "past_tense", ("constant", "additive", "power", "pooling")
case = Case(select(curves, task, "complement").since(1), headline=True)
fits = fit_curves([case], laws, engine="fast")
columns = ["hypothesis", "elpd_diff", "diff_se", "survivor", "lfo_diff", "lfo_diff_se", "survivor_lfo"]
print(comparison_table(fits.scores[0])[columns].to_string(index=False))

# %%
verdict = judge_cases([case], fits.scores)[task]
print(f"additive on {task}: {verdict['verdict']}; the simplest law that survives: {verdict['selected']}")
print(*verdict["reasons"], *verdict["notes"], sep="\n")

# %% [markdown]
"""
## Posteriors

A fit becomes ArviZ's `InferenceData`: posterior, prior, replicated sequences, and one log-likelihood a sequence.
"""

# %%
inferences = {name: inference_data(fits.posteriors[0, name], case.curves) for name in laws}
summary = az.summary(inferences["additive"], var_names=["delta", "level", "walk"], hdi_prob=0.95, round_to=4)
print(summary.to_string())
az.plot_posterior(inferences["additive"], var_names=["delta"], hdi_prob=0.95, figsize=(style.COLUMN, 2), textsize=8)

# %%
figure, axes = plt.subplots(1, 2, figsize=(2 * style.COLUMN, 2.2), sharey=True, layout="constrained")
for ax, name in zip(axes, ("additive", verdict["selected"])):
    fit_figures.plot_curves(case.curves, inferences[name], ax, name=name)
figure.supxlabel("examples shown, n; grey: sequences; colour: 95 % of new ones", fontsize=8)

# %% [markdown]
"""
## A law of your own

A function of the number of examples; its scale and origin do not matter. Parameters need priors, as in
`analyses/my_laws.py`. With `workers=2` and more, the processes get it too.
"""

# %%
HYPOTHESES.pop("square_root", None)  # so that this cell can be run again


@hypothesis("square_root", complexity=1, reference="this notebook", predicts="updates fall as n^(-1/2)")
def square_root(xp, n):
    """The log-odds grow as the root of the number of examples."""
    return xp.sqrt(n)


with_own = fit_curves([case], (*laws, "square_root"), engine="fast")
print(comparison_table(with_own.scores[0])[columns].to_string(index=False))

# %% [markdown]
"""
## A model

`collect_curves` reads curves from a model: here `tiny`, which is random and built in code, so that nothing is fetched.
`load_model("smollm2")` is the one of the figures; a folder, a .gguf file or a Hugging Face id is read as well.
"""

# %%
model = load_model("tiny", "cpu")
own_curves = collect_curves(model, load_tasks(["copy", "category"]), n_shots=12, n_seqs=8)
print(own_curves.log_odds.sel(readout="complement", shot=[0, 1, 12]).mean("seq").to_pandas())

# %% [markdown]
"""
## Heads

Which heads write what the log-odds gain with examples: slopes of heads, MLPs and the rest add up to that of the
log-odds. With `placebos=20` heads are ablated as well. A random model has no update to share out, and where it says
"averaging" or the like of a head, that is chance: on few sequences some heads look so. The table of SmolLM2-135M is in
[docs/claim2.md](../docs/claim2.md).
"""

# %%
attribution = attribute_curves(model, own_curves, ["copy"], placebos=0)
heads = attribution.heads.set_index("component")
print(attribution.facts["copy"]["delta"])
print(heads[["kind", "slope", "slope_low", "slope_high", "stands_out", "accumulation", "attention"]].to_string())
