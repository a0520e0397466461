"""Where the text comes from: the book, the text shipped beside this file, or any UTF-8 file."""

import hashlib
import os
import re
import time
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal

import numpy as np
import platformdirs

from data.vocab import Vocab

TIMEMACHINE_URL = "http://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt"
TIMEMACHINE_SIZE = 178_979
# SHA-256 of the file whose SHA-1 d2l.ai gives as 090b5e7e70c295757f55df93cb0a180b9691891a.
TIMEMACHINE_SHA256 = "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516"
DOWNLOAD_TIMEOUT_S = 10.0
BUNDLED = Path(__file__).parent / "bundled.txt"

Cleaning = Literal["letters", "none"]


class CorpusError(ValueError):
    """A corpus that cannot be used; the message names the rule, the file and the next step."""


@dataclass(frozen=True)
class Corpus:
    """A text as token indices, with what is needed to know it again.

    name: `timemachine`, `bundled` or the path that was read. sha256: of the file's bytes.
    tokens: (num_tokens,), int64, already cut to `max_tokens`. vocab: of the whole text.
    notice: one line for the person where another text was asked for, else "".
    """

    name: str
    sha256: str
    tokens: np.ndarray
    vocab: Vocab
    notice: str = ""

    def split(self, val_fraction: float) -> tuple[np.ndarray, np.ndarray]:
        """The training tokens and the held-out tail, the last `val_fraction` of them."""
        num_train = len(self.tokens) - round(len(self.tokens) * val_fraction)
        return self.tokens[:num_train], self.tokens[num_train:]


def load_corpus(
    name: str, cleaning: Cleaning = "letters", max_tokens: int | None = None
) -> Corpus:
    """Read, clean and index a text: `timemachine`, `bundled` or a path to a UTF-8 file.

    The first `max_tokens` characters are kept (None: all). Where the book cannot be had, the
    bundled text takes its place and `notice` says so. Raises CorpusError for a path that is
    no regular file, is empty, is not UTF-8 or has nothing left after cleaning.
    """
    notice = ""
    if name == "timemachine":
        try:
            raw = _timemachine()
        except OSError as error:
            notice = f"The Time Machine cannot be had ({error}); using the bundled text instead"
            name, raw = "bundled", BUNDLED.read_bytes()
    elif name == "bundled":
        raw = BUNDLED.read_bytes()
    else:
        raw = _read_file(Path(name))
    text = clean(_decode(raw, name), cleaning)
    if not text:
        raise CorpusError(f"a corpus must hold text, but nothing is left of {name!r}: {cleaning=}")
    vocab = Vocab(text)
    tokens = np.array(vocab[list(text[:max_tokens])], dtype=np.int64)
    return Corpus(name, hashlib.sha256(raw).hexdigest(), tokens, vocab, notice)


def load_corpus_time_machine(max_tokens: int = -1) -> tuple[list[int], Vocab]:
    """The Time Machine as token indices, the first `max_tokens` of them (-1: all), and its Vocab.

    Source: d2l.ai, "Text Preprocessing". Raises OSError where the book cannot be had.
    """
    text = clean(_decode(_timemachine(), "timemachine"), "letters")
    vocab = Vocab(text)
    return vocab[list(text if max_tokens < 0 else text[:max_tokens])], vocab


def clean(text: str, cleaning: Cleaning) -> str:
    """`letters`: each line with all but letters as one space, stripped, lower; `none`: as it is.

    Lines end where Python's text files end them. Source: d2l.ai, "Text Preprocessing".
    """
    if cleaning == "none":
        return text
    lines = re.split(r"\r\n|\r|\n", text)
    return "".join(re.sub("[^A-Za-z]+", " ", line).strip().lower() for line in lines)


def cache_dir() -> Path:
    """Where the book is kept: `$RNN_SEARCH_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("RNN_SEARCH_CACHE") or platformdirs.user_cache_dir("rnn-search"))


def _timemachine() -> bytes:
    """The book from the cache, fetched into it once. Raises OSError where it cannot be had."""
    path = cache_dir() / "timemachine.txt"
    if path.is_file():
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() == TIMEMACHINE_SHA256:
            return raw
    raw = _download()
    if hashlib.sha256(raw).hexdigest() != TIMEMACHINE_SHA256:
        raise OSError(f"{TIMEMACHINE_URL} is not the book: its SHA-256 differs")
    _keep(path, raw)
    return raw


def _download() -> bytes:
    """What the book's address gives, bounded in size and time whatever the server does."""
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT_S
    raw = b""
    try:
        with urllib.request.urlopen(TIMEMACHINE_URL, timeout=DOWNLOAD_TIMEOUT_S) as response:
            while len(raw) <= TIMEMACHINE_SIZE and (part := response.read1(TIMEMACHINE_SIZE)):
                raw += part
                if time.monotonic() > deadline:  # the socket's time-out starts anew at each byte
                    raise TimeoutError("timed out")
    except HTTPException as error:  # no answer of HTTP's, so not an OSError
        raise OSError(f"{TIMEMACHINE_URL} gave no answer of HTTP: {error!r}") from error
    return raw


def _keep(path: Path, raw: bytes) -> None:
    """Put the book into the cache; a cache that cannot be written only costs the next fetch."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(raw)
        temporary.replace(path)
    except OSError:
        return


def _read_file(path: Path) -> bytes:
    try:
        if not path.is_file():  # a folder, a FIFO or a device would block or never end
            what = "is no regular file" if path.exists() else "does not exist"
            raise CorpusError(
                f"a corpus must be 'timemachine', 'bundled' or a text file, "
                f"but {str(path)!r} {what}"
            )
        return path.read_bytes()
    except OSError as error:
        raise CorpusError(f"a corpus must be readable, but got {error}") from error


def _decode(raw: bytes, name: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"a corpus must be UTF-8, but {name!r} has byte 0x{raw[error.start]:02x} "
            f"at offset {error.start}; convert it with: iconv -t UTF-8"
        ) from error
