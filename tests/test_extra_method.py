"""A method of one file, imported and nothing else: it is run, stored, tuned, forecast, shown in tables and plots."""

import dataclasses

import matplotlib.pyplot as plt
import pytest

from fedmuscle_core.analysis import plots, tables
from fedmuscle_core.experiments import choices, forecast, tuning
from fedmuscle_core.experiments.profiles import profile_settings
from fedmuscle_core.experiments.runs import is_stored, sweep
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.store import stored_runs
from fedmuscle_core.methods import METHODS, Local


@pytest.fixture(scope="module", autouse=True)
def extra():
    """The class, known for as long as these tests run."""
    from drawn_together import DrawnTogether

    METHODS[DrawnTogether.name] = DrawnTogether
    yield DrawnTogether
    del METHODS[DrawnTogether.name]


@pytest.fixture(scope="module")
def swept(extra, tmp_path_factory):
    """(settings, folder, records, history) of a sweep with two workers."""
    from conftest import TINY

    folder, small = tmp_path_factory.mktemp("runs"), {"rounds": 2, "public_size": 20, "validation_size": 30, "test_size": 40}
    methods = (method for method in ("local", "drawn_together") for _ in range(2))
    wanted = [Settings.of(TINY, method, seed=place % 2, count=3, **small) for place, method in enumerate(methods)]
    return wanted, folder, *sweep(wanted, folder, workers=2, progress=False)


def test_it_is_run_by_worker_processes_stored_and_found_again(swept, extra):
    wanted, folder, records, history = swept
    assert wanted[2].method == extra(count=3) and all(is_stored(settings, folder) for settings in wanted)
    assert Settings.of(**records[2]["settings"] | {"setup": wanted[2].setup}) == wanted[2]
    sent = history.query("method == 'drawn_together' and round == 1")["bytes"]
    assert set(sent) == {2 * 4 * wanted[2].dim} and not history.query("method == 'local'")["bytes"].any()
    assert set(history.query("method == 'drawn_together'")["metric"]) > {"local_loss"}
    last = history.query("split == 'test'").pivot(index=["seed", "client"], columns="method", values="value")
    assert (last["drawn_together"] != last["local"]).any()


def test_tables_and_plots_show_it_untuned(swept):
    history = swept[-1]
    table = tables.delta_table(history)
    assert table["method (untuned)"].tolist() == ["Local", "Drawn together"]
    assert tables.delta_sentence(history, "drawn_together", "local").startswith("Drawn together (untuned) improves ")
    assert set(plots.learning_curves(history)[1]["method"]) == {"local", "drawn_together"}
    plt.close("all")
    assert plots.colour_of("drawn_together") not in {method.colour for method in METHODS.values()}


def test_it_is_tuned_on_its_own_grid(tiny, tmp_path, monkeypatch, extra):
    monkeypatch.setattr(choices, "TUNED_TABLE", tmp_path / "tuned.csv")
    monkeypatch.setattr(Local, "grid", {"local_lr": (5e-4, 1e-3)})
    monkeypatch.setattr(tuning, "FOLDER", tmp_path / "runs")
    small = {"rounds": 1, "public_size": 20, "validation_size": 30}
    setup = dataclasses.replace(tiny().setup, settings=small, tunes=["drawn_together"])
    table = tuning.tune(setup, progress=False)
    tried = table[table["method"] == "drawn_together"]
    assert sorted(zip(tried["strength"], tried["count"], strict=True)) == [(0.1, 2), (0.1, 3), (1.0, 2), (1.0, 3)]
    assert {record["settings"]["method"] for record, _ in stored_runs(tmp_path / "runs")} == {"local", "drawn_together"}
    best = choices.on_most_seeds(tried).iloc[0]
    (settings,) = profile_settings("mini", setup, "drawn_together", [0])
    assert settings.method == extra(best["strength"], int(best["count"]))
    assert settings.training.local_lr == best["local_lr"]
    _, history = sweep([settings.replace(test_size=0)], tmp_path, progress=False)
    assert history.attrs["untuned"] == []


def test_it_is_forecast_at_the_papers_scale(tmp_path, monkeypatch):
    for name in ("FEDMUSCLE_DATA", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("FEDMUSCLE_CHECKPOINTS", raising=False)
    extra, local = (profile_settings("paper", "embedded1", method, [0])[0] for method in ("drawn_together", "local"))
    table = forecast.run_table([extra, local], clients := forecast.client_table(extra)).set_index("method")
    assert forecast.hours(extra, clients) > forecast.hours(local, clients)
    assert table["MB exchanged each"].to_dict() == {"drawn_together": f"{20 * 6 * 8 * 256 / 1e6:,.0f}", "local": "0"}
    said = forecast.report([extra, local])
    assert "drawn_together: memory of the accelerator about " in said and "2 runs, nothing is started" in said
