"""Steps, validation and text against the chapter's, one thread, in one process, interleaved."""

from collections.abc import Callable, Iterator
from functools import partial

import chapter
import pytest
import torch
from conftest import Figures
from timing import interleave, show
from torch import Tensor, nn
from torch.nn import functional as F

from data import Vocab, load_corpus
from model import RNNModelScratch, predict
from model.step import STEPS as TORCH_STEPS
from model.step import choose_step
from model.train import EVAL_ROWS, EVAL_STEPS, evaluate, train_epoch

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

VOCAB_SIZE, BATCH_SIZE, NUM_STEPS = 28, 32, 35
NUM_BATCHES = 4  # in an epoch that is timed
NUM_VAL_TOKENS = 17_000
GEMM_SIZE = 2048

# The native step comes first where it can be had.
FASTEST, FASTEST_STEP, _ = choose_step("auto", "cpu")
STEPS = {FASTEST: FASTEST_STEP, **TORCH_STEPS}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread, as a trial has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_batches() -> list[tuple[Tensor, Tensor]]:
    """Symbols of (BATCH_SIZE, NUM_STEPS), NUM_BATCHES times."""
    shape = (NUM_BATCHES, 2, BATCH_SIZE, NUM_STEPS)
    return [(X, Y) for X, Y in torch.randint(VOCAB_SIZE, shape)]


def epochs(num_hiddens: int) -> dict[str, Callable[[], object]]:
    """A short epoch of the chapter's, and one by each step of the project."""
    batches, lr, theta = random_batches(), 0.1, 1.0

    def net() -> RNNModelScratch:
        return chapter.make_net(VOCAB_SIZE, num_hiddens)

    ours: dict[str, Callable[[], object]] = {
        name: partial(train_epoch, net(), batches, lr, "cpu", True, theta, step)
        for name, step in STEPS.items()
    }
    return {"chapter": partial(chapter.train_epoch, net(), batches, lr, theta, True), **ours}


def test_step_times_against_the_chapter(figures: Figures) -> None:
    rows = []
    for num_hiddens in (64, 128, 256, 512, 1024):
        seconds = interleave(epochs(num_hiddens), num_rounds=9)
        row: dict[str, float] = {"hidden units": num_hiddens}
        row |= {f"{name} ms": value / NUM_BATCHES * 1000 for name, value in seconds.items()}
        row |= {f"{name} x": seconds["chapter"] / seconds[name] for name in STEPS}
        rows.append(row)
    show("A training iteration, and how many times the chapter's speed", rows)
    figures["step"] = rows


def test_share_of_the_peak_at_512_units(figures: Figures) -> None:
    num_hiddens = 512
    A, B = torch.rand(2, GEMM_SIZE, GEMM_SIZE)
    out = torch.empty_like(A)
    variants = {"gemm": lambda: torch.mm(A, B, out=out), **epochs(num_hiddens)}
    seconds = interleave(variants, num_rounds=9)
    peak = 2 * GEMM_SIZE**3 / seconds["gemm"]
    # Two products forward, each with two more backward; the one-hot product is a gather.
    flops = 6 * BATCH_SIZE * NUM_STEPS * num_hiddens * (num_hiddens + VOCAB_SIZE) * NUM_BATCHES
    rows = [
        {"step": name, "GFLOP/s": rate / 1e9, "share": rate / peak}
        for name, rate in ((name, flops / seconds[name]) for name in ("chapter", *STEPS))
    ]
    show(f"Share of the FMA peak at 512 units (a large GEMM: {peak / 1e9:.0f} GFLOP/s)", rows)
    figures["peak"] = {"gflops": peak / 1e9, "steps": rows}


class LibraryRNN(nn.Module):
    """What torch itself offers: nn.RNN and nn.Linear."""

    def __init__(self, num_hiddens: int) -> None:
        super().__init__()
        self.rnn, self.out = nn.RNN(VOCAB_SIZE, num_hiddens), nn.Linear(num_hiddens, VOCAB_SIZE)

    @torch.no_grad()
    def evaluate(self, tokens: Tensor) -> float:
        """The mean loss over as many rows and steps at a time as the project's `evaluate`."""
        length = (len(tokens) - 1) // EVAL_ROWS
        Xs = tokens[: EVAL_ROWS * length].view(EVAL_ROWS, length).T
        Ys = tokens[1 : EVAL_ROWS * length + 1].view(EVAL_ROWS, length).T
        total, H = 0.0, None
        for X, Y in zip(torch.split(Xs, EVAL_STEPS), torch.split(Ys, EVAL_STEPS), strict=True):
            states, H = self.rnn(F.one_hot(X, VOCAB_SIZE).float(), H)
            logits = self.out(states).flatten(0, 1)
            total += float(F.cross_entropy(logits, Y.reshape(-1), reduction="sum"))
        return total / Ys.numel()


def test_validation_against_torchs_own_rnn(figures: Figures) -> None:
    tokens = torch.randint(VOCAB_SIZE, (NUM_VAL_TOKENS + 1,))
    net, library = chapter.make_net(VOCAB_SIZE, 512), LibraryRNN(512)
    variants: dict[str, Callable[[], object]] = {"nn.RNN": partial(library.evaluate, tokens)}
    variants |= {name: partial(evaluate, net, tokens, step) for name, step in STEPS.items()}
    _show_milliseconds("validation", "17,000 tokens at 512 units", variants, "nn.RNN", figures)


def test_sample_text_against_the_chapter(figures: Figures) -> None:
    vocab: Vocab = load_corpus("bundled").vocab
    net, prefix = chapter.make_net(len(vocab), 512), "time traveller"
    variants: dict[str, Callable[[], object]] = {
        "chapter": partial(chapter.predict, prefix, 50, net, vocab)
    }
    variants |= {
        name: partial(predict, prefix, 50, net, vocab, "cpu", forward=step.forward)
        for name, step in STEPS.items()
    }
    _show_milliseconds("sample", "50 characters at 512 units", variants, "chapter", figures)


def _show_milliseconds(
    name: str,
    title: str,
    variants: dict[str, Callable[[], object]],
    yardstick: str,
    figures: Figures,
) -> None:
    seconds = interleave(variants, num_rounds=15, num_calls=3)
    rows = [
        {"way": way, "ms": value * 1000, "times as fast": seconds[yardstick] / value}
        for way, value in seconds.items()
    ]
    show(title, rows)
    figures[name] = rows
