"""Real servers on loopback for a test: MLflow's, and others that show a search."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from search.lab_view import default_uri
from tests.search.stores import wait_for


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def serving(root: Path, *arguments: str, health: str = "health") -> Iterator[str]:
    """Run `mlflow ...` as its own group of processes until the block ends; gives its address."""
    with running(root, [sys.executable, "-m", "mlflow", *arguments], health) as address:
        yield address


@contextmanager
def running(root: Path, command: Sequence[str], health: str) -> Iterator[str]:
    """Run a server that takes `--port` until the block ends; gives its address."""
    port = free_port()
    # As in an activated environment: MLflow looks for uvicorn on the path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (root / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=root,
            env={**os.environ, "PATH": path},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_for(lambda: _answers(f"http://127.0.0.1:{port}/{health}"), timeout_s=90)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # the group that we started it in
            process.wait()


def server_arguments(root: Path) -> Sequence[str]:
    """`mlflow server` with one worker on the default store of a root folder."""
    return (
        "server",
        "--workers=1",
        f"--backend-store-uri={default_uri(root)}",
        f"--artifacts-destination={root / 'artifacts'}",
    )


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).ok
    except requests.ConnectionError:
        return False
