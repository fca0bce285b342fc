"""A stranger's own modules and tensors: ten lines federate them, and what does not fit is refused by name before training."""

import subprocess
import sys

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import fedmuscle_core
from fedmuscle_core import (
    Client,
    CoFED,
    EncoderOnly,
    Federation,
    FedHeNN,
    FedMuscle,
    Local,
    MFed,
    Network,
    SimCLR,
    Task,
    Training,
    classification,
    multilabel,
    segmentation,
)
from fedmuscle_core.methods import FedMuscleViews
from fedmuscle_core.seeds import seeded

WIDTHS = {"birds": 20, "news": 12, "sounds": 7}


def draw(name, count, stream):
    """`count` points on a plane in four quadrants, as client `name` sees them, and their quadrants."""
    rng = torch.Generator().manual_seed(stream)
    points = torch.randn(count, 2, generator=rng)
    eyes = torch.randn(2, WIDTHS[name], generator=torch.Generator().manual_seed(len(name)))
    return points @ eyes, (points[:, 0] > 0).long() + 2 * (points[:, 1] > 0).long()


def modules(name, hidden=24, dim=8, outputs=4):
    with seeded(0, "own", name):
        return nn.Sequential(nn.Linear(WIDTHS[name], hidden), nn.ReLU(), nn.Linear(hidden, dim)), nn.Linear(dim, outputs)


def client(name, size=30, **changes):
    """A client of four quadrants; `changes` replace any argument."""
    encoder, head = modules(name)
    usual = {"encoder": encoder, "head": head, "task": classification(4), "train": draw(name, size, 1 + len(name)),
             "validation": draw(name, 100, 2), "public": draw(name, 64, 3)[0]}
    return Client(name, **{**usual, **changes})


def fit(clients, method, rounds=2, **options):
    federation = Federation(clients, method, **options)
    return federation, federation.fit(rounds, progress=False)


def test_ten_lines_federate_and_help():
    clients = [client("birds", size=200), client("news", size=200), client("sounds", size=12)]
    federation, history = fit(clients, FedMuscle(num_peers=2, batch_size=16), 6)
    scores = history[history["split"] == "validation"].pivot(index="round", columns="client", values="value")
    assert scores.loc[6].min() > scores.loc[0].max() and scores.loc[6].min() > 60
    assert list(history.columns) == ["method", "client", "task", "metric", "split", "round", "seed", "value", "bytes"]
    sent = federation.ledger.table().groupby(["client", "direction"])["bytes"].sum()
    assert sent["birds", "up"] == 6 * 64 * 8 * 4 and sent["birds", "down"] == 2 * sent["birds", "up"]
    before, after = (federation.alignment[when]["retrieval"] for when in ("before", "after"))
    assert after[0][1] > before[0][1] and len(after) == 3


def test_the_order_of_clients_does_not_matter():
    histories = []
    for order in (("birds", "news", "sounds"), ("sounds", "birds", "news")):
        histories.append(fit([client(name) for name in order], FedMuscle(num_peers=1, batch_size=16))[1])
    pd.testing.assert_frame_equal(*histories, check_exact=True)


class Reading(Dataset):
    """Samples that are made when they are read, and counted."""

    def __init__(self, name, count, stream):
        (self.inputs, self.targets), self.reads = draw(name, count, stream), 0

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, row):
        self.reads += 1
        return self.inputs[row], self.targets[row]


def test_tensors_datasets_and_loaders_give_the_same_run():
    found = []
    for wrap in (lambda data: data, lambda data: TensorDataset(*data),
                 lambda data: DataLoader(TensorDataset(*data), batch_size=7, shuffle=True)):
        clients = [client(name, train=wrap(draw(name, 30, 1)), validation=wrap(draw(name, 50, 2)))
                   for name in ("birds", "news")]
        found.append(fit(clients, FedMuscle(num_peers=1, batch_size=16))[1])
    lazy = [client(name, train=Reading(name, 30, 1), validation=Reading(name, 50, 2)) for name in ("birds", "news")]
    before = lazy[0].data["train"].dataset.reads
    found.append(fit(lazy, FedMuscle(num_peers=1, batch_size=16))[1])
    assert lazy[0].data["train"].dataset.reads >= before + 2 * 10 // 2 * 30   # at every use: two rounds of five passes
    for other in found[1:]:
        pd.testing.assert_frame_equal(found[0], other, check_exact=True)


