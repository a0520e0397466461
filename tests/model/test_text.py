import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.text import sample_copied, sample_repetition


def longest_run(text: str, corpus_text: str) -> int:
    """The definition, in so many words."""
    spans = [(a, b) for a in range(len(text)) for b in range(a, len(text) + 1)]
    return max((b - a for a, b in spans if text[a:b] in corpus_text), default=0)


def test_a_loop_repeats_all_but_its_first_round() -> None:
    assert sample_repetition("the " * 16) == pytest.approx(1 - 4 / 61)


def test_text_without_a_4_gram_twice_repeats_nothing() -> None:
    assert sample_repetition("abcdefghij") == 0.0


@pytest.mark.parametrize("text", ["", "a", "aaa", "aaaa"])
def test_fewer_than_two_4_grams_repeat_nothing(text: str) -> None:
    assert sample_repetition(text) == 0.0


def test_a_piece_of_the_corpus_is_copied_whole() -> None:
    corpus_text = "the time traveller for so it will be convenient to speak of him"
    assert sample_copied("for so it will be", corpus_text) == 1.0


def test_the_longest_run_counts_and_not_the_first() -> None:
    assert sample_copied("ab--cdefg-", "xabxcdefgx") == 0.5


@pytest.mark.parametrize(("text", "corpus_text"), [("", "abc"), ("abc", ""), ("xyz", "abc")])
def test_where_nothing_is_shared_nothing_is_copied(text: str, corpus_text: str) -> None:
    assert sample_copied(text, corpus_text) == 0.0


@given(st.text("abé\U0001f600", max_size=12), st.text("abé\U0001f600", max_size=40))
def test_copied_equals_the_search_for_every_substring(text: str, corpus_text: str) -> None:
    expected = longest_run(text, corpus_text) / len(text) if text else 0.0
    assert sample_copied(text, corpus_text) == expected


def test_the_corpus_of_one_letter_is_no_special_case() -> None:
    assert sample_copied("a" * 64 + "b" * 64, "a" * 5000) == 0.5


def test_nothing_of_torch_is_needed() -> None:
    code = "import sys; sys.modules['torch'] = None; import runpy; runpy.run_path('model/text.py')"
    subprocess.run([sys.executable, "-c", code], check=True)
