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
# # 3. One model, cross-validated
#
# A recipe is a model with its settings and features. It is fitted on every fold and scored on rows that fold held out,
# beside floors that need no learning and, on simulated data, beside the oracle that knows what was planted.

# %% tags=["parameters"]
data = ""
recipe = "ridge"

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from pertcast import workflow
from pertcast.report import pictures, text

folder = workflow.data_or_demo(data)
work = Path(tempfile.mkdtemp())
places = {"out": work / "runs", "cache": work / "features"}

# %% [markdown]
# ## Folds that ask the competition's question
#
# `rotate` folds hide most compounds of a training cell type; `known` folds hide the asked cell types' own known
# compounds. A held-out compound is as rarely seen elsewhere as the compounds that are asked for.

# %%
result = workflow.cross_validate([recipe], folder, folds="task", **places)
for fold in result.folds:
    print(f"{fold.name:10s} trains on {len(fold.train):4d} rows, holds out {len(fold.valid):3d}: {fold.holds_out}")

# %%
print(text.plain(result.table))

# %%
figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
pictures.draw_table(axes, result.table)

# %% [markdown]
# ## The same model on random rows
#
# Random folds leave the held-out row's compound in the same cell type's neighbours and the same share of every cell
# type: a friendlier question than the one that is asked. Compare the distance to the best floor, not the score itself,
# since other rows are held out.

# %%
random = workflow.cross_validate([recipe], folder, folds="random", **places)
for name, table in (("task", result.table), ("random", random.table)):
    line = table.line(recipe)
    print(f"{name:7s} MRRMSE {line.mrrmse:.3f}, {line.v_floor:+.3f} v {table.best_floor}")

# %% [markdown]
# ## Nothing is fitted twice
#
# Every cell of recipe x fold x seed has its own directory, skipped by content when it is there.

# %%
again = workflow.cross_validate([recipe], folder, folds="task", **places)
assert again.table.line(recipe) == result.table.line(recipe)
print(f"{len(list(work.glob('runs/*/*/*/seed*/DONE.json')))} finished units in {work / 'runs'}")
