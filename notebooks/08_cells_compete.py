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
# # 8. Cells compete
#
# The competition's table was computed from single cells. Here it is made from cells again, and models of cells join the
# competition: they treat the untreated cells of a cell type, and what wells of those would have shown is a prediction
# like any other, cross-validated, blended and scored.
#
# All cells on this page are **simulated** (`pertcast demo --cells`): drawn given the counts of their wells, with
# planted effects. So an oracle that knows these stands beside every score, and no score says anything of real cells.

# %% tags=["parameters"]
size = "tiny"
seed = 0

# %%
import tempfile
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from pertcast import workflow
from pertcast.cell_tasks.differential import differential_expression
from pertcast.cell_tasks.runs import Columns
from pertcast.cell_tasks.verbs import fit_cells, predict_cells
from pertcast.de.presets import NEGATIVE_CONTROL, analysis
from pertcast.de.pseudobulk import pseudobulk
from pertcast.io.tables import read_predictions, read_solution
from pertcast.predict import Compound
from pertcast.report import pictures, text
from pertcast.simulate.demo import write_demo

torch.set_num_threads(1)
work = Path(tempfile.mkdtemp())
demo, places = work / "demo", {"out": work / "runs", "cache": work / "features"}
facts = write_demo(demo, size=size, seed=seed, cells=True)
question = workflow.question_of(workflow.read(demo))
genes = list(question.genes)
print(f"SIMULATED: {facts['cells']['train']} cells of training, {facts['cells']['asked']} of the pairs to predict")
print(f"{len(question)} rows of training, {len(question.test_ids)} to predict, {len(genes)} genes")

# %% [markdown]
# ## From cells to the table
#
# Cells are summed by well, and in each cell type every compound is tested against the untreated wells. That gives
# `de_train.parquet` again, but for one thing. Wells of pairs to predict are hidden, and they too would say how much
# wells vary: rows of the cell type that is asked for are equal only with these cells, which a simulation can hand out.

# %%
keys = ["cell_type", "sm_name"]
cells, hidden = (ad.read_h5ad(demo / name) for name in ("cells.h5ad", "solution_cells.h5ad"))
ad.concat([cells, hidden]).write_h5ad(work / "all.h5ad")
given = pd.read_parquet(demo / "de_train.parquet").set_index(keys)[genes]
largest = {}
for name, path in (("with all cells", work / "all.h5ad"), ("with training cells", demo / "cells.h5ad")):
    tested = differential_expression(path, analysis("demo"), out=work / "from-cells.parquet")
    again = pd.read_parquet(work / "from-cells.parquet").set_index(keys).loc[given.index, genes]
    largest[name] = (again - given).abs().max(axis=1).groupby("cell_type").max()
print("largest difference to de_train.parquet, in units of -log10 p")
pd.DataFrame(largest).map("{:.0e}".format)

# %% [markdown]
# ## How far a row can be trusted
#
# `from-cells.rows.csv` beside the table says what each row was computed from. A row of few cells has little in common
# with the truth (the oracle's row), unless its compound is so strong that it is seen through the noise.

# %%
rows = pd.read_csv(work / "from-cells.rows.csv").set_index(keys).loc[given.index]
truth = read_predictions(demo / "oracle_train.parquet", ids=np.arange(len(question)), genes=question.genes)
rows["size of truth"] = np.sqrt(np.square(truth).mean(axis=1))
rows["correlation with truth"] = [np.corrcoef(pair)[0, 1] for pair in zip(given.to_numpy(), truth, strict=True)]
figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
for name, part in rows.groupby("cell_type"):
    area = 60 * part["size of truth"]
    axes.scatter(part["reliability"], part["correlation with truth"], s=area, alpha=0.7, label=name)
