"""Text in, batches out. Knows neither the model nor the search."""

from data.batches import (
    SeqDataLoader,
    load_data_time_machine,
    seq_data_iter_random,
    seq_data_iter_sequential,
)
from data.corpus import Corpus, CorpusError, load_corpus, load_corpus_time_machine
from data.vocab import Vocab

__all__ = [
    "Corpus",
    "CorpusError",
    "SeqDataLoader",
    "Vocab",
    "load_corpus",
    "load_corpus_time_machine",
    "load_data_time_machine",
    "seq_data_iter_random",
    "seq_data_iter_sequential",
]
