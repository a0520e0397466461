"""Text from a model: warm-up, greedy steps, a temperature, a seed."""

import pytest
import torch
from torch import Tensor

from data import Vocab
from model import RNNModelScratch, get_params, init_rnn_state, predict, rnn
from model.step import STEPS, StepName

VOCAB = Vocab("abcdefgh")


def test_the_text_is_the_chapters(net: RNNModelScratch) -> None:
    assert predict("abba", 30, net, VOCAB, "cpu") == chapter_predict("abba", 30, net, VOCAB)


@pytest.mark.parametrize("name", sorted(STEPS))
def test_every_step_writes_the_same_text(net: RNNModelScratch, name: StepName) -> None:
    text = predict("abba", 30, net, VOCAB, "cpu", forward=STEPS[name].forward)
    assert text == predict("abba", 30, net, VOCAB, "cpu")


def test_the_prefix_stands_first_and_num_preds_follow(net: RNNModelScratch) -> None:
    assert predict("fade", 0, net, VOCAB, "cpu") == "fade"
    assert len(predict("fade", 7, net, VOCAB, "cpu").replace("<unk>", "?")) == 11
    assert predict("f", 7, net, VOCAB, "cpu").startswith("f")


def test_every_character_of_the_prefix_warms_the_state_up(net: RNNModelScratch) -> None:
    texts = {predict(prefix, 20, net, VOCAB, "cpu")[2:] for prefix in ("ah", "bh", "ch", "dh")}
    assert len(texts) > 1


def test_unknown_characters_are_read_as_unknown(net: RNNModelScratch) -> None:
    assert predict("a!", 3, net, VOCAB, "cpu").startswith("a<unk>")


def test_a_seed_gives_the_same_text_again(net: RNNModelScratch) -> None:
    def draw(seed: int) -> str:
        generator = torch.Generator().manual_seed(seed)
        return predict("a", 40, net, VOCAB, "cpu", temperature=1.0, generator=generator)

    assert draw(1) == draw(1) != draw(2)


def test_a_low_temperature_comes_near_to_greedy(net: RNNModelScratch) -> None:
    greedy = predict("a", 40, net, VOCAB, "cpu")
    assert predict("a", 40, net, VOCAB, "cpu", temperature=1e-6) == greedy


def test_a_high_temperature_draws_evenly(net: RNNModelScratch) -> None:
    generator = torch.Generator().manual_seed(0)
    text = predict("a", 200, net, VOCAB, "cpu", temperature=1e6, generator=generator)
    assert set(text.replace("<unk>", "")) == set("abcdefgh")


def test_no_gradients_are_left(net: RNNModelScratch) -> None:
    predict("a", 3, net, VOCAB, "cpu")
    assert all(param.grad is None for param in net.params)


def test_an_empty_prefix_and_a_negative_temperature_are_refused(net: RNNModelScratch) -> None:
    with pytest.raises(ValueError, match="`prefix` must hold at least one character"):
        predict("", 3, net, VOCAB, "cpu")
    with pytest.raises(ValueError, match="`temperature >= 0` must hold, but got -1"):
        predict("a", 3, net, VOCAB, "cpu", temperature=-1)


@pytest.fixture
def net() -> RNNModelScratch:
    """An untrained network whose weights are wide enough for its text to vary."""

    def wide(vocab_size: int, num_hiddens: int, device: torch.device) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        params = get_params(vocab_size, num_hiddens, device, generator)
        return [(param * 100).detach() for param in params]

    return RNNModelScratch(len(VOCAB), 16, "cpu", wide, init_rnn_state, rnn)


def chapter_predict(prefix: str, num_preds: int, net: RNNModelScratch, vocab: Vocab) -> str:
    """predict_ch8 of d2l.ai, "RNN from scratch", all but word for word."""
    state = net.begin_state(1, "cpu")
    outputs = [vocab[prefix[0]]]
    for y in prefix[1:]:
        _, state = net(torch.tensor([outputs[-1]]).reshape((1, 1)), state)
        outputs.append(vocab[y])
    for _ in range(num_preds):
        y_hat, state = net(torch.tensor([outputs[-1]]).reshape((1, 1)), state)
        outputs.append(int(y_hat.argmax(dim=1).reshape(1)))
    return "".join(vocab.to_tokens(outputs))
