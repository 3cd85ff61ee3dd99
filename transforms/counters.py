"""What steps read and hand on, in bytes: counted in the thread in which it happens, added up where a bundle ends.

Beam's counters do not see the threads of a pool, so a step over splits collects what its threads counted.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

READ, SIDE, SENT = "read_bytes", "side_bytes", "sent_bytes"
"""Bytes of vectors/, scores/ and records read; of centers and the like, read once in a worker; and handed on, where a
shuffle follows.
"""

_thread = threading.local()


def count(name: str, amount: int) -> None:
    """Adds to a counter of the step that this thread works for; does nothing where it works for none."""
    counts = getattr(_thread, "counts", None)
    if counts is not None:
        counts[name] += amount


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Collects what this thread counts."""
    before = getattr(_thread, "counts", None)
    _thread.counts = counts = Counter[str]()
    try:
        yield counts
    finally:
        _thread.counts = before
