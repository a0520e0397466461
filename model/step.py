"""A training iteration's forward and backward pass, in the forms that `train.step` can name.

`reference` is the chapter's `rnn` under autograd: the law. `torch` is the same mathematics by
hand, equal to it in float64 to 1e-12, up to three times as fast on a CPU: the recurrence works
in place on one buffer, the read-out is one product for all steps, and so is each weight's
gradient, where autograd does `num_steps` small ones. `native` is that in C, for CPUs alone
(model/native.py); it is not in STEPS, since it may be impossible to have: ask `choose_step`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from model.rnn import Params, State, rnn

StepName = Literal["native", "torch", "reference"]
Forward = Callable[[Params, Tensor, State], tuple[Tensor, State]]


class Buffers:
    """Memory that a step writes to, made once for parameters and a batch shape.

    grads: the gradients, in the order and shapes of `params`.
    H: (num_steps + 1, batch_size, num_hiddens), the states, H[0] being the one before the batch.
    D: (num_steps, batch_size, num_hiddens), the loss's gradient by state, then by pre-activation.
    workspace: whatever the native step needs, which makes it.
    """

    def __init__(self, params: Sequence[Tensor], batch_size: int, num_steps: int) -> None:
        num_hiddens = params[1].shape[0]
        new_empty = params[0].detach().new_empty
        self.grads = [new_empty(param.shape) for param in params]
        self.H = new_empty(num_steps + 1, batch_size, num_hiddens)
        self.D = new_empty(num_steps, batch_size, num_hiddens)
        self.workspace = new_empty(0)


Iterate = Callable[[Params, Tensor, Tensor, State, Buffers], tuple[Tensor, list[Tensor], State]]
Update = Callable[[Params, Sequence[Tensor], float, float], Tensor]


@dataclass(frozen=True)
class Step:
    """One way to compute; every way has the first two functions.

    iterate(params, X, Y, state, buffers) -> (loss, grads, state): the mean token loss of a batch
    X, Y of (batch_size, num_steps), its gradients (`buffers.grads`) and the detached last state.
    forward(params, X, state) -> (logits, state): as `rnn`, without gradients, from symbols.
    update(params, grads, theta, lr) -> norm: clipping and descent in one, where that is faster
    than `grad_clipping` and `sgd`; the gradients may be left as they are.
    None waits for the device.
    """

    iterate: Iterate
    forward: Forward
    update: Update | None = None


def reference_iterate(
    params: Params, X: Tensor, Y: Tensor, state: State, buffers: Buffers
) -> tuple[Tensor, list[Tensor], State]:
    """The chapter's way: one-hot inputs, `rnn`, cross-entropy, autograd."""
    inputs = F.one_hot(X.T, params[0].shape[0]).type(params[0].dtype)
    y_hat, (H,) = rnn(inputs, (state[0].detach(),), params)
    loss = F.cross_entropy(y_hat, Y.T.reshape(-1))
    for buffer, grad in zip(buffers.grads, torch.autograd.grad(loss, params), strict=True):
        buffer.copy_(grad)
    return loss.detach(), buffers.grads, (H.detach(),)


@torch.no_grad()
def reference_forward(params: Params, X: Tensor, state: State) -> tuple[Tensor, State]:
    """The chapter's forward pass, without gradients."""
    return rnn(F.one_hot(X.T, params[0].shape[0]).type(params[0].dtype), state, params)


@torch.no_grad()
def torch_iterate(
    params: Params, X: Tensor, Y: Tensor, state: State, buffers: Buffers
) -> tuple[Tensor, list[Tensor], State]:
    """Back-propagation through time by hand; softmax and cross-entropy in closed form."""
    _, W_hh, _, W_hq, b_q = params
    dW_xh, dW_hh, db_h, dW_hq, db_q = buffers.grads
    H, D = buffers.H, buffers.D
    x, y = X.T.reshape(-1), Y.T.reshape(-1, 1)

    H[0] = state[0]
    unroll(H, x, params)
    before, after, deltas = H[:-1].flatten(0, 1), H[1:].flatten(0, 1), D.flatten(0, 1)

    log_p = torch.addmm(b_q, after, W_hq).log_softmax(dim=1)
    loss = -log_p.gather(1, y).mean()
    d_logits = log_p.exp_()  # d loss / d logits = (softmax - one_hot) / number of tokens
    d_logits.scatter_add_(1, y, d_logits.new_full((1, 1), -1.0).expand_as(y)).div_(len(y))
    torch.mm(after.T, d_logits, out=dW_hq)
    torch.sum(d_logits, dim=0, out=db_q)

    torch.mm(d_logits, W_hq.T, out=deltas)
    slopes = torch.addcmul(H.new_ones(()), after, after, value=-1.0).view_as(D).unbind()
    W_hh_T, D_t = W_hh.T, D.unbind()
    for t in range(len(D_t) - 1, 0, -1):
        D_t[t - 1].addmm_(D_t[t].mul_(slopes[t]), W_hh_T)
    D_t[0].mul_(slopes[0])

    torch.mm(before.T, deltas, out=dW_hh)
    if x.is_cuda:  # there index_add_ adds in any order
        torch.mm(F.one_hot(x, len(dW_xh)).T.to(D.dtype), deltas, out=dW_xh)
    else:
        dW_xh.zero_().index_add_(0, x, deltas)
    torch.sum(deltas, dim=0, out=db_h)
    return loss, buffers.grads, (H[-1].clone(),)


@torch.no_grad()
def torch_forward(params: Params, X: Tensor, state: State) -> tuple[Tensor, State]:
    """The same forward pass, without gradients."""
    batch_size, num_steps = X.shape
    H = params[1].new_empty(num_steps + 1, batch_size, params[1].shape[0])
    H[0] = state[0]
    unroll(H, X.T.reshape(-1), params)
    return torch.addmm(params[4], H[1:].flatten(0, 1), params[3]), (H[-1],)


def unroll(H: Tensor, x: Tensor, params: Params) -> None:
    """Fill H[1:] from H[0] and the time-major symbols x of (num_steps * batch_size,).

    A row of W_xh is what a one-hot vector times W_xh gives. tanh(a) = 2 sigmoid(2 a) - 1 takes
    half of tanh's time on a CPU.
    """
    W_xh, W_hh, b_h, *_ = params
    torch.index_select((W_xh + b_h).mul_(2), 0, x, out=H[1:].flatten(0, 1))
    minus_one = H.new_full((), -1.0)
    for H_before, H_t in zip(H[:-1].unbind(), H[1:].unbind(), strict=True):
        H_t.addmm_(H_before, W_hh, alpha=2).sigmoid_()
        torch.add(minus_one, H_t, alpha=2, out=H_t)


STEPS: dict[StepName, Step] = {
    "torch": Step(torch_iterate, torch_forward),
    "reference": Step(reference_iterate, reference_forward),
}


def choose_step(name: str, device: torch.device | str) -> tuple[StepName, Step, str]:
    """The step that `train.step` stands for on a device: its name, itself, and a reason or "".

    `auto` is `native` on a CPU where it can be had, else `torch`. The reason says in one line why
    the native step is not taken where it might have been.
    """
    if name in STEPS:
        return name, STEPS[name], ""
    reason = ""
    if torch.device(device).type == "cpu":
        from model.native import Unavailable, native_step  # it imports this file, and compiles

        step = native_step()
        if not isinstance(step, Unavailable):
            return "native", step, ""
        reason = f"using the torch step: {step}"
    elif name == "native":
        reason = f"using the torch step: the native one is for CPUs, not {device}"
    return "torch", STEPS["torch"], reason
