"""Clients that wait in files: one network in memory at a time, however many take part."""

from pathlib import Path

import torch

from ..federation import client_state, load_client


class ParkedClients:
    """Stands where a list of clients would: iterating gives each in turn, loaded from its file, saved and emptied afterwards.

    make: function index -> fresh `Client` of a federation, the state of which is replaced; folder: one of its own for the
    files, as those of earlier clients in it are deleted.  A client that is kept after its turn has no network any more.
    """

    def __init__(self, make, count, folder):
        self.make, self.count, self.folder = make, count, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("client*.pt"):
            old.unlink()

    def __len__(self):
        return self.count

    def __iter__(self):
        for index in range(1, self.count + 1):
            client, path = self.make(index), self.folder / f"client{index}.pt"
            if path.is_file():
                load_client(client, torch.load(path, weights_only=True))
            try:
                yield client
            finally:
                temporary = path.with_suffix(".part")
                torch.save(client_state(client), temporary)
                temporary.replace(path)
                vars(client).update(network=None, data=None, public=None, held_out=None, local_optimizer=None,
                                    contrastive_optimizer=None)
