"""MLflow may be away, stall, break off or answer nonsense: the search goes on, nothing is lost."""

import random
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient

from search.lab_view import default_uri
from search.messages import Report
from search.study import SearchStudy
from search.tracking import Tracker
from tests.search.servers import free_port, server_arguments, serving
from tests.search.stores import (
    bring,
    children,
    new_store,
    new_study,
    parents,
    rows,
    run_trial,
    steps,
    wait_for,
)


@pytest.fixture
def study(tmp_path: Path) -> Iterator[SearchStudy]:
    study = new_study(tmp_path)
    yield study
    study.close()


def point_at(study: SearchStudy, port: int) -> None:
    """Let the search track to a server on loopback."""
    uri = {"uri": f"http://127.0.0.1:{port}"}
    tracking = study.config.tracking.model_copy(update=uri)
    study.config = study.config.model_copy(update={"tracking": tracking})


def test_a_server_that_is_away_is_told_once_and_costs_no_time_at_the_end(
    study: SearchStudy, tmp_path: Path
) -> None:
    point_at(study, free_port())
    lines: list[str] = []
    tracker = Tracker(study, tmp_path, lines.append)
    tracker.start()
    tracker.touch(run_trial(study))
    tracker.touch(0)
    wait_for(lambda: lines)
    started = time.monotonic()
    assert not tracker.close(30)
    assert time.monotonic() - started < 10
    assert len(lines) == 1 and "the search goes on" in lines[0]


def test_a_server_that_stalls_does_not_hold_the_search(study: SearchStudy, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stalling:  # takes connections, never answers
        point_at(study, stalling.getsockname()[1])
        tracker = Tracker(study, tmp_path, lambda line: None)
        tracker.start()
        started = time.monotonic()
        tracker.touch(run_trial(study))
        assert not tracker.close(1)
        assert time.monotonic() - started < 3


def test_what_waited_for_an_absent_server_is_brought_by_the_next_session(
    study: SearchStudy, tmp_path: Path
) -> None:
    point_at(study, free_port())
    run_trial(study)
    tracker = Tracker(study, tmp_path, lambda line: None)
    tracker.start()
    assert not tracker.close(20)
    client = new_store(tmp_path)
    tracking = study.config.tracking.model_copy(update={"uri": default_uri(tmp_path)})
    study.config = study.config.model_copy(update={"tracking": tracking})
    bring(study, tmp_path)
    assert [steps(client, run) for run in children(client)] == [list(range(1, 9))]


class Unreliable(ThreadingHTTPServer):
    """Hands requests on to a server and loses one answer in twelve, as a 500 or as a reset."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.random = target, random.Random(0)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: what breaks here was broken on purpose."""


class _Handler(BaseHTTPRequestHandler):
    server: Unreliable

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {key: value for key, value in self.headers.items() if key != "Host"}
        answer = requests.request(
            self.command, self.server.target + self.path, data=body, headers=headers, timeout=20
        )
        turn = self.server.random.randrange(24)
        if turn == 1:  # it was done, but the client never hears of it
            self.connection.close()
            return
        self.send_response(500 if turn == 0 else answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = do_PUT = do_PATCH = _hand_on

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_lost_answers_neither_double_nor_lose_anything(
    study: SearchStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.tracking.RETRY_S", 0.1)
    new_store(tmp_path)
    for _ in range(2):
        run_trial(study)
    study.report(study.ask().number, Report(rows(1, 3)))
    study.interrupt()
    with serving(tmp_path, *server_arguments(tmp_path)) as address, Unreliable(address) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        point_at(study, proxy.server_address[1])
        for _ in range(40):  # each session gets a little further
            tracker = Tracker(study, tmp_path, lambda line: None)
            tracker.start()
            if tracker.close(60):
                break
        else:
            pytest.fail(f"never brought: {tracker.error}")
        proxy.shutdown()
        client = MlflowClient(tracking_uri=address)
        assert [steps(client, run) for run in children(client)] == [
            list(range(1, last + 1)) for last in (8, 8, 3)
        ]
        assert [run.info.status for run in children(client)] == ["FINISHED"] * 2 + ["KILLED"]
        assert len(parents(client)) == 1
        assert client.list_artifacts(children(client)[0].info.run_id)[0].path == "sample_text.json"
