"""The network: the chapter's shapes, and torch.nn.RNN's numbers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from model import RNNModelScratch, get_params, init_rnn_state, rnn


def test_the_chapters_shapes_come_out() -> None:
    net = make_net(28, 512)
    Y, new_state = net(torch.arange(10).reshape(2, 5), net.begin_state(2, "cpu"))
    assert Y.shape == (10, 28)
    assert [H.shape for H in new_state] == [(2, 512)]


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(1, 9))
def test_logits_are_time_major(
    num_steps: int, batch_size: int, vocab_size: int, num_hiddens: int
) -> None:
    net = make_net(vocab_size, num_hiddens)
    X = torch.randint(vocab_size, (batch_size, num_steps))
    Y, (H,) = net(X, net.begin_state(batch_size, "cpu"))
    assert Y.shape == (num_steps * batch_size, vocab_size)
    first, _ = net(X[:, :1], net.begin_state(batch_size, "cpu"))
    last, _ = net(X[-1:], net.begin_state(1, "cpu"))
    torch.testing.assert_close(Y[:batch_size], first)
    torch.testing.assert_close(Y[-1], last[-1])
    assert H.shape == (batch_size, num_hiddens)


def test_parameters_are_drawn_as_the_chapter_draws_them() -> None:
    torch.manual_seed(1)
    W_xh, W_hh, W_hq = (torch.randn(s) * 0.01 for s in ((28, 64), (64, 64), (64, 28)))
    params = get_params(28, 64, "cpu", torch.Generator().manual_seed(1))
    for param, expected in zip(params, (W_xh, W_hh, zeros(64), W_hq, zeros(28)), strict=True):
        assert torch.equal(param, expected)
        assert param.requires_grad


def test_the_state_begins_at_zero() -> None:
    (H,) = init_rnn_state(3, 7, "cpu")
    assert torch.equal(H, torch.zeros(3, 7))


@pytest.mark.parametrize("seed", range(5))
def test_forward_and_gradients_equal_torchs_rnn_in_float64(seed: int) -> None:
    torch.manual_seed(seed)
    ours = [param.double().detach().requires_grad_() for param in wide_params()]
    inputs = F.one_hot(torch.randint(11, (7, 4)), 11).double()
    H_0 = torch.randn(4, 13, dtype=torch.float64)
    theirs = torch_twin(ours)
    Y, (H,) = rnn(inputs, (H_0,), ours)
    outputs, H_theirs = theirs["rnn"](inputs, H_0[None])
    Y_theirs = theirs["out"](outputs).flatten(0, 1)
    weights = torch.randn_like(Y)
    torch.autograd.backward([(Y * weights).sum(), (Y_theirs * weights).sum()])
    equal(Y, Y_theirs)
    equal(H, H_theirs[0])
    for param, twin in zip(ours, twin_grads(theirs), strict=True):
        assert param.grad is not None
        equal(param.grad, twin)


def test_the_state_is_not_detached_by_the_network() -> None:
    net = make_net(5, 4)
    H = torch.zeros(2, 4, requires_grad=True)
    Y, _ = net(torch.zeros(2, 3, dtype=torch.int64), (H,))
    torch.autograd.backward(Y.sum())
    assert H.grad is not None


def make_net(vocab_size: int, num_hiddens: int) -> RNNModelScratch:
    return RNNModelScratch(vocab_size, num_hiddens, "cpu", get_params, init_rnn_state, rnn)


def wide_params() -> list[Tensor]:
    """Parameters far enough from zero for tanh to bend: 11 symbols, 13 hidden units."""
    return [torch.randn_like(param) * 0.5 for param in get_params(11, 13, "cpu")]


def torch_twin(params: list[Tensor]) -> torch.nn.ModuleDict:
    """torch.nn.RNN and Linear with the same weights; the RNN's second bias is zero."""
    W_xh, W_hh, b_h, W_hq, b_q = (param.detach() for param in params)
    twin = torch.nn.ModuleDict({"rnn": torch.nn.RNN(11, 13), "out": torch.nn.Linear(13, 11)})
    weights = {
        "rnn.weight_ih_l0": W_xh.T,
        "rnn.weight_hh_l0": W_hh.T,
        "rnn.bias_ih_l0": b_h,
        "rnn.bias_hh_l0": zeros(13),
        "out.weight": W_hq.T,
        "out.bias": b_q,
    }
    twin.double().load_state_dict(weights)
    return twin


def twin_grads(twin: torch.nn.ModuleDict) -> list[Tensor]:
    """The twin's gradients, in the order and shapes of ours."""
    grads = {name: param.grad for name, param in twin.named_parameters()}
    found = [
        grads["rnn.weight_ih_l0"],
        grads["rnn.weight_hh_l0"],
        grads["rnn.bias_ih_l0"],
        grads["out.weight"],
        grads["out.bias"],
    ]
    return [grad.T if grad.dim() == 2 else grad for grad in found if grad is not None]


def equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def zeros(num: int) -> Tensor:
    return torch.zeros(num)
