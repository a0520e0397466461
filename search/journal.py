"""The file under the study: Optuna's journal format, made safe against a kill at any instant.

The file stays what Optuna's own `JournalFileBackend` reads, so that every Optuna tool opens it.
Two things are added. A record cut short at the end is cut off before the file is used, where
Optuna would append behind it and spoil the file. And all that belongs together (a trial and its
parameters; a report's values, its rung and the trial's end) reaches the disk in one append, each
record but the last marked as having `more` behind it, so that after a kill, a power cut or a full
disk either all of it happened or none: nothing is pruned by half.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

MORE = b',"more":true}\n'  # how a record ends that belongs together with the next


class Journal(BaseJournalBackend):
    """A journal with one writer; the search's lock on its folder sees to that.

    read_only: for looking at a search that may run: nothing is cut off, and appending raises.
    lost_bytes: how much of an unfinished record was cut off when the file was opened.
    Raises OSError.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self.lost_bytes = 0 if read_only else _cut_to_last_record(path)
        self._file = path.open("rb" if read_only else "ab")
        self._replayed = False
        self._unread: list[dict[str, Any]] = []
        self._held: list[bytes] | None = None
        self._lock = threading.RLock()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The records from a number on: at first those of the file, then those appended since."""
        if not self._replayed:
            self._replayed = True
            self._unread.clear()
            content = self.path.read_bytes()
            whole = content[: whole_length(content)]  # the writer may be in the middle of one
            for number, line in enumerate(whole.splitlines()):
                if number >= log_number_from:
                    yield json.loads(line)
        with self._lock:
            unread, self._unread = self._unread, []
        yield from unread

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records and make them durable, now or at the end of the group they belong to."""
        with self._lock:
            lines = [json.dumps(log, separators=(",", ":")).encode() for log in logs]
            self._unread += [json.loads(line) for line in lines]
            if self._held is None:
                self._write(lines)
            else:
                self._held += lines

    @contextmanager
    def group(self) -> Iterator[None]:
        """Write all that is appended meanwhile as one, at the end; groups may nest.

        One thread makes groups; what another appends meanwhile is written with them.
        """
        with self._lock:
            outer, self._held = self._held, [] if self._held is None else self._held
        try:
            yield
        finally:
            if outer is None:
                with self._lock:
                    held, self._held = self._held or [], None
                    self._write(held)

    def settle(self) -> None:
        """Wait until all that could be read so far is on disk, where no kill can take it back."""
        while True:
            with self._lock:
                if self._held is None:
                    return
            time.sleep(0.001)

    def close(self) -> None:
        """Close the file; nothing can be appended after."""
        with self._lock:
            self._file.close()

    def _write(self, lines: list[bytes]) -> None:
        if lines:
            *others, last = lines
            self._file.write(b"".join(line[:-1] + MORE for line in others) + last + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())


def _cut_to_last_record(path: Path) -> int:
    """Cut the file after what is whole; give the number of bytes that went."""
    path.touch()
    with path.open("r+b") as file:
        content = file.read()
        whole = whole_length(content)
        file.truncate(whole)
    return len(content) - whole


def whole_length(content: bytes) -> int:
    """How much of a journal is whole: no record cut short, no group without its last record."""
    end = content.rfind(b"\n") + 1
    while content.endswith(MORE, 0, end):
        end = content.rfind(b"\n", 0, end - 1) + 1
    return end
