"""Text from a trained model, one character after another."""

from typing import Protocol

import torch
from torch import Tensor

from model.rnn import RNNModelScratch, State
from model.step import Forward


class Vocab(Protocol):
    """What the model asks of a vocabulary: an index for a token, and a token for an index."""

    def __getitem__(self, tokens: str) -> int: ...
    def to_tokens(self, indices: int) -> str: ...


@torch.no_grad()
def predict(
    prefix: str,
    num_preds: int,
    net: RNNModelScratch,
    vocab: Vocab,
    device: torch.device | str,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    forward: Forward | None = None,
) -> str:
    """Read `prefix` (the warm-up), then write `num_preds` characters after it.

    temperature: 0 takes the likeliest character each time, the chapter's way; above 0 draws from
    softmax(logits / temperature) with `generator` (a CPU one, so that a seed gives the same text
    on every device). forward: a `Step.forward` to compute with (None: the network's own).
    Raises ValueError for an empty prefix or a negative temperature.
    Source: d2l.ai, "Implementation of RNNs from Scratch".
    """
    if not prefix:
        raise ValueError("`prefix` must hold at least one character, but got ''")
    if temperature < 0:
        raise ValueError(f"`temperature >= 0` must hold, but got {temperature}")

    def read(X: Tensor, state: State) -> tuple[Tensor, State]:
        logits, state = forward(net.params, X, state) if forward else net(X, state)
        return logits[-1:], state

    known = [vocab[char] for char in prefix]
    X = torch.tensor([known], device=device)
    state = net.begin_state(1, device)
    written: list[Tensor] = []
    for _ in range(num_preds):
        logits, state = read(X, state)
        if temperature == 0:
            X = logits.argmax(dim=1, keepdim=True)
        else:
            p = torch.softmax(logits.double().cpu() / temperature, dim=1)
            X = torch.multinomial(p, 1, generator=generator).to(device)
        written.append(X)
    indices = known + (torch.cat(written).flatten().tolist() if written else [])  # the one sync
    return "".join(vocab.to_tokens(idx) for idx in indices)
