"""Any bytes become a corpus or one CorpusError; the book is fetched once, bounded, and checked."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import data.corpus
from data import Corpus, CorpusError, load_corpus, load_corpus_time_machine
from data.corpus import cache_dir, clean

FALLBACK = "cannot be had"
Answer = Callable[[BaseHTTPRequestHandler], object]


def test_the_book_has_the_chapters_tokens_and_symbols(book: Corpus) -> None:
    assert (len(book.tokens), len(book.vocab)) == (170_580, 28)
    assert book.vocab.idx_to_token[:5] == ["<unk>", " ", "e", "t", "a"]
    assert book.sha256 == "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516"


def test_the_book_has_the_digest_that_d2l_gives(book: Corpus) -> None:
    raw = (cache_dir() / "timemachine.txt").read_bytes()
    assert hashlib.sha1(raw).hexdigest() == "090b5e7e70c295757f55df93cb0a180b9691891a"


def test_the_chapters_loader_gives_the_same_book(book: Corpus) -> None:
    tokens, vocab = load_corpus_time_machine()
    assert tokens == book.tokens.tolist()
    assert vocab.idx_to_token == book.vocab.idx_to_token
    assert load_corpus_time_machine(max_tokens=100)[0] == tokens[:100]


def test_the_bundled_text_is_long_enough_and_plain(bundled: Corpus) -> None:
    assert len(bundled.tokens) >= 24_000
    assert len(bundled.vocab) == 28
    assert bundled.notice == ""


def test_the_first_tokens_are_kept_and_the_vocabulary_is_of_all(bundled: Corpus) -> None:
    first = load_corpus("bundled", max_tokens=100)
    assert np.array_equal(first.tokens, bundled.tokens[:100])
    assert first.vocab.idx_to_token == bundled.vocab.idx_to_token


@given(st.integers(1, 500), st.floats(0, 0.99))
def test_the_held_out_part_is_the_tail(num_tokens: int, val_fraction: float) -> None:
    corpus = load_corpus("bundled", max_tokens=num_tokens)
    train, val = corpus.split(val_fraction)
    assert np.array_equal(np.concatenate([train, val]), corpus.tokens)
    assert len(val) == round(num_tokens * val_fraction)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("The Time-Machine, by\nH. G. Wells [1898]", "the time machine byh g wells"),
        ("one\r\ntwo\rthree\nfour", "onetwothreefour"),
        ("tab\tand  spaces ", "tab and spaces"),
        ("caf\u00e9 \x00\x1b[31m", "caf m"),
        ("a\x0bb\x0cc\u2028d", "a b c d"),  # line ends to str.splitlines, but not to a file
    ],
)
def test_letters_are_cleaned_as_the_chapter_does(text: str, cleaned: str) -> None:
    assert clean(text, "letters") == cleaned


@given(st.binary(max_size=300))
def test_any_bytes_are_a_corpus_or_a_corpus_error(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "any.txt"
    path.write_bytes(raw)
    for cleaning in ("letters", "none"):
        try:
            corpus = load_corpus(str(path), cleaning)
        except CorpusError as error:
            assert "\n" not in str(error)
            continue
        assert corpus.sha256 == hashlib.sha256(raw).hexdigest()
        assert 0 < corpus.tokens.min() and corpus.tokens.max() < len(corpus.vocab)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufeff"), min_size=1))
def test_uncleaned_text_keeps_every_character(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.txt"
    path.write_bytes(text.encode())
    corpus = load_corpus(str(path), "none")
    assert "".join(corpus.vocab.to_tokens(corpus.tokens.tolist())) == text


@pytest.mark.parametrize(
    ("raw", "num_tokens", "num_symbols"),
    [
        (b"x", 1, 2),
        (b"aaaaaaaa", 8, 2),
        (b"\xef\xbb\xbfab", 2, 3),  # a byte order mark is no character of the text
        (b"a\x00b", 3, 4),
        (b"a\r\nb\rc\nd", 8, 7),
    ],
)
def test_odd_text_is_text(tmp_path: Path, raw: bytes, num_tokens: int, num_symbols: int) -> None:
    path = tmp_path / "odd.txt"
    path.write_bytes(raw)
    corpus = load_corpus(str(path), "none")
    assert (len(corpus.tokens), len(corpus.vocab)) == (num_tokens, num_symbols)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "nothing is left"),
        (b"\xef\xbb\xbf", "nothing is left"),
        (b"12345 !?", "nothing is left"),
        (b"fine until \xff", "must be UTF-8, but .* has byte 0xff at offset 11"),
        ("caf\u00e9".encode("latin-1"), "iconv -t UTF-8"),
        ("text".encode("utf-16"), "must be UTF-8"),
    ],
)
def test_a_file_without_text_is_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "wrong.txt"
    path.write_bytes(raw)
    with pytest.raises(CorpusError, match=message):
        load_corpus(str(path))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("fifo", "loop", "missing", ".", "x" * 300, "nul\0"):
        with pytest.raises(CorpusError):
            load_corpus(str(tmp_path / name))
    with pytest.raises(CorpusError, match="is no regular file"):
        load_corpus("/dev/zero")


def test_50_megabytes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "big.txt"
    path.write_bytes(b"It was a dark night, and all of them were cold. \n" * 1_020_000)
    corpus = load_corpus(str(path), "none", max_tokens=1000)
    assert path.stat().st_size > 49_000_000
    assert len(corpus.tokens) == 1000


def test_the_book_is_fetched_once_and_kept(
    book: Corpus, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    raw = (cache_dir() / "timemachine.txt").read_bytes()
    monkeypatch.setenv("RNN_SEARCH_CACHE", str(cache))
    with serve(monkeypatch, lambda request: request.wfile.write(raw)) as requests:
        for _ in range(2):
            assert load_corpus("timemachine").sha256 == book.sha256
    assert len(requests) == 1
    assert [path.name for path in cache.iterdir()] == ["timemachine.txt"]


def test_a_wrong_file_is_not_taken_for_the_book(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(monkeypatch, lambda request: request.wfile.write(b"Log in to this network")):
        corpus = load_corpus("timemachine")
    assert corpus.name == "bundled"
    assert "its SHA-256 differs" in corpus.notice
    assert not cache.exists()


def test_a_spoilt_cache_is_not_taken_for_the_book(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    (cache / "timemachine.txt").write_text("spoilt")
    with serve(monkeypatch, lambda request: None, status=b"HTTP/1.0 404 Gone\r\n\r\n"):
        corpus = load_corpus("timemachine")
    assert corpus.name == "bundled"
    assert "HTTP Error 404" in corpus.notice


def test_no_more_is_read_than_the_book_is_long(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        while True:  # until the reader closes the connection
            request.wfile.write(b"x" * 65536)

    with serve(monkeypatch, endless):
        assert load_corpus("timemachine").name == "bundled"


def test_a_silent_or_dripping_server_is_left_after_the_time_out(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        for _ in range(40):
            request.wfile.write(b"x")
            time.sleep(0.05)

    monkeypatch.setattr(data.corpus, "DOWNLOAD_TIMEOUT_S", 0.3)
    for answer in (drip, lambda request: time.sleep(0.6)):
        with serve(monkeypatch, answer):
            assert "timed out" in load_corpus("timemachine").notice


@pytest.mark.parametrize(
    "status",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.0 500 Broken\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.0 302 Found\r\nLocation: http://host:port/\r\n\r\n",
    ],
)
def test_whatever_a_server_answers_the_bundled_text_is_left(
    cache: Path, monkeypatch: pytest.MonkeyPatch, status: bytes
) -> None:
    with serve(monkeypatch, lambda request: None, status):
        assert FALLBACK in load_corpus("timemachine").notice


def test_a_cache_that_cannot_be_written_is_no_error(
    book: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = (cache_dir() / "timemachine.txt").read_bytes()
    (tmp_path / "file").touch()
    monkeypatch.setenv("RNN_SEARCH_CACHE", str(tmp_path / "file" / "below"))
    with serve(monkeypatch, lambda request: request.wfile.write(raw)):
        assert load_corpus("timemachine").sha256 == book.sha256


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, so that the book would have to be fetched."""
    monkeypatch.setenv("RNN_SEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@contextmanager
def serve(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, status: bytes = b"HTTP/1.0 200 OK\r\n\r\n"
) -> Iterator[list[str]]:
    """A server on loopback in the place of the book's; gives the list of paths asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            try:
                self.wfile.write(status)
                answer(self)
            except OSError:
                return  # the reader had enough

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the tests' output is for their failures."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        host, port = "127.0.0.1", server.server_address[1]
        monkeypatch.setattr(data.corpus, "TIMEMACHINE_URL", f"http://{host}:{port}/book.txt")
        yield paths
        server.shutdown()
        thread.join()
