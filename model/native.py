"""The training step in C (`native.c`), compiled for this machine's CPU when first asked for.

The library lies in the user's cache folder under a name made of its source, the flags, the
compiler and the CPU's features, for a home folder may be shared between machines. It is checked
against the reference before it is used; whatever is amiss is `Unavailable`, in one line.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import platformdirs
import torch
from torch import Tensor

from model.rnn import Params, State
from model.step import Buffers, Step, reference_forward, reference_iterate

SOURCE = Path(__file__).with_name("native.c")
# Not -ffast-math: a library linked with it turns denormals off in the thread that loads it.
# -mtune=generic: when it tunes for Zen 3, gcc 12 reads memory for what should stay in registers.
FLAGS = (
    *("-std=gnu11", "-O3", "-mtune=generic", "-fPIC", "-shared"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
)
COMPILE_TIMEOUT_S = 60.0
TOLERANCE = 1e-5  # of the self-check, relative; float32 takes about a tenth of it

Sizes = ctypes.c_long * 4
Numbers = ctypes.c_long * 5
Pointers = ctypes.c_void_p * 5


class Unavailable(RuntimeError):
    """The native step cannot be had here; the message is one line that says why."""


class Native:
    """The functions of a `Step` in a library; they take float32 parameters on the CPU.

    Raises OSError where the library cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        pointer, number = ctypes.c_void_p, ctypes.c_float
        self._library.workspace.restype = ctypes.c_long
        self._library.iterate.argtypes = [pointer] * 9
        self._library.forward.argtypes = [pointer] * 7
        self._library.update.argtypes = [pointer] * 3 + [number] * 2 + [pointer]

    def iterate(
        self, params: Params, X: Tensor, Y: Tensor, state: State, buffers: Buffers
    ) -> tuple[Tensor, list[Tensor], State]:
        """As `Step.iterate`. Raises IndexError for an unknown symbol, ValueError for float64."""
        sizes, workspace = self._workspace(params, X, buffers.workspace)
        buffers.workspace = workspace
        x, y, H = X.T.contiguous(), Y.T.contiguous(), state[0].contiguous()
        loss, last = torch.empty(()), torch.empty_like(H)
        known = self._library.iterate(
            sizes,
            *_addresses([workspace]),
            _array(params),
            _array(buffers.grads),
            *_addresses([x, y], torch.int64),
            *_addresses([H, loss, last]),
        )
        _check_symbols(known, params)
        return loss, buffers.grads, (last,)

    def forward(self, params: Params, X: Tensor, state: State) -> tuple[Tensor, State]:
        """As `Step.forward`. Raises IndexError for an unknown symbol, ValueError for float64."""
        sizes, workspace = self._workspace(params, X, torch.empty(0))
        x, H = X.T.contiguous(), state[0].contiguous()
        logits, last = torch.empty(x.numel(), len(params[0])), torch.empty_like(H)
        known = self._library.forward(
            sizes,
            *_addresses([workspace]),
            _array(params),
            *_addresses([x], torch.int64),
            *_addresses([H, logits, last]),
        )
        _check_symbols(known, params)
        return logits, (last,)

    def update(self, params: Params, grads: Sequence[Tensor], theta: float, lr: float) -> Tensor:
        """As `Step.update`, over each array twice instead of six times."""
        nums = Numbers(*[param.numel() for param in params])
        norm = torch.empty(())
        self._library.update(nums, _array(params), _array(grads), theta, lr, norm.data_ptr())
        return norm

    def _workspace(
        self, params: Params, X: Tensor, memory: Tensor
    ) -> tuple[ctypes.Array[ctypes.c_long], Tensor]:
        """The sizes B, T, H, V as C takes them, and `memory`, or new memory where it is small."""
        vocab_size, num_hiddens = params[0].shape
        sizes = Sizes(*X.shape, num_hiddens, vocab_size)
        num = self._library.workspace(sizes)
        return sizes, memory if memory.numel() >= num else torch.empty(num)


@cache
def native_step() -> Step | Unavailable:
    """The native step, compiled if need be and checked; or why it cannot be had. Never raises."""
    try:
        return load()
    except Unavailable as error:
        return error


