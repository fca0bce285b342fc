"""Three clients on the digits of scikit-learn, for `deployment`: each sees other pixels, and one has another task."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from ..client import Client, Training
from ..federation import Federation
from ..methods import FedMuscle
from ..tasks import classification

CLIENTS = ("anna", "ben", "cleo")
SEEN = {"anna": slice(0, 48), "ben": slice(16, 64), "cleo": slice(0, 64, 2)}          # pixels
OWN = {"anna": slice(0, 500), "ben": slice(500, 530), "cleo": slice(530, 590)}        # private samples
CLASSES = {"anna": 10, "ben": 10, "cleo": 2}                                          # which digit, or whether it is odd


def federation(clients=(), seed=0):
    """FedMuscle with two peers, uploads once a round."""
    method = FedMuscle(num_peers=2, contrastive_lr=3e-4, refresh="round")
    return Federation(clients, method, seed=seed, training=Training())


def client(name):
    """One of CLIENTS."""
    torch.manual_seed(CLIENTS.index(name))
    inputs, labels = (torch.tensor(values) for values in load_digits(return_X_y=True))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    inputs, labels = inputs[order][:, SEEN[name]].float() / 16, labels[order] % CLASSES[name]
    encoder = nn.Sequential(nn.Linear(inputs.shape[1], 64), nn.ReLU(), nn.Linear(64, 32))
    return Client(name, encoder, nn.Linear(32, CLASSES[name]), classification(CLASSES[name]),
                  train=(inputs[OWN[name]], labels[OWN[name]]), validation=(inputs[600:1100], labels[600:1100]),
                  public=inputs[1100:1700])
