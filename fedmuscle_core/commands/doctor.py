"""Says in one line what `fedmuscle reproduce` lacks, and how to mend it: `python -m fedmuscle_core.commands.doctor`."""

import importlib
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version

from ..paths import PACKAGE

MEND = 'pip install "fedmuscle-core[reproduce]"; in a clone: make setup'
LOCK = PACKAGE.parent / "requirements.lock"


def needed(find_requires=requires):
    """Names of the packages of the core and of its extra `reproduce`."""
    try:
        lines = find_requires("fedmuscle-core") or []
    except PackageNotFoundError:
        return ["fedmuscle-core"]
    return sorted(re.match(r"[\w.-]+", line)[0] for line in lines
                  if "extra ==" not in line or re.search(r"extra == .reproduce", line))


def problem(find_version=version, find_requires=requires):
    """The first thing wrong with the installed packages as one line, or None.  Imports none of them."""
    missing = []
    for name in needed(find_requires):
        try:
            find_version(name)
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return f"missing: {', '.join(missing)}; {MEND}"
    from packaging.requirements import Requirement

    torch = find_version("torch").split("+")[0]
    for requirement in map(Requirement, find_requires("torchvision") or []):
        if requirement.name == "torch" and not requirement.specifier.contains(torch, prereleases=True):
            return (f"torchvision {find_version('torchvision')} needs torch {requirement.specifier}, but torch {torch} is "
                    f"installed; {MEND}")
    return None


def import_problem():
    """What keeps torch and torchvision from being imported together, as one line, or None (takes seconds)."""
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # a mismatched pair fails in many ways: missing operator, symbol, library
        return (f"torchvision {version('torchvision')} does not work with torch {version('torch')} "
                f"({type(error).__name__}: {next(iter(str(error).splitlines()), '')}); {MEND}")
    return None


def differences_from_lock(find_version=version, lock=LOCK):
    """Packages whose installed version is not the locked one, as lines "name installed != locked"; none without a lock."""
    lines = []
    for line in lock.read_text().splitlines() if lock.is_file() else []:
        if pinned := re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)\s*$", line):
            try:
                found = find_version(pinned[1])
            except PackageNotFoundError:
                found = "nothing"
            if found.split("+")[0] != pinned[2]:
                lines.append(f"{pinned[1]} {found} != {pinned[2]}")
    return lines


def main():
    if trouble := problem() or import_problem():
        print(f"fedmuscle: {trouble}", file=sys.stderr)
        return 1
    other = differences_from_lock()
    print("fedmuscle: all packages are here" + (f"; not the locked versions: {', '.join(other)}" if other else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
