"""Where searches lie, runs/<name>/, and who holds one."""

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from search.config import NAME, ConfigError
from search.study import JOURNAL


def search_folder(root: Path, name: str | None, resume: bool = False) -> Path:
    """The folder of the search that is meant: named, the latest to `resume`, or a new one's.

    Raises ConfigError for a name that is no plain folder name, or where there is no latest.
    """
    runs = root / "runs"
    if name is not None:
        if not re.fullmatch(NAME, name):
            raise ConfigError(
                "`--name` must be letters, digits, '.', '_' and '-', beginning with a letter or "
                f"digit, at most 100, but got {name!r:.120}"
            )
        return runs / name
    if resume:
        return latest_search(root)
    return runs / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def latest_search(root: Path) -> Path:
    """The folder of the search whose study changed last. Raises ConfigError without one."""
    journals = list((root / "runs").glob(f"*/{JOURNAL}"))
    if not journals:
        raise ConfigError(
            f"there is no search in {root / 'runs'} yet; "
            "start one: python search/run.py --trials 64"
        )
    return max(journals, key=lambda path: path.stat().st_mtime).parent


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a search's folder; the lock goes with the process, however it ends.

    Raises ConfigError that names the holder.
    """
    holder = folder / "holder.json"
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"search {folder.name!r} is in use by {_read_holder(holder)}; wait for it, or stop it"
        ) from error
    try:
        me = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().isoformat(),
        }
        holder.write_text(json.dumps(me))
        yield
        holder.unlink(missing_ok=True)
    finally:
        lock.release()


def _read_holder(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text())
        return f"process {found['pid']} on {found['host']} since {found['since'][:19]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
