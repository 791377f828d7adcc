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
# ## Which pairs of cell type and compound
#
# Dark: measured. Light: to be predicted. Most compounds of the cell types that are asked for were never measured there.

# %%
figure, axes = plt.subplots(figsize=(12, 3.2))
pictures.draw_pairs(axes, question)

# %% [markdown]
# ## How strong a row is
#
# The score is the mean over rows of the root mean square error of a row, so a row of zeros costs its own root mean
# square. A few compounds are strong; most rows are close to noise.

# %%
strength = np.sqrt((question.y**2).mean(axis=1))
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained")
pictures.draw_strength(left, strength, question.cell_type)
pictures.draw_strength(right, strength, question.compound)
print(f"zeros on the training rows: MRRMSE {strength.mean():.3f}")

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

# %%
strongest = int(strength.argmax())
order = np.argsort(question.y[strongest])
print(f"{question.cell_type[strongest]}, {question.compound[strongest]}")
for gene in [*order[:5], *order[-5:]]:
    print(f"  {question.genes[gene]:12s} {question.y[strongest, gene]:+8.2f}")
