"""Memory as the system gives it and takes it back; what was freed, glibc keeps for the thread that freed it."""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress

import torch
from torch import Tensor

LARGEST_KEPT, MOST_KEPT = 32 * 2**20, 128 * 2**20
"""Bytes: glibc takes no larger block into its heap, and lets no more than that lie free at its end.  It would come to
about as much by itself, but by what a process happens to free first; until then, each step that draws from a hundred
distributions gets its memory from the system, page by page (0.3 s in 14)."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""See mallopt(3)."""


def keep_blocks() -> None:
    """What is freed stays with this process for the next of its size, until it is given back."""
    with suppress(AttributeError, OSError):  # another C library
        heap = ctypes.CDLL(None)
        heap.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        heap.mallopt(M_TRIM_THRESHOLD, MOST_KEPT)


def give_back() -> None:
    """Lets the system have what was freed on any thread (30 ms for 0.4 GB, 80 for 1.2)."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def huge_pages(count: int) -> Tensor:
    """So many bytes [count], which are zero and go back as soon as they are freed; in pages of 2 MB instead of 4 kB
    where that can be asked for."""
    if not count:
        return torch.empty(0, dtype=torch.uint8)
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(count, dtype=torch.uint8)
    memory = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)
