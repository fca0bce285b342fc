"""One notebook executed in a kernel of its own.  Light to import: of `fedmuscle reproduce --workers`, each process does."""

import time

import papermill
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

PATIENCE = 300      # seconds for a kernel to start, and to say that a cell is done: others may keep the machine busy


def execute(notebook, target, folder, values):
    """(seconds, None or the first line of what went wrong) of the file `notebook`, run in `folder` with parameters `values`;
    the executed copy is at `target` if it is whole, also of a notebook that failed.

    Kernels talk over sockets in files beside the notebook: of free ports, the usual way, two that start at once take the same
    one now and then, and one of them dies.  Kernels are killed when all cells are done, or on the way where this is stopped:
    one that is told to end in the midst of a cell takes its time and prints a traceback of its own.
    """
    clock, trouble = time.perf_counter(), None
    config = Config(KernelManager={"transport": "ipc", "connection_file": str(notebook.with_suffix(".json"))})
    try:
        papermill.execute_notebook(str(notebook), str(target), parameters=values, progress_bar=False, cwd=str(folder),
                                   kernel_name="python3", config=config, start_timeout=PATIENCE, iopub_timeout=PATIENCE,
                                   shutdown_kernel="immediate")
    except PapermillExecutionError as error:
        trouble = f"cell {error.exec_count}: {error.ename}: {error.evalue}".splitlines()[0]
    except Exception as error:  # one notebook's kernel must not take the others down
        trouble = f"{type(error).__name__}: {error}".splitlines()[0]
        target.unlink(missing_ok=True)
    return time.perf_counter() - clock, trouble
