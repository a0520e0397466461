"""Random problems for the steps, and how far their answers lie apart."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from model.rnn import Params, State
from model.step import Buffers, Step


@dataclass(frozen=True)
class Problem:
    """Parameters, a batch and a state, all of float64."""

    params: Params
    X: Tensor
    Y: Tensor
    state: State

    def of(self, dtype: torch.dtype) -> "Problem":
        """The same numbers in another type, new memory for all that may be written to."""
        params = [param.detach().to(dtype, copy=True).requires_grad_() for param in self.params]
        return Problem(params, self.X, self.Y, (self.state[0].to(dtype),))


def make_problem(
    num_hiddens: int, batch_size: int, num_steps: int, vocab_size: int, seed: int = 0
) -> Problem:
    """Weights that carry signals on over time but let rounding errors die out; any symbols."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    params = [
        normal(vocab_size, num_hiddens) * 0.5,
        normal(num_hiddens, num_hiddens) * 0.5 / num_hiddens**0.5,
        normal(num_hiddens) * 0.1,
        normal(num_hiddens, vocab_size) / num_hiddens**0.5,
        normal(vocab_size) * 0.1,
    ]
    # Numbers that float32 holds exactly, so that it starts from the same problem.
    params = [param.float().double() for param in params]
    X, Y = torch.randint(vocab_size, (2, batch_size, num_steps), generator=generator)
    return Problem(params, X, Y, (normal(batch_size, num_hiddens).tanh().float().double(),))


def problems(
    hiddens: int = 300, rows: int = 70, steps: int = 40, symbols: int = 200
) -> st.SearchStrategy[Problem]:
    """Problems of every shape up to these sizes."""
    return st.builds(
        make_problem,
        st.integers(1, hiddens),
        st.integers(1, rows),
        st.integers(1, steps),
        st.integers(2, symbols),
        st.integers(0, 10_000),
    )


def iterate(step: Step, problem: Problem) -> list[Tensor]:
    """Loss, gradients (as one vector) and state of one iteration with new buffers."""
    loss, grads, state = iterate_apart(step, problem)
    return [loss, torch.cat([grad.flatten() for grad in grads]), *state]


def iterate_apart(step: Step, problem: Problem) -> tuple[Tensor, list[Tensor], State]:
    """The same, with each parameter's gradient by itself."""
    buffers = Buffers(problem.params, *problem.X.shape)
    return step.iterate(problem.params, problem.X, problem.Y, problem.state, buffers)


def forward(step: Step, problem: Problem) -> list[Tensor]:
    """Logits and state."""
    logits, state = step.forward(problem.params, problem.X, problem.state)
    return [logits, *state]


def apart(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest relative distance between two answers, part by part."""
    pairs = zip(found, expected, strict=True)
    with torch.no_grad():
        return max(float((a.double() - b).norm() / b.norm()) for a, b in pairs)
