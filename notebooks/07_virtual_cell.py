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
# # 7. A virtual cell
#
# A network learns what each gene of a cell is, given the others: genes are hidden, and told from those that are left.
# Then a gene of one cell is turned up, step by step, and the others follow as the network expects. That is a virtual
# cell. It shows what goes together; whether that is what would happen can only be said where the truth is known.
#
# So the cells on this page are **simulated**: three populations, 20 genes that vary on their own, and 12 whose mean
# follows from two of the others by a known equation (straight lines, saturation, polynomials, products).

# %% tags=["parameters"]
cells = 4000
asked_of = 100
fold = 2.0
epochs = 25
seed = 0

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Image

from pertcast.cell_tasks.masked import score_masked
from pertcast.cells.atlas import Atlas
from pertcast.cells.registry import build
from pertcast.cells.trajectory import Change, roll_out
from pertcast.report.story import plain_table
from pertcast.report.trajectory import draw_atlas
from pertcast.simulate.base import base_plan
from pertcast.simulate.cells import draw_cells
from pertcast.simulate.planted import mechanism_model
from pertcast.stories.knows import BASE, COUNT_SETTINGS, GENES, KINDS, PARENTS, true_effect
from pertcast.stories.story import as_cells

torch.set_num_threads(1)

# %% [markdown]
# ## The cells
#
# The equations are the truth: they say exactly what follows when a gene is turned up. Nothing on this page lets a
# model see them.

# %%
settings = replace(BASE, populations=3, changed_share=0.4, log_fold_change=1.0)
truth = mechanism_model(base_plan(GENES, 0.0, seed=seed, settings=settings), KINDS, seed=seed, parents=PARENTS)
simulated = draw_cells(truth, cells + asked_of, seed=seed)
whole = as_cells(simulated.dense, truth.genes, context=simulated.context.population)
train, asked = whole.take(np.arange(cells)), whole.take(np.arange(cells, cells + asked_of))
parents = {gene.name: gene.parents for gene in truth.mechanistic}
pd.Series({name: " and ".join(of) for name, of in parents.items()}, name="follows from").to_frame()

# %% [markdown]
# ## Hidden genes, told from the others
#
# 60 % of the cells train, 20 % say when to stop, 20 % are scored. Of each cell a share of the expressed genes is
# hidden. The floor is the gene's mean over training cells. Twenty of the 32 genes follow from nothing, and nothing
# can be said of them beyond their population, so the error cannot come near 0.

# %%
changes = {**COUNT_SETTINGS, "training": {**COUNT_SETTINGS["training"], "epochs": epochs}}
expressed = {**changes, "hiding": {**changes["hiding"], "zeros": False}}
scored = score_masked(train, build("masked-autoencoder", expressed), seed=seed)
print(plain_table(scored.tables()[-1]))

# %% [markdown]
# ## A gene turned up
#
# For trajectories zeros are hidden as well (`hiding.zeros`), so that genes may fall to 0 and rise from it. The gene
# that most others hang on is doubled in cells that training did not see. Every path has a twin in which nothing is
# changed, and what is reported is the difference: the twin stays where it is, so no drift of the network is taken for
# an effect.

# %%
model = build("masked-autoencoder", changes).fit(train, seed=seed)
sources = sorted({parent for of in parents.values() for parent in of})
gene = max(sources, key=lambda name: sum(name in of for of in parents.values()))
followers = [name for name, of in parents.items() if gene in of]
rolled = roll_out(model, asked, [Change(gene, fold, "fold")])
effect = rolled.effect().mean(axis=1)
figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
for j, name in enumerate(truth.genes):
    told = name == gene or name in followers
    width, shade = (1.8, None) if told else (0.8, "#cccccc")
    axes.plot(effect[:, j], ".-" if told else "-", lw=width, color=shade, zorder=2 + told, label=name if told else None)
axes.plot([], [], color="#cccccc", label="genes that do not follow")
axes.set(xlabel="step", ylabel="effect, log1p units", title=f"{gene} times {fold:g}: mean over {len(asked)} cells")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
axes.set_xticks(range(0, len(effect), 5));

