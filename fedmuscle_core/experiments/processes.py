"""Work side by side: independent jobs in processes of their own."""

import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait


def in_processes(function, jobs, workers):
    """Yield (job, function(*job)) for each tuple of `jobs`: in turn with one worker, else as they finish, `workers` at a time.

    Where a worker is killed, the jobs under way give the BrokenProcessPool error as their result; the others go on.  A script
    that calls this with more than one worker must do so under `if __name__ == "__main__":`, as each process imports the
    script.  After an interrupt the jobs under way are finished, no other is started.
    """
    if workers == 1:
        for job in jobs:
            yield job, function(*job)
        return
    todo, under_way, pool = list(reversed(jobs)), {}, None
    try:
        while todo or under_way:
            while todo and len(under_way) < workers:
                pool = pool or ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
                try:
                    under_way[pool.submit(function, *todo[-1])] = todo[-1], pool
                    todo.pop()
                except BrokenProcessPool:             # a worker was killed between two jobs
                    pool = None
            for future in wait_for(under_way, return_when=FIRST_COMPLETED).done:
                job, its_pool = under_way.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool as error:
                    result, pool = error, None if pool is its_pool else pool
                yield job, result
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)


def _begin():
    """In a worker: leave an interrupt to the process that started it; end when that one is gone, also when it was killed."""
    def watch():
        wait([parent_process().sentinel])
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()
