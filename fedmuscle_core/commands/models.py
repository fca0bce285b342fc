"""`fedmuscle models`: the pretrained networks that clients can have, who made them, their licences, and which are here."""

from textwrap import fill

from ..networks.backbones import backbone_folder
from ..networks.checkpoints import CHECKPOINTS
from ..networks.packaged import PACKAGED, is_installed
from ..paths import BACKBONES


def rows():
    """(name, where from, licence, whether it is here) of every network with a name."""
    for folder in sorted(path for path in BACKBONES.iterdir() if path.is_dir()):
        yield folder.name, "small stand-in, comes with this package", "MIT", "here"
    for name, entry in PACKAGED.items():
        here = "installed" if is_installed(name) else "make pretrained"
        yield name, f"{entry.origin}; package {entry.package}", entry.licence, here
    for name, entry in CHECKPOINTS.items():
        here = "a local copy" if backbone_folder(name) else "from the hub, or a copy in FEDMUSCLE_CHECKPOINTS"
        yield name, f"{entry.hub} at {entry.revision[:10]}", entry.licence, here


def main():
    for name, origin, licence, here in rows():
        print(f"{name}: {here}")
        print(fill(f"{origin} ({licence})", 100, initial_indent="    ", subsequent_indent="    "))
    return 0
