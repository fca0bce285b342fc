"""Build the book: `make book`.  Executed notebooks, glossary and interface as pages of docs/_build/html.

Notebooks are copied first: their links among one another become links of the book, links to files that are no pages plain text,
and every figure gets the heading of its section as its alternative text.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import nbformat

from fedmuscle_core.analysis.findings import time_of
from fedmuscle_core.paths import ROOT

DOCS = ROOT / "docs"
BUILT = DOCS / "_build"
SOURCE, HTML = BUILT / "source", BUILT / "html"
PARTS = {
    "The idea": ("00", "01", "11", "06"),
    "The tables": ("02", "04", "05", "13", "15"),
    "The questions": ("03", "07", "08", "09", "10", "12", "14"),
    "Your own federation": ("16", "21"),
}
PAGES = ("data/PREDICTIONS.md", "data/results/README.md")
LOOKED_UP = ("symbols", "interface", "running", "data", "parts")
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
MATHJAX = ("tex-chtml.js", "output/chtml/fonts/woff-v2")


def notebooks():
    """{number: path} of the committed notebooks."""
    return {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}


def linked(text, page, pages):
    """`text` of a page with links to other pages kept and those to other files as plain text."""
    def link(found):
        name, target = found.groups()
        path, _, _ = target.partition("#")
        inside = not path or target.startswith(("http://", "https://")) or (page.parent / path).resolve() in pages
        return found.group(0) if inside else name
    return LINK.sub(link, text)


def with_alternatives(notebook):
    """The notebook with an alternative text for its figures: the heading of the section, or the notebook's title."""
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                heading = line.lstrip("# ") if line.startswith("#") else heading
        elif any("image/png" in output.get("data", {}) for output in cell.outputs):
            cell.metadata.setdefault("mystnb", {})["image"] = {"alt": f"Figure: {heading}"}
    return notebook


def title(path):
    """The first heading of a notebook."""
    cells = nbformat.read(path, 4).cells
    return next(line.lstrip("# ") for cell in cells for line in cell.source.splitlines() if line.startswith("# "))


def index(found):
    """The first page: what this is, and the parts with their notebooks, questions and minutes."""
    text = [(DOCS / "welcome.md").read_text(encoding="utf-8")]
    for part, numbers in PARTS.items():
        paths = {number: found[number] for number in numbers}
        rows = [f"| [{title(path)}](notebooks/{path.name}) | {time_of(number)} |" for number, path in paths.items()]
        text += [f"\n## {part}\n", "| question | runs behind it, one worker |", "|---|---|", *rows,
                 *toctree(part, [f"notebooks/{path.stem}" for path in paths.values()])]
    return "\n".join([*text, *toctree("To look up", [*LOOKED_UP, *(page.removesuffix(".md") for page in PAGES)])])


def toctree(caption, names):
    """Lines of a hidden table of contents."""
    return ["\n```{toctree}", ":hidden:", f":caption: {caption}\n", *names, "```\n"]


def prepare():
    """Write SOURCE."""
    shutil.rmtree(BUILT, ignore_errors=True)
    found = notebooks()
    if lost := set(found) ^ {number for numbers in PARTS.values() for number in numbers}:
        raise ValueError(f"PARTS: got {sorted(lost)} in a part or among the notebooks alone, expected each notebook in a part")
    pages = {path.resolve() for path in found.values()} | {(ROOT / page).resolve() for page in PAGES}
    (SOURCE / "notebooks").mkdir(parents=True)
    for path in found.values():
        notebook = with_alternatives(nbformat.read(path, 4))
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = linked(cell.source, path, pages)
            for output in cell.get("outputs", ()):                            # no page of the book is looked for in these
                if text := output.get("data", {}).get("text/markdown"):
                    output["data"]["text/markdown"] = re.sub(r"\]\((\d\d_\w+)\.ipynb\)", r"](\1.html)", text)
        (SOURCE / "notebooks" / path.name).write_text(json.dumps(notebook), encoding="utf-8")
    for page in PAGES:
        target = SOURCE / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(linked((ROOT / page).read_text(encoding="utf-8"), ROOT / page, pages), encoding="utf-8")
    shutil.copy(DOCS / "conf.py", SOURCE)
    for name in LOOKED_UP:
        text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        text = linked(text, DOCS / f"{name}.md", pages).replace("](../", "](")              # one folder up in the book
        (SOURCE / f"{name}.md").write_text(text, encoding="utf-8")
    (SOURCE / "index.md").write_text(index(found), encoding="utf-8")
    shutil.copytree(DOCS / "_static", SOURCE / "_static")
    copy_mathjax(SOURCE / "_static" / "mathjax")


def copy_mathjax(target):
    """The part of MathJax that pages need, from the package sphinx-mathjax-offline."""
    package = Path(distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax"))
    for name in MATHJAX:
        origin = package / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if origin.is_dir() else shutil.copy)(origin, target / name)


def main(argv=None):
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    prepare()
    status = subprocess.run([sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", SOURCE, HTML],
                            check=False).returncode
    if status == 0:
        print(f"{HTML / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
