# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6. Cells that answer
#
# Untreated cells go in, treated cells come out: of a population whose treated cells nobody has seen. Every model is
# held to that, one population after another, beside references that cost nothing and a ceiling that the number of
# cells sets.
#
# Without a file of your own the cells on this page are **simulated**: five populations, one drug that acts in all of
# them, and one that does nothing. With `data` naming an h5ad file (and the columns below), they are yours.

# %% tags=["parameters"]
data = ""
condition_key = "condition"
control = "control"
context_key = "context"
cells = 1500
zero_share = 0.05
seed = 0

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from pertcast.cell_tasks.benchmark import Asked, benchmark_cells
from pertcast.cell_tasks.runs import Columns
from pertcast.cell_tasks.verbs import fit_cells, predict_cells
from pertcast.cells.log_scale import as_log1p
from pertcast.io.single_cells import read_cells, write_cells
from pertcast.report.cell_benchmark import benchmark_figure, plain_benchmark
from pertcast.simulate.base import BaseSettings, simulate_base
from pertcast.simulate.interventions import Do, intervene
from pertcast.stories.story import as_cells

torch.set_num_threads(1)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The cells
#
# In every population a third of the cells is untreated, a third gets the drug (50 genes tripled, 50 cut to a third), a
# third a compound that does nothing. Zeros are those of sampling few molecules. Set `zero_share = 0.4` to see the default
# model lose: zeros of a process of their own, which no drug touches, are filled by it, and shifts keep the shape better.

# %%
if not data:
    settings = BaseSettings(
        populations=5, changed_share=0.3, mean_range=(0.1, 4.0), dispersion_range=(0.1, 0.4), library_sd=0.3, clip=True
    )
    simulated = simulate_base(cells, 300, zero_share, seed=seed, settings=settings)
    genes = simulated.genes
    drug = Do(scale={**dict.fromkeys(genes[:50], 3.0), **dict.fromkeys(genes[50:100], 1 / 3)})
    untreated, treated, inert = (simulated.take(np.arange(start, cells, 3)) for start in range(3))
    done = intervene(treated.model, treated.dense, drug, context=treated.context, seed=seed)
    parts = [
        as_cells(untreated.dense, genes, context=untreated.context.population),
        as_cells(done.drawn, genes, condition="drug", context=done.context.population, first=cells),
        as_cells(inert.dense, genes, condition="inert", context=inert.context.population, first=2 * cells),
    ]  # fmt: skip
    data = str(folder / "simulated.h5ad")
    write_cells(Path(data), parts[0].join(parts[1]).join(parts[2]), about={"simulated": True})
columns = Columns(condition_key, control, context_key)
measured = read_cells(Path(data), condition_key=condition_key, control=control, context_key=context_key)
pd.crosstab(measured.context, measured.condition)

# %% [markdown]
# ## One population asked about
#
# The model that we stand behind learns from all other populations, and from the untreated cells of this one. It does not
# generate cells: untreated ones lose or gain molecules until gene means are what other populations tell.

# %%
asked, condition = sorted(set(measured.context))[0], measured.conditions[0]
held_out = (measured.context == asked) & ~measured.untreated
for name, rows in (("train", ~held_out), ("truth", held_out & (measured.condition == condition))):
    write_cells(folder / f"{name}.h5ad", measured.take(rows), about={})
training = Columns("condition", control, "context")
fitted = fit_cells("default", folder / "train.h5ad", training, out=folder / "run")
told = predict_cells(
    folder / "run", folder / "train.h5ad", condition=condition, context=asked, out=folder / "predicted.h5ad", seed=seed
)
print(f"{told['cells']} cells of {asked} under '{condition}', predicted by {told['model']}")

# %% [markdown]
# Of the gene that the model moves most: the share of cells with at most so many counts.

# %%
truth = measured.take(held_out & (measured.condition == condition))
before = measured.take((measured.context == asked) & measured.untreated)
after = read_cells(folder / "predicted.h5ad", condition_key="condition", control=condition)
gene = int(np.argmax(np.abs(as_log1p(after).mean(axis=0) - as_log1p(before).mean(axis=0))))
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
for label, side in (("untreated", before), ("predicted", after), ("measured", truth)):
    values = np.sort(side.x[:, [gene]].toarray().ravel())
    axes.step(values, np.linspace(0, 1, len(values)), where="post", label=label)
axes.set(xlabel=f"{measured.genes[gene]}, {measured.unit}", ylabel="share of cells")
axes.legend(frameon=False);

# %% [markdown]
# ## Every model, every population
#
# All treated cells of one population are held out, every model is fitted to all else, and its cells are scored against
# the measured ones. Each fit is a unit of work with a folder of its own; interrupted, the same call goes on where it
# stopped.

# %%
found = benchmark_cells(Path(data), columns, Asked(conditions=(condition,)), out=folder / "benchmark")
facts = found.as_dict()
print(plain_benchmark(facts))

# %% [markdown]
# A shift of means finds where the cells go; whether they still look like cells is another question. Both at once.

# %%
benchmark_figure(facts, title=facts["mean"]["title"])

# %% [markdown]
# ## Between nothing and everything
#
# 0 is no change, 1 one half of the truth against the other. Half of few cells tells means of many genes less well than a
# model that learned from all populations, so a skill may lie above 1. Empty: the ceiling is no better than no change.

# %%
calibrated = pd.DataFrame(facts["calibrated"]).T
calibrated[["skill", "skill DE", "delta cosine DE", "energy distance", "MMD2", "Wasserstein DE"]].astype(float).round(2)

# %% [markdown]
# ## Is there anything to predict?
#
# A condition without a measurable effect is named, and it is counted who does harm: a model that answers where there is
# no answer makes gene means worse than no change does. Correlations of change look good there all the same.

# %%
if "inert" in measured.conditions:
    asked_of = Asked(models=("default", "log-mean-shift", "no-change"), conditions=("inert",))
    print(plain_benchmark(benchmark_cells(Path(data), columns, asked_of, out=folder / "inert").as_dict()))

# %% [markdown]
# The same from the command line: `pertcast cells benchmark FILE.h5ad --holdout-key COLUMN --out FOLDER`. Networks join
# with `--models all`, or by name; `--seeds 3` averages them.
