"""Clients that wait in files: one network in memory at a time, however many take part."""

from pathlib import Path

from ..federation import client_state, load_client
from ..files import load_state, save_state


class ParkedClients:
    """Stands where a list of clients would: iterating gives each in turn, loaded from its file, saved and emptied afterwards.

    make: function index -> fresh `Client` of a federation, the state of which is replaced; folder: one of its own for the
    files parked<index>.state, of which those of earlier clients are overwritten.  A client that is kept after its turn has no
    network any more.  A file that cannot be written is an OSError, one that is damaged a ValueError, both naming it.
    """

    one_by_one = True

    def __init__(self, make, count, folder):
        self.make, self.count, self.folder = make, count, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.parked = set()

    def __len__(self):
        return self.count

    def __iter__(self):
        for index in range(1, self.count + 1):
            client, path = self.make(index), self.folder / f"parked{index}.state"
            if index in self.parked:
                load_client(client, load_state(path))
            try:
                yield client
            finally:
                save_state(client_state(client), path)
                self.parked.add(index)
                vars(client).update(network=None, data=None, public=None, held_out=None, local_optimizer=None,
                                    contrastive_optimizer=None)
