"""The iterators: the chapter's own batches, each token at most once, Y one token later."""

import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from data import (
    Corpus,
    SeqDataLoader,
    load_data_time_machine,
    seq_data_iter_random,
    seq_data_iter_sequential,
)

Batches = Iterator[tuple[Tensor, Tensor]]
SIZES = (st.integers(0, 400), st.integers(1, 8), st.integers(1, 12), st.integers(0, 99))


def chapter_random(corpus: list[int], batch_size: int, num_steps: int) -> Batches:
    """d2l.ai, "Language Models and the Dataset", word for word."""
    corpus = corpus[random.randint(0, num_steps - 1) :]
    num_subseqs = (len(corpus) - 1) // num_steps
    initial_indices = list(range(0, num_subseqs * num_steps, num_steps))
    random.shuffle(initial_indices)

    def data(pos: int) -> list[int]:
        return corpus[pos : pos + num_steps]

    num_batches = num_subseqs // batch_size
    for i in range(0, batch_size * num_batches, batch_size):
        initial_indices_per_batch = initial_indices[i : i + batch_size]
        X = [data(j) for j in initial_indices_per_batch]
        Y = [data(j + 1) for j in initial_indices_per_batch]
        yield torch.tensor(X), torch.tensor(Y)


def chapter_sequential(corpus: list[int], batch_size: int, num_steps: int) -> Batches:
    """d2l.ai, "Language Models and the Dataset", word for word."""
    offset = random.randint(0, num_steps)
    num_tokens = ((len(corpus) - offset - 1) // batch_size) * batch_size
    Xs = torch.tensor(corpus[offset : offset + num_tokens])
    Ys = torch.tensor(corpus[offset + 1 : offset + 1 + num_tokens])
    Xs, Ys = Xs.reshape(batch_size, -1), Ys.reshape(batch_size, -1)
    num_batches = Xs.shape[1] // num_steps
    for i in range(0, num_steps * num_batches, num_steps):
        X = Xs[:, i : i + num_steps]
        Y = Ys[:, i : i + num_steps]
        yield X, Y


@pytest.mark.parametrize(
    ("ours", "chapters"),
    [
        (seq_data_iter_random, chapter_random),
        (seq_data_iter_sequential, chapter_sequential),
    ],
)
@given(st.integers(60, 400), st.integers(1, 6), st.integers(1, 9), st.integers(0, 99))
def test_seeded_alike_the_batches_are_the_chapters(
    ours: Callable[..., Batches],
    chapters: Callable[..., Batches],
    num_tokens: int,
    batch_size: int,
    num_steps: int,
    seed: int,
) -> None:
    corpus = list(range(num_tokens))
    random.seed(seed)
    expected = list(chapters(corpus, batch_size, num_steps))
    given_batches = list(ours(corpus, batch_size, num_steps, random.Random(seed)))
    assert len(given_batches) == len(expected) > 0
    for (X, Y), (X_chapter, Y_chapter) in zip(given_batches, expected, strict=True):
        assert torch.equal(X, X_chapter)
        assert torch.equal(Y, Y_chapter)


@pytest.mark.parametrize("use_random_iter", [True, False])
@given(*SIZES)
def test_every_batch_is_full_and_y_is_one_token_later(
    use_random_iter: bool, num_tokens: int, batch_size: int, num_steps: int, seed: int
) -> None:
    for X, Y in loader(num_tokens, batch_size, num_steps, use_random_iter, seed):
        assert X.shape == Y.shape == (batch_size, num_steps)
        assert X.dtype == Y.dtype == torch.int64
        assert torch.equal(Y, X + 1)  # the corpus counts upwards


@pytest.mark.parametrize("use_random_iter", [True, False])
@given(*SIZES)
def test_no_token_is_used_twice_in_an_epoch(
    use_random_iter: bool, num_tokens: int, batch_size: int, num_steps: int, seed: int
) -> None:
    batches = loader(num_tokens, batch_size, num_steps, use_random_iter, seed)
    used = [token for X, _ in batches for token in X.flatten().tolist()]
    assert len(used) == len(set(used))


@given(*SIZES)
def test_sequential_batches_continue_each_row(
    num_tokens: int, batch_size: int, num_steps: int, seed: int
) -> None:
    batches = list(loader(num_tokens, batch_size, num_steps, False, seed))
    for (_, Y), (X, _) in pairwise(batches):
        assert torch.equal(X[:, 0], Y[:, -1])


@pytest.mark.parametrize("use_random_iter", [True, False])
@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 99))
def test_one_batch_is_had_from_a_text_that_holds_one_at_every_offset(
    use_random_iter: bool, batch_size: int, num_steps: int, seed: int
) -> None:
    num_tokens = (batch_size + 1) * num_steps + 1  # what the search asks of a text
    assert len(list(loader(num_tokens, batch_size, num_steps, use_random_iter, seed))) >= 1


@pytest.mark.parametrize("use_random_iter", [True, False])
def test_a_text_shorter_than_one_batch_gives_none(use_random_iter: bool) -> None:
    assert list(loader(19, 4, 5, use_random_iter, seed=0)) == []


@pytest.mark.parametrize("use_random_iter", [True, False])
def test_a_kept_generator_goes_on_with_the_next_epoch(use_random_iter: bool) -> None:
    batches = loader(300, 4, 5, use_random_iter, seed=1)
    list(batches)
    state = batches.rng.getstate()
    expected = list(batches)
    batches.rng = random.Random()
    batches.rng.setstate(state)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(batches, expected, strict=True))


@pytest.mark.parametrize("use_random_iter", [True, False])
def test_the_global_generator_is_left_alone(use_random_iter: bool) -> None:
    before = random.getstate(), torch.get_rng_state()
    list(SeqDataLoader(range(200), 4, 5, use_random_iter))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("corpus", [list(range(99)), np.arange(99), torch.arange(99)])
def test_lists_arrays_and_tensors_give_the_same_batches(
    corpus: list[int] | np.ndarray | Tensor,
) -> None:
    (X, _), *_ = seq_data_iter_random(corpus, 2, 5, random.Random(3))
    (expected, _), *_ = loader(99, 2, 5, True, seed=3)
    assert torch.equal(X, expected)


def test_the_chapters_loader_gives_batches_and_the_books_vocabulary(book: Corpus) -> None:
    batches, vocab = load_data_time_machine(32, 35)
    assert len(vocab) == 28
    assert {X.shape for X, _ in batches} == {(32, 35)}
    assert len(batches.corpus) == 10_000


def loader(
    num_tokens: int, batch_size: int, num_steps: int, use_random_iter: bool, seed: int
) -> SeqDataLoader:
    """Batches of a text whose tokens are 0, 1, 2 and so on."""
    rng = random.Random(seed)
    return SeqDataLoader(torch.arange(num_tokens), batch_size, num_steps, use_random_iter, rng)
