"""Files that are complete, or not there."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(file: Path) -> Generator[Path]:
    """Yield a temporary path beside `file`, renamed to `file` on success and deleted on error.

    Readers never see a partial file, and an earlier file stays until the new one is complete. Processes that write the
    same file do not collide: the hidden temporary file has the process id in its name.

    >>> with atomic_write(Path("runs/pruned.ckpt")) as part:
    ...     torch.save(checkpoint, part)
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
