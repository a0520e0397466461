"""The steps agree; one is chosen by name and device."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given

from model.native import native_step
from model.step import STEPS, Buffers, choose_step
from tests.model.problems import Problem, apart, forward, iterate, make_problem, problems


@given(problems(hiddens=40, rows=9, steps=12, symbols=30))
def test_the_torch_step_is_the_reference_in_float64(problem: Problem) -> None:
    problem = problem.of(torch.float64)
    assert apart(iterate(STEPS["torch"], problem), iterate(STEPS["reference"], problem)) < 1e-12
    assert apart(forward(STEPS["torch"], problem), forward(STEPS["reference"], problem)) < 1e-12


@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_state_is_read_and_left_as_it_was(name: str) -> None:
    problem = make_problem(8, 3, 5, 7).of(torch.float32)
    before = problem.state[0].clone()
    iterate(STEPS[name], problem), forward(STEPS[name], problem)  # type: ignore[index]
    assert torch.equal(problem.state[0], before)


def test_buffers_used_again_give_the_same_answer() -> None:
    problem = make_problem(8, 3, 5, 7).of(torch.float32)
    arguments = problem.params, problem.X, problem.Y, problem.state, Buffers(problem.params, 3, 5)
    first = [grad.clone() for grad in STEPS["torch"].iterate(*arguments)[1]]
    assert all(map(torch.equal, first, STEPS["torch"].iterate(*arguments)[1]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_torch_step_gives_the_same_bits_again() -> None:
    problem = make_problem(64, 32, 35, 28)
    params = [param.float().cuda() for param in problem.params]
    state = (problem.state[0].float().cuda(),)
    on_cuda = Problem(params, problem.X.cuda(), problem.Y.cuda(), state)
    first, second = (iterate(STEPS["torch"], on_cuda) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("name", ["torch", "reference"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_torch_step_can_be_had_everywhere(name: str, device: str) -> None:
    assert choose_step(name, device) == (name, STEPS[name], "")  # type: ignore[index]


@pytest.mark.parametrize("name", ["auto", "native"])
def test_the_native_step_is_chosen_where_it_can_be_had(name: str) -> None:
    chosen, step, reason = choose_step(name, "cpu")
    assert (chosen, reason) == ("native", "") if step == native_step() else chosen == "torch"


def test_on_cuda_auto_is_the_torch_step() -> None:
    assert choose_step("auto", "cuda:0") == ("torch", STEPS["torch"], "")


def test_on_cuda_the_native_step_is_refused_with_a_reason() -> None:
    name, _, reason = choose_step("native", "cuda")
    assert (name, reason) == (
        "torch",
        "using the torch step: the native one is for CPUs, not cuda",
    )


@pytest.mark.parametrize("name", ["auto", "native"])
def test_without_a_compiler_the_torch_step_is_used_and_it_says_why(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    native_step.cache_clear()
    chosen, _, reason = choose_step(name, "cpu")
    native_step.cache_clear()
    assert (chosen, reason) == ("torch", "using the torch step: there is no compiler 'cc'")


def test_nothing_is_compiled_or_loaded_by_an_import() -> None:
    code = "import model, sys; sys.exit('model.native' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
