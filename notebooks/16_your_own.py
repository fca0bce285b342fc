# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 16 How do I federate my own models, and what do I have to write for it?
#
# Four ways in, each at most fifteen lines: (a) the Muscle loss in a training loop of your own, (b) your modules and tensors as
# clients of a federation, (c) a method of your own, (d) your photos in the experiments of the other notebooks. The data are the
# 1,797 handwritten digits that come with scikit-learn; no result here is a claim about a method.

# %% tags=["parameters"]
profile: str = "mini"  # where the figure goes; the computations are the same
seed: int = 0  # of the initial weights and of every random stream

# %% tags=["hide-input"]
try:
    from fedmuscle_core.experiments.parameters import check
except ImportError as error:
    raise SystemExit(f"This kernel lacks what the notebooks need ({error}): choose that of the project's .venv, see `make lab`.") from None
check(globals(), "profile", "seed")

# %%
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from fedmuscle_core.analysis import lessons, plots

plots.use_style()
torch.set_num_threads(1)
images, labels = (torch.tensor(values) for values in load_digits(return_X_y=True))
images = images.float() / 16  # (1797, 64)
rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
public, test, rich, poor = rows.split([600, 500, 500, 197])
poor = poor[:30]

# %% [markdown]
# ## (a) The loss alone
#
# Two models see different parts of every digit, the upper and the lower six of its eight rows, and one of them has 30 labels. On
# public digits, whose labels nobody has, each contrasts its own representations $z_i$ with the other's $p_j$:
#
# $$L_i = \log\sum_j e^{z_i\cdot p_j/\tau} - z_i\cdot p_i/\tau.$$
#
# This is one peer, InfoNCE; more peers: all tuples, see [01](01_muscle_loss.ipynb).

# %%
seen, own = {"a": slice(0, 48), "b": slice(16, 64)}, {"a": rich, "b": poor}


def new_models():
    torch.manual_seed(seed)
    return ({name: nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 32)) for name in seen},
            {name: nn.Linear(32, 10) for name in seen})


def learn_labels(encoder, head, optimizer, name, epochs):
    for _ in range(epochs):
        for batch in own[name][torch.randperm(len(own[name]))].split(16):
            optimizer.zero_grad()
            F.cross_entropy(head(encoder(images[batch][:, seen[name]])), labels[batch]).backward()
            optimizer.step()


def accuracy(encoders, heads):
    found = {name: heads[name](encoders[name](images[test][:, seen[name]])).argmax(1) == labels[test] for name in seen}
    return {f"{name} (%)": round(100 * right.float().mean().item(), 1) for name, right in found.items()}


# %% [markdown]
# The whole training loop. `local_epochs` passes over the labels follow each contrastive pass; the contrastive learning rate is
# `share` of the local one.

# %%
from fedmuscle_core import muscle_loss


def train(rounds, local_epochs, share, rate=1e-3):
    encoders, heads = new_models()
    local = {name: torch.optim.AdamW([*encoders[name].parameters(), *heads[name].parameters()], lr=rate) for name in seen}
    contrastive = {name: torch.optim.AdamW(encoders[name].parameters(), lr=share * rate) for name in seen}
    for round in range(rounds + 1):  # round 0: labels alone
        for batch in torch.randperm(600).split(30) if round and share else ():
            z = {name: encoders[name](images[public[batch]][:, seen[name]]) for name in seen}
            for name, peer in (("a", "b"), ("b", "a")):
                contrastive[name].zero_grad()
                muscle_loss(z[name], [z[peer].detach()], tau=0.2).backward()
                contrastive[name].step()
        for name in seen if local_epochs or not round else ():
            learn_labels(encoders[name], heads[name], local[name], name, local_epochs if round else 30)
    return accuracy(encoders, heads)


# %%
schedules = {"labels alone, 30 epochs": (0, 0, 0.0), "then the loss alone, same rate": (15, 0, 1.0),
             "one local epoch a round, ten times the rate": (15, 1, 10.0),
             "four local epochs a round, a tenth of the rate": (15, 4, 0.1),
             "four local epochs a round, no alignment": (15, 4, 0.0)}
found = pd.DataFrame({what: train(*schedule) for what, schedule in schedules.items()}).T
found

# %% [markdown]
# A contrastive loss knows nothing of the labels: alone it moves the representations away from what the heads have learnt. Let local
# epochs have the last word in every round, more of them than contrastive ones, and start with a contrastive rate of a tenth of the local.
# Then nothing was lost here, and nothing gained; whether something is gained is a question for an experiment with seeds, such as [02](02_setup1.ipynb).

# %%
start = found.loc["labels alone, 30 epochs", "a (%)"]
print(f"Model a: {start} % with its labels, {found.iloc[1, 0]} % after the loss alone, {found.iloc[3, 0]} % with the careful schedule.")