def test_a_public_dataset_of_inputs_and_one_of_pairs():
    tensors = draw("birds", 64, 3)
    found = [fit([client("birds", public=public), client("news")], FedMuscle(num_peers=1, batch_size=16))[1]
             for public in (tensors[0], TensorDataset(*tensors), Reading("birds", 64, 3))]
    for other in found[1:]:
        pd.testing.assert_frame_equal(found[0], other, check_exact=True)


class TwoViews(Network):
    """A network that cuts elsewhere: the head reads the hidden layer beside the representation."""

    def encode(self, inputs):
        return self.representation[:2](inputs), self.representation(inputs)

    def decode(self, features):
        return self.head(torch.cat(features, 1))


def test_a_network_of_ones_own_cut_elsewhere():
    encoder, _ = modules("birds")
    own = client("birds", encoder=TwoViews(encoder, nn.Linear(24 + 8, 4)), head=None)
    _, history = fit([own, client("news")], FedMuscle(num_peers=1, batch_size=16))
    assert history["value"].notna().all()


def test_parameters_are_shared_between_clients_of_one_architecture_and_named_tasks_pool():
    def twins(**names):
        return [client("birds", task=classification(4, names.get("first", ""))),
                Client("bees", *modules("birds"), classification(4, names.get("second", "")), train=draw("birds", 20, 8),
                       validation=draw("birds", 50, 2))]
    federation, _ = fit(twins(), EncoderOnly())
    assert federation.server.memory.decoders.keys() == {"birds", "bees"}      # unnamed: nobody else has these classes
    federation, _ = fit(twins(first="quadrants", second="quadrants"), MFed())
    assert federation.server.memory.decoders.keys() == {"quadrants"}
    first, second = (federation.server.memory.encoders[name] for name in ("bees", "birds"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_labels_and_pixels_of_ones_own():
    inputs = torch.rand(12, 3, 8, 8)
    several = Client("labels", nn.Sequential(nn.Flatten(), nn.Linear(192, 8)), nn.Linear(8, 3), multilabel(3),
                     train=(inputs, torch.randint(2, (12, 3))), validation=(inputs, torch.ones(12, 3)), public=inputs)

    class Dense(Network):
        def decode(self, features):
            return self.head(features).view(-1, 2, 8, 8)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(192, 8))
    pixels = Client("pixels", Dense(encoder, nn.Linear(8, 128)), None, segmentation(2),
                    train=(inputs, torch.randint(2, (12, 8, 8))), validation=(inputs, torch.full((12, 8, 8), 255)),
                    public=inputs)
    _, history = fit([several, pixels], SimCLR(batch_size=4))
    assert set(history["metric"]) >= {"mAP", "mIoU", "contrastive_loss"}


def squared_error(outputs, targets):
    return (outputs[:, 0] - targets).square().mean()


def explained(outputs, targets):
    """100 max(0, R^2)."""
    return 100 * max(0.0, 1 - squared_error(outputs, targets).item() / targets.var(correction=0).item())


def test_a_regression_of_ones_own():
    def first_coordinate(*which):
        return (inputs := draw("birds", *which)[0]), inputs[:, 0]

    def regressing(**changes):
        return client("birds", head=nn.Linear(8, 1), task=Task("", 1, "R2", squared_error, explained),
                      train=first_coordinate(50, 6), validation=first_coordinate(100, 2), **changes)
    for changes in ({}, {"micro_batch_size": 5}):
        _, history = fit([regressing(**changes), client("news")], FedMuscle(num_peers=1, batch_size=16), 6,
                         training=Training(local_lr=1e-2))
        scores = history[history["metric"] == "R2"]["value"]
        assert len(scores) == 7 and scores.iloc[-1] > 80 and scores.between(0, 100).all()
    with pytest.raises(ValueError, match="client birds: task: got targets of torch.float32, expected classes or labels"):
        Federation([regressing(), client("news")], CoFED())


class Aside(Network):
    """With a part that is neither representation nor head."""

    def __init__(self, representation, head):
        super().__init__(representation, head)
        self.aside = nn.Linear(2, 2)


class Pair(nn.Module):
    """Gives two things."""

    def __init__(self):
        super().__init__()
        self.inside = nn.Linear(20, 8)

    def forward(self, inputs):
        return self.inside(inputs), inputs


def good_network():
    encoder, head = modules("birds")
    return {"encoder": encoder, "head": head}


def own_task(loss):
    return Task("", 4, "accuracy", loss, lambda kept, targets: 0.0)


class Named(Reading):
    """Inputs by name, as of texts for Hugging Face's models."""

    def __getitem__(self, row):
        inputs, target = super().__getitem__(row)
        return {"inputs": inputs}, target


REFUSED = {
    "a head that does not fit the representations": (
        {"head": nn.Linear(9, 4)}, r"client birds: head: failed on one train sample of shape \(1, 20\)"),
    "a head of other outputs": ({"head": nn.Linear(8, 5)},
                                r"client birds: head: got outputs of shape \(1, 5\).*\(1, 4\) for acc"),
    "an encoder for other inputs": (
        {"encoder": modules("news")[0]}, r"client birds: encoder: failed on one train sample of shape \(1, 20\)"),
    "an encoder of feature maps": ({"encoder": nn.Unflatten(1, (2, 10)),
                                    "head": nn.Sequential(nn.Flatten(), nn.Linear(20, 4))},
                                   r"client birds: encoder: got representations of shape \(1, 2, 10\).*a tensor \(1, d\)"),
    "a public set of other inputs": ({"public": draw("news", 64, 3)[0]}, "client birds: encoder: failed on one public sample"),
    "a test set of other inputs": ({"test": draw("news", 30, 1)},
                                   r"client birds: encoder: failed on one test sample of shape \(1, 12\)"),
    "a validation set of other inputs": ({"validation": draw("news", 30, 1)}, "encoder: failed on one validation sample"),
    "held-out samples of other inputs": ({"held_out": draw("news", 64, 3)[0]}, "encoder: failed on one held_out sample"),
    "a loss of every sample": ({"task": own_task(lambda outputs, targets: outputs.logsumexp(1))},
                               r"client birds: loss: got shape \(1,\) for one train sample, expected a finite tensor"),
    "a loss of NaN": ({"task": own_task(lambda outputs, targets: torch.nan * outputs.sum())},
                      "client birds: loss: got nan for one train sample, expected a finite tensor"),
    "a loss that is no tensor": ({"task": own_task(lambda outputs, targets: 1.0)}, "loss: got float for one train sample"),
    "a loss that fails": ({"task": own_task(lambda outputs, targets: outputs @ targets)},
                          r"client birds: loss: failed on outputs of shape \(1, 4\) and targets of shape \(1,\), of one train"),
    "named inputs": ({"train": Named("birds", 30, 1)}, "client birds: train: got samples whose input is dict, expected a ten"),
    "named public samples": ({"public": Named("birds", 30, 1)}, "client birds: public: got samples whose input is dict"),
    "a label out of range": ({"train": (draw("birds", 30, 1)[0], torch.full((30,), 4))},
                             "client birds: train: got class 4, expected 0 to 3"),
    "negative labels": ({"train": (draw("birds", 30, 1)[0], torch.full((30,), -1))}, "train: got class -1, expected 0 to 3"),
    "labels that are no classes": ({"train": (draw("birds", 30, 1)[0], torch.rand(30))},
                                   "client birds: train: got targets of torch.float32, expected integers"),
    "one-hot labels": ({"train": (draw("birds", 30, 1)[0], torch.zeros(30, 4, dtype=torch.long))},
                       r"client birds: train: got targets of shape \(30, 4\), expected \(n,\)"),
    "more labels than samples": ({"train": (draw("birds", 30, 1)[0], torch.zeros(31, dtype=torch.long))},
                                 r"client birds: train: got inputs of shape \(30, 20\) and targets of shape \(31,\)"),
    "no samples": ({"train": (torch.empty(0, 20), torch.empty(0, dtype=torch.long))}, "client birds: train: .*at least one"),
    "no train set": ({"train": None}, "client birds: got no train samples"),
    "one tensor": ({"train": draw("birds", 30, 1)[0]}, "client birds: train: got Tensor, expected a pair of tensors"),
    "lists": ({"train": ([1.0], [0])}, "client birds: train: got tuple of list, list, expected a pair of tensors"),
    "no head": ({"head": None}, "client birds: got no head, expected one, or a `Network`"),
    "a frozen network": ({"encoder": modules("birds")[0].requires_grad_(False), "head": nn.Linear(8, 4).requires_grad_(False)},
                         "client birds: got a network without parameters that learn"),
    "parameters of two types": ({"head": nn.Linear(8, 4).double()}, "client birds: got parameters on or of"),
    "parameters that nobody trains": (
        {"encoder": Aside(*modules("birds")), "head": None}, "client birds: got parameters outside representation and head"),
    "an encoder of several outputs": ({"encoder": Pair()}, "client birds: encoder: got representations of tuple for one train"),
    "a strange name": ({"name": 1.5}, "name: got 1.5, expected a word or a number"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_client_that_does_not_fit_is_refused_by_name(what):
    changes, message = REFUSED[what]
    name = changes.get("name", "birds")
    usual = {**good_network(), "task": classification(4), "train": draw("birds", 30, 1), "public": draw("birds", 64, 3)[0]}
    with pytest.raises(ValueError, match=message):
        Client(name, **{**usual, **{key: value for key, value in changes.items() if key != "name"}})


def pixels(side, **splits):
    """A client whose network answers `side` x `side` pixels; splits: the side of their masks."""
    head = nn.Sequential(nn.Linear(8, 3 * side ** 2), nn.Unflatten(1, (3, side, side)))
    data = {split: (torch.rand(4, 3, 8, 8), torch.zeros(4, size, size, dtype=torch.long)) for split, size in splits.items()}
    return Client("pixels", nn.Sequential(nn.Flatten(), nn.Linear(192, 8)), head, segmentation(3), **data)


@pytest.mark.parametrize(("side", "splits", "message"), [
    (4, {"train": 8}, r"loss: failed on outputs of shape \(1, 3, 4, 4\) and targets of shape \(1, 8, 8\), of one train sample"),
    (8, {"train": 8, "test": 4}, r"targets of shape \(1, 4, 4\), of one test sample")])
def test_masks_of_another_size_than_the_answers_are_refused(side, splits, message):
    with pytest.raises(ValueError, match=f"client pixels: .*{message}"):
        pixels(side, **splits)


def test_checking_a_client_draws_no_random_numbers():
    class Drawing(nn.Linear):
        def forward(self, inputs):
            return super().forward(nn.functional.dropout(inputs))               # also when it is used
    encoder, head = Drawing(20, 8), Drawing(8, 4)
    before = torch.get_rng_state()
    client("birds", encoder=encoder, head=head, test=draw("birds", 4, 5))
    assert torch.equal(torch.get_rng_state(), before)


def wide():
    return client("news", encoder=modules("news", dim=6)[0], head=nn.Linear(6, 4))


def shuffled():
    return client("bees", encoder=modules("birds")[0], train=draw("birds", 30, 5), validation=draw("birds", 50, 6),
                  public=draw("birds", 64, 3)[0].flip(0))


def twin_of(one):
    return Client("twin", one.network, None, classification(4), train=draw("birds", 30, 1), public=draw("birds", 64, 3)[0])


WIDTHS["bees"] = WIDTHS["birds"]
TOGETHER = {
    "representations of unequal width": (lambda: [client("birds"), wide()], FedMuscle(num_peers=1),
                                         "encoder: got representations of width {'birds': 8, 'news': 6}"),
    "public sets of unequal length": (lambda: [client("birds"), client("news", public=draw("news", 40, 3)[0])],
                                      FedMuscle(num_peers=1), "public: got {'birds': 64, 'news': 40} samples by client"),
    "public sets in another order": (lambda: [client("birds"), shuffled()], FedMuscle(num_peers=1),
                                     "public: clients bees and birds have the same samples in different orders"),
    "no public set": (lambda: [client("birds"), client("news", public=None)], FedMuscle(num_peers=1),
                      r"public: clients \['news'\] have no public data, expected some: FedMuscle needs them"),
    "more peers than clients": (lambda: [client("birds"), client("news")], FedMuscle(num_peers=2),
                                "num_peers: got 2, expected 1 to 1: there are 2 clients"),
    "one client": (lambda: [client("birds")], FedMuscle(num_peers=1),
                   "num_peers: got 1, expected more clients: there are 1 clients"),
    "no client": (list, Local(), "clients: got none"),
    "two of one name": (lambda: [client("birds"), client("birds")], Local(), r"clients: got names \['birds', 'birds'\]"),
    "one module for two": (lambda: [one := client("birds"), twin_of(one)], FedMuscle(num_peers=1),
                           "clients: got one module for birds and twin, expected a copy for each"),
    "unlike tasks of one name": (lambda: [client("birds", task=classification(4, "q")),
                                          client("news", head=nn.Linear(8, 5), task=classification(5, "q"))], Local(),
                                 r"client news: got task 'q' of \('accuracy', 5\), expected \('accuracy', 4\) as others have"),
    "a batch larger than the public set": (lambda: [client("birds"), client("news")], FedMuscle(num_peers=1, batch_size=65),
                                           "public_size: got 64, expected at least batch_size = 65"),
    "views of what has none": (lambda: [client("birds"), client("news")], SimCLR(batch_size=16),
                               r"client birds: view: got a batch of shape \(1, 20\), torch.float32, expected images"),
    "own views of what has none": (lambda: [client("birds"), client("news")], FedMuscleViews(num_peers=1), "birds: view: got"),
    "a frozen encoder that is to be aligned": (
        lambda: [client("birds", encoder=modules("birds")[0].requires_grad_(False)), client("news")], FedMuscle(num_peers=1),
        "client birds: got an encoder without parameters that learn"),
}


@pytest.mark.parametrize("what", TOGETHER)
def test_clients_that_do_not_fit_together_are_refused_before_training(what):
    make, method, message = TOGETHER[what]
    with pytest.raises(ValueError, match=message):
        Federation(make(), method)


def test_methods_without_public_data_or_alignment_do_not_ask_for_them():
    assert len(fit([client("birds", public=None), wide()], Local())[1])
    assert len(fit([client("birds"), client("news")], CoFED())[1])
    assert len(fit([client("birds"), client("news")], FedHeNN(batch_size=16))[1])


def test_fit_goes_on_and_a_state_resumes(tmp_path):
    def make():
        return Federation([client("birds"), client("news")], FedMuscle(num_peers=1, batch_size=16))
    whole = make().fit(4, progress=False)
    parts = make()
    assert parts.fit(2, progress=False)["round"].max() == 2
    torch.save(parts.state(), tmp_path / "state.pt")
    pd.testing.assert_frame_equal(parts.fit(4, progress=False), whole, check_exact=True)
    resumed = make()
    resumed.load(torch.load(tmp_path / "state.pt", weights_only=True))
    pd.testing.assert_frame_equal(resumed.fit(4, progress=False), whole, check_exact=True)


def test_functional_dropout_draws_from_the_client_s_stream():
    class Dropping(nn.Module):
        def __init__(self, inside):
            super().__init__()
            self.inside = inside

        def forward(self, inputs):
            return self.inside(nn.functional.dropout(inputs, 0.5, self.training))

    def run():
        return fit([client(name, encoder=Dropping(modules(name)[0])) for name in ("birds", "news")],
                   FedMuscle(num_peers=1, batch_size=16))[1]
    first = run()
    torch.rand(5)
    pd.testing.assert_frame_equal(first, run(), check_exact=True)


LIGHT = """
import sys
from fedmuscle_core import {names}
heavy = {{"transformers", "torchvision", "peft", "papermill", "matplotlib", "sklearn", "jupytext", "scipy"}} & set(sys.modules)
rooms = {{name for name in sys.modules if name.startswith("fedmuscle_core.")}}
print(sorted(heavy), sorted(rooms))
"""


@pytest.mark.parametrize(("names", "rooms"), [
    ("muscle_loss", {"losses", "checks", "tuple_sum"}),
    ("Client, Federation, FedMuscle, classification", None)])
def test_the_core_is_light(names, rooms):
    """Neither the loss nor a whole federation loads what only experiments need; the loss loads torch only."""
    code = "import sys; sys.modules.update(dict.fromkeys(('pandas', 'tqdm', 'torchmetrics'))) \n" if rooms else ""
    found = subprocess.run([sys.executable, "-c", code + LIGHT.format(names=names)], capture_output=True, text=True, check=True)
    heavy, loaded = found.stdout.strip().split("] [")
    assert heavy == "["
    loaded = {name.strip(" ']").removeprefix("fedmuscle_core.").split(".")[0] for name in loaded.split(",")}
    if rooms:
        assert loaded == rooms
    assert not loaded & {"experiments", "world", "networks", "analysis", "pretraining", "commands", "benchmarks"}


def test_every_public_name_can_be_imported():
    assert all(getattr(fedmuscle_core, name) is not None for name in fedmuscle_core.__all__)
    with pytest.raises(AttributeError, match="no attribute 'muscles'"):
        _ = fedmuscle_core.muscles


def test_clients_without_a_common_width_train_alone_and_rounds_do_not_go_back():
    federation, history = fit([client("birds"), wide()], Local(), rounds=3)
    assert federation.alignment == {"before": {}, "after": {}} and history["round"].max() == 3
    with pytest.raises(ValueError, match="rounds: got 2, expected an integer of at least 3"):
        federation.fit(2, progress=False)


def test_a_round_can_be_played_by_hand_after_a_fit():
    federation, _ = fit([client("birds")], Local(), rounds=1)
    found = federation.play(federation.method.play(federation.server, 2), 2)
    assert set(found["local_loss"]) == {"birds"} and federation.engine is not None


def test_a_client_function_that_stops_iterating_is_an_error_not_the_end_of_the_round():
    class Stopping(Local):
        def local(self, client, message):
            return next(iter(()))

    with pytest.raises(StopIteration):
        fit([client("birds")], Stopping())


def test_an_engine_that_cannot_be_had_leaves_the_federation_as_it_was():
    federation = Federation([client("birds"), client("news")], Local())
    with pytest.raises(ValueError, match="engine: got 'pigeons', expected one of"):
        federation.fit(1, engine="pigeons", progress=False)
    assert len(federation.fit(1, progress=False))


def test_a_dataset_is_scored_on_the_pairs_it_gives():
    """Samples that change whenever they are read: inputs and targets of one reading belong together."""
    class Turning(Reading):
        def __getitem__(self, row):
            inputs, target = super().__getitem__(row)
            shift = self.reads % 2
            return inputs + 100 * shift, (target + shift) % 4

    class Knows(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.inputs, self.targets = draw("birds", 40, 2)

        def forward(self, inputs):
            shift = (inputs[:, 0] > 50).long()
            found = torch.cdist(inputs - 100 * shift[:, None], self.inputs).argmin(1)
            return self.scale * nn.functional.one_hot((self.targets[found] + shift) % 4, 4).float()

    from fedmuscle_core.client import evaluate
    one = client("birds", encoder=Knows(), head=nn.Linear(4, 4), validation=Turning("birds", 40, 2))
    with torch.no_grad():
        one.network.head.weight.copy_(torch.eye(4))
        one.network.head.bias.zero_()
    assert evaluate(one, "validation") == pytest.approx(100)