# %% [markdown]
# ## The effect against the truth
#
# Every gene that others hang on is doubled in turn. Dark: genes that follow by an equation; on the line the virtual
# cell would be right. Grey: genes that do not follow; they should lie at a height of 0, or just below it as the truth
# does (a doubled gene takes a share of the cell's total from all others). What falls to 0 is told to fall too little.

# %%
said, true, follows = [], [], []
for source in sources:
    said.append(roll_out(model, asked, [Change(source, fold, "fold")]).effect()[-1].mean(axis=0)[GENES:])
    true.append(true_effect(truth, simulated.dense[cells:], source, fold, seed=seed)[GENES:])
    follows.append([source in of for of in parents.values()])
said, true, follows = np.array(said), np.array(true), np.array(follows)
figure, axes = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
axes.axline((0, 0), slope=1, color="#999999", lw=0.8)
axes.scatter(true[~follows], said[~follows], s=14, color="#bbbbbb", label="does not follow")
axes.scatter(true[follows], said[follows], s=26, color="#22557a", label="follows")
axes.set(xlabel="true effect, log1p units", ylabel="effect in the virtual cell")
axes.legend(frameon=False)
correlation = np.corrcoef(said[follows], true[follows])[0, 1]
print(f"correlation over the {follows.sum()} pairs that follow: {correlation:.2f} (truth: 1)")
print(f"share of the true size: {(said * true)[follows].sum() / np.square(true[follows]).sum():.2f} (truth: 1)")

# %% [markdown]
# ## Where the cell goes
#
# Ten cells on the map of all cells, from red (as observed) to green (last state). The gene is the one whose followers
# moved most, and it is raised further than above, so that some end outside the map: there the network has seen
# nothing, and only draws on.

# %%
mover = sources[int(np.abs(said).max(axis=1).argmax())]
some = roll_out(model, asked.take(np.arange(10)), [Change(mover, fold**3, "fold")])
picture = Path(tempfile.mkdtemp()) / "atlas.png"
draw_atlas(picture, Atlas.of(train), some, title=f"{len(some.ids)} cells: {mover} times {fold**3:g}")
Image(picture, width=620)

# %% [markdown]
# The 20 genes that rose most and the 20 that fell most, over all asked cells (there are 32 here). The gene that was
# turned up is left out; `sd` is over cells, `rose` and `fell` are shares of them.

# %%
rolled.top(20).drop(columns="changed").round(3)

# %% [markdown]
# ## What it does not know
#
# The network learned what goes together, and that has no direction. Turn up genes that **follow** from others: by the
# equations nothing happens to the genes that they follow from. The virtual cell moves these all the same.

# %%
back = []
for child, of in parents.items():
    columns = [truth.genes.index(parent) for parent in of]
    there = roll_out(model, asked, [Change(child, fold, "fold")]).effect()[-1].mean(axis=0)
    happens = true_effect(truth, simulated.dense[cells:], child, fold, seed=seed)
    back.append([np.abs(values[columns]).mean() for values in (there, happens)])
forth = [np.abs(values[follows]).mean() for values in (said, true)]
table = {"cause doubled, effect on followers": forth, "follower doubled, effect on causes": np.mean(back, axis=0)}
pd.DataFrame(table, index=["virtual cell", "truth"]).T.round(3)

# %% [markdown]
# The truth's second number is not quite 0, for the shares of the total again.
#
# These cells are the easy case: a few genes, thousands of cells, causes that vary on their own. On measured blood
# cells, with thousands of genes and a thousand cells, genes of the interferon pathway were raised and the effects
# compared with what interferon did: they told no more than unrelated genes of like expression, and less than plain
# co-expression. Before a trajectory of your own cells is believed, `pertcast cells knows` asks the same of them: does
# what follows from a raised gene resemble what a treatment did?
#
# From the command line: `pertcast cells fit masked-autoencoder FILE.h5ad --set hiding.zeros=true`, `pertcast cells
# masked`, `pertcast cells trajectory RUN FILE.h5ad --cell ID --gene G --target X --out FOLDER`; `--impute` starts
# from the cell with its zeros imputed. `pertcast app` does it with the mouse.
