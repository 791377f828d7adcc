"""The app's pages, driven without a browser: query, select, run, tables; every fault of the user is a sentence."""

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from pertcast.app.places import BUNDLED, CELLS, ENVIRONMENT, RUNS, Places
from pertcast.app.serve import MAIN
from pertcast.app.world import World
from pertcast.cell_tasks.runs import open_cell_run
from pertcast.cells.trajectory import Change, roll_out

PATIENCE = 60  # seconds


def cell_page():
    from pertcast.app.page_cell import show

    show()


def compound_page():
    from pertcast.app.page_compound import show

    show()


def leaderboard_page():
    from pertcast.app.page_leaderboard import show

    show()


def opened(page) -> AppTest:
    at = AppTest.from_function(page, default_timeout=PATIENCE).run()
    assert not at.exception
    return at


@pytest.fixture
def cell():
    return opened(cell_page)


def press(at, key):
    at.button(key=key).click().run()
    assert not at.exception
    return at


def words(at) -> str:
    return "\n".join(str(one.value) for one in (*at.markdown, *at.caption, *at.info, *at.warning, *at.success))


def test_the_app_opens_on_the_virtual_cell():
    """R15: the script that the server runs, as it runs it, on what is bundled."""
    at = AppTest.from_file(str(MAIN), default_timeout=PATIENCE).run()
    assert not at.exception
    assert at.title[0].value == "Virtual cell"
    assert "SIMULATED" in at.info[0].value


def test_query_select_run_tables(cell):
    """S001-12, -14, R14: the whole way, and the tables are those of the library called by hand."""
    cell.text_input(key="query").set_value('population == "P1" and reg-5 < 2.5').run()
    cell.multiselect(key="genes").set_value(["reg-5"]).run()
    cell.number_input(key="target reg-5 set").set_value(5.0).run()
    press(cell, "run")
    assert [tab.label for tab in cell.tabs] == ["Atlas", "Top genes", "Gene curves", "Downloads"]
    world = World.open(BUNDLED / CELLS, open_cell_run(BUNDLED / RUNS / "virtual-cell"))
    row = world.pick('population == "P1" and reg-5 < 2.5', seed=0).row
    assert f"**{world.cells.ids[row]}**" in words(cell)
    expected = roll_out(world.model, world.cells.take(np.array([row])), [Change("reg-5", 5.0)]).top()
    rose, fell = (frame.value for frame in cell.tabs[1].dataframe)
    for table, direction, order in ((rose, "rose", 1), (fell, "fell", -1)):
        part = expected[expected["direction"] == direction][::order]
        assert list(table["gene"]) == list(part["gene"])
        np.testing.assert_allclose(table["effect"], part["effect"], atol=5e-5)
    assert len(rose) == len(fell) == 20
    assert (np.diff(rose["effect"]) <= 0).all()
    assert (np.diff(fell["effect"]) >= 0).all()
    assert "reg-5" not in {*rose["gene"], *fell["gene"]}
    assert sum(gene.startswith("reg-5-") for gene in (*rose["gene"][:9], *fell["gene"][:6])) >= 10


def test_a_change_of_nothing_has_no_effect(cell):
    """R14: what the model would change of an untouched cell is no effect."""
    cell.selectbox(key="mode reg-0").set_value("add").run()
    cell.number_input(key="target reg-0 add").set_value(0.0).run()
    press(cell, "run")
    assert [len(frame.value) for frame in cell.tabs[1].dataframe] == [0, 0]


def test_several_genes_and_modes_at_once(cell):
    cell.multiselect(key="genes").set_value(["reg-1", "reg-2"]).run()
    cell.selectbox(key="mode reg-2").set_value("fold").run()
    press(cell, "run")
    assert "reg-1 set" in words(cell)
    assert "reg-2 fold 2" in words(cell)


def test_another_cell_is_another_cell(cell):
    before = words(cell)
    press(cell, "another")
    assert words(cell) != before


