import re

import pandas as pd
import pytest
from found_runs import find_run

from fedmuscle_core.commands import cli, verify
from fedmuscle_core.experiments import setups
from fedmuscle_core.experiments.runs import run
from fedmuscle_core.experiments.setups import SETUPS
from fedmuscle_core.experiments.store import append_run


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


def test_a_run_of_other_code_is_said_to_be_one(stored, monkeypatch, capsys):
    monkeypatch.setattr(verify, "code_digest", lambda: "another")
    assert cli.main(["verify"]) == 0
    assert len(re.findall(r"to the last bit \(code [0-9a-f]{10}, now another\)", capsys.readouterr().out)) == 2
    assert verify.of_other_code({}) == " (code not noted, now another)"


def test_a_tampered_run_is_found_and_a_sample_starts_with_a_method_that_exchanges(stored, tiny, capsys):
    record, history = find_run(stored, "tiny", tiny(method="fedmuscle", rounds=1).run())
    append_run(stored, record, history.assign(value=history["value"] * 1.3))
    assert cli.main(["verify", "--sample", "1"]) == 1
    said = capsys.readouterr().out
    assert "2 of 2 stored runs that can be read are as their settings say" in said and "0 of 1 runs agree" in said
    assert re.search(rf"DIFFERS  .*tiny.jsonl, line 3: {record['run']}: train contrastive_loss, round 1: client \d: got ", said)


def test_without_stored_runs_or_with_a_bad_sample_it_says_so(tmp_path, monkeypatch, stored, capsys):
    assert cli.main(["verify", "--sample", "-1"]) == 2
    monkeypatch.setattr(verify, "results", lambda profile: tmp_path / "nowhere")
    assert cli.main(["verify"]) == 2
    err = capsys.readouterr().err
    assert "sample: got -1" in err and "holds no stored runs" in err


def test_runs_of_setups_and_methods_that_are_gone_are_left_out(stored, tiny, monkeypatch, capsys):
    monkeypatch.setattr(verify, "METHODS", {name: kind for name, kind in verify.METHODS.items() if name != "fedmuscle"})
    assert cli.main(["verify"]) == 0
    assert "1 runs left out" in (said := capsys.readouterr().out) and "1 of 1 runs agree" in said
    monkeypatch.delitem(setups.SETUPS, "tiny")
    assert cli.main(["verify"]) == 0
    assert "2 runs left out" in (said := capsys.readouterr().out) and "0 of 0 runs agree" in said


def shifted(history, rows, change):
    return history.assign(value=history["value"].where(~rows, change(history["value"])))


ROWS = {
    "a row lost": (lambda history: history.iloc[1:], "rows: got 1 rows that are not there now|rows: got 0 rows .* and 1"),
    "a row twice": (lambda history: pd.concat([history, history.iloc[-1:]]), "rows: got a row twice"),
    "another seed": (lambda history: history.assign(seed=7), "rows: got "),
    "another column": (lambda history: history.rename(columns={"value": "score"}), "columns: got "),
    "no bytes": (lambda history: history.assign(bytes=0), "bytes: got 0 of client 1, round 1, now "),
    "NaN": (lambda history: shifted(history, history.index == 20, lambda value: value * float("nan")),
            "value: got NaN in 1 rows"),
    "an early loss": (lambda history: shifted(history, (history["split"] == "train") & (history["round"] == 1),
                                              lambda value: value * 1.05), "train .*_loss, round 1: client .: got .*limit 1 %"),
    "late losses": (lambda history: shifted(history, (history["split"] == "train") & (history["round"] == 2),
                                            lambda value: value * 10), "train .*_loss, round 2: mean over clients"),
    "validation zero": (lambda history: shifted(history, history["split"] == "validation", lambda value: value * 0),
                        "validation .*, round 0: client"),
    "test, all": (lambda history: shifted(history, history["split"] == "test", lambda value: value + 4),
                  r"test, round 2: mean over clients moved by .4.00 points"),
    "test, each": (lambda history: shifted(history, history["split"] == "test", lambda value: value + 15 * (
        1 - 2 * (history["client"] % 2))), "test .* round 2: client .*limit 10 points"),
}


@pytest.fixture(scope="module")
def two_rounds(tiny, tmp_path_factory):
    return run(tiny(method="fedmuscle", rounds=2), tmp_path_factory.mktemp("rounds"), progress=False)


def test_the_same_is_identical_and_last_digits_agree(two_rounds):
    record, history = two_rounds
    assert verify.compare(two_rounds, (record, history.copy())) == ([], "identical to the last bit")
    other = shifted(history, history["split"] != "test", lambda value: value * 1.0001)
    assert verify.compare((record, other), two_rounds)[0] == []


@pytest.mark.parametrize("change", ROWS)
def test_every_damage_to_the_rows_is_found(two_rounds, change):
    damage, message = ROWS[change]
    record, history = two_rounds
    found, _ = verify.compare((record, damage(history)), two_rounds)
    assert any(re.match(message, each) for each in found), found


@pytest.mark.parametrize(("name", "change", "message"), [
    ("ledger", lambda ledger: ledger[1:], "ledger: 1 entries differ, the first: round "),
    ("ledger", lambda ledger: ledger + ledger[-1:], "ledger: 0 entries differ"),
    ("alignment", lambda alignment: alignment | {"after": {name: [[0.0] * len(rows)] * len(rows)
                                                           for name, rows in alignment["after"].items()}},
     "alignment after, .*: differs by"),
    ("alignment", lambda alignment: alignment | {"before": {}}, "alignment before: got"),
    ("masks", lambda masks: {"9": ["000"]}, "masks: got clients"),
])
def test_every_damage_beside_the_rows_is_found(two_rounds, name, change, message):
    record, history = two_rounds
    found, _ = verify.compare((record | {name: change(record[name])}, history), two_rounds)
    assert any(re.match(message, each) for each in found), found


def test_masks_of_other_sizes_or_pixels_are_found():
    assert verify.compare_masks({"4": ["0011", "0000"]}, {4: ["0011", "0001"]}) == []
    assert "scenes of other sizes" in verify.compare_masks({"4": ["0011"]}, {4: ["00110"]})[0]
    assert "50 % of the pixels differ" in verify.compare_masks({"4": ["0011"]}, {4: ["1111"]})[0]


def test_a_stored_run_that_is_not_what_its_settings_say_is_named(stored, tiny, capsys):
    record, history = find_run(stored, "tiny", tiny(method="fedmuscle", rounds=1).run())
    append_run(stored, record, history.iloc[:-1])
    assert cli.main(["verify", "--sample", "0"]) == 1
    said = capsys.readouterr().out
    assert re.search("DAMAGED  .*tiny.jsonl, line 3: fedmuscle-.*: got no row of client", said)
    assert "1 of 2 stored runs that can be read are as their settings say" in said


def test_runs_whose_real_data_are_not_here_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path))
    monkeypatch.setenv("FEDMUSCLE_CHECKPOINTS", str(tmp_path))

    def here(data="these", **settings):
        return verify.can_recompute({"settings": {"method": "fedmuscle", **settings}, "data": data})

    monkeypatch.setattr(verify, "data_used", lambda settings: None if settings.setup.name == "embedded2" else "these")
    assert here(setup="embedded2", data=None) and not here(setup="gone")
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
