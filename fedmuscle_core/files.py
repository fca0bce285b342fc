"""Files known by their SHA-256; states in files are written whole or not at all, with that of their content at the head."""

import hashlib
import secrets
from pathlib import Path


def sha256(path):
    """SHA-256 of a file, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_state(state, path):
    """Write `state`, of numbers, texts, tensors, lists and dicts, to `path`; what was there stays where that fails.

    Raises OSError naming the file, e.g. on a full disk.
    """
    import torch  # `sha256` is for who does not wait for it

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("w+b") as file:
            file.write(bytes(32))
            torch.save(state, file)
            file.seek(32)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            file.write(digest)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:                                  # torch hides a full disk behind "unexpected pos"
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise OSError(f"{path}: the state could not be written ({reason})") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path):
    """The state in `path`, tensors in host memory; ValueError naming the file where it is not as it was written."""
    import torch

    with Path(path).open("rb") as file:
        digest = file.read(32)
        if hashlib.file_digest(file, "sha256").digest() != digest:
            raise ValueError(f"{path}: got a damaged state, expected the checksum at its head")
        file.seek(32)
        return torch.load(file, weights_only=True, map_location="cpu")
