"""How the allocator of a worker process treats what steps free.

Steps allocate and free the same few blocks again and again, in threads that come and go with the stages. glibc gives
each thread a heap of its own, which outlives it, and gives large blocks back to the system at once, which then fills
them with zeros anew: together a third of the memory of a selection and some percent of its time.
"""

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 128 << 20
_LARGEST_KEPT = 32 << 20  # glibc takes no more


def keep_freed_memory(threads: int) -> None:
    """Lets this process have at most so many heaps, and keep blocks of up to 32 MB for the next that asks.

    For good, and for the whole process. Where the C library is another than glibc, nothing happens.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, threads)
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
