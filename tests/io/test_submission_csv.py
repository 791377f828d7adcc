"""Every fault of a submission, by itself and together, named with its position and its fix."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pertcast.errors import InputError
from pertcast.io.submission_csv import read_submission, validate_submission

GENES = ["A1BG", "A2M", "HLA-A", "ZYX"]
GOOD = ["id,A1BG,A2M,HLA-A,ZYX", "0,1,2,3,4", "1,-1.5,2e-05,0,0.25", "2,0,0,0,-0"]


@pytest.fixture
def check(tmp_path):
    path = tmp_path / "mine.csv"

    def run(lines, ids=(0, 1, 2), genes=GENES):
        path.write_bytes(lines if isinstance(lines, bytes) else "\n".join([*lines, ""]).encode())
        return validate_submission(path, ids=ids, genes=genes)

    return run


def faults_of(check, lines, **template):
    with pytest.raises(InputError) as caught:
        check(lines, **template)
    return str(caught.value)


def changed(line, old, new):
    lines = GOOD.copy()
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new, 1)
    return lines


def test_a_good_file_is_read_as_it_stands(check):
    checked = check(GOOD)
    assert_array_equal(checked.ids, [0, 1, 2])
    assert checked.genes == tuple(GENES)
    assert checked.values.dtype == np.float64
    assert_array_equal(checked.values, [[1, 2, 3, 4], [-1.5, 2e-05, 0, 0.25], [0, 0, 0, 0]])


def test_rows_in_any_order_are_put_in_the_template_s(check):
    """R05."""
    checked = check([GOOD[0], GOOD[3], GOOD[1], GOOD[2]])
    assert_array_equal(checked.values, check(GOOD).values)
    assert_array_equal(check(GOOD, ids=(2, 0, 1)).values, check(GOOD).values[[2, 0, 1]])


@pytest.mark.parametrize(
    "text",
    [
        "\r\n".join([*GOOD, ""]).encode(),  # Windows
        b"\xef\xbb\xbf" + "\n".join(GOOD).encode(),  # byte-order mark, no newline at the end
        "\n\n".join([*GOOD, "", ""]).encode(),  # empty lines
        "\n".join(['"id","A1BG","A2M","HLA-A","ZYX"', '"0", 1,2,3,4', *GOOD[2:]]).encode(),  # R's quotes, a space
    ],
)
def test_harmless_spellings_are_accepted(check, text):
    assert_array_equal(check(text).values, check(GOOD).values)


FAULTS = {
    "wrong case": (changed(0, "id", "Id"), "column 1 is named 'Id', expected 'id'. Rename it"),
    "id not first": (
        ["A1BG,id,A2M,HLA-A,ZYX", "1,0,2,3,4", "1,1,1,1,1", "1,2,1,1,1"],
        "'id' is column 2, expected column 1. Move it to the front",
    ),
    "no id": (changed(0, "id", "row"), "there is no column 'id': column 1 is 'row'. Put the ids in a first column"),
    "row index": ([f"{i}{line}" for i, line in zip([",", "0,", "1,", "2,"], GOOD, strict=True)], "write no row index"),
    "gene missing": (
        [line.rsplit(",", 1)[0] for line in GOOD],
        "genes without a column (1): 'ZYX'. Add a column for each",
    ),
    "gene extra": (
        [f"{GOOD[0]},TP53", *(f"{line},0" for line in GOOD[1:])],
        "columns that are no genes of the template (1): 'TP53' in column 6. Remove them",
    ),
    "gene renamed": (changed(0, "HLA-A", "HLA.A"), "(1): 'HLA.A' in column 4. Remove them"),
    "genes reordered": (
        changed(0, "A2M,HLA-A", "HLA-A,A2M"),
        "the genes are in another order: column 3 is 'HLA-A' where 'A2M' belongs. Reorder the columns by name",
    ),
    "column repeated": (
        [f"{GOOD[0]},A2M", *(f"{line},0" for line in GOOD[1:])],
        "repeated columns (1): 'A2M' 2 times, first in column 3. Keep one of each",
    ),
    "id missing": (GOOD[:3], "missing ids (1): 2. Add a row for each"),
    "id repeated": ([*GOOD, GOOD[2]], "repeated ids (1): 1 on lines 3, 5. Keep one row of each"),
    "id unknown": ([*GOOD, "7,0,0,0,0"], "unknown ids (1): 7 on line 5. Remove their rows"),
    "id of text": (changed(2, "1,", "one,"), "ids that are no whole numbers (1): 'one' on line 3. Write them as 0"),
    "id as a float": (changed(2, "1,", "1.0,"), "'1.0' on line 3. Write them as 0, 1, 2"),
    "empty cell": (
        changed(2, "2e-05", ""),
        "cells that are empty or NaN (1): id 1, column 'A2M' (line 3): ''. Every gene of every row needs a number",
    ),
    "NaN": (changed(2, "2e-05", "nan"), "cells that are empty or NaN (1): id 1, column 'A2M' (line 3): 'nan'"),
    "NA of R": (changed(3, "-0", "NA"), "cells that are empty or NaN (1): id 2, column 'ZYX' (line 4): 'NA'"),
    "infinity": (changed(1, "3", "-inf"), "cells that are infinite (1): id 0, column 'HLA-A' (line 2): '-inf'. Look"),
    "overflow": (changed(1, "3", "1e999"), "cells that are infinite (1): id 0, column 'HLA-A' (line 2): '1e999'"),
    "text": (
        changed(2, "2e-05", "high"),
        "cells that are not a number (1): id 1, column 'A2M' (line 3): 'high'. Write plain numbers",
    ),
    "underscore": (changed(2, "2e-05", "1_000"), "column 'A2M' (line 3): '1_000'. Write plain numbers"),
    "short row": (
        changed(2, ",0.25", ""),
        "rows of another length (1): line 3 (id 1) has 4 cells; the header has 5. Write one cell per column",
    ),
    "long row": (changed(2, "0.25", "0.25,9"), "line 3 (id 1) has 6 cells; the header has 5"),
    "header only": (GOOD[:1], "it has a header but no rows, expected 3. Write it again"),
    "no header": (GOOD[1:], "has no header: line 1 holds numbers. Put 'id' and the genes in line 1"),
    "semicolons": ([line.replace(",", ";") for line in GOOD], "separates columns by ';', expected ','. Save it with"),
    "tabs": ([line.replace(",", "\t") for line in GOOD], "separates columns by a tab, expected ','"),
    "empty file": (b"", "is empty, expected a CSV. Write it again"),
    "blank file": (b"\n \n", "is empty, expected a CSV"),
    "Parquet": (b"PAR1\x15\x04\x00", "is not a CSV but a Parquet file. Write it as a plain CSV"),
    "zip": (b"PK\x03\x04\x14", "is not a CSV but a zip archive"),
    "gzip": (b"\x1f\x8b\x08", "is not a CSV but a gzip file"),
    "binary": (b"\x7fELF\x02\x00\x00", "is not a CSV but a binary file"),
    "Latin-1": ("id,G\xe9ne\n0,1\n".encode("latin-1"), "is not text in UTF-8"),
    "open quote": (b'id,"A1BG,' + b"A2M," * 50_000, "is not a CSV: line 1: field larger than field limit"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_with_place_and_fix(check, fault):
    lines, expected = FAULTS[fault]
    shown = faults_of(check, lines)
    assert expected in shown
    assert "mine.csv" in shown


ALONE = "wrong case|gene missing|gene extra|genes reordered|column repeated|id missing|id repeated|id unknown"
ALONE += "|empty cell|NaN|NA of R|infinity|overflow|text|underscore|id not first|header only"


@pytest.mark.parametrize("fault", ALONE.split("|"))
def test_a_single_fault_is_reported_once(check, fault):
    lines, _ = FAULTS[fault]
    assert "problems" not in faults_of(check, lines)


def test_all_faults_at_once(check):
    lines = ["Id,A2M,A1BG,HLA-A,HLA-A,BRCA1", "0,1,nan,inf,4,5", "0,1,2,x,4,5", "9,1,2,,4", "two,1,2,3,4,5"]
    shown = faults_of(check, lines)
    assert "has 13 problems" in shown
    for part in (
        "column 1 is named 'Id'",
        "repeated columns (1): 'HLA-A' 2 times, first in column 4",
        "genes without a column (1): 'ZYX'",
        "(1): 'BRCA1' in column 6",
        "column 2 is 'A2M' where 'A1BG' belongs",
        "line 4 (id 9) has 5 cells; the header has 6",
        "'two' on line 5",
        "repeated ids (1): 0 on lines 2, 3",
        "unknown ids (1): 9 on line 4",
        "missing ids (2): 1; 2",
        "empty or NaN (2): id 0, column 'A1BG' (line 2): 'nan'; id 9, column 'HLA-A' (line 4): ''",
        "infinite (1): id 0, column 'HLA-A' (line 2): 'inf'",
        "not a number (1): id 0, column 'HLA-A' (line 3): 'x'",
    ):
        assert part in shown


def test_many_places_are_counted(check):
    genes = [f"G{j}" for j in range(50)]
    lines = [",".join(["id", *genes]), *(",".join([str(i)] + ["nan"] * 50) for i in range(20))]
    shown = faults_of(check, lines, ids=range(30), genes=genes)
    assert "empty or NaN (1000): id 0, column 'G0' (line 2): 'nan'; id 0, column 'G1'" in shown
    assert "and 997 more" in shown
    assert "missing ids (10): 20; 21; 22; and 7 more" in shown
    assert len(shown) < 600


def test_a_folder_and_a_path_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="is a folder, expected a CSV file"):
        validate_submission(tmp_path, ids=[0], genes=GENES)
    with pytest.raises(InputError, match=r"none\.csv' does not exist. Check the path"):
        validate_submission(tmp_path / "none.csv", ids=[0], genes=GENES)


def test_a_file_may_be_its_own_template(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("\n".join(GOOD))
    assert_array_equal(read_submission(path).values, validate_submission(path, ids=[0, 1, 2], genes=GENES).values)
    assert read_submission(path).genes == tuple(GENES)
    path.write_text("\n".join([*GOOD, GOOD[1]]))
    with pytest.raises(InputError, match=r"repeated ids \(1\): 0 on lines 2, 5"):
        read_submission(path)
    path.write_text("id\n0\n")
    with pytest.raises(InputError, match="genes without a column"):
        read_submission(path)


def test_checking_imports_nothing_heavy():
    heavy = "{'torch', 'sklearn', 'lightgbm', 'anndata', 'pandas', 'pyarrow', 'scipy'}"
    code = f"import sys, pertcast.submission, pertcast.io.submission_csv; print({heavy} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