def test_curves_of_chosen_genes(cell):
    press(cell, "run")
    chosen = cell.multiselect(key="curves")
    assert chosen.value[0] == "reg-0"
    chosen.set_value([]).run()
    assert cell.error[0].value == "No gene is chosen. Choose at least one to draw."


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("__import__('os').system('true')", "Query, character 11: expected a comparison"),
        ("reg-3 >", "expected a column, a number or a text in quotes, got the end"),
        ("reg-33 > 1", "Unknown column 'reg-33'. Did you mean 'reg-3"),
    ],
)
def test_a_query_that_cannot_be_read_is_a_sentence(cell, query, said):
    """S001-13: code in a query is a sentence, too."""
    cell.text_input(key="query").set_value(query).run()
    assert not cell.exception
    assert said in cell.error[0].value.replace("\\", "")


def test_no_match_is_said_and_a_random_cell_is_taken(cell):
    """S001-13."""
    cell.text_input(key="query").set_value("reg-3 > 1000").run()
    assert "No cell of 1200 matches the query" in cell.warning[0].value
    press(cell, "run")
    assert len(cell.tabs[1].dataframe[0].value)


def test_an_unknown_gene_is_a_sentence_with_the_nearest(cell):
    cell.multiselect(key="genes").set_value(["reg-44"]).run()
    press(cell, "run")
    assert "Unknown gene 'reg-44'. Did you mean 'reg-4'" in cell.error[0].value.replace("\\", "")


def test_a_target_below_zero_is_a_sentence(cell):
    cell.number_input(key="target reg-0 set").set_value(-1.0).run()
    press(cell, "run")
    assert "must be at least 0, got -1; 0 knocks it out" in cell.error[0].value


def test_no_gene_is_a_sentence(cell):
    cell.multiselect(key="genes").set_value([]).run()
    press(cell, "run")
    assert "no gene is changed; name at least one" in cell.error[0].value


@pytest.fixture
def own_places(tmp_path, monkeypatch):
    """Point the pages to an empty folder of runs, and to a file that is none."""
    (tmp_path / "x.h5ad").write_text("no cells")
    for key, value in Places(tmp_path / "x.h5ad", tmp_path).to_environment().items():
        monkeypatch.setenv(key, value)
    assert ENVIRONMENT


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (cell_page, "holds no virtual cell. `pertcast cells fit masked-autoencoder"),
        (compound_page, "holds no run that can predict compounds"),
        (leaderboard_page, "holds no score table"),
    ],
)
def test_an_empty_folder_of_runs_is_a_sentence(page, said, own_places):
    assert said in opened(page).error[0].value.replace("\\", "")


def test_compound_by_structure_and_by_name():
    """The bundled run answers for a structure it never saw, and for a compound that it was fitted to."""
    at = opened(compound_page)
    assert "Training never saw this compound." in at.warning[0].value
    assert "OUT OF DOMAIN" in at.warning[0].value
    near, genes = (frame.value for frame in at.dataframe)
    assert len(near) == 3
    assert (np.diff(genes["signed_log10_p"]) <= 0).all()
    name = near["training compound"][0]
    at.text_input(key="compound").set_value(name).run()
    assert not at.exception
    assert "Training saw this compound in" in at.success[0].value
    known = at.dataframe[0].value
    assert known["training compound"][0] == name
    assert known["similarity"][0] == 1.0
    assert not np.array_equal(genes["signed_log10_p"], at.dataframe[1].value["signed_log10_p"])


def test_the_compound_page_says_how_good_the_run_is():
    told = words(opened(compound_page)).replace("\\", "")
    assert "MRRMSE of held-out rows:" in told
    assert "oracle (ceiling)" in told
    assert "(best floor)" in told


@pytest.mark.parametrize(
    ("text", "said"),
    [("C1CC", "'C1CC' cannot be parsed"), ("", "No compound is named"), ("aspirin", "'aspirin' cannot be parsed")],
)
def test_what_is_no_compound_is_a_sentence(text, said):
    at = opened(compound_page)
    at.text_input(key="compound").set_value(text).run()
    assert not at.exception
    assert said in at.error[0].value.replace("\\", "")


def test_the_leaderboard_has_floors_and_ceiling():
    at = opened(leaderboard_page)
    assert "SIMULATED" in at.info[0].value
    table = at.dataframe[0].value
    assert {"ceiling", "model", "floor"} == set(table["kind"])
    assert {"oracle", "zeros", "kernel-ridge-chemistry", "ridge-chemistry"} <= set(table["name"])
    models = table[table["kind"] == "model"]
    lost = {name for name, by in zip(models["name"], models["v best floor"], strict=True) if by > 0}
    assert lost == {name for name in models["name"] if f"{name} is worse than" in words(at)}
