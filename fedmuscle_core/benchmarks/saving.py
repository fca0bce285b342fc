"""What the command lines of all benchmarks share: `--save FILE`, and what stands in the file beside what was measured."""

import argparse
import json

from ..experiments.store import environment, now, write_atomically


def parser_of(description):
    """A parser of a benchmark's arguments, which knows `--save`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", metavar="FILE", help="also store the measurements as JSON")
    return parser


def save(path, measured):
    """Store what was measured, a dict as JSON has it, with the date and the versions, unless it says these itself.  With `path`
    None nothing is stored."""
    if path is not None:
        write_atomically(path, json.dumps({"measured": now(), "versions": environment()} | measured, indent=1) + "\n")
