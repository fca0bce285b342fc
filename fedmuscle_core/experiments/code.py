"""Which code a run was computed with: a hash in its record, so that results of different versions show."""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOMS = ("", "methods", "engines", "networks", "world", "world/real")         # what decides a result, and `ALONE`
ALONE = ("experiments/build.py", "experiments/trunks.py", "privacy/secure_sum.py")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def code_digest(*also):
    """Short hash of the modules that decide a result, and of those called `also`, by their paths in the package; without
    comments and docstrings, which decide nothing."""
    digest = hashlib.sha256()
    for path in [*deciding_modules(), *(PACKAGE / name for name in also)]:
        text = without_docstrings(path.read_text(encoding="utf-8"))
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\n{text}\n".encode())
    return digest.hexdigest()[:10]


def deciding_modules():
    """Paths of the modules whose code decides a result."""
    return [path for room in ROOMS for path in sorted((PACKAGE / room).glob("*.py"))] + [PACKAGE / name for name in ALONE]


def without_docstrings(source):
    """`source` as Python writes it, without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