# %% [markdown]
# ## (b) Your modules and tensors as clients
#
# Any `nn.Module` that gives `(B, d)` representations, a head on top, and tensors (or a `Dataset`, or a `DataLoader`). The representations
# must have one width; inputs, architectures, tasks and numbers of samples may differ. Sample i of `public` must be the same digit for all.

# %%
from fedmuscle_core import Client, Federation, FedMuscle, Local, classification


def clients():
    encoders, heads = new_models()
    data = {"a": (rich, 10), "b": (poor, 10), "c": (rich[:60], 2)}  # c: is it odd?
    encoders |= {"c": nn.Sequential(nn.Linear(32, 40), nn.Tanh(), nn.Linear(40, 32))}
    heads, views = heads | {"c": nn.Linear(32, 2)}, seen | {"c": slice(0, 64, 2)}
    return [Client(name, encoders[name], heads[name], classification(classes),
                   train=(images[mine][:, views[name]], labels[mine] % classes),
                   validation=(images[test][:, views[name]], labels[test] % classes),
                   public=images[public][:, views[name]]) for name, (mine, classes) in data.items()]


federation = Federation(clients(), FedMuscle(num_peers=2, contrastive_lr=3e-4), seed=seed)
history = federation.fit(rounds=8, progress=False)
history[history["round"] == 8][["client", "metric", "split", "value"]].round(3)

# %% [markdown]
# The history is a tidy table; the same plots and tables as everywhere take it. What travelled was counted where it was sent.

# %%
alone = Federation(clients(), Local(), seed=seed).fit(rounds=8, progress=False)
fig, drawn = plots.learning_curves(pd.concat([alone, history]))
plots.save_figure(fig, drawn, "16_your_own", profile)

# %%
federation.ledger.table().query("round == 1").pivot(index="client", columns="direction", values="bytes")

# %% [markdown]
# What does not fit is refused by name, before anything trains:

# %%
wrong = {"head": lambda: Client("a", nn.Linear(48, 32), nn.Linear(30, 10), classification(10), train=(images[:, :48], labels)),
         "labels": lambda: Client("a", nn.Linear(48, 32), nn.Linear(32, 9), classification(9), train=(images[:, :48], labels)),
         "peers": lambda: Federation(clients(), FedMuscle(num_peers=3))}
for make in wrong.values():
    try:
        make()
    except ValueError as error:
        print(error)

# %% [markdown]
# ## (c) A method of your own
#
# A method is a frozen dataclass with its hyperparameters. Where only the loss or the payload changes, two functions do: here every
# client contrasts itself with the *mean* of its peers, so a downlink is `B x d` however many they are.

# %%
from fedmuscle_core import info_nce
from fedmuscle_core.methods.contrastive import WithPeers


@dataclass(frozen=True)
class MeanPeer(WithPeers):
    """InfoNCE against the mean of the peers' representations."""

    name, label = "mean_peer", "Mean peer"

    def serve(self, peers, kinds):  # at the server
        return (F.normalize(peers.mean(0), dim=1),)

    def loss(self, client, anchor, payload, kinds, where):  # at the client
        return info_nce(anchor, *payload, tau=self.tau, normalize=False)


# %% [markdown]
# With an exchange of its own, `play` is the server's side, a generator: it yields what it asks of which clients and gets their replies
# back, and returns what it measured, by metric and client. The other functions are the client's side, message in, message out. Here the clients of ten classes share their heads.

# %%
from fedmuscle_core import Method, Stage, by_metric


@dataclass(frozen=True)
class SharedHead(Method):
    """Weights of heads with as many outputs are averaged."""

    name, label, exchanges = "shared_head", "Shared head", "heads up, their mean down"

    def play(self, server, round):
        sent = yield Stage("hand_in", server.present(round), lambda client: {})
        heads = {client: reply["weight"] for client, reply in sent.items()}
        alike = {client: [other for other in heads.values() if other.shape == own.shape] for client, own in heads.items()}
        means = {client: {"weight": torch.stack(several).mean(0)} for client, several in alike.items()}
        return by_metric((yield self.local_phases(server, round, lambda client: means.get(client, {}))))

    def hand_in(self, client, message):
        return {"weight": client.network.head.weight.detach().clone()}

    def local(self, client, message):
        if "weight" in message:  # else absent from this round
            client.network.head.weight.data.copy_(message["weight"])
        return super().local(client, message)


# %% [markdown]
# Both are known to tables and plots from here on, and both get messages counted, absent clients and resumption for nothing. A `check`
# of the `Stage` would tell the server what a good reply holds, so that others are refused by name.

# %%
own_methods = MeanPeer(num_peers=2, contrastive_lr=3e-4), SharedHead()
tried = [Federation(clients(), method, seed=seed).fit(8, progress=False) for method in own_methods]
both = pd.concat([alone, history, *tried])
last = both[(both["round"] == 8) & (both["split"] == "validation")]
last.pivot(index="client", columns="method", values="value")[["local", "fedmuscle", "mean_peer", "shared_head"]].round(1)