def load(compiler: str = "cc", *flags: str, folder: Path | None = None) -> Step:
    """Compile `native.c` unless that was done before, load it and check it.

    flags: further ones; `-march=native` where there are none. folder: for the library (None: the
    user's cache). Raises Unavailable.
    """
    path = _compile(compiler, [*FLAGS, *(flags or ["-march=native"])], folder or _cache_dir())
    try:
        native = Native(path)
    except (OSError, AttributeError) as error:
        raise Unavailable(f"{path} cannot be loaded ({error}); remove it") from error
    step = Step(native.iterate, native.forward, native.update)
    _check(step)
    return step


def _compile(compiler: str, flags: Sequence[str], folder: Path) -> Path:
    """The library's path, compiled to a temporary name and renamed: workers start side by side."""
    if shutil.which(compiler) is None:
        raise Unavailable(f"there is no compiler {compiler!r}")
    target = _run([compiler, *flags, "-E", "-dM", "-x", "c", os.devnull])  # macros: version, CPU
    key = hashlib.sha256(SOURCE.read_bytes() + repr([compiler, *flags, target]).encode())
    path = folder / f"native-{key.hexdigest()[:16]}.so"
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            built = Path(temporary) / path.name
            _run([compiler, *flags, "-o", str(built), str(SOURCE), "-lm"])
            with built.open("rb") as file:
                os.fsync(file.fileno())  # a library cut short by a power failure would kill us
            built.replace(path)
    except OSError as error:
        raise Unavailable(f"the native step cannot be kept: {error}") from error
    return path


def _run(command: Sequence[str]) -> str:
    """What a compiler says. Raises Unavailable with its first error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise Unavailable(f"{command[0]} fails: {' '.join(errors[:1]) or done.returncode}")
    return done.stdout


def _cache_dir() -> Path:
    """`$RNN_SEARCH_CACHE` where it can be written, else the user's cache folder."""
    chosen = os.environ.get("RNN_SEARCH_CACHE")
    if chosen and os.access(chosen, os.W_OK):
        return Path(chosen)
    return Path(platformdirs.user_cache_dir("rnn-search"))


def _check(step: Step) -> None:
    """Compare with the reference in float64 on a small random problem. Raises Unavailable."""
    batch_size, num_steps, num_hiddens, vocab_size = 5, 4, 2 * 16 + 3, 7
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    H = normal(batch_size, num_hiddens)
    shapes = [(vocab_size, num_hiddens), (num_hiddens, num_hiddens), (num_hiddens,)]
    params = [normal(*shape) for shape in [*shapes, (num_hiddens, vocab_size), (vocab_size,)]]
    doubles = [param.double().requires_grad_() for param in params]
    X, Y = torch.randint(vocab_size, (2, batch_size, num_steps), generator=generator)

    def results(step: Step, params: Params, H: Tensor) -> list[Tensor]:
        loss, grads, state = step.iterate(params, X, Y, (H,), Buffers(params, *X.shape))
        logits = [step.forward(params, X[:rows], (H[:rows],)) for rows in (1, batch_size)]
        return [loss, *grads, *state, *(part for pair in logits for part in (pair[0], *pair[1]))]

    expected = results(Step(reference_iterate, reference_forward), doubles, H.double())
    for ours, theirs in zip(results(step, params, H), expected, strict=True):
        error = float((ours - theirs).norm() / theirs.norm())
        if not error < TOLERANCE:
            raise Unavailable(f"the native step's self-check fails: off by {error:.1e}")


def _addresses(tensors: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> list[int]:
    """Where contiguous CPU tensors lie. Raises ValueError for others."""
    for tensor in tensors:
        if tensor.dtype != dtype or not tensor.is_cpu or not tensor.is_contiguous():
            raise ValueError(
                f"the native step takes contiguous {dtype} on the CPU, but got {tensor.dtype} "
                f"on {tensor.device}; use the torch step"
            )
    return [tensor.data_ptr() for tensor in tensors]


def _array(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return Pointers(*_addresses(tensors))


def _check_symbols(known: int, params: Params) -> None:
    if not known:
        raise IndexError(f"every symbol must lie in [0, {len(params[0])})")
