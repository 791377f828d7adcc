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
# # 5. Simulated truth
#
# A model of cells can only be judged where the truth is known. Here counts are simulated with known parameters, a gene
# is planted that follows from other genes, and models are asked what they make of it. **All data on this page are
# simulated.** Every number stands between a floor (no learning) and a ceiling (the truth itself).

# %% tags=["parameters"]
cells = 2000
seed = 0

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from pertcast.report.story import draw_panel, plain_table, story_figure
from pertcast.simulate.base import simulate_base
from pertcast.simulate.interventions import Levels, perturbation_grid
from pertcast.stories import shelf
from pertcast.stories.mechanism import fixture

torch.set_num_threads(1)

# %% [markdown]
# ## Counts with many zeros
#
# A count is drawn from a negative binomial with variance = mean + dispersion x mean^2, and is zero for a reason of its
# own with some probability, solved for so that four fifths of all counts are zero.

# %%
simulated = simulate_base(cells, 20, 0.8, seed=42, fixture=True)
truth = simulated.oracle().parameters
print(f"{len(simulated)} cells x {len(simulated.genes)} genes, {simulated.zero_share:.1%} zeros")
print(f"negative log-likelihood of the truth: {simulated.nll():.4f} nats per count")

# %%
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for gene in (0, 1, 6):
    values, times = np.unique(simulated.dense[:, gene], return_counts=True)
    label = f"{simulated.genes[gene]}: mean {truth.mean[0, gene]:.1f}"
    axes.plot(values[1:40], times[1:40] / len(simulated), ".-", label=label)
axes.set(xlabel="count above 0", ylabel="share of cells")
axes.legend(frameon=False);

# %% [markdown]
# ## Can the parameters be found again?
#
# Maximum likelihood per gene is as good as it gets with so many cells. The autoencoder (ZINB-VAE) is held to it.

# %%
recover = shelf.tell("recover", cells=cells, seed=seed)
print(plain_table(recover.tables[0]))

# %% [markdown]
# ## A gene that follows from the others
#
# The mean of the mechanistic gene is a weighted sum of all other genes, cut off at 0.1. What can be said of it in cells
# that training never saw?

# %%
mechanism = shelf.tell("mechanism", cells=cells, seed=seed)
print(plain_table(mechanism.tables[0]))
figure = story_figure(mechanism)
figure

# %% [markdown]
# ## One gene turned up
#
# After an intervention the truth is another one: it is recomputed through the mechanism. Here gene-1 of one cell is set
# to 0, 1, ... 29.

# %%
planted = fixture(cells)
changed = perturbation_grid(planted.model, planted.dense, {"gene-1": Levels()}, references=[0])
print("true mean of the mechanistic gene:", np.round(changed.curve(planted.genes[-1]), 2))

# %%
perturb = shelf.tell("perturb", cells=cells, seed=seed)
print("\n\n".join(plain_table(table) for table in perturb.tables[:2]))

# %%
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
draw_panel(axes, perturb.panels[0])

# %% [markdown]
# ## A drug
#
# Treated and untreated cells are different cells, as in any experiment. The first drug adds ten counts to every gene.
# The second multiplies means, and is asked about a population whose treated cells nobody has seen.

# %%
drug = shelf.tell("drug", cells=cells, seed=seed)
print("\n\n".join([*(plain_table(table) for table in drug.tables), *drug.remarks]))

# %%
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
draw_panel(axes, drug.panels[0])

# %% [markdown]
# `pertcast story recover|mechanism|perturb|drug --out FOLDER` tells the same stories at the published sizes.
