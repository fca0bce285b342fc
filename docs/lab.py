"""Settings of `make lab`: a notebook is saved as it is committed, so that git shows a change where something was changed."""

OF_A_SESSION = {"notebook": ("language_info", "papermill"), "cell": (
    "collapsed", "execution", "jp-MarkdownHeadingCollapsed", "jupyter", "papermill", "scrolled")}


def without_the_session(model, **_):
    """Drop from a notebook that is about to be saved what tells of the session: version of Python, times, what was folded."""
    if model["type"] == "notebook":
        notebook = model["content"]
        for kind, several in (("notebook", [notebook]), ("cell", notebook["cells"])):
            for one in several:
                for name in OF_A_SESSION[kind]:
                    one["metadata"].pop(name, None)


c = get_config()  # noqa: F821 - Jupyter defines it
c.FileContentsManager.pre_save_hook = without_the_session
