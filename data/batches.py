"""Minibatches of subsequences, cut at random or in sequence, as in d2l.ai's "Language Models".

Every draw comes from a `random.Random` that is passed in, in the chapter's order: seeded alike,
the batches are the chapter's own, and a checkpoint that keeps `rng.getstate()` goes on with the
batch that would have come next. torch is imported where a tensor is made, because the search's
driver reads corpora and never needs torch, whose import costs seconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from data.corpus import load_corpus_time_machine
from data.vocab import Vocab

if TYPE_CHECKING:
    from torch import Tensor

Batch = tuple["Tensor", "Tensor"]


def seq_data_iter_random(
    corpus: Sequence[int] | np.ndarray | Tensor,
    batch_size: int,
    num_steps: int,
    rng: random.Random | None = None,
) -> Iterator[Batch]:
    """Yield subsequences in random order, each token in at most one of them.

    corpus: token indices, (num_tokens,). An offset below `num_steps` is drawn first.
    Yields X and Y of (batch_size, num_steps), int64, Y being X one token later. A last batch
    that would not be full is left out; a corpus too short for one batch yields nothing.
    Deviation: one gather for the epoch instead of a Python list for each subsequence.
    Source: d2l.ai, "Language Models and the Dataset".
    """
    rng = rng or random.Random()
    corpus = _tensor(corpus)[rng.randint(0, num_steps - 1) :]
    starts = list(range(0, (len(corpus) - 1) // num_steps * num_steps, num_steps))
    rng.shuffle(starts)
    num_batches = len(starts) // batch_size
    steps = np.array(starts[: num_batches * batch_size], dtype=np.int64)[:, None] + np.arange(
        num_steps
    )
    index = _tensor(steps).to(corpus.device)
    X, Y = corpus[index], corpus[index + 1]
    for i in range(0, num_batches * batch_size, batch_size):
        yield X[i : i + batch_size], Y[i : i + batch_size]


def seq_data_iter_sequential(
    corpus: Sequence[int] | np.ndarray | Tensor,
    batch_size: int,
    num_steps: int,
    rng: random.Random | None = None,
) -> Iterator[Batch]:
    """Yield subsequences so that each row of a batch goes on where that row of the last ended.

    corpus: token indices, (num_tokens,). An offset of at most `num_steps` is drawn first.
    Yields X and Y of (batch_size, num_steps), int64, views of the corpus, Y one token later.
    Source: d2l.ai, "Language Models and the Dataset".
    """
    rng = rng or random.Random()
    offset = rng.randint(0, num_steps)
    corpus = _tensor(corpus)
    num_tokens = (len(corpus) - offset - 1) // batch_size * batch_size
    if num_tokens <= 0:
        return
    Xs = corpus[offset : offset + num_tokens].reshape(batch_size, -1)
    Ys = corpus[offset + 1 : offset + 1 + num_tokens].reshape(batch_size, -1)
    num_batches = Xs.shape[1] // num_steps
    for i in range(0, num_steps * num_batches, num_steps):
        yield Xs[:, i : i + num_steps], Ys[:, i : i + num_steps]


class SeqDataLoader:
    """Batches of a corpus: each `iter()` is one epoch and draws on from the same generator."""

    def __init__(
        self,
        corpus: Sequence[int] | np.ndarray | Tensor,
        batch_size: int,
        num_steps: int,
        use_random_iter: bool,
        rng: random.Random | None = None,
    ) -> None:
        self.corpus = _tensor(corpus)
        self.batch_size, self.num_steps = batch_size, num_steps
        self.data_iter_fn = seq_data_iter_random if use_random_iter else seq_data_iter_sequential
        self.rng = rng or random.Random()

    def __iter__(self) -> Iterator[Batch]:
        return self.data_iter_fn(self.corpus, self.batch_size, self.num_steps, self.rng)


def load_data_time_machine(
    batch_size: int, num_steps: int, use_random_iter: bool = False, max_tokens: int = 10000
) -> tuple[SeqDataLoader, Vocab]:
    """The batches of The Time Machine's first `max_tokens` characters, and its vocabulary."""
    corpus, vocab = load_corpus_time_machine(max_tokens)
    return SeqDataLoader(corpus, batch_size, num_steps, use_random_iter), vocab


def _tensor(values: Sequence[int] | np.ndarray | Tensor) -> Tensor:
    import torch

    return torch.as_tensor(values, dtype=torch.int64)
