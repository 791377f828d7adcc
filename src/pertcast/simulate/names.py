"""Genes by name or by position: the first gene has position 0, and a wrong one is refused with what is near."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np

from pertcast.errors import InputError, several, shorten

Gene = str | int  # a name, or a position from 0


def gene_names(n: int, *, prefix: str = "gene") -> tuple[str, ...]:
    """Return `gene-0`, `gene-1`, ... Raises InputError for less than one."""
    if n < 1:
        raise InputError(f"Number of genes must be at least 1, got {n}.")
    return tuple(f"{prefix}-{i}" for i in range(n))


def column(genes: Sequence[str], gene: Gene) -> int:
    """Return the position of a gene that is given by name or by position. Raises InputError for one that is not."""
    return columns(genes, [gene])[0]


def columns(genes: Sequence[str], wanted: Sequence[Gene]) -> list[int]:
    """Return the positions of several genes; all that do not exist are named in one InputError."""
    where = {name: i for i, name in enumerate(genes)}
    problems, found = [], []
    for gene in wanted:
        number = isinstance(gene, int | np.integer) and not isinstance(gene, bool)
        if number and 0 <= gene < len(genes):
            found.append(int(gene))
        elif not number and gene in where:
            found.append(where[gene])
        else:
            problems.append(_no_such(genes, gene, number=number))
    if problems:
        raise InputError(several("Genes", problems))
    return found


def _no_such(genes: Sequence[str], gene: Gene, *, number: bool) -> str:
    if number:
        return f"position {gene} does not exist, there are 0 to {len(genes) - 1} ('{genes[0]}' to '{genes[-1]}')"
    close = get_close_matches(str(gene), genes, n=3)
    hint = f"nearest: {', '.join(close)}" if close else f"known: {shorten(genes)}"
    return f"'{gene}' is not among the {len(genes)}; {hint}"
