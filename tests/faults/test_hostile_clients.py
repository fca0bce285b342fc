"""Clients that send what they should not, or nothing, cost the others nothing: with bad_uploads "skip" the rest goes on with
the same numbers whatever was sent, with "raise" the client and the stage are named."""

import warnings

import pandas as pd
import pytest
import torch
from faults import small_runs
from faults.small_runs import WANTED, contents, settings
from separated import Losing
from small_clients import CLIENTS, TASKS, VARIANTS, federation, fit, images, make_client, method

from fedmuscle_core import Client
from fedmuscle_core.engines.in_process import InProcess
from fedmuscle_core.experiments.runs import sweep
from fedmuscle_core.federation import COLUMNS

VICTIM = 2
METHODS_AND_CHANGES = [(name, changes) for name, changes in VARIANTS if name not in ("centralised", "local")]
NAMES = [" ".join(map(str, (name, *changes.values()))) for name, changes in METHODS_AND_CHANGES]


def each(of_tensor, of_number):
    """Function of a reply with every tensor and every number in it changed."""
    def changed(value):
        if isinstance(value, dict):
            return {name: changed(part) for name, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [changed(part) for part in value]
        return of_tensor(value) if isinstance(value, torch.Tensor) else of_number(value)
    return changed


def filled(value):
    return lambda tensor: torch.full(tensor.shape, value) if tensor.is_floating_point() else torch.full_like(
        tensor, torch.iinfo(tensor.dtype).max)


HOSTILE = {
    "NaN": each(filled(torch.nan), lambda number: float("nan")),
    "infinity": each(filled(torch.inf), lambda number: float("inf")),
    "one NaN": each(lambda tensor: torch.cat([filled(torch.nan)(tensor.flatten()[:1]),
                                              tensor.flatten()[1:]]).view(tensor.shape), lambda number: float("nan")),
    "huge": each(filled(1e30), lambda number: 10 ** 400),
    "a shape": each(lambda tensor: tensor[None], lambda number: [number]),
    "empty": each(lambda tensor: tensor.flatten()[:0], lambda number: None),
    "a type": each(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor.float(), str),
    "half": each(lambda tensor: tensor.half() if tensor.is_floating_point() else tensor.long() + 2 ** 40, lambda number: True),
    "complex": each(lambda tensor: tensor.to(torch.complex64), complex),
    "texts": each(lambda tensor: "weights", lambda number: "0.5"),
    "sparse": each(lambda tensor: tensor.to_sparse(), lambda number: torch.tensor(number)),
    "without memory": each(lambda tensor: tensor.to("meta"), lambda number: torch.tensor(number, device="meta")),
    "None inside": each(lambda tensor: None, lambda number: None),
    "nothing": lambda reply: {},
    "None": lambda reply: None,
    "a list": lambda reply: list(reply.values()),
    "an error": lambda reply: ValueError("no"),
    "other names": lambda reply: {f"x{name}": value for name, value in reply.items()},
}


class Hostile(InProcess):
    """In round 2, client VICTIM's replies of the method's stages are changed."""

    def __init__(self, federation, change):
        super().__init__(federation.clients, federation.method)
        self.federation, self.change, self.changed = federation, change, set()

    def ask(self, stages):
        replies = super().ask(stages)
        if self.federation.round == 1 and self.federation.begun:
            for stage, found in zip(stages, replies, strict=True):
                if VICTIM in found and stage.function not in ("score", "represent"):
                    found[VICTIM] = self.change(found[VICTIM])
                    self.changed.add(stage.function)
        return replies


def played(name, changes, change, bad_uploads="skip", rounds=3):
    """(history, functions of which the replies were changed, warnings) of a federation with a hostile client."""
    found = federation(method(name, **changes), bad_uploads=bad_uploads)
    engine = Hostile(found, change)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        history = fit(found, rounds, engine=engine)
    return history, engine.changed, [str(one.message) for one in warned]


def check_others(history, rounds=3):
    """Every other client has every score, a number."""
    others = history[history["client"] != VICTIM]
    scores = others[others["split"] == "validation"]
    assert len(scores) == (len(CLIENTS) - 1) * (rounds + 1) and others["value"].notna().all()
    assert (others["value"].abs() < 1e6).all()


@pytest.mark.parametrize(("name", "changes"), METHODS_AND_CHANGES, ids=NAMES)
def test_whatever_a_client_sends_the_others_go_on_alike(name, changes, fault):
    expected = None
    for what, change in HOSTILE.items():
        with fault("hostile client left out", name, what):
            history, functions, warned = played(name, changes, change)
            check_others(history)
            for function in functions:
                assert any(f"client {VICTIM} is left out of {function!r}" in text for text in warned), (function, warned)
            history = history.drop(columns="bytes")                           # of what was really sent
            expected = history if expected is None else expected
            pd.testing.assert_frame_equal(history, expected, check_exact=True)


@pytest.mark.parametrize(("name", "changes"), METHODS_AND_CHANGES, ids=NAMES)
def test_whatever_a_client_sends_it_is_named(name, changes, fault):
    for what in ("NaN", "huge", "a shape", "a type", "nothing", "None", "an error"):
        with fault("hostile client named", name, what), pytest.raises(ValueError, match=rf"client {VICTIM}: ") as caught:
            played(name, changes, HOSTILE[what], bad_uploads="raise", rounds=2)
        assert any(function in str(caught.value) for function in ("embed", "contrast", "local", "hand_in", "train", "vote",
                                                                  "kernels", "learn"))


@pytest.mark.parametrize(("name", "changes"), METHODS_AND_CHANGES, ids=NAMES)
@pytest.mark.parametrize("lost", [[2], [2, 3], [1, 2, 3], [1, 2, 3, 4]], ids=["one", "two", "all but one", "all"])
def test_clients_that_do_not_answer_are_absent(name, changes, lost, fault):
    found = federation(method(name, **changes))
    with fault("clients that do not answer", name, lost):
        history = fit(found, 3, engine=Losing(found, lost))
        rows = history[(history["split"] == "validation")]
        assert history["value"].notna().all() and list(history.columns) == COLUMNS
        assert set(rows[rows["round"] == 3]["client"]) == set(CLIENTS)        # back again
        assert set(rows[rows["round"] == 2]["client"]) == set(CLIENTS) - set(lost)


@pytest.mark.parametrize(("name", "changes"), METHODS_AND_CHANGES, ids=NAMES)
def test_answers_of_the_round_before_do_no_harm(name, changes, fault):
    """They are whole, so that nobody can tell."""
    last = {}

    class Late(Hostile):
        def ask(self, stages):
            replies = InProcess.ask(self, stages)
            for stage, found in zip(stages, replies, strict=True):
                if VICTIM in found and self.federation.begun and stage.function not in ("score", "represent"):
                    before = last.get(stage.function, found[VICTIM])
                    last[stage.function] = found[VICTIM]
                    found[VICTIM] = before
            return replies

    found = federation(method(name, **changes), bad_uploads="skip")
    with fault("late answers", name):
        check_others(fit(found, 3, engine=Late(found, None)))


@pytest.mark.parametrize(("name", "changes"), [*METHODS_AND_CHANGES, ("local", {})], ids=[*NAMES, "local"])
@pytest.mark.parametrize("bad_uploads", ["raise", "skip"])
def test_a_client_whose_training_diverges_is_named_and_the_others_go_on(name, changes, bad_uploads, fault):
    clients = [make_client(one, lr_scale=1e35 if one == VICTIM else 1.0) for one in CLIENTS]
    found = federation(method(name, **changes), clients, bad_uploads=bad_uploads)
    with fault("training diverges", name, bad_uploads), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if bad_uploads == "raise":
            with pytest.raises(ValueError, match=f"client {VICTIM}: "):
                fit(found, 3)
        else:
            check_others(fit(found, 3))
            assert any(f"client {VICTIM} is left out" in str(one.message) for one in warned)


def test_a_run_that_diverges_is_stored_as_such_and_the_others_as_ever(folder, told, reference, fault, monkeypatch, capsys):
    make = small_runs.make_client
    monkeypatch.setattr(small_runs, "make_client", lambda name, one: diverging(make(name, one)) if one.seed == 7 else make(
        name, one))
    bad = [settings("mfed", seed=7), settings("fedmuscle", seed=7, refresh="round")]
    for number in range(2):                                                   # the second sweep finds all stored
        with fault("training diverges: sweep", number):
            records, _ = sweep([bad[0], *WANTED, bad[1]], folder, progress=False)
            assert ["failed" in record for record in records] == [True, False, False, False, True]
            assert all(records[place]["failed"]["client"] == VICTIM for place in (0, -1))
            assert "2 of 5 runs diverged" in capsys.readouterr().out and contents(folder, WANTED) == reference
            assert sum("stored" in text for text in told) == 5


def diverging(client):
    client.lr_scale = 1e35 if client.name == VICTIM else client.lr_scale
    return client


@pytest.mark.parametrize(("name", "changes"), METHODS_AND_CHANGES, ids=NAMES)
def test_a_client_of_one_class_takes_part(name, changes, fault):
    inputs = images(10, "one class")
    clients = [make_client(one, **({"train": (inputs, torch.zeros(10, dtype=torch.long))} if one == VICTIM else {}))
               for one in CLIENTS]
    with fault("one class only", name):
        history = fit(federation(method(name, **changes), clients), 2)
        assert history["value"].notna().all()


def test_a_client_without_samples_is_refused_by_name(fault):
    for split in ("train", "validation", "test", "public"):
        empty = images(0) if split == "public" else (images(0), torch.zeros(0, dtype=torch.long))
        with fault("no samples", split), pytest.raises(ValueError, match=f"client {VICTIM}: {split}"):
            make_client(VICTIM, **{split: empty})
    with fault("no samples", "None"), pytest.raises(ValueError, match=f"client {VICTIM}: got no train samples"):
        Client(VICTIM, torch.nn.Flatten(), torch.nn.Linear(192, 3), TASKS["birds"], train=None)
