"""The functions in C, compiled for this machine and kept (see cache_folder.py).

They are called through ctypes, with the addresses of tensors: no header of torch or Python is needed, so compiling
takes a few seconds, and one compiler is as good as another.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posttrain.engines.torch.cache_folder import cache_folder

SOURCES = Path(__file__).parent

FLAGS = ("-O3", "-shared", "-fPIC")
MARCH = {"AVX512": "-march=x86-64-v4", "AVX2": "-march=x86-64-v3"}
"""By what torch says the processor is capable of."""

PATIENCE_S = 120

_POINTER, _COUNT, _NUMBER = ctypes.c_void_p, ctypes.c_long, ctypes.c_float

SIGNATURES: Mapping[str, Sequence[Any]] = {
    "norm": (*[_POINTER] * 4, _COUNT, _COUNT, _NUMBER),
    "norm_backward": (*[_POINTER] * 5, _COUNT, _COUNT),
    "gate": (_POINTER, _COUNT, _POINTER, _COUNT, _COUNT),
    "gate_backward": (_POINTER, _COUNT, _POINTER, _POINTER, _COUNT, _COUNT),
    "turn": (_POINTER, _COUNT, _POINTER, _POINTER, _NUMBER, _POINTER, *[_COUNT] * 4),
    "multiply": (
        *(_POINTER, *[_COUNT] * 4, _POINTER, _COUNT, _COUNT),
        *(_POINTER, _COUNT, _POINTER, _COUNT, _COUNT, _POINTER, _COUNT),
    ),
    "multiply_pairs": (
        *(_POINTER, *[_COUNT] * 3, _POINTER, _COUNT),
        *(_POINTER, _COUNT, _POINTER, _COUNT, _COUNT, _POINTER, _COUNT),
    ),
    "multiply_int8": (_POINTER, _COUNT, _COUNT, *[_POINTER] * 4, _COUNT),
    "through_layers": (_POINTER, _COUNT, *[_POINTER] * 2, _COUNT, *[_POINTER] * 4, *[_COUNT] * 3, _POINTER),
    "attend": (_POINTER, _POINTER, _COUNT, _COUNT, *[_POINTER] * 6),
    "attend_backward": [_POINTER] * 15,
}
"""Of each function, as the C files have it."""

ONLY_AVX512 = ("multiply_pairs",)

FAILING = ("through_layers",)
"""Those that give back something else than 0 when there is no memory."""

_log = logging.getLogger(__name__)


def suits(x: Tensor) -> bool:
    """Whether what this tensor holds can be computed by these functions: fp32, on a CPU that has a library of them."""
    return x.dtype == torch.float32 and x.is_cpu and library() is not None


def suits_here(x: Tensor) -> bool:
    """Whether it is worth it, too, of what torch would split among threads: on one, as is each of several that compute
    side by side."""
    return suits(x) and torch.get_num_threads() == 1


@functools.cache
def library() -> Any:
    """The compiled functions; None where the processor has no AVX2, or there is no C compiler ($CC, else cc)."""
    capability = torch.backends.cpu.get_cpu_capability()
    if platform.machine() != "x86_64" or capability not in MARCH:
        return None
    named = os.environ.get("CC") or "cc"
    try:
        compiler = shlex.split(named)
    except ValueError:  # quotes that do not end
        compiler = []
    if not compiler or not shutil.which(compiler[0]):
        _log.info("no C compiler (%s): attention, products and decoding are left to torch, which is slower", named)
        return None
    try:
        found = _loaded(compiler, MARCH[capability])
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or error
        _log.warning(
            "%s failed; attention, products and decoding are left to torch, which is slower: %s", compiler, said
        )
        return None
    for name, arguments in SIGNATURES.items():
        if name in ONLY_AVX512 and capability != "AVX512":
            continue
        function = getattr(found, name)
        function.argtypes, function.restype = arguments, ctypes.c_int if name in FAILING else None
    return found


def has_pairs() -> bool:
    """Whether the processor multiplies pairs of bfloat16, and has no matrices of them, which are faster yet."""
    if library() is None or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    return bool(torch.cpu._is_avx512_bf16_supported()) and not torch.cpu._is_amx_tile_supported()


def _loaded(compiler: list[str], march: str) -> ctypes.CDLL:
    file = _compiled(compiler, march)
    try:
        return ctypes.CDLL(str(file))
    except OSError:  # cut short, as by a full disk
        file.unlink()
        return ctypes.CDLL(str(_compiled(compiler, march)))


def _compiled(compiler: list[str], march: str) -> Path:
    """The library's file.  Raises OSError or subprocess.SubprocessError."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    stamp = hashlib.sha256(repr((compiler, march, FLAGS)).encode())
    for source in sources:
        stamp.update(source.read_bytes())
    folder = _folder()
    found = folder / f"{stamp.hexdigest()[:16]}.so"
    if not found.exists():
        handle, made = tempfile.mkstemp(suffix=".so", dir=folder)  # of its own: others may be compiling, too
        os.close(handle)
        command = [
            *compiler,
            march,
            *FLAGS,
            *(str(source) for source in sources if source.suffix == ".c"),
            "-o",
            made,
            "-lm",
        ]
        try:
            _run(command)
            Path(made).replace(found)
        finally:
            Path(made).unlink(missing_ok=True)
    return found


def _run(command: list[str]) -> None:
    """Raises subprocess.SubprocessError; what takes too long is ended with all that it has begun."""
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as compiling:
        try:
            said, errors = compiling.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(compiling.pid, signal.SIGKILL)
            raise
    if compiling.returncode:
        raise subprocess.CalledProcessError(compiling.returncode, command, said, errors)


def _folder() -> Path:
    """Where it is kept; nobody else may write there, for it is run."""
    folder = cache_folder() / "native"
    with contextlib.suppress(OSError):  # a home that cannot be written to
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        status = folder.stat()
        if status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            with tempfile.TemporaryFile(dir=folder):
                return folder
    return Path(tempfile.mkdtemp(prefix="posttrain-native-"))
