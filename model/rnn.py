"""The recurrent network, from scratch, as in d2l.ai's "Implementation of RNNs from Scratch"."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Params = list[Tensor]
State = tuple[Tensor]
GetParams = Callable[[int, int, torch.device], Params]
InitState = Callable[[int, int, torch.device], State]
ForwardFn = Callable[[Tensor, State, Sequence[Tensor]], tuple[Tensor, State]]


def get_params(
    vocab_size: int,
    num_hiddens: int,
    device: torch.device | str,
    generator: torch.Generator | None = None,
) -> Params:
    """Draw W_xh, W_hh, b_h, W_hq, b_q: weights normal * 0.01, biases zero, all with gradients.

    Shapes: (vocab_size, num_hiddens), (num_hiddens, num_hiddens), (num_hiddens,),
    (num_hiddens, vocab_size), (vocab_size,); float32.
    Deviation: a CPU `generator` may be given and numbers are drawn on the CPU, so that a seed
    gives the same weights on every device.
    """
    num_inputs = num_outputs = vocab_size

    def normal(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=generator) * 0.01).to(device)

    W_xh = normal(num_inputs, num_hiddens)
    W_hh = normal(num_hiddens, num_hiddens)
    b_h = torch.zeros(num_hiddens, device=device)
    W_hq = normal(num_hiddens, num_outputs)
    b_q = torch.zeros(num_outputs, device=device)
    return [param.requires_grad_() for param in (W_xh, W_hh, b_h, W_hq, b_q)]


def init_rnn_state(batch_size: int, num_hiddens: int, device: torch.device | str) -> State:
    """The state before any input: (H,) of zeros, H of (batch_size, num_hiddens)."""
    return (torch.zeros((batch_size, num_hiddens), device=device),)


def rnn(inputs: Tensor, state: State, params: Sequence[Tensor]) -> tuple[Tensor, State]:
    """Unroll H_t = tanh(X_t W_xh + H_{t-1} W_hh + b_h) over time and read out the logits.

    inputs: (num_steps, batch_size, vocab_size), one-hot, of the parameters' dtype.
    state: (H,), H of (batch_size, num_hiddens). Not detached here: the caller owns the truncation.
    Returns logits of (num_steps * batch_size, vocab_size), time-major, and the last (H,).
    Source: d2l.ai, "Implementation of Recurrent Neural Networks from Scratch".
    """
    W_xh, W_hh, b_h, W_hq, b_q = params
    (H,) = state
    outputs = []
    for X in inputs:
        H = torch.tanh(X @ W_xh + H @ W_hh + b_h)
        outputs.append(H @ W_hq + b_q)
    return torch.cat(outputs, dim=0), (H,)


class RNNModelScratch:
    """Parameters and the functions that use them, put together.

    get_params(vocab_size, num_hiddens, device), init_state(batch_size, num_hiddens, device) and
    forward_fn(inputs, state, params) are the chapter's three functions, or others of their form.
    """

    def __init__(
        self,
        vocab_size: int,
        num_hiddens: int,
        device: torch.device | str,
        get_params: GetParams,
        init_state: InitState,
        forward_fn: ForwardFn,
    ) -> None:
        self.vocab_size, self.num_hiddens = vocab_size, num_hiddens
        self.params = get_params(vocab_size, num_hiddens, torch.device(device))
        self.init_state, self.forward_fn = init_state, forward_fn

    def __call__(self, X: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits of (num_steps * batch_size, vocab_size) for X of (batch_size, num_steps)."""
        inputs = F.one_hot(X.T, self.vocab_size).type(self.params[0].dtype)
        return self.forward_fn(inputs, state, self.params)

    def begin_state(self, batch_size: int, device: torch.device | str) -> State:
        """The state before any input, for `batch_size` rows."""
        return self.init_state(batch_size, self.num_hiddens, torch.device(device))
