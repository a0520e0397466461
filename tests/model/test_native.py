"""The native step: its numbers, its build, and every way in which it cannot be had."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from model import RNNModelScratch, grad_clipping, init_rnn_state, rnn
from model.native import Unavailable, load
from model.step import STEPS, Buffers, Step
from model.train import sgd
from tests.model.problems import (
    Problem,
    apart,
    forward,
    iterate,
    iterate_apart,
    make_problem,
    problems,
)

BUILDS = ["-march=native", "-march=x86-64-v3"]
SHAPES = [(1, 1, 1, 2), (17, 5, 3, 33), (64, 32, 5, 28), (300, 2, 3, 5), (31, 70, 2, 200)]


@pytest.fixture(scope="module", params=BUILDS)
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Step:
    """The step in a build for this CPU, and in one for AVX2."""
    cpu = Path("/proc/cpuinfo")
    if request.param != BUILDS[0] and not (cpu.is_file() and " avx2 " in cpu.read_text()):
        pytest.skip("needs a CPU with AVX2")
    try:
        return load("cc", request.param, folder=tmp_path_factory.mktemp("native"))
    except Unavailable as error:
        pytest.skip(str(error))


@settings(max_examples=20)
@given(problem=problems())
def test_gradients_are_those_of_autograd_in_float64(native: Step, problem: Problem) -> None:
    expected = iterate(STEPS["reference"], problem.of(torch.float64))
    assert apart(iterate(native, problem.of(torch.float32)), expected) < 5e-6


@settings(max_examples=20)
@given(problem=problems(rows=9))
def test_logits_are_those_of_the_reference(native: Step, problem: Problem) -> None:
    expected = forward(STEPS["reference"], problem.of(torch.float64))
    assert apart(forward(native, problem.of(torch.float32)), expected) < 5e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_problem_gives_the_same_bits(native: Step, shape: tuple[int, ...]) -> None:
    problem = make_problem(*shape).of(torch.float32)
    assert all(map(torch.equal, iterate(native, problem), iterate(native, problem)))


@pytest.mark.parametrize("theta", [1e-3, 1e3])
def test_update_is_clipping_and_descent(native: Step, theta: float) -> None:
    ours, theirs = (make_problem(37, 4, 3, 11).of(torch.float32) for _ in range(2))
    _, grads, _ = iterate_apart(STEPS["reference"], theirs)
    norm = native.update(ours.params, grads, theta, 0.5)  # type: ignore[misc]
    net = RNNModelScratch(11, 37, "cpu", lambda *_: theirs.params, init_rnn_state, rnn)
    for param, grad in zip(net.params, grads, strict=True):
        param.grad = grad
    assert float(norm) == pytest.approx(float(grad_clipping(net, theta)), rel=1e-6)
    sgd(net, 0.5)
    assert apart(ours.params, [param.double() for param in net.params]) < 1e-6


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", range(5))
def test_what_is_not_finite_comes_through(native: Step, value: float, place: int) -> None:
    problem = make_problem(20, 6, 4, 9).of(torch.float32)
    with torch.no_grad():
        problem.params[place].view(-1)[3] = value
    (loss, ours, _), (expected, theirs, _) = (
        iterate_apart(step, problem) for step in (native, STEPS["torch"])
    )
    assert finite(loss) == finite(expected)
    assert all(finite(a) <= finite(b) for a, b in zip(ours, theirs, strict=True))


def finite(values: Tensor) -> bool:
    return bool(values.isfinite().all())


@pytest.mark.parametrize("symbol", [-1, 7])
def test_an_unknown_symbol_is_refused(native: Step, symbol: int) -> None:
    problem = make_problem(8, 2, 3, 7).of(torch.float32)
    problem.Y[1, 2] = symbol
    with pytest.raises(IndexError, match=r"every symbol must lie in \[0, 7\)"):
        iterate(native, problem)
    problem.X[0, 0] = symbol
    with pytest.raises(IndexError, match=r"every symbol must lie in \[0, 7\)"):
        forward(native, problem)


def test_float64_is_refused_by_name(native: Step) -> None:
    with pytest.raises(ValueError, match=r"got torch\.float64 on cpu; use the torch step"):
        iterate(native, make_problem(8, 2, 3, 7))


def test_a_batch_may_be_a_view_of_the_text(native: Step) -> None:
    problem = make_problem(8, 4, 6, 7).of(torch.float32)
    view = Problem(problem.params, problem.X[:, 2:5], problem.Y[:, 2:5], problem.state)
    copy = Problem(view.params, view.X.clone(), view.Y.clone(), view.state)
    assert all(map(torch.equal, iterate(native, view), iterate(native, copy)))


def test_buffers_used_again_give_the_same_answer(native: Step) -> None:
    problem = make_problem(8, 3, 5, 7).of(torch.float32)
    arguments = problem.params, problem.X, problem.Y, problem.state, Buffers(problem.params, 3, 5)
    first = [grad.clone() for grad in native.iterate(*arguments)[1]]
    assert all(map(torch.equal, first, native.iterate(*arguments)[1]))


def test_denormals_survive_the_loading(native: Step) -> None:
    assert float(torch.full((16,), 1e-40).mul(0.5).sum()) > 0


@pytest.mark.slow
def test_it_is_clean_under_the_sanitizers(tmp_path: Path) -> None:
    flags = "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-march=native"
    found = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True)
    if not Path(found.stdout.strip()).is_absolute():
        pytest.skip("needs gcc's libasan")
    code = f"""
