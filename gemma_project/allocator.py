"""Settings of glibc's allocator, for many threads and large bodies. Without effect in other C libraries."""

import ctypes

# Parameters of mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
N_ARENAS = 2
# A block of this size is a mapping of its own, which the system has back when the block is freed.
OWN_MAPPING_BYTES = 256 * 1024


def return_freed_memory() -> None:
    """Give freed blocks back to the system soon.

    By default a process has eight arenas per core, each keeps what its threads freed, and after one large block
    blocks of up to 32 MB are taken from these arenas: a burst of large bodies would stay in memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in (
            (M_ARENA_MAX, N_ARENAS),
            (M_MMAP_THRESHOLD, OWN_MAPPING_BYTES),
            (M_TRIM_THRESHOLD, OWN_MAPPING_BYTES),
        ):
            mallopt(parameter, value)
