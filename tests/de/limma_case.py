"""The simulated counts that R's limma and edgeR were run on, and what they said."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent


@cache
def case() -> dict:
    """Read what `pipeline_fixture.R` wrote. Genes are its rows; here samples are."""
    return json.loads((HERE / "pipeline_fixture.json").read_text())


def counts() -> np.ndarray:
    return np.array(case()["counts"]).T  # (18, 300)


def samples() -> pd.DataFrame:
    """Compound, donor and age of the samples; dmso is the first level, as in R."""
    compound = pd.Categorical(case()["compound"], ["dmso", "a", "b", "c"])
    return pd.DataFrame({"compound": compound, "donor": case()["donor"], "age": case()["age"]})


def some() -> np.ndarray:
    """Return the numbers of the genes that wide results were kept of."""
    return np.array(case()["some"]) - 1