axes.set(xlabel="reliability: 0.5 for the median number of cells", ylabel="correlation with truth")
axes.legend(title="area: size of truth", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
rows.sort_values("reliability")[["cells", "control_cells", "reliability"]].iloc[[0, 1, -2, -1]].round(2)

# %% [markdown]
# ## A model treats untreated cells
#
# Of the pairs that are asked for, the one that answers most. The default model of cells learns from `cells.h5ad`, in
# which no cell of this pair was treated, and moves the untreated cells of the cell type as other cell types tell.

# %%
solution = read_solution(demo / "solution.parquet", ids=question.test_ids, genes=question.genes)
pair = int(np.square(solution.y).mean(axis=1).argmax())
cell_type, compound = question.test_cell_type[pair], question.test_compound[pair]
fit_cells("default", demo / "cells.h5ad", Columns("sm_name", NEGATIVE_CONTROL, "cell_type"), out=work / "model")
told = predict_cells(
    work / "model", demo / "cells.h5ad", condition=compound, context=cell_type, out=work / "treated.h5ad", seed=seed
)
print(f"{told['cells']} untreated cells of {cell_type}, treated with {compound} by {told['model']}")

# %% [markdown]
# What wells would have shown is what the recipe `cells-context-transfer` learns to say: cells that its model treated
# are summed by donor and held to how much wells vary, and rows whose cells were hidden from a first fit tell how far to
# trust the result.

# %%
result = workflow.cross_validate(["cells-context-transfer"], demo, **places)
(run,) = (run for run in result.runs if run.recipe.name == "cells-context-transfer")
(forecast,) = workflow.predict(run.folder, cell_type, [Compound(name=compound)])

# %% [markdown]
# Left: how the genes' shares of all counts change, in the model's cells and in the measured ones, against what was
# planted. Right: the same pair as the competition asks for it, said by the model and by the oracle, against the wells.
# Dots on a line that is steeper than the black one: right in direction, and said with caution.

# %%
control = cells[(cells.obs["sm_name"] == NEGATIVE_CONTROL).to_numpy()]
own = (hidden.obs["cell_type"] == cell_type) & (hidden.obs["sm_name"] == compound)
before = control[(control.obs["cell_type"] == cell_type).to_numpy()]
sides = (before, hidden[own.to_numpy()], ad.read_h5ad(work / "treated.h5ad"))
sums = np.array([np.asarray(side.X.sum(axis=0)).ravel() for side in sides])
logs = np.log((sums + 1) / sums.sum(axis=1, keepdims=True))
seen = sums[0] >= 20  # a gene of fewer untreated counts tells nothing of a change
planted = pd.read_parquet(demo / "oracle_effects.parquet").set_index(keys).loc[(cell_type, compound), genes].to_numpy()
best = read_predictions(demo / "oracle.parquet", ids=question.test_ids, genes=question.genes)[pair]
wells = solution.y[pair]
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.6), layout="constrained")
for number, name, colour in ((1, "measured", "#b0b0b0"), (2, "model", "#2f6690")):
    change = (logs[number] - logs[0])[seen]
    left.scatter(planted[seen], change, s=22, color=colour, label=f"{name}, {sides[number].n_obs} cells")
left.set(xlabel="planted effect, natural log", ylabel="change of share, natural log", title="cells")
left.legend(frameon=False)
for name, said, colour in (("oracle", best, "#3a7d44"), ("model", forecast.values, "#2f6690")):
    right.scatter(said, wells, s=22, color=colour, label=f"{name}, RMSE {np.sqrt(np.square(said - wells).mean()):.2f}")
right.set(xlabel="said, signed -log10 p", ylabel="measured, signed -log10 p", title="wells")
right.legend(frameon=False, title=f"(zeros: RMSE {np.sqrt(np.square(wells).mean()):.2f})")
for axes in (left, right):
    axes.axline((0, 0), slope=1, color="black", lw=0.8)
figure.suptitle(f"{cell_type}, {compound}, a dot per gene");

# %% [markdown]
# ## In the competition
#
# Two models of cells beside two models of the table, the floors and the oracle, on folds that ask what the competition
# asks. No fold's model reads a cell of the rows that it is scored on. Few rows are held out here: mind the intervals.

