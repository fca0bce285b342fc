"""Work side by side: independent jobs in processes of their own."""

import os
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait


def in_processes(function, jobs, workers):
    """Yield (job, function(*job)) for each tuple of `jobs`: in turn with one worker, else as they finish, `workers` at a time.

    A script that calls this with more than one worker must do so under `if __name__ == "__main__":`, as each process imports
    the script.  After an interrupt the jobs under way are finished, no other is started.
    """
    if workers == 1:
        for job in jobs:
            yield job, function(*job)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        futures = {pool.submit(function, *job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent():
    """In a worker: end when the process that started it is gone, also when that one was killed."""
    def watch():
        wait([parent_process().sentinel])
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()
