"""The text of a search: large enough, known again, and as workers get it."""

from typing import Any

from data.corpus import Corpus, CorpusError, load_corpus
from search.config import ConfigError, SearchConfig
from search.messages import TrainingData
from search.study import SearchStudy


def checked_corpus(config: SearchConfig) -> Corpus:
    """The config's text, large enough to train and to test on.

    Raises CorpusError or ConfigError, each with the key that would have to change.
    """
    data, train = config.data, config.train
    try:
        corpus = load_corpus(data.corpus, data.cleaning, data.max_tokens)
    except CorpusError as error:
        raise CorpusError(f"{error} (data.corpus)") from error
    train_tokens, val_tokens = corpus.split(data.val_fraction)
    # One batch, at the worst offset that the iterators may draw.
    needed = (train.batch_size + 1) * train.num_steps + 1
    if len(train_tokens) < needed:
        raise CorpusError(
            f"the training text must fill one batch, {needed} tokens for "
            f"train.batch_size={train.batch_size} and train.num_steps={train.num_steps}, but "
            f"{corpus.name!r} gives {len(train_tokens)} (data.corpus, data.max_tokens)"
        )
    if data.val_fraction > 0 and len(val_tokens) == 0:
        raise CorpusError(
            f"something must be held out, but data.val_fraction={data.val_fraction} of "
            f"{len(corpus.tokens)} tokens is none"
        )
    if not any(char in corpus.vocab.token_to_idx for char in train.prefix):
        raise ConfigError(
            f"`train.prefix` must hold a symbol of the text, but got {train.prefix!r}; "
            f"known: {''.join(corpus.vocab.idx_to_token[1:])!r:.80}"
        )
    return corpus


def training_data(config: SearchConfig, corpus: Corpus) -> TrainingData:
    """The text as trials get it."""
    num_train = len(corpus.split(config.data.val_fraction)[0])
    return TrainingData(
        corpus.name, corpus.sha256, corpus.tokens, num_train, corpus.vocab.idx_to_token
    )


def check_same_corpus(study: SearchStudy, corpus: Corpus) -> None:
    """Refuse to go on with a search on another text. Raises CorpusError with both digests."""
    kept, found = study.attrs["corpus"], describe_corpus(corpus)
    if kept != found:
        raise CorpusError(
            f"search {study.name!r} ran on {kept['name']} (SHA-256 {kept['sha256']}, "
            f"{kept['tokens']} tokens, {kept['vocab']} symbols), but now there is {found['name']} "
            f"(SHA-256 {found['sha256']}, {found['tokens']} tokens, {found['vocab']} symbols); "
            f"bring the text back, or start another search"
        )


def describe_corpus(corpus: Corpus) -> dict[str, Any]:
    """What a search keeps of its text."""
    return {
        "name": corpus.name,
        "sha256": corpus.sha256,
        "tokens": len(corpus.tokens),
        "vocab": len(corpus.vocab),
    }
