"""Files that are whole, or not there."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(file: Path) -> Generator[Path]:
    """A file beside `file` to write to: it gets that name when all is written, and is deleted when it is not.

    Nobody takes half a file for a whole one then, and what was there before stays until there is better. Two
    processes may write the same file: each has a file of its own to do so, hidden, with the process in its name.

    >>> with whole(Path("runs/pruned.ckpt")) as part:
    ...     torch.save(checkpoint, part)
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
