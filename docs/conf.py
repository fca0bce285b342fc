"""Sphinx settings of the book; `make book` builds it, see build.py."""

import importlib.metadata
import re

project = "FedMuscle companion"
author = "the maintainers; the papers are their authors'"
release = importlib.metadata.version("fedmuscle-core")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_copybutton"]
source_suffix = {".ipynb": "myst-nb", ".md": "myst-nb"}
nb_execution_mode = "off"                        # notebooks are committed executed
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
mathjax_path = "mathjax/tex-chtml.js"            # a copy beside the pages: nothing is fetched when they are viewed
html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_start": [], "navbar_center": [], "navbar_end": [], "navbar_persistent": [],       # else a second search box
    "show_navbar_depth": 1, "home_page_in_toc": True, "use_download_button": False, "use_fullscreen_button": False,
}
autodoc_member_order = "bysource"
autodoc_typehints = "none"
exclude_patterns = ["_build"]


def plain(app, what, name, obj, options, lines):
    """Docstrings here are plain text with formulas: the first paragraph as a sentence, the rest as it stands."""
    first = lines.index("") if "" in lines else len(lines)
    head = re.sub(r"([*|_\\])", r"\\\1", " ".join(line.strip() for line in lines[:first])).replace("`", "``")
    rest = [f"   {line}" for line in lines[first:]]
    lines[:] = [head, "", "::", "", *rest, ""] if any(line.strip() for line in rest) else [head, ""]


def setup(app):
    app.connect("autodoc-process-docstring", plain)
