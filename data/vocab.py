"""The map between characters and the indices a model works with."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Self, overload


class Vocab:
    """Every token gets an index: `<unk>` is 0, then reserved tokens, then by falling frequency.

    tokens: the text as a flat sequence of tokens (a string counts as its characters).
    min_freq: tokens rarer than this stay unknown.
    Source: d2l.ai, "Text Preprocessing".
    """

    def __init__(
        self,
        tokens: Iterable[str] = (),
        min_freq: int = 0,
        reserved_tokens: Sequence[str] = (),
    ) -> None:
        self.token_freqs = Counter(tokens).most_common()
        frequent = [token for token, freq in self.token_freqs if freq >= min_freq]
        self.idx_to_token = list(dict.fromkeys(["<unk>", *reserved_tokens, *frequent]))
        self.token_to_idx = {token: idx for idx, token in enumerate(self.idx_to_token)}

    @classmethod
    def from_tokens(cls, idx_to_token: Sequence[str]) -> Self:
        """Rebuild a vocabulary from its list of tokens, as a checkpoint keeps it."""
        vocab = cls(reserved_tokens=idx_to_token[1:])
        if vocab.idx_to_token != list(idx_to_token):
            raise ValueError("a vocabulary must begin with '<unk>' and hold each token once")
        return vocab

    @property
    def unk(self) -> int:
        """The index of every token that is not in the vocabulary."""
        return 0

    def __len__(self) -> int:
        return len(self.idx_to_token)

    @overload
    def __getitem__(self, tokens: str) -> int: ...
    @overload
    def __getitem__(self, tokens: list[str]) -> list[int]: ...
    def __getitem__(self, tokens: str | list[str]) -> int | list[int]:
        """The index of one token, or the indices of a list of tokens; unknown ones are `unk`."""
        if isinstance(tokens, str):
            return self.token_to_idx.get(tokens, self.unk)
        return [self.token_to_idx.get(token, self.unk) for token in tokens]

    @overload
    def to_tokens(self, indices: int) -> str: ...
    @overload
    def to_tokens(self, indices: Iterable[int]) -> list[str]: ...
    def to_tokens(self, indices: int | Iterable[int]) -> str | list[str]:
        """The token of one index, or the tokens of several."""
        if isinstance(indices, int):
            return self.idx_to_token[indices]
        return [self.idx_to_token[idx] for idx in indices]
