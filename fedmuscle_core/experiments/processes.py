"""Work side by side: independent jobs in processes of their own; and commands that can be stopped."""

import contextlib
import logging
import os
import pickle
import signal
import sys
import threading
import time
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import wait

GRACE = 2.5      # seconds that a worker has to put away what it has open, its kernel among it
LIMIT = 4.5      # seconds that a stopped command may take to end
MEMORY = 2.5     # GB that a worker may take
_listener = None      # function that is told how the job of this process goes


def affordable(workers):
    """`workers`, or as many as there are cores and MEMORY GB of memory, and a sentence that says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    most = max(1, min(cores, int(memory / MEMORY)))
    if workers > most:
        print(f"workers: got {workers}, takes {most}: one for each core (here {cores}) and each {MEMORY} GB of memory (here "
              f"{memory:.0f} GB)")
    return min(workers, most)


def tell(value):
    """From within a job of `in_processes`: hand `value` to its `told`, where it has one."""
    if _listener is not None:
        _listener(value)


@contextlib.contextmanager
def listening(listener):
    """Context in which what `tell` is given goes to `listener`."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


def in_processes(function, jobs, workers, told=None):
    """Yield (job, function(*job)) for each tuple of `jobs`: in turn with one worker, else as they finish, `workers` at a time.

    told: function(value), called here with what a job hands to `tell` while it is under way.
    Where a worker is killed, its job gives a RuntimeError as its result; the others go on.  A script that calls this with more
    than one worker must do so under `if __name__ == "__main__":`, as each process imports the script.  An interrupt, an error
    of `function` or closing the generator ends the workers within GRACE seconds, and no other job is started.
    """
    if workers == 1:
        for job in jobs:
            with listening(told):
                result = function(*job)
            yield job, result
        return
    todo, idle, busy, started = list(reversed(jobs)), [], {}, []
    try:
        while todo or busy:
            while todo and len(busy) < workers:
                process, connection = idle.pop() if idle else _start(function, started)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):      # killed between two jobs: take another
                    connection.send(todo[-1])
                    busy[connection] = process, todo.pop()
            for connection in wait(busy):
                process, job = busy.pop(connection)
                try:
                    answer = connection.recv_bytes()
                except (EOFError, ConnectionResetError):
                    yield job, RuntimeError(_end_of(process))
                    continue
                done, result = pickle.loads(answer)
                if done is None:
                    busy[connection] = process, job
                    if told is not None:
                        told(result)
                    continue
                idle.append((process, connection))
                if not done:
                    raise result
                yield job, result
    finally:
        _end(started)


def _start(function, started):
    """(process, connection) of a new worker; `started` knows it before it runs, whenever an interrupt comes."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(function, there), daemon=True)
    started.append(process)
    resource_tracker.ensure_running()                          # unblocks SIGINT where it is started
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process.start()                                        # inherits the mask: no traceback while it imports
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        there.close()
    return process, here


def _end(processes):
    """Have the processes end: by themselves within GRACE seconds, else killed."""
    until = time.monotonic() + GRACE
    for process in (alive := [process for process in processes if process.pid and process.is_alive()]):
        process.terminate()
    for process in alive:
        process.join(max(0, until - time.monotonic()))
        process.kill()
        process.join()


def _end_of(process):
    process.join()
    if process.exitcode >= 0:
        return f"its process ended with exit status {process.exitcode}"
    name = signal.Signals(-process.exitcode).name
    return f"its process was killed by {name}" + ("; if memory ran out, take fewer workers" if name == "SIGKILL" else "")


def _work(function, connection):
    """In a worker: answer jobs with (True, result) or (False, error), before that with (None, value) for what they `tell`,
    until the process that started it is gone."""
    _begin()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            job = connection.recv()
            try:
                with listening(lambda value: connection.send_bytes(pickle.dumps((None, value)))):
                    answer = True, function(*job)
            except Exception as error:   # raised by the process that asked
                answer = False, error
            connection.send_bytes(_pickled(answer))


def _pickled(answer):
    """An error that cannot be told as it is, as many of libraries, is told as text."""
    try:
        pickle.loads(text := pickle.dumps(answer))
        return text
    except Exception:   # whatever an object's own pickling raises
        return pickle.dumps((answer[0], RuntimeError(f"{type(answer[1]).__name__}: {answer[1]}")))


def _begin():
    """In a worker: leave an interrupt to the process that started it; end, with what is open put away, at SIGTERM or when that
    process is gone, also when it was killed."""
    def leave(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        logging.disable()                                     # of what is cut off, such as an event loop of its tasks
        sys.exit(1)

    def watch():
        wait([parent_process().sentinel])
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    signal.signal(signal.SIGTERM, leave)
    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def stoppable(kept):
    """Ctrl-C and SIGTERM within end the process in at most LIMIT seconds: one sentence with `kept`, what is kept and how to go
    on, and exit status 130 or 143."""
    before, stopped = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}, []

    def end():
        print(f"\nfedmuscle: stopped; {kept}", file=sys.stderr, flush=True)
        os._exit(128 + stopped[0])                            # an interpreter with torch takes seconds to end by itself

    def stop(number, _):
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        stopped.append(number)
        limit.start()
        raise KeyboardInterrupt

    limit = threading.Timer(LIMIT, end)
    limit.daemon = True
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        if stopped:
            end()
        for number, handler in before.items():
            signal.signal(number, handler)
