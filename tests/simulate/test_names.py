"""Genes by name or position."""

import numpy as np
import pytest

from pertcast.errors import InputError
from pertcast.simulate.names import column, columns, gene_names

GENES = gene_names(12)


def test_position_zero_is_a_gene():
    """R19."""
    assert column(GENES, 0) == 0
    assert column(GENES, np.int64(0)) == 0
    assert columns(GENES, ["gene-11", 3, "gene-0"]) == [11, 3, 0]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (12, r"position 12 does not exist, there are 0 to 11 \('gene-0' to 'gene-11'\)"),
        (-1, "position -1 does not exist"),
        ("gen-3", "'gen-3' is not among the 12; nearest: gene-3"),
        ("TP53", "'TP53' is not among the 12; known: gene-0, gene-1"),
        (False, "'False' is not among the 12"),
        (0.0, "'0.0' is not among the 12"),
    ],
)
def test_genes_that_do_not_exist_are_named_with_what_is_near(wanted, message):
    with pytest.raises(InputError, match=message):
        column(GENES, wanted)


def test_all_wrong_genes_at_once():
    with pytest.raises(InputError, match=r"(?s)2 problems.*position 99.*'nope'"):
        columns(GENES, [0, 99, "nope"])
