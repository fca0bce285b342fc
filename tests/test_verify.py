import pytest

from fedmuscle_core.commands import cli, verify
from fedmuscle_core.experiments import setups
from fedmuscle_core.experiments.runs import run
from fedmuscle_core.experiments.setups import SETUPS
from fedmuscle_core.experiments.store import append_run, find_run


@pytest.fixture
def stored(tiny, tmp_path, monkeypatch):
    """A folder with two stored runs in place of the committed ones, of a setup that has a name of its own for the time."""
    monkeypatch.setattr(verify, "results", lambda profile: tmp_path / profile)
    monkeypatch.setitem(setups.SETUPS, "tiny", tiny().setup)
    for method in ("local", "fedmuscle"):
        run(tiny(method=method, rounds=1), tmp_path / "mini", progress=False)
    return tmp_path / "mini"


def test_runs_of_this_machine_come_out_identical(stored, capsys):
    assert cli.main(["verify"]) == 0
    said = capsys.readouterr().out
    assert said.count("identical to the last bit") == 2 and "2 of 2 runs agree" in said


def test_a_tampered_run_is_found_and_a_sample_starts_with_a_method_that_exchanges(stored, tiny, capsys):
    record, history = find_run(stored, "tiny", tiny(method="fedmuscle", rounds=1).run())
    append_run(stored, record, history.assign(value=history["value"] * 1.3))
    assert cli.main(["verify", "--sample", "1"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("DIFFERS  tiny fedmuscle seed 0") and "0 of 1 runs agree" in said


def test_without_stored_runs_or_with_a_bad_sample_it_says_so(tmp_path, monkeypatch, stored, capsys):
    assert cli.main(["verify", "--sample", "0"]) == 2
    monkeypatch.setattr(verify, "results", lambda profile: tmp_path / "nowhere")
    assert cli.main(["verify"]) == 2
    err = capsys.readouterr().err
    assert "sample: got 0" in err and "holds no stored runs" in err


def test_runs_of_setups_and_methods_that_are_gone_are_left_out(stored, tiny, monkeypatch, capsys):
    monkeypatch.setattr(verify, "METHODS", {name: kind for name, kind in verify.METHODS.items() if name != "fedmuscle"})
    assert cli.main(["verify"]) == 0
    assert "1 runs left out" in (said := capsys.readouterr().out) and "1 of 1 runs agree" in said
    monkeypatch.delitem(setups.SETUPS, "tiny")
    assert cli.main(["verify"]) == 0
    assert "2 runs left out" in (said := capsys.readouterr().out) and "0 of 0 runs agree" in said


def test_compare_rows_losses_and_scores(tiny, tmp_path):
    _, history = run(tiny(method="local"), tmp_path, progress=False)
    assert verify.compare(history, history.copy()) == (True, "identical to the last bit")
    assert verify.compare(history, history.assign(value=history["value"] * 1.001))[0]

    def with_change(rows, change):
        return history.assign(value=history["value"].where(~rows, change(history["value"])))

    test, train = history["split"] == "test", history["split"] == "train"
    assert not verify.compare(history, with_change(train, lambda value: value * 1.05))[0]
    assert not verify.compare(history, with_change(test, lambda value: value + 4))[0]
    signs = 1 - 2 * (history["client"] % 2)
    assert not verify.compare(history, with_change(test, lambda value: value + 15 * signs))[0]
    assert verify.compare(history, history.iloc[1:]) == (False, "the tables have different rows")


def test_runs_whose_real_data_are_not_here_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path))
    monkeypatch.setenv("FEDMUSCLE_CHECKPOINTS", str(tmp_path))

    def here(data="these", **settings):
        return verify.can_recompute({"settings": {"method": "fedmuscle", **settings}, "data": data})

    monkeypatch.setattr(verify, "data_used", lambda settings: None if settings.setup.name == "setup2" else "these")
    assert here(setup="setup2", data=None) and not here(setup="gone")
    for name in ("voc_animals", "cifar100", "cifar10"):
        assert not here(setup="photos1", method="local")
        (tmp_path / name).mkdir()
    for spec in SETUPS["photos1"].clients:
        (tmp_path / spec.backbone).mkdir(exist_ok=True)
    assert not here(setup="photos1", method="local")                          # representations are compared on public photos
    (tmp_path / "public_unlabeled_tiny").mkdir()
    public = {"setup": "photos1", "public_domain": "coco_small"}
    assert here(setup="photos1", method="local") and not here(**public)
    (tmp_path / "coco_small").mkdir()
    assert here(**public) and not here(data="others", **public)               # stored of other photos than those here
