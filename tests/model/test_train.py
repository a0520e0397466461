"""Training: the chapter's own loop, clipping, the held-out text, divergence."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from data import Corpus, SeqDataLoader
from model import (
    Diverged,
    EpochResult,
    RNNModelScratch,
    evaluate,
    get_params,
    grad_clipping,
    init_rnn_state,
    rnn,
    train,
    train_epoch,
)
from model.rnn import Params, State
from model.step import STEPS, Buffers, Step, StepName
from search.config import CONFIGS, load_config


@pytest.mark.parametrize("use_random_iter", [True, False])
@pytest.mark.parametrize("name", sorted(STEPS))
def test_perplexities_are_those_of_the_chapters_loop(
    bundled: Corpus, use_random_iter: bool, name: StepName
) -> None:
    expected = chapter_train(make_net(28), batches(bundled, use_random_iter), 1.0, 4)
    results = train_on(bundled, lr=1.0, epochs=4, use_random_iter=use_random_iter, name=name)
    found = [result.train_perplexity for result in results]
    assert found == pytest.approx(expected, rel=1e-4)
    assert found[-1] < found[0]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_chapters_run_learns_the_book_by_heart(book: Corpus) -> None:
    config = load_config(CONFIGS / "seed.yaml")
    shape = config.train.batch_size, config.train.num_steps
    loader = SeqDataLoader(book.tokens[:10_000], *shape, False, random.Random(0))
    net = make_net(28, 256)  # half the chapter's 512 units, for a quarter of the time
    results = train(net, loader, book.vocab, 1.0, config.train.max_epochs, "cpu", num_preds=0)
    assert any(result.train_perplexity < 1.4 for result in results)  # and stop there


def test_a_repeated_sentence_is_learnt_by_heart(bundled: Corpus) -> None:
    tokens = bundled.vocab[list("the night was cold and the fire was low ")] * 30
    loader = SeqDataLoader(tokens, 8, 20, False, random.Random(0))
    net = make_net(28, 64)
    *_, last = train(net, loader, bundled.vocab, 1.0, 60, "cpu", prefix="the night was")
    assert last.train_perplexity < 1.1
    assert last.sample_text.startswith("the night was cold and the fire was low the night")


def test_the_same_seed_gives_the_same_numbers_again(bundled: Corpus) -> None:
    first, second = (train_on(bundled, lr=1.0, epochs=2) for _ in range(2))
    assert [r.train_perplexity for r in first] == [r.train_perplexity for r in second]
    assert [r.sample_text for r in first] == [r.sample_text for r in second]


def test_an_epoch_result_says_what_happened(bundled: Corpus) -> None:
    result, *_ = train_on(bundled, lr=1.0, epochs=1, theta=0.01)
    assert (result.epoch, result.val_perplexity, result.clip_fraction) == (1, None, 1.0)
    assert result.grad_norm > 0.01 and result.train_s > 0 and result.tokens_per_s > 0
    assert result.sample_text.startswith("time traveller")
    assert len(result.sample_text) == len("time traveller") + 50


def test_epochs_are_numbered_from_the_first(bundled: Corpus) -> None:
    loader = batches(bundled, False)
    results = train(make_net(28), loader, bundled.vocab, 1.0, 7, "cpu", first_epoch=6)
    assert [result.epoch for result in results] == [6, 7]


def test_random_sampling_begins_each_batch_afresh() -> None:
    seen = states_seen(use_random_iter=True)
    assert all(torch.equal(H, torch.zeros_like(H)) for H in seen)


def test_sequential_sampling_carries_the_state_on_detached() -> None:
    first, second, third = states_seen(use_random_iter=False)
    assert torch.equal(first, torch.zeros_like(first))
    assert second.abs().sum() > 0 and not torch.equal(second, third)
    assert not (second.requires_grad or third.requires_grad)


def test_no_batch_at_all_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="the training text is shorter than one batch"):
        train_epoch(make_net(5), [], 1.0, "cpu", False)


@given(st.floats(0.01, 100), st.floats(1e-6, 1e6))
def test_clipping_caps_the_global_norm_and_keeps_its_direction(theta: float, size: float) -> None:
    net = with_grads(size)
    before = global_grad(net)
    norm = grad_clipping(net, theta)
    assert float(norm) == pytest.approx(float(before.norm()), rel=1e-5)
    assert float(global_grad(net).norm()) <= theta * (1 + 1e-5)
    torch.testing.assert_close(global_grad(net) * norm, before * global_grad(net).norm())


def test_smaller_gradients_are_left_alone() -> None:
    net = with_grads(1e-3)
    before = global_grad(net)
    grad_clipping(net, 1.0)
    assert torch.equal(global_grad(net), before)


def test_gradients_of_zero_stay_zero() -> None:
    net = with_grads(0.0)
    assert float(grad_clipping(net, 1.0)) == 0
    assert not global_grad(net).any()


@pytest.mark.parametrize("num_tokens", [2, 3, 64, 65, 130, 700, 2049, 5000])
def test_held_out_loss_is_that_of_one_long_pass(
    bundled: Corpus, trained: RNNModelScratch, num_tokens: int
) -> None:
    tokens = torch.from_numpy(bundled.tokens[-num_tokens:])
    assert evaluate(trained, tokens) == pytest.approx(one_long_pass(trained, tokens), abs=1e-4)


@given(st.integers(2, 5000))
def test_each_held_out_token_is_scored_once(num_tokens: int) -> None:
    net = make_net(3, 4)
    tokens = torch.randint(3, (num_tokens,), generator=torch.Generator().manual_seed(num_tokens))
    b_q = torch.tensor([0.0, 1.0, 5.0])
    with torch.no_grad():  # the same distribution whatever was read: the loss counts tokens
        net.params[3].zero_()
        net.params[4].copy_(b_q)
    expected = -b_q.log_softmax(0)[tokens[1:]].double().mean()
    assert evaluate(net, tokens) == pytest.approx(float(expected), rel=1e-6)


def test_held_out_text_changes_nothing(bundled: Corpus) -> None:
    val_tokens = torch.from_numpy(bundled.tokens[-500:])
    with_val = train_on(bundled, lr=1.0, epochs=2, val_tokens=val_tokens)
    without = train_on(bundled, lr=1.0, epochs=2)
    assert [r.train_perplexity for r in with_val] == [r.train_perplexity for r in without]
    assert all(r.val_perplexity is not None for r in with_val)


def test_symbols_unseen_in_training_give_a_finite_perplexity(bundled: Corpus) -> None:
    unseen = torch.zeros(300, dtype=torch.int64)  # all <unk>, which no training text holds
    result, *_ = train_on(bundled, lr=1.0, epochs=1, val_tokens=unseen)
    assert result.val_perplexity is not None and result.val_perplexity > 28


def test_one_repeated_letter_is_learnt_to_perplexity_one(bundled: Corpus) -> None:
    loader = SeqDataLoader([1] * 700, 4, 10, True, random.Random(0))
    results = list(train(make_net(28), loader, bundled.vocab, 4.0, 10, "cpu"))
    assert 1.0 <= results[-1].train_perplexity < 1.01


def test_divergence_names_the_epoch_and_the_last_gradient_norms(bundled: Corpus) -> None:
    with pytest.raises(Diverged, match=r"exp\(nan\) is not finite in epoch 1; last") as caught:
        train_on(bundled, lr=1e38, epochs=5, theta=1e38)
    assert caught.value.epoch == 1
    assert len(caught.value.grad_norms) == 5
    assert math.isnan(caught.value.grad_norms[-1])


def test_a_perplexity_past_the_range_of_floats_is_divergence(bundled: Corpus) -> None:
    with pytest.raises(Diverged, match="train_perplexity = "):
        train_on(bundled, lr=1e5, epochs=5, theta=1e5)


@pytest.mark.parametrize(("lr", "theta"), [(1e-45, 1.0), (1.0, 1e-45), (1e-300, 1e-300)])
def test_vanishing_steps_leave_a_finite_perplexity(
    bundled: Corpus, lr: float, theta: float
) -> None:
    results = train_on(bundled, lr=lr, epochs=2, theta=theta)
    assert [r.train_perplexity for r in results] == pytest.approx([28.0, 28.0], rel=0.01)


@pytest.fixture(scope="module")
def trained(bundled: Corpus) -> RNNModelScratch:
    """A network that has learnt something: its training perplexity is about 5."""
    net = make_net(28, 64)
    for _ in range(60):
        train_epoch(net, batches(bundled, False), 1.0, "cpu", False)
    return net


def make_net(vocab_size: int, num_hiddens: int = 32) -> RNNModelScratch:
    """A network that every call makes alike."""

    def seeded(vocab_size: int, num_hiddens: int, device: torch.device) -> list[Tensor]:
        return get_params(vocab_size, num_hiddens, device, torch.Generator().manual_seed(0))

    return RNNModelScratch(vocab_size, num_hiddens, "cpu", seeded, init_rnn_state, rnn)


def batches(corpus: Corpus, use_random_iter: bool) -> SeqDataLoader:
    """Batches of (8, 20) of the first 3,000 tokens, the same for every call."""
    return SeqDataLoader(corpus.tokens[:3000], 8, 20, use_random_iter, random.Random(0))


def train_on(
    corpus: Corpus,
    lr: float,
    epochs: int,
    theta: float = 1.0,
    use_random_iter: bool = False,
    val_tokens: Tensor | None = None,
    name: StepName = "torch",
) -> list[EpochResult]:
    """All epochs of a small network on the first 3,000 tokens."""
    return list(
        train(
            make_net(28),
            batches(corpus, use_random_iter),
            corpus.vocab,
            lr,
            epochs,
            "cpu",
            use_random_iter,
            theta=theta,
            val_tokens=val_tokens,
            step=STEPS[name],
        )
    )


def states_seen(use_random_iter: bool) -> list[Tensor]:
    """The states that the network was given before each of three batches."""
    seen: list[Tensor] = []

    def iterate(
        params: Params, X: Tensor, Y: Tensor, state: State, buffers: Buffers
    ) -> tuple[Tensor, list[Tensor], State]:
        seen.append(state[0])
        return STEPS["reference"].iterate(params, X, Y, state, buffers)

    tokens = torch.arange(80).remainder(28)
    loader = list(SeqDataLoader(tokens, 2, 9, use_random_iter, random.Random(0)))[:3]
    step = Step(iterate, STEPS["reference"].forward)
    train_epoch(make_net(28), loader, 1.0, "cpu", use_random_iter, step=step)
    return seen


def with_grads(size: float) -> RNNModelScratch:
    """A network whose gradients have about this size each."""
    net = make_net(5)
    for i, param in enumerate(net.params):
        generator = torch.Generator().manual_seed(i)
        param.grad = torch.randn(param.shape, generator=generator) * size
    return net


def global_grad(net: RNNModelScratch) -> Tensor:
    return torch.cat([param.grad.flatten() for param in net.params if param.grad is not None])


@torch.no_grad()
def one_long_pass(net: RNNModelScratch, tokens: Tensor) -> float:
    """The mean loss of reading the whole text in one go."""
    logits, _ = net(tokens[None, :-1], net.begin_state(1, "cpu"))
    return float(nn.functional.cross_entropy(logits, tokens[1:]))


def chapter_train(
    net: RNNModelScratch, train_iter: SeqDataLoader, lr: float, num_epochs: int
) -> list[float]:
    """train_ch8, train_epoch_ch8, grad_clipping and d2l.sgd of d2l.ai; only timing is left out."""
    use_random_iter = train_iter.data_iter_fn.__name__ == "seq_data_iter_random"
    loss = nn.CrossEntropyLoss()
    perplexities = []
    for _ in range(num_epochs):
        state: tuple[Tensor] | None = None
        total, num_tokens = 0.0, 0
        for X, Y in train_iter:
            if state is None or use_random_iter:
                state = net.begin_state(batch_size=X.shape[0], device="cpu")
            else:
                for s in state:
                    s.detach_()
            y = Y.T.reshape(-1)
            y_hat, state = net(X, state)
            mean_loss = loss(y_hat, y.long()).mean()
            for param in net.params:
                param.grad = None
            mean_loss.backward()
            params = [param for param in net.params if param.requires_grad]
            grads = [param.grad for param in params if param.grad is not None]
            norm = torch.sqrt(torch.stack([torch.sum(grad**2) for grad in grads]).sum())
            if norm > 1:
                for grad in grads:
                    grad[:] *= 1 / norm
            with torch.no_grad():
                for param, grad in zip(params, grads, strict=True):
                    param -= lr * grad
            total += mean_loss.item() * y.numel()
            num_tokens += y.numel()
        perplexities.append(math.exp(total / num_tokens))
    return perplexities
