"""What one client may do to the others with a bad message: nothing, in any method, with any of its replies."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from small_clients import CLIENTS, federation, fit, make_client, method
from torch import nn

from fedmuscle_core.engines.in_process import InProcess
from fedmuscle_core.exchange import Diverged
from fedmuscle_core.methods import METHODS, traced
from fedmuscle_core.seeds import seeded

# Methods with a model of the server's own need other clients: test_creamfl has them.
TRAVELLING = [*((name, {}) for name, kind in METHODS.items() if not kind.ceiling and kind.group != "server"),
              ("fedmuscle", {"protocol": "tuples"}), ("fedmuscle", {"refresh": "round"}),
              ("fedmuscle", {"peer_choice": "bandit"}), ("mfed", {"share": "decoder"})]
every_method = pytest.mark.parametrize(("name", "changes"), TRAVELLING, ids=[
    " ".join(map(str, (name, *changes.values()))) for name, changes in TRAVELLING])


def filled(number):
    """Function of a tensor that puts a number in its first place."""
    def change(value):
        value = value.clone() if value.is_floating_point() else value.float()
        value.view(-1)[0] = number
        return value
    return change


TENSORS = {
    "NaN": filled(torch.nan), "infinity": filled(-torch.inf), "1e20": filled(1e20), "3e38": filled(3e38),
    "shape": lambda value: torch.cat([value.reshape(-1)] * 2), "turned": lambda value: value[None].transpose(0, -1),
    "half": torch.Tensor.half, "int8": lambda value: value.to(torch.int8), "complex": lambda value: value + 0j,
    "meta": lambda value: value.to("meta"), "sparse": lambda value: value.to_sparse(),
    "graph": lambda value: value.clone().requires_grad_() if value.is_floating_point() else value.float(),
    "numpy": lambda value: value.numpy(), "list": lambda value: value.tolist(), "None": lambda value: None,
    "word": lambda value: "tensor",
}
NUMBERS = {"NaN": torch.nan, "infinity": torch.inf, "1e39": 1e39, "whole": 10 ** 400, "None": None, "word": "0.5",
           "list": [0.5],
           "tensor": torch.tensor(0.5), "numpy": np.array([0.5]), "truth": True, "complex": 0.5j}
CARD = {"samples": [0, -3, 10 ** 12, 2.5, "many", None, True, torch.nan], "dim": [0, 6.0, None], "num_outputs": [0, None],
        "public_size": [-1, "20"], "held_out": [-1, None], "task": [None, 3, ["birds"]], "metric": [None], "modality": [7],
        "splits": [None, ["holiday"], 3], "shapes": [None, {}, {"encoder": {}}, {"encoder": {"w": "3"}, "decoder": {}}],
        "scales": [None, {}, {"encoder": torch.nan, "decoder": 1.0}], "vote_shape": [["a"], 3, [0]],
        "vote_classes": [0, 10 ** 6, "3", None]}


def each_tensor(value, change):
    if isinstance(value, torch.Tensor):
        return change(value)
    return [each_tensor(part, change) for part in value] if isinstance(value, list) else value


def spoilt(function, reply):
    """{what was done: bad reply} of a good one."""
    found = {"nothing": None, "a list": list(reply.values()), "a word": "reply"}
    if function == "register":
        return found | {f"{name} {value}": reply | {name: value} for name, values in CARD.items() if name in reply
                        for value in values} | {f"no {name}": {key: value for key, value in reply.items() if key != name}
                                                for name in reply}
    for name, value in reply.items():
        if name not in ("gradient", "kernel_loss", *traced.NUMBERS):            # are measured alone, and may be missing
            found[f"no {name}"] = {key: other for key, other in reply.items() if key != name}
        if isinstance(value, (int, float)):
            found |= {f"{name} {kind}": reply | {name: bad} for kind, bad in NUMBERS.items()
                      if (name, kind) != ("score", "NaN")}
        else:
            for kind, change in TENSORS.items():
                if name != "gradient" or kind not in ("NaN", "infinity", "1e20", "3e38"):
                    found[f"{name} {kind}"] = reply | {name: each_tensor(value, change)}
    if function != "score":
        found["more"] = reply | {"more": torch.ones(3)}
    found |= {"score -1": {"score": -1.0}, "score 101": {"score": 101}} if function == "score" else {}
    unit = {"longer": lambda value: 10 * value, "zero": torch.zeros_like} if function in ("embed", "kernels") else {}
    return found | {kind: {key: each_tensor(value, change) for key, value in reply.items()} for kind, change in unit.items()}


class Trying(InProcess):
    """Has the server judge what client 2 could have replied, and one that it must take; then goes on with the honest one."""

    def __init__(self, found):
        super().__init__(found.clients, found.method)
        self.server, self.tried = found.server, {}

    def ask(self, stages):
        replies = super().ask(stages)
        for stage, found in zip(stages, replies, strict=True):
            if 2 not in found or stage.function in self.tried:
                continue
            self.tried[stage.function] = spoilt(stage.function, found[2])
            for kind, bad in self.tried[stage.function].items():
                try:
                    self.server.accepted(stage, {2: bad}, 3)
                except ValueError as error:
                    where = f"client 2: {stage.function}: ", "client 2: round 3: "
                    assert str(error).startswith(where), (stage.function, kind, error)
                    assert not isinstance(error, Diverged) or (error.client, error.round) == (2, 3)
                    assert stage.function in str(error) and len(str(error)) < 400
                else:
                    raise AssertionError(f"{stage.function} took {kind}")
            turned = {name: each_tensor(value, lambda value: value.mT.clone().mT if value.ndim > 1 else value)
                      for name, value in found[2].items()}
            assert list(self.server.accepted(stage, {2: turned})) == [2]
        return replies


@every_method
def test_no_bad_reply_is_taken_and_the_error_names_client_and_function(name, changes):
    found = federation(method(name, **changes))
    found.server.cards = {}
    engine = Trying(found)
    fit(found, 2, engine=engine)
    assert {"register", "score", "represent"} < set(engine.tried) and all(map(len, engine.tried.values()))


class Tampering(InProcess):
    """Client 2 replies change(reply) when it is asked for `function`; None: it does not answer."""

    def __init__(self, found, function, change):
        super().__init__(found.clients, found.method)
        self.function, self.change = function, change

    def ask(self, stages):
        replies = super().ask(stages)
        for stage, found in zip(stages, replies, strict=True):
            if stage.function == self.function and 2 in found:
                reply = found.pop(2)
                found |= {} if self.change is None else {2: self.change(reply)}
        return replies


def others(found):
    """History and bytes of all but client 2, without what compares them with it."""
    history = found.history()
    kept = (history["client"] != 2) & ~history["metric"].str.startswith("gradient_cosine")
    return history[kept].reset_index(drop=True), {key: size for key, size in found.ledger.entries.items() if key[1] != 2}


def played_with(change, function, name, changes):
    found = federation(method(name, **changes), bad_uploads="skip")
    found.server.cards = {}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit(found, 2, engine=Tampering(found, function, change))
    return found, [str(warning.message) for warning in told]


ASKED = [(function, name, changes) for name, changes, functions in (
    ("simclr", {}, "register score represent learn"), ("cofed", {}, "vote local"), ("fedhenn", {}, "kernels local"),
    ("fedmuscle", {}, "embed contrast local register"), ("fedmuscle", {"refresh": "round"}, "embed contrast"),
    ("fedmuscle", {"peer_choice": "bandit"}, "local"), ("fedavg", {}, "hand_in train"), ("matfl", {}, "hand_in"),
    ("mfed", {}, "hand_in train register")) for function in functions.split()]


@pytest.mark.parametrize(("function", "name", "changes"), ASKED)
def test_a_sender_who_is_left_out_changes_for_the_others_what_its_silence_would(function, name, changes):
    """Whatever it is asked for: the others end alike to the last bit, with finite numbers, and it is named."""
    def spoil(reply):
        return {key: None if value is not None else 1j for key, value in reply.items()}

    (silent, told), (spoiling, named) = (played_with(change, function, name, changes) for change in (None, spoil))
    assert not told and named and all(line.startswith(f"client 2 is left out of {function!r}: ") or function == "register"
                                      for line in named)
    (one, its_bytes), (other, bytes_) = others(silent), others(spoiling)
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert its_bytes == bytes_ and np.isfinite(other["value"]).all() and set(other["client"]) == set(CLIENTS) - {2}
    ends = [torch.cat([value.flatten().double() for value in client.network.state_dict().values()])
            for client in spoiling.clients]
    assert all(torch.isfinite(end).all() for end in ends)


@pytest.mark.parametrize("bad_uploads", ["raise", "skip"])
@pytest.mark.parametrize(("wanted", "value", "message"), [
    ("weight", 150.0, r"got parameters of root mean square 140 in the encoder, expected at most 3\d\.\d"),
    ("running_var", -1.0, r"got -1 in '.*running_var' of the encoder, a variance, expected at least 0"),
    ("running_var", 1e11, r"got buffers of root mean square .* in the encoder, expected at most 1e\+06")])
@pytest.mark.parametrize("name", ["fedavg", "encoder_only", "matfl", "mfed"])
def test_finite_poison_in_parameters_and_buffers_is_named(name, wanted, value, message, bad_uploads):
    def poisoned(reply):
        return {key: torch.full_like(part, value) if key.startswith("encoder") and key.endswith(wanted) else part
                for key, part in reply.items()}

    def client(number):
        with seeded(0, "normalised", number):
            encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 6))
        return make_client(number, encoder=encoder)

    found = federation(method(name), [client(number) for number in CLIENTS], bad_uploads=bad_uploads)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if bad_uploads == "raise":
            with pytest.raises(Diverged, match=f"client 2: round 2: {message}"):
                fit(found, 3, engine=Tampering(found, "hand_in", poisoned))
        else:
            history = fit(found, 3, engine=Tampering(found, "hand_in", poisoned))
            assert any(re.search(f"client 2 is left out of 'hand_in'.*{message}", str(one.message)) for one in told)
            assert np.isfinite(history["value"]).all()
