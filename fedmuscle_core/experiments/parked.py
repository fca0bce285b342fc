"""Clients that wait in files: one network in memory at a time, however many take part."""

from pathlib import Path

import torch


class ParkedClients:
    """Stands where a list of clients would: iterating gives each in turn, loaded from its file, saved and emptied afterwards.

    make: function index -> fresh `Client`, the state of which is replaced; folder: one of its own for the files, as those of
    earlier clients in it are deleted.  A client that is kept after its turn has no network any more.
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
            parts = {"model": client.model, "local": client.local_optimizer, "contrastive": client.contrastive_optimizer}
            if path.is_file():
                state = torch.load(path, weights_only=True)
                for name, part in parts.items():
                    part.load_state_dict(state[name])
            try:
                yield client
            finally:
                temporary = path.with_suffix(".part")
                torch.save({name: part.state_dict() for name, part in parts.items()}, temporary)
                temporary.replace(path)
                parts.clear()
                vars(client).update(model=None, data=None, public=None, local_optimizer=None, contrastive_optimizer=None)
