"""The training loop: one `EpochResult` an epoch, and nothing known of who asks for it."""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.predict import Vocab, predict
from model.rnn import RNNModelScratch, State
from model.step import STEPS, Buffers, Step

EVAL_ROWS = 32  # the held-out text is read in this many places at once
EVAL_STEPS = 64  # and this many characters at a time, which bounds the memory
EVAL_WARM_UP = 64  # characters read before each place but the first, to give it its state
NUM_LAST_NORMS = 5

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave.

    val_perplexity: None where nothing is held out. grad_norm: mean over the epoch's steps, before
    clipping. clip_fraction: share of steps whose norm was above theta. train_s: seconds in
    training steps; tokens_per_s goes by them. sample_text: the prefix and what follows it.
    """

    epoch: int
    train_perplexity: float
    val_perplexity: float | None
    grad_norm: float
    clip_fraction: float
    tokens_per_s: float
    train_s: float
    sample_text: str


class Diverged(ArithmeticError):
    """The loss left the range of numbers.

    epoch: where. grad_norms: the last ones before and as it happened, oldest first.
    """

    def __init__(self, epoch: int, what: str, grad_norms: list[float]) -> None:
        self.epoch, self.grad_norms = epoch, grad_norms
        norms = ", ".join(f"{norm:.3g}" for norm in grad_norms)
        super().__init__(f"{what} in epoch {epoch}; last gradient norms: {norms}")


@torch.no_grad()
def grad_clipping(net: RNNModelScratch, theta: float) -> Tensor:
    """Scale all gradients so that their global norm is at most `theta`; give the norm before.

    Smaller gradients are left as they are. Deviation: the factor min(1, theta / norm) is computed
    on the device, so that no Python `if` waits for the norm.
    """
    grads = [param.grad for param in net.params if param.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(grad) for grad in grads])
    norm: Tensor = torch.linalg.vector_norm(norms)
    factor = (theta / norm).clamp_(max=1.0)
    for grad in grads:
        grad.mul_(factor)
    return norm


@torch.no_grad()
def sgd(net: RNNModelScratch, lr: float) -> None:
    """param -= lr * param.grad, for every parameter."""
    for param in net.params:
        if param.grad is not None:
            param.sub_(param.grad, alpha=lr)


def train_epoch(
    net: RNNModelScratch,
    train_iter: Batches,
    lr: float,
    device: torch.device | str,
    use_random_iter: bool,
    theta: float = 1.0,
    step: Step = STEPS["torch"],
) -> tuple[float, list[float], float, int]:
    """Go through `train_iter` once and give (mean loss, gradient norms, seconds, tokens).

    The state is fresh for each batch of random sampling, and for the first of sequential; then it
    is carried on, detached. Raises ValueError where there is no batch.
    """
    started = time.perf_counter()
    state: State | None = None
    buffers: Buffers | None = None
    losses, norms = [], []
    num_tokens = 0
    for X, Y in train_iter:
        if state is None or use_random_iter:
            state = net.begin_state(X.shape[0], device)
        if buffers is None:
            buffers = Buffers(net.params, *X.shape)
        loss, grads, state = step.iterate(net.params, X, Y, state, buffers)
        if step.update is not None:
            norms.append(step.update(net.params, grads, theta, lr))
        else:
            for param, grad in zip(net.params, grads, strict=True):
                param.grad = grad
            norms.append(grad_clipping(net, theta))
            sgd(net, lr)
        losses.append(loss)
        num_tokens += Y.numel()
    if not losses:
        raise ValueError("the training text is shorter than one batch")
    sums = torch.stack([torch.stack(losses).double(), torch.stack(norms).double()])
    epoch_losses, epoch_norms = sums.tolist()  # the epoch's one synchronisation
    seconds = time.perf_counter() - started
    return math.fsum(epoch_losses) / len(epoch_losses), epoch_norms, seconds, num_tokens


@torch.no_grad()
def evaluate(net: RNNModelScratch, tokens: Tensor, step: Step = STEPS["torch"]) -> float:
    """The mean loss of predicting each of `tokens[1:]` once from those before it.

    tokens: (num_tokens,), with the last token before the held-out text in front. The text is cut
    into EVAL_ROWS stretches that are read side by side, state carried over. Deviation from one
    long pass: a stretch has its first state from the EVAL_WARM_UP characters before it instead of
    from all of them. It is three to seven times as fast, and moves a perplexity by parts in 10^7.
    """
    num_scored = len(tokens) - 1
    rows = max(1, min(EVAL_ROWS, num_scored // EVAL_WARM_UP))
    length = -(-num_scored // rows)
    starts = torch.arange(rows, device=tokens.device)[:, None] * length
    places = starts + torch.arange(length, device=tokens.device)
    scored = places < num_scored
    places.clamp_(max=num_scored - 1)

    (H,) = net.begin_state(rows, tokens.device)
    if rows > 1:
        before = starts[1:] + torch.arange(-EVAL_WARM_UP, 0, device=tokens.device)
        _, (H[1:],) = step.forward(net.params, tokens[before], (H[1:],))
    state: State = (H,)
    total = torch.zeros((), dtype=torch.float64, device=tokens.device)
    for begin in range(0, length, EVAL_STEPS):
        part = places[:, begin : begin + EVAL_STEPS]
        X, Y = tokens[part], tokens[part + 1]
        logits, state = step.forward(net.params, X, state)
        losses = F.cross_entropy(logits, Y.T.reshape(-1), reduction="none")
        mask = scored[:, begin : begin + EVAL_STEPS].T.reshape(-1)
        total += (losses * mask).sum(dtype=torch.float64)
    return float(total) / num_scored


def train(
    net: RNNModelScratch,
    train_iter: Batches,
    vocab: Vocab,
    lr: float,
    num_epochs: int,
    device: torch.device | str,
    use_random_iter: bool = False,
    *,
    theta: float = 1.0,
    val_tokens: Tensor | None = None,
    prefix: str = "time traveller",
    num_preds: int = 50,
    first_epoch: int = 1,
    step: Step = STEPS["torch"],
) -> Iterator[EpochResult]:
    """Train by SGD with clipped gradients and yield an EpochResult after each epoch.

    Epochs are numbered from `first_epoch` to `num_epochs`. val_tokens: as for `evaluate`.
    Raises Diverged at the end of an epoch whose loss or perplexity is not a finite number.
    Source: d2l.ai, "Implementation of RNNs from Scratch", train_ch8.
    """
    for epoch in range(first_epoch, num_epochs + 1):
        loss, norms, seconds, num_tokens = train_epoch(
            net, train_iter, lr, device, use_random_iter, theta, step
        )
        last_norms = norms[-NUM_LAST_NORMS:]
        train_perplexity = perplexity(loss, "train_perplexity", epoch, last_norms)
        val_perplexity = None
        if val_tokens is not None:
            val_loss = evaluate(net, val_tokens, step)
            val_perplexity = perplexity(val_loss, "val_perplexity", epoch, last_norms)
        yield EpochResult(
            epoch=epoch,
            train_perplexity=train_perplexity,
            val_perplexity=val_perplexity,
            grad_norm=math.fsum(norms) / len(norms),
            clip_fraction=sum(norm > theta for norm in norms) / len(norms),
            tokens_per_s=num_tokens / seconds,
            train_s=seconds,
            sample_text=predict(prefix, num_preds, net, vocab, device, forward=step.forward),
        )


def perplexity(loss: float, name: str, epoch: int, grad_norms: list[float]) -> float:
    """exp(loss), or Diverged where that is no finite number."""
    if loss > math.log(sys.float_info.max) or not math.isfinite(loss):
        raise Diverged(epoch, f"{name} = exp({loss:.4g}) is not finite", grad_norms)
    return math.exp(loss)
