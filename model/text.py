"""How a sample of text repeats itself and copies what the model was trained on; no torch.

Memorising is no writing: a low perplexity beside a high share of copied text shows which it was.
"""

from bisect import bisect
from functools import lru_cache

import numpy as np

GRAM = 4


def sample_repetition(text: str) -> float:
    """The share of the sample's 4-grams that stood in it before: 0 without any, near 1 in a loop.

    text: what the model wrote, without the prefix that it was given, which it did not choose.
    A text with fewer than two 4-grams repeats nothing.
    """
    grams = [text[i : i + GRAM] for i in range(len(text) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def sample_copied(text: str, corpus_text: str) -> float:
    """The longest run of the sample that stands verbatim in the training text, as its share.

    text: as for `sample_repetition`; a prefix from the book would count as copied. Chance alone
    copies some: in English, 6 to 10 characters in a row stand somewhere in a book.
    The first call for a text sorts its suffixes (0.1 s for 150,000 characters); the next ones
    look 64 characters up in 0.4 ms, where `in` on the text itself takes 2 to 8.
    """
    if not text or not corpus_text:
        return 0.0
    order = _suffixes(corpus_text, len(text))
    longest = 0
    for start in range(len(text)):
        rest = text[start:]
        place = bisect(order, rest, key=lambda at: corpus_text[at : at + len(text)])
        # Of all suffixes, those next to where `rest` would stand have most in common with it.
        for at in order[max(0, place - 1) : place + 1]:
            while longest < len(rest) and corpus_text.startswith(rest[: longest + 1], at):
                longest += 1
    return longest / len(text)


@lru_cache(maxsize=1)
def _suffixes(text: str, length: int) -> np.ndarray:
    """Where the suffixes of `text` begin, sorted by at least their first `length` characters.

    By prefix doubling: ranks by the first n characters, in pairs, give those by the first 2n.
    Returns (len(text),), int64.
    """
    rank = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64)
    width = 1
    while True:
        _, rank = np.unique(rank, return_inverse=True)
        if width >= length or rank.max() == len(text) - 1:
            return np.argsort(rank)
        following = np.zeros_like(rank)
        following[:-width] = rank[width:] + 1
        rank = rank * (len(text) + 1) + following
        width *= 2
