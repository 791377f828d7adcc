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
# # 4. A submission
#
# The whole job in one call: cross-validate the recipes of a preset, blend them with weights that only out-of-fold rows
# decide, write, read back, validate, and score where the truth is at hand.

# %% tags=["parameters"]
data = ""
recipes = ["lightgbm", "ridge", "ridge-onehot"]

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

from pertcast import workflow
from pertcast.errors import PertcastError
from pertcast.report import pictures, text

folder = workflow.data_or_demo(data)
print(f"{folder}: {'SIMULATED data' if workflow.read(folder).simulated else 'measured data'}")
work = Path(tempfile.mkdtemp())
result = workflow.cross_validate(recipes, folder, out=work / "runs", cache=work / "features")
done = workflow.ensemble([run.folder for run in result.runs], folder, work / "submission.csv")
for remark in done.remarks:
    print(remark)

# %% [markdown]
# ## How the models were blended
#
# The blend's own line is nested: each fold's rows are scored with weights of the other folds. Its weights for the
# submission, made from all folds, stand below the table.

# %%
print(text.plain(done.cv_table))

# %% [markdown]
# ## What the solution says
#
# A competition does not show it before the end; the demo does.

# %%
print(text.plain(done.score_table) if done.score_table else "No solution.parquet here.")

# %%
pictures.report_figure(done.cv_table, done.scope)

# %% [markdown]
# ## A broken file is refused, all faults at once

# %%
lines = done.path.read_text().splitlines()
header, first = lines[0].split(","), lines[1].split(",")
header[0], header[1], header[2] = "Id", header[2], header[1]
first[3] = "a lot"
broken = work / "broken.csv"
broken.write_text("\n".join([",".join(header), ",".join(first), *lines[2:-1]]) + "\n")
try:
    workflow.validate(broken, folder)
except PertcastError as error:
    print(error)

# %%
checked = workflow.validate(done.path, folder)
print(f"{done.path.name}: valid, {len(checked.ids)} rows x {len(checked.genes)} genes")
