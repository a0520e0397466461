"""The vocabulary: every text comes back from its indices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import Vocab


@given(st.text())
def test_a_text_comes_back_from_its_indices(text: str) -> None:
    vocab = Vocab(text)
    assert "".join(vocab.to_tokens(vocab[list(text)])) == text


@given(st.text())
def test_every_index_belongs_to_one_token(text: str) -> None:
    vocab = Vocab(text)
    assert len(vocab) == len(set(text)) + 1
    assert [vocab[token] for token in vocab.idx_to_token] == list(range(len(vocab)))


@given(st.text(), st.text(min_size=1, max_size=1))
def test_an_unseen_token_is_unknown(text: str, char: str) -> None:
    vocab = Vocab(text.replace(char, ""))
    assert vocab[char] == vocab.unk == 0
    assert vocab.to_tokens(0) == "<unk>"


@given(st.text())
def test_a_vocabulary_comes_back_from_its_tokens(text: str) -> None:
    vocab = Vocab(text)
    assert Vocab.from_tokens(vocab.idx_to_token).token_to_idx == vocab.token_to_idx


@pytest.mark.parametrize("tokens", [[], ["a"], ["a", "<unk>"], ["<unk>", "a", "a"]])
def test_no_vocabulary_is_made_of_a_wrong_list(tokens: list[str]) -> None:
    with pytest.raises(ValueError, match="must begin with '<unk>' and hold each token once"):
        Vocab.from_tokens(tokens)


def test_tokens_stand_by_falling_frequency() -> None:
    assert Vocab("abbccc").idx_to_token == ["<unk>", "c", "b", "a"]
    assert Vocab("abbccc").token_freqs == [("c", 3), ("b", 2), ("a", 1)]


def test_reserved_tokens_stand_before_the_text() -> None:
    assert Vocab("abb", reserved_tokens=["<pad>"]).idx_to_token == ["<unk>", "<pad>", "b", "a"]


def test_rare_tokens_stay_unknown() -> None:
    vocab = Vocab("abb", min_freq=2)
    assert vocab.idx_to_token == ["<unk>", "b"]
    assert vocab[["a", "b"]] == [0, 1]


def test_one_token_and_several_are_looked_up_alike() -> None:
    vocab = Vocab("ab")
    assert vocab[["a", "b"]] == [vocab["a"], vocab["b"]] == [1, 2]
    assert vocab.to_tokens([1, 2]) == [vocab.to_tokens(1), vocab.to_tokens(2)] == ["a", "b"]
