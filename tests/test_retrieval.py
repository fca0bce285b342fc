"""Tables of recalls, with a run that diverged among them."""

from fedmuscle_core.analysis.retrieval import recall_rows, recall_table


def record(method, seed, first, second):
    return {"settings": {"method": method, "seed": seed}, "recalls": {"1": {"i2t R@1": first, "t2i R@1": second}}}


def test_rows_have_the_mean_of_both_directions_and_leave_out_what_diverged():
    runs = [record("local", 1, 10.0, 20.0), record("creamfl", 1, 30.0, 10.0), record("creamfl", 2, 50.0, 30.0)]
    lost = {"settings": {"method": "local", "seed": 2}, "failed": "NaN"}
    rows = recall_rows([*runs, lost])
    assert rows["R@1"].tolist() == [15.0, 20.0, 40.0] and rows.attrs["failed"] == ["Local, seed 2"]
    table = recall_table(rows)
    assert table.index.tolist() == ["Local", "CreamFL"] and table.loc["Local", "R@1"] == "15.0"
    assert table.loc["CreamFL", "R@1"].startswith("30.0 [") and table["seeds"].tolist() == [1, 2]


def test_where_all_diverged_there_are_no_rows():
    assert recall_rows([{"settings": {"method": "local", "seed": 2}, "failed": "NaN"}]).empty
