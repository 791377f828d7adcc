"""The query language of the app: what it chooses, against pandas; what it refuses, in sentences."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pertcast.app.query import DEEPEST, matching, parse
from pertcast.errors import InputError

N = 200
rng = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "Inflammation": rng.choice(["Healthy", "UC inflamed"], N),
        "batch": rng.choice(["b1", "b2", "b3"], N),
        "ACSL4": rng.poisson(2, N).astype(float),
        "HLA-DRA": rng.normal(size=N),
        "treated": rng.random(N) < 0.5,
    }
)
COLUMNS = {name: FRAME[name].to_numpy() for name in FRAME}


@pytest.mark.parametrize(
    "text",
    [
        'Inflammation == "UC inflamed" and ACSL4 > 2',
        "Inflammation != 'Healthy' or ACSL4 <= 1",
        "not (ACSL4 > 2 and batch == 'b1')",
        "not ACSL4 > 2 and batch == 'b1'",
        "batch == 'b1' or batch == 'b2' and ACSL4 == 0",
        "(batch == 'b1' or batch == 'b2') and ACSL4 == 0",
        "batch in ['b1', 'b3'] and 1 <= ACSL4 < 3",
        "batch not in ['b1', 'b3']",
        "`HLA-DRA` < -0.5 & ACSL4 >= 1e0",
        "ACSL4 in (1, 2, 3) | ~(ACSL4 < 5)",
        "2 < ACSL4",
        "treated == True and ACSL4 != 3",
    ],
)
def test_chooses_what_pandas_chooses(text):
    """S001-13: comparisons on genes and metadata joined by and, or, not, with the precedence of pandas."""
    expected = FRAME.query(text).index
    assert 0 < len(expected) < N
    np.testing.assert_array_equal(np.flatnonzero(matching(text, COLUMNS)), expected)


def test_names_with_a_dash_need_no_quotes():
    np.testing.assert_array_equal(matching("HLA-DRA > 0", COLUMNS), FRAME["HLA-DRA"] > 0)


def test_an_empty_query_chooses_all():
    assert matching("  ", COLUMNS).all()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch /tmp/owned')",
        "ACSL4.__class__ == 1",
        "@exec('1')",
        "(lambda: 1)() == 1",
        "ACSL4 > 2; import os",
        "[x for x in ().__class__.__bases__]",
        "ACSL4 > len(batch)",
        "open('/etc/passwd') == 1",
        "ACSL4 ** 2 > 3",
        'f"{1}" == batch',
        "batch == 'b1' if 1 else 2",
    ],
)
def test_code_is_a_sentence(text, monkeypatch):
    """S001-13, R15: nothing but names, values and comparisons is understood; and nothing is called on the way."""
    monkeypatch.setattr("builtins.eval", None)
    monkeypatch.setattr("builtins.exec", None)
    with pytest.raises(InputError, match=r"Query, character \d+|Unknown column"):
        matching(text, COLUMNS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ACSL5 > 2", "Unknown column 'ACSL5'. Did you mean 'ACSL4'"),
        ("ACSL4 >", "character 8: expected a column, a number or a text in quotes, got the end"),
        ("ACSL4 = 2", "character 7: write == to compare, as in ACSL4 == 2"),
        ("ACSL4 > 2 and", "character 14: expected a column"),
        ("(ACSL4 > 2", "expected '\\)', got the end"),
        ("ACSL4 > 2 batch == 'b1'", "character 11: expected and, or, or the end, got 'batch'"),
        ("batch == b1", 'Text stands in quotes: "b1"'),
        ("batch == 'b1", "character 10: ''' means nothing here. A text or name begun by it is not closed"),
        ("batch == 2", 'holds text, it was compared with 2. It has "b1", "b2", "b3"'),
        ("batch > 'b1'", "compared by ==, != or in, not >"),
        ("ACSL4 == 'high'", 'holds numbers .* compared with the text "high"'),
        ("1 < 2", "One side must be a column"),
        ("batch in 'b1'", "expected a list"),
        ("batch in ['b1' 'b2']", "expected ',' or '\\]', got 'b2'"),
        ("ACSL4", "expected a comparison"),
        ("(" * (DEEPEST + 1) + "ACSL4 > 1", "nested deeper"),
        ("not " * 5000 + "ACSL4 > 1", "20009 characters, at most 2000"),
    ],
)
def test_faults_say_where_and_what_was_expected(text, said):
    """S001-13: bad syntax is a friendly error."""
    with pytest.raises(InputError, match=said):
        matching(text, COLUMNS)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="aA4SCL()[]'\"`<>=!&|~, .-0129notrdi\n", max_size=40))
def test_any_text_is_a_choice_or_a_sentence(text):
    """No text, however odd, ends in anything but cells or an InputError."""
    try:
        rows = matching(text, COLUMNS)
    except InputError:
        return
    assert rows.shape == (N,)
    assert rows.dtype == bool


def test_a_missing_value_is_not_above_or_below():
    columns = {"G": np.array([np.nan, 1.0, 3.0])}
    np.testing.assert_array_equal(parse("G > 2").rows(columns), [False, False, True])
    np.testing.assert_array_equal(parse("G <= 2").rows(columns), [False, True, False])
