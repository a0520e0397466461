"""The chapter's own training and text, as a person would copy them: the yardstick of every table.

One-hot inputs, `rnn` under autograd, a Python `if` in grad_clipping, a sum read back each step.
Source: d2l.ai, "Implementation of Recurrent Neural Networks from Scratch".
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data import SeqDataLoader, Vocab
from model import RNNModelScratch, get_params, init_rnn_state, rnn
from model.step import STEPS
from model.train import evaluate


def make_net(vocab_size: int, num_hiddens: int) -> RNNModelScratch:
    """The chapter's network on the CPU."""
    return RNNModelScratch(vocab_size, num_hiddens, "cpu", get_params, init_rnn_state, rnn)


def grad_clipping(net: RNNModelScratch, theta: float) -> None:
    """Scale the gradients to a global norm of `theta` if it is larger."""
    grads = [param.grad for param in net.params if param.grad is not None]
    norm = torch.sqrt(torch.stack([torch.sum(grad**2) for grad in grads]).sum())
    if norm > theta:
        for grad in grads:
            grad[:] *= theta / norm


@torch.no_grad()
def sgd(net: RNNModelScratch, lr: float) -> None:
    """One step down the gradients, which are zero afterwards."""
    for param in net.params:
        assert param.grad is not None
        param -= lr * param.grad
        param.grad.zero_()


def train_epoch(
    net: RNNModelScratch,
    train_iter: Iterable[tuple[Tensor, Tensor]],
    lr: float,
    theta: float,
    use_random_iter: bool,
) -> float:
    """train_epoch_ch8: one pass over the batches; gives the mean loss of a token."""
    loss = nn.CrossEntropyLoss()
    state = None
    total, num_tokens = 0.0, 0
    for X, Y in train_iter:
        if state is None or use_random_iter:
            state = net.begin_state(X.shape[0], "cpu")
        else:
            for s in state:
                s.detach_()
        y = Y.T.reshape(-1)
        y_hat, state = net(X, state)
        batch_loss = loss(y_hat, y.long()).mean()
        batch_loss.backward()
        grad_clipping(net, theta)
        sgd(net, lr)
        total += float(batch_loss.detach() * y.numel())
        num_tokens += y.numel()
    return total / num_tokens


def train(
    params: dict[str, Any],
    train_tokens: np.ndarray,
    val_tokens: np.ndarray,
    vocab_size: int,
    settings: dict[str, Any],
) -> Iterator[dict[str, float]]:
    """Train one trial on one thread and yield its perplexities after each epoch.

    params: hidden_size, lr, clip_threshold, sampling. settings: the config's `train` section.
    The held-out text is read in the same places as in the project, so that perplexities mean the
    same, with the chapter's forward pass. A loss that is no number gives inf.
    """
    torch.set_num_threads(1)
    net = make_net(vocab_size, params["hidden_size"])
    use_random_iter = params["sampling"] == "random"
    train_iter = SeqDataLoader(
        train_tokens, settings["batch_size"], settings["num_steps"], use_random_iter
    )
    held_out = torch.from_numpy(np.concatenate([train_tokens[-1:], val_tokens]))
    for _ in range(settings["max_epochs"]):
        loss = train_epoch(
            net, train_iter, params["lr"], params["clip_threshold"], use_random_iter
        )
        val_loss = evaluate(net, held_out, STEPS["reference"])
        yield {"train_perplexity": perplexity(loss), "val_perplexity": perplexity(val_loss)}


def perplexity(loss: float) -> float:
    """exp(loss), inf where that is no finite number."""
    return math.exp(loss) if loss < 700 else math.inf


@torch.no_grad()
def predict(prefix: str, num_preds: int, net: RNNModelScratch, vocab: Vocab) -> str:
    """predict_ch8: warm up on the prefix, then write `num_preds` characters, one by one."""
    state = net.begin_state(1, "cpu")
    outputs = [vocab[prefix[0]]]
    for char in prefix[1:]:
        _, state = net(torch.tensor([[outputs[-1]]]), state)
        outputs.append(vocab[char])
    for _ in range(num_preds):
        y, state = net(torch.tensor([[outputs[-1]]]), state)
        outputs.append(int(y.argmax(dim=1).reshape(1)))
    return "".join(vocab.to_tokens(idx) for idx in outputs)
