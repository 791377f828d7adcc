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
# # 1. Meet the data
#
# What was measured, what is asked, and why the question is hard. With `data = ""` a tiny competition is **simulated**;
# point `data` to a folder with `de_train.parquet` and `id_map.csv` to meet real data.

# %% tags=["parameters"]
data = ""

# %%
import matplotlib.pyplot as plt
import numpy as np

from pertcast import workflow
from pertcast.report import pictures

folder = workflow.data_or_demo(data)
competition = workflow.read(folder)
question = workflow.question_of(competition)
print(f"{folder}: {'SIMULATED data' if competition.simulated else 'measured data'}")
print(f"{len(question)} training rows x {len(question.genes)} genes, {len(question.test_ids)} rows to predict")

# %% [markdown]
# ## The tables
#
# A training row is one compound in one cell type: who it is, and a value per gene (in the competition the signed
# -log10 p of its difference to the control). A row to predict has an id and the same names.

# %%
competition.train.head()

# %%
competition.test[["id", "cell_type", "sm_name"]].head()

# %% [markdown]
# ## Which pairs of cell type and compound
#
# Blue: measured. Yellow: to be predicted. White: neither. Most compounds of the cell types that are asked for were never
# measured there, so what a compound does must be carried over from other cell types.

# %%
figure, axes = plt.subplots(figsize=(12, 3.2))
pictures.draw_pairs(axes, question)

# %% [markdown]
# ## How strong a row is
#
# The score is the mean over rows of the root mean square error of a row, so a row of zeros costs its own root mean
# square. A few compounds are strong and cost most.

# %%
strength = np.sqrt((question.y**2).mean(axis=1))
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained")
pictures.draw_strength(left, strength, question.cell_type)
pictures.draw_strength(right, strength, question.compound)
print(f"zeros on the training rows: MRRMSE {strength.mean():.3f}")
for cell_type in sorted(set(question.cell_type)):
    own = question.y[question.cell_type == cell_type]
    print(f"  {cell_type:20s} {len(own):4d} rows, mean {own.mean():+.2f}, sd of a gene {own.std(axis=0).mean():.2f}")

# %% [markdown]
# ## Does a compound do the same in another cell type?
#
# Correlation of the responses to one compound in two cell types, against pairs of different compounds. What is left
# above the grey histogram is what any model can carry over.

# %%
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
pictures.draw_agreement(axes, question)

# %% [markdown]
# ## One row
#
# The strongest one beside the one in the middle. Errors are squared within a row, so a few genes decide what it costs.

# %%
strongest = int(strength.argmax())
order = np.argsort(question.y[strongest])
print(f"{question.cell_type[strongest]}, {question.compound[strongest]}")
for gene in [*order[:5], *order[-5:]]:
    print(f"  {question.genes[gene]:12s} {question.y[strongest, gene]:+8.2f}")

# %%
middle = int(np.argsort(strength)[len(strength) // 2])
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
for row in (strongest, middle):
    axes.plot(np.sort(question.y[row]), label=f"{question.cell_type[row]}, {question.compound[row]}")
axes.set(xlabel="genes, in order of their value", ylabel="value")
axes.legend(frameon=False);