# %%
recipes = ["cells-context-transfer", "cells-zinb-vae", "ridge", "kernel-ridge-t"]
result = workflow.cross_validate(recipes, demo, **places)
print(text.plain(result.table))

# %%
figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
pictures.draw_table(axes, result.table)

# %% [markdown]
# ## The blend, with and without them
#
# A member that is not the best may help where it errs differently. Weights come from held-out rows alone, and the
# blends' scores on these are nested; the solution is for the record. Below 0 the blend with cells is the better one.

# %%
done = workflow.ensemble([run.folder for run in result.runs], demo, work / "blend.csv")
blends, tables = ("blend", "blend without cells"), {"held-out rows": done.cv_table, "solution": done.score_table}
for name in blends:
    print(f"{name}: {done.cv_table.line(name).note.partition(';')[0]}")
for where, paired in zip(tables, done.paired, strict=True):
    low, high = paired.over_compounds
    print(f"{where}: {paired.difference:+.3f} with cells (95 % interval over compounds {low:+.3f} to {high:+.3f})")
lines = (*blends, done.cv_table.best_floor, "oracle")
pd.DataFrame({where: [table.line(name).mrrmse for name in lines] for where, table in tables.items()}, lines).round(3)

# %% [markdown]
# ## As the benchmark's files
#
# Tests of cells can be written in the form of the OpenProblems benchmark, all its layers, and a competition can be read
# from that; predictions go out in its form as well. The main job does it all, and finds the runs above finished.

# %%
benchmark, preset = work / "benchmark", work / "cells.toml"
benchmark.mkdir()
differential_expression(demo / "cells.h5ad", analysis("demo"), out=benchmark / "de_train.h5ad")
(benchmark / "id_map.csv").write_text((demo / "id_map.csv").read_text())
read = workflow.read(benchmark, layer="sign_log10_pval")
same = pd.DataFrame(read.y, [read.train["cell_type"], read.train["sm_name"]], list(read.genes)).loc[given.index, genes]
print("layers:", *ad.read_h5ad(benchmark / "de_train.h5ad").layers)
print(f"largest difference to the Parquet file of these cells: {np.abs(same - again).to_numpy().max():.0e} (float32)")
preset.write_text(f'reason = "cells and tables"\nrecipes = {recipes}\n')
done = workflow.make_submission(
    demo, work / "prediction.h5ad", preset=str(preset), style="openproblems", runs=places["out"], cache=places["cache"]
)
checked = workflow.validate(done.path, demo)
print(f"{done.path.name}: valid, {len(checked.ids)} rows x {len(checked.genes)} genes")

# %% [markdown]
# ## A cell type of which only untreated cells are known
#
# All treated cells of one cell type after the other are held out. Its untreated profile says which cell types it is
# like (`kernel-ridge-context`), or its untreated cells are treated (`cells-context-transfer`); `kernel-ridge` knows no
# more of it than that it is another one. There are few cell types here to learn from.

# %%
bulk = pseudobulk(control.X, control.obs, ["cell_type"], genes=tuple(control.var_names))
profiles = np.log1p(1e4 * bulk.counts / bulk.counts.sum(axis=1, keepdims=True))
pd.DataFrame(profiles, bulk.obs["cell_type"], list(bulk.genes)).to_csv(demo / "cell_baseline.csv")
recipes = ["kernel-ridge", "kernel-ridge-context", "cells-context-transfer"]
unseen = workflow.cross_validate(recipes, demo, folds="celltype", **places)
print(text.plain(unseen.table))
for paired in unseen.table.paired("kernel-ridge", unseen.scope.cell_type):
    print(paired.text())

# %% [markdown]
# The same from the command line: `pertcast demo --cells`, `pertcast de`, `pertcast cells fit` and `predict`, `pertcast
# cv cells-context-transfer`, `pertcast ensemble`; `make circle` goes all the way round on a larger demo. How well models
# of cells tell cells, and not wells: notebook 6.
