"""What is known of compounds beside their structure: read from the table, by id or name, as bits; kept with a run."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.errors import InputError
from pertcast.features.annotation import Annotations
from pertcast.features.assemble import assemble
from pertcast.features.fitted import Features
from pertcast.io.tables import question_of, read_competition
from pertcast.simulate.demo import write_demo

CONFIG = FeatureConfig(blocks=("annotation",))
TOLD = {"a": frozenset({"moa: x", "moa: y"}), "b": frozenset({"moa: y", "target: z"})}


def built(question):
    rows = np.arange(len(question))
    return assemble(question, CONFIG, train=rows[:30], valid=rows[30:])


def test_every_term_is_a_bit():
    block = Annotations.fit(TOLD, ["annotation"]).blocks(np.array(["b", "new", "a", "b"], object))["annotation"]
    assert_array_equal(block.dense(), [[0, 1, 1], [0, 0, 0], [1, 1, 0], [0, 1, 1]])  # x, y, z


def test_no_block_where_none_is_asked_for():
    assert Annotations.fit(TOLD, ["morgan"]).blocks(np.array(["a"], object)) == {}


def test_nothing_known_of_any_compound_is_refused():
    with pytest.raises(InputError, match=r"block 'annotation' needs the mechanism.*Put compounds\.csv there"):
        built(replace(make_question()[0], annotations={}))


def test_a_fold_describes_training_and_asked_rows_alike():
    question = make_question()[0]
    rows = built(question)
    terms = sorted(set().union(*question.annotations.values()))
    for part, compounds in ((rows.train, question.compound[:30]), (rows.test, question.test_compound)):
        wanted = [[term in question.annotations.get(name, ()) for term in terms] for name in compounds]
        assert_array_equal(part.block("annotation").dense(), wanted)


def test_a_saved_run_still_knows_them(tmp_path):
    question = make_question()[0]
    features = built(question).features
    features.save(tmp_path)
    names = np.array(["drug 1", "drug 4", "new"], object)
    asked = dict(cell_type=np.array(["type 0"] * 3, object), compound=names, smiles=np.array([None] * 3, object))
    blocks = [
        known.describe(np.arange(3), **asked).block("annotation") for known in (features, Features.load(tmp_path))
    ]
    assert_array_equal(blocks[0].dense(), blocks[1].dense())
    assert blocks[0].dense().sum(1).tolist() == [2, 0, 0]


def test_the_compound_table_is_read_by_id_and_by_name(tmp_path):
    """An id says more than a name: names repeat. Several terms, spaces and cases; nothing where nothing is written."""
    write_demo(tmp_path / "demo", size="tiny")
    train = pd.read_parquet(tmp_path / "demo" / "de_train.parquet")
    known = train.drop_duplicates("sm_name").reset_index(drop=True)
    table = pd.DataFrame(
        {
            "sm_lincs_id": [known.sm_lincs_id[0], "other 1", known.sm_lincs_id[2], "other 2"],
            "sm_name": ["another name", known.sm_name[1], known.sm_name[2], known.sm_name[0]],
            "moa": ["CDK inhibitor| mTOR inhibitor", "HDAC inhibitor", None, "of another with the first's name"],
            "target": ["CDK1", None, None, None],
        }
    )
    table.to_csv(tmp_path / "demo" / "compounds.csv", index=False)
    found = question_of(read_competition(tmp_path / "demo")).annotations
    assert found == {
        known.sm_name[0]: {"moa: cdk inhibitor", "moa: mtor inhibitor", "target: cdk1"},
        known.sm_name[1]: {"moa: hdac inhibitor"},
    }
