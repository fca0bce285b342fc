"""`fedmuscle flower init`."""

from pathlib import Path


def init(folder, clients, address):
    """Write a deployment's files and say where to read on; see `engines.flower.init`.  Returns the exit status."""
    from ..engines.flower.init import init as write

    write(folder, clients, address)
    print(f"fedmuscle: {folder} is ready for {len(clients)} clients; what to do next stands in {Path(folder) / 'README.md'}")
    return 0