# %%
both[both["round"] == 8].groupby("method", sort=False)["bytes"].max().map("{:,}".format).to_frame("bytes a client and round, at most")

# %% [markdown]
# ## (d) Your photos in the experiments
#
# Put a file `sources.toml` into the data folder (`FEDMUSCLE_DATA`): it names folders and says how they are laid out. Here three
# folders of digits as files stand for your photos: `train` and `test`, a folder a class, and a flat one without labels.

# %%
from torchvision.utils import save_image

folder = Path(tempfile.mkdtemp())
parts = {"digits/train": rich[:300], "digits/test": test[:200], "unlabelled": public[:200]}
for part, members in parts.items():
    for row in members.tolist():
        path = folder / part / ("" if part == "unlabelled" else f"class{labels[row]}") / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(F.interpolate(images[row].view(1, 1, 8, 8), size=32), path)

# %%
(folder / "sources.toml").write_text("""
[my_digits]
folder = "digits"
layout = "image_folder"
classes = 10
size = 32
[my_public]
folder = "unlabelled"
layout = "flat_folder"
size = 32
""")
os.environ["FEDMUSCLE_DATA"] = str(folder)

# %% [markdown]
# A `Setup` says who takes part; it can be given wherever the other notebooks give a name, also with worker processes. Nobody tuned this
# one, and its tables say so.

# %% tags=["nbval-ignore-output"]
from fedmuscle_core import ClientSpec, Settings, Setup, sweep
from fedmuscle_core.analysis import tables

mine = Setup("mine", (ClientSpec("class@my_digits", "resnet_small", 60), ClientSpec("class@my_digits", "vit_small", 60),
                      ClientSpec("class@my_digits", "resnet_small", 20)), {"public_domain": "my_public", "public_size": 96})
shared = {"seed": seed, "num_peers": 2, "rounds": 3, "test_size": 200}
wanted = [Settings.of(mine, method, **shared, **mine.settings) for method in ("local", "fedmuscle")]
records, own_history = sweep(wanted, folder / "results", progress=False)
tables.delta_table(own_history)

# %% [markdown]
# ## Published, and ours
#
# The papers publish no number for any of this. What was shown, with one seed:

# %%
pd.DataFrame([{"way in": "(a) the loss", "published": "not found", "ours": f"kept {found.iloc[3, 0]} of {start} % with the careful schedule"},
              {"way in": "(b) own clients", "published": "not found", "ours": f"{len(federation.server.clients)} clients, {len(history)} rows of history"},
              {"way in": "(c) own methods", "published": "not found", "ours": f"{both['method'].nunique() - 2} beside Local and FedMuscle"},
              {"way in": "(d) own photos", "published": "not found", "ours": f"{len(records)} runs of {own_history['client'].nunique()} clients, untuned"}])

# %% [markdown]
# ## What we learned

# %% tags=["hide-input"]
lessons.learned(
    f"The loss knows nothing of labels: alone it took model a from {start} to {found.iloc[1, 0]} %. With four local epochs a round and a tenth of the "
    f"rate it ended at {found.iloc[3, 0]} %, the same epochs without alignment at {found.iloc[4, 0]} %; with one epoch and ten times the rate at "
    f"{found.iloc[2, 0]} %.",
    "A network that gives representations, a head, and tensors are a client; their tasks, inputs and sizes may differ.",
    "A dataclass with two functions is a method, with a generator one that exchanges something else.")

# %% [markdown]
# ## What to try next
#
# Next: [21](21_many_machines.ipynb) plays the same federation on many machines; [17](17_when_does_it_pay.ipynb) says for which federations it pays.
#
# **Exercise.** A mean of peers is moved by one that is far off. Write the method that takes their median instead.
#
# <details><summary>Solution</summary>
#
# ```python
# @dataclass(frozen=True)
# class MedianPeer(MeanPeer):
#     """InfoNCE against the median of the peers' representations."""
#
#     name, label = "median_peer", "Median peer"
#
#     def serve(self, peers, kinds):
#         return (F.normalize(peers.quantile(0.5, dim=0), dim=1),)
#
#
# torch.manual_seed(0)
# true = F.normalize(torch.randn(5, 8), dim=1)
# peers = torch.stack([F.normalize(true + 0.1 * torch.randn(5, 8), dim=1) for _ in range(2)] + [F.normalize(torch.randn(5, 8), dim=1)])
# for method in (MeanPeer(), MedianPeer()):
#     print(method.label, (method.serve(peers, None)[0] * true).sum(1).mean())
# ```
#
# With two peers the median is their mean; only from three on does it ignore one that is far off.
#
# </details>
