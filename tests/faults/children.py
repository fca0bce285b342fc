"""Processes that faults happen to."""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

import psutil

TESTS = Path(__file__).parents[1]
WRITING = os.O_WRONLY | os.O_RDWR
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.link", "os.symlink"}


class Child:
    """A process that writes what it says into a file.  pid, said(), wait(), wait_for(text), kill()."""

    def __init__(self, pid, output, reap):
        self.pid, self.output, self.reap, self.code = pid, Path(output), reap, None

    def said(self):
        return self.output.read_text()

    def wait(self, seconds=120):
        """The exit status, that of a signal negative; TimeoutError where it does not end."""
        return self.until(lambda: self.ended(), seconds) and self.code

    def ended(self):
        if self.code is None:
            self.code = self.reap()
        return self.code is not None

    def wait_for(self, text, times=1, seconds=120):
        """Until it has said a text so often; AssertionError where it ends before."""
        def there():
            found = self.said().count(text) >= times
            assert found or not self.ended(), f"ended with {self.code} before it said {text!r}: {self.said()}"
            return found
        return self.until(there, seconds)

    def until(self, holds, seconds):
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError(f"nothing within {seconds} s: {self.said()}")
            time.sleep(0.01)
        return True

    def send(self, number):
        if not self.ended():
            os.kill(self.pid, number)

    def family(self):
        """Its processes, itself left out."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


def started(output, *arguments, slow=0.0, **environment):
    """`python arguments` as a `Child` with small runs, in a process group of its own as a shell starts it."""
    environment = os.environ | {"PYTHONPATH": f"{TESTS}", "FAULTS_SMALL": str(slow), "PYTHONUNBUFFERED": "1"} | environment
    with Path(output).open("wb") as file:
        process = subprocess.Popen([sys.executable, *map(str, arguments)], stdout=file, stderr=file, env=environment,
                                   start_new_session=True)
    return Child(process.pid, output, process.poll)


def script(output, name, *arguments, slow=0.0, **environment):
    """A function of `scripts` as a `Child`."""
    return started(output, Path(__file__).with_name("scripts.py"), name, *arguments, slow=slow, **environment)


def forked(output, function, *arguments):
    """`function(*arguments)` in a fork of this process as a `Child`, which ends with status 0, or 1 after an exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                                       # of forks beside threads
        Path(output).touch()
        pid = os.fork()
    if pid:
        return Child(pid, output, lambda: _reaped(pid))
    status = 1
    try:
        os.setsid()
        file = os.open(output, os.O_WRONLY)
        for standard in (1, 2):
            os.dup2(file, standard)
        sys.stdout = sys.stderr = os.fdopen(file, "w", buffering=1)
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: print("warning:", message)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        function(*arguments)
        status = 0
    except BaseException:   # told, and nothing of the tests' process may run twice
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _reaped(pid):
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def killed_at(number, folder, function, *arguments):
    """`function(*arguments)`, killed (-9) at the `number`-th time that it is about to change a file or folder in `folder`."""
    left = number

    def about_to(event, details):
        nonlocal left
        if event == "open":
            changes = isinstance(details[2], int) and details[2] & (WRITING | os.O_CREAT | os.O_TRUNC)
        else:
            changes = event in CHANGES
        if changes and any(str(folder) in os.fsdecode(part) for part in details if isinstance(part, (str, bytes, os.PathLike))):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(about_to)
    fsync = os.fsync
    os.fsync = lambda file: about_to("os.rename", (str(folder),)) or fsync(file)
    function(*arguments)


def cut_off(size, function, *arguments):
    """`function(*arguments)`, killed by the kernel in the middle of the write that makes a file larger than `size` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    function(*arguments)


LARGE = 10 ** 9


class Limit:
    """No file can become larger than there is `room`."""

    def __init__(self, folder):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def room(self, size=LARGE):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Disk:
    """`folder` is a disk of its own with `room` for `size` bytes, whole pages; gone with this process.

    OSError where this system does not allow it."""

    libc = ctypes.CDLL(None, use_errno=True)
    NEW_MOUNTS, NEW_USER, PRIVATE, AGAIN = 0x00020000, 0x10000000, 0x44000, 32

    def __init__(self, folder):
        self.folder, self.flags = folder, 0
        if self.libc.unshare(self.NEW_MOUNTS) and self.libc.unshare(self.NEW_USER | self.NEW_MOUNTS):
            raise OSError(ctypes.get_errno(), "unshare")
        self.libc.mount(b"none", b"/", None, self.PRIVATE, None)
        self.room()

    def room(self, size=LARGE):
        if self.libc.mount(b"none", os.fsencode(self.folder), b"tmpfs", self.flags, f"size={size}".encode()):
            raise OSError(ctypes.get_errno(), "mount")
        self.flags = self.AGAIN


def end(processes):
    """Kill what is left of `processes`."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
