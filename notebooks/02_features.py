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
# # 2. Features
#
# Static blocks know names and structures only. Fitted blocks are made from a fold's training rows, and for a training
# row from the *other* rows only. This notebook shows both, and tries to make them leak.

# %% tags=["parameters"]
data = ""

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from rdkit.Chem import Draw, MolFromSmiles

from pertcast import workflow
from pertcast.config import FeatureConfig
from pertcast.features import chemistry
from pertcast.features.assemble import CHEMISTRY, ONE_HOT, STATISTICS, assemble
from pertcast.features.target_stats import cross_fitted_stats
from pertcast.validation.folds import make_folds

folder = workflow.data_or_demo(data)
competition = workflow.read(folder)
question = workflow.question_of(competition)
print(f"{folder}: {'SIMULATED data' if competition.simulated else 'measured data'}")
print("Static, from names:      ", ", ".join(ONE_HOT))
print("Static, from structures: ", ", ".join(CHEMISTRY))
print("Fitted in the fold:      ", ", ".join(STATISTICS))

# %% [markdown]
# ## The blocks of one fold
#
# A block is a small table, and for every row which table row it uses: wide features are never copied out.

# %%
fold = make_folds("task", question)[0]
print(f"{fold.name} holds out {fold.holds_out}: {len(fold.train)} rows train, {len(fold.valid)} are held out")
blocks = ("cell_type", "compound", "compound_residual_mean", "compound_residual_sd", "compound_count", "morgan")
config = FeatureConfig(blocks=blocks, components=16)
rows = assemble(question, config, train=fold.train, valid=fold.valid)
for name in blocks:
    block = rows.train.block(name)
    print(f"{name:24s} table {block.table.shape!s:14s} for {len(rows.train)} training rows")

# %% [markdown]
# ## Trying to leak
#
# The held-out rows' targets become a million. Not one feature of any row moves.

# %%
poisoned = question.y.copy()
poisoned[fold.valid] = 1e6
after = assemble(replace(question, y=poisoned), config, train=fold.train, valid=fold.valid)
for name in blocks:
    for part in ("train", "valid", "test"):
        before_values, after_values = getattr(rows, part).block(name), getattr(after, part).block(name)
        assert np.array_equal(before_values.dense(), after_values.dense()), (name, part)
print("Nothing moved.")

# %% [markdown]
# A training row's own target does not describe it either: its compound's mean is taken over other cell types.

# %%
names, y = question.compound.astype(str), question.y[:, :20]
own_type = question.cell_type.astype(str)
means = cross_fitted_stats(names, y, own_type, stats=("mean",), smooth=1.0)["mean"].dense()
poisoned = y.copy()
poisoned[0] = 1e6
after = cross_fitted_stats(names, poisoned, own_type, stats=("mean",), smooth=1.0)["mean"].dense()
print(f"poisoned row: its own encoding moved by {np.abs(after[0] - means[0]).max():.0f}")
print(f"other rows of the compound moved by up to {np.abs(after - means).max():.0f}")

# %% [markdown]
# ## Chemistry
#
# Computed once per structure: the Tanimoto similarity of the compounds, in order of their clusters, then six of them.

# %%
structures = sorted({s for s in question.smiles if isinstance(s, str)})[:300]
bits = chemistry.morgan_bits(structures)
order = np.argsort(chemistry.cluster_ids(bits), kind="stable")
figure, axes = plt.subplots(figsize=(5, 4.2), layout="constrained")
image = axes.imshow(chemistry.tanimoto(bits[order], bits[order]), cmap="viridis", vmin=0, vmax=1)
axes.set(title=f"Tanimoto similarity of {len(structures)} compounds", xlabel="compound", ylabel="compound")
figure.colorbar(image);

# %%
Draw.MolsToGridImage([MolFromSmiles(s) for s in structures[:6]], molsPerRow=3, subImgSize=(220, 160))