from pathlib import Path
import torch
from model.native import load
from tests.model.problems import forward, iterate_apart, make_problem
torch.set_num_threads(1)
step = load("cc", *{flags}, folder=Path({str(tmp_path)!r}))
for shape in {SHAPES}:
    problem = make_problem(*shape).of(torch.float32)
    step.update(problem.params, iterate_apart(step, problem)[1], 1.0, 0.1)
    forward(step, problem)
"""
    preload = {"LD_PRELOAD": found.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env={**os.environ, **preload}, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """A folder with the library in it."""
    try:
        load(folder=tmp_path)
    except Unavailable as error:
        pytest.skip(str(error))
    return tmp_path


def test_it_is_compiled_once(compiled: Path) -> None:
    (library,) = compiled.iterdir()
    before = library.stat()
    load(folder=compiled)
    assert list(compiled.iterdir()) == [library] and library.stat() == before


def test_workers_may_compile_side_by_side(compiled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    with ThreadPoolExecutor(2) as pool:
        steps = list(pool.map(lambda _: load(folder=folder), range(2)))
    assert len(steps) == 2 and len(list(folder.iterdir())) == 1


def test_the_chosen_cache_folder_is_used(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNN_SEARCH_CACHE", str(compiled))
    load()
    assert len(list(compiled.glob("native-*.so"))) == 1


def test_no_compiler_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"^there is no compiler 'no-such-cc'$"):
        load("no-such-cc", folder=tmp_path)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("-march=no-such-cpu", "^cc fails: .*no-such-cpu"),
        ("-DLANES=", "^cc fails: .*error"),
        ("-Dlog=exp", "^the native step's self-check fails: off by [0-9.e+-]+$"),
    ],
)
def test_a_build_that_is_no_good_is_said(compiled: Path, flag: str, said: str) -> None:
    with pytest.raises(Unavailable, match=said) as caught:
        load("cc", "-march=native", flag, folder=compiled)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the flag is for x86-64")
def test_a_cpu_without_wide_vectors_is_said(compiled: Path) -> None:
    with pytest.raises(Unavailable, match="no AVX2, AVX-512 or NEON"):
        load("cc", "-march=x86-64", folder=compiled)


def test_a_damaged_library_is_named(
    compiled: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (library,) = compiled.iterdir()
    damaged = tmp_path_factory.mktemp("damaged") / library.name
    damaged.write_bytes(b"no library")
    with pytest.raises(Unavailable, match=f"{damaged} cannot be loaded .*; remove it$"):
        load(folder=damaged.parent)


def test_a_folder_that_cannot_be_made_is_said(compiled: Path) -> None:
    file = compiled / "file"
    file.touch()
    with pytest.raises(Unavailable, match=r"^the native step cannot be kept: "):
        load(folder=file / "below")
