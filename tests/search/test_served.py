"""The winner is registered, loads without a pickle, and answers over HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
import torch
from mlflow import MlflowClient

from data import load_corpus
from model import get_params
from model.checkpoint import Checkpoint, save_checkpoint
from search.lab_view import default_uri
from search.messages import Report
from search.study import SearchStudy
from tests.search.servers import serving
from tests.search.stores import bring, new_store, new_study, rows

NAMES = ("W_xh", "W_hh", "b_h", "W_hq", "b_q")


def complete_with_weights(study: SearchStudy, value: float) -> None:
    """Complete a trial that leaves a real checkpoint of 8 hidden units."""
    number = study.ask().number
    vocab = load_corpus("bundled").vocab.idx_to_token
    params = get_params(len(vocab), 8, "cpu", torch.Generator().manual_seed(number))
    tensors = dict(zip(NAMES, (param.detach() for param in params), strict=True))
    save_checkpoint(study.trial_folder(number), Checkpoint(8, tensors, {"vocab": vocab}))
    checkpoints = {"best": 8, "latest": 8}
    study.report(number, Report(rows(1, 8, value), done=True, checkpoints=checkpoints))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SearchStudy]:
    """A finished search of one trial; MLflow's global functions look at its store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", default_uri(tmp_path))
    study = new_study(tmp_path, "search.trials=1")
    complete_with_weights(study, 9)
    yield study
    study.close()


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    return new_store(tmp_path)


def more(study: SearchStudy, value: float) -> None:
    """Add a trial to the search."""
    search = study.config.search.model_copy(update={"trials": study.config.search.trials + 1})
    study.config = study.config.model_copy(update={"search": search})
    complete_with_weights(study, value)


def num_tokens(text: str) -> int:
    """The length of a text in which untrained weights write the unknown symbol too."""
    return len(text.replace("<unk>", "?"))


def best_version(client: MlflowClient) -> Any:
    """The version that the alias stands for."""
    return client.get_model_version_by_alias("rnn-char-lm", "best")


def test_the_best_trial_of_a_finished_search_is_registered(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    bring(study, tmp_path)
    version = best_version(client)
    assert version.tags["trial"] == "0" and float(version.tags["value"]) == pytest.approx(8.2)


def test_only_a_better_trial_takes_the_place_of_the_registered_one(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    bring(study, tmp_path)
    more(study, 10)
    bring(study, tmp_path)
    assert int(best_version(client).version) == 1
    more(study, 8)
    bring(study, tmp_path)
    assert best_version(client).tags["trial"] == "2"


def test_the_registered_model_writes_the_same_text_for_the_same_seed(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    bring(study, tmp_path)
    model = mlflow.pyfunc.load_model("models:/rnn-char-lm@best")
    prefix = ["time traveller"]
    params = {"length": 20, "temperature": 1.0, "seed": 3}
    (text,) = model.predict(prefix, params)
    assert num_tokens(text) == len("time traveller") + 20
    assert model.predict(prefix, params) == [text]
    assert model.predict(prefix, {**params, "seed": 4}) != [text]


def test_the_registered_model_holds_no_pickle(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    bring(study, tmp_path)
    files = [path for path in (tmp_path / "mlruns").rglob("model/**/*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pkl", ".pt", ".pth")]
    assert {"writer.py", "epoch-00008.safetensors"} <= {path.name for path in files}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_registered_model_answers_over_http(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    bring(study, tmp_path)
    arguments = ("models", "serve", "-m", "models:/rnn-char-lm@best", "--env-manager", "local")
    asked: dict[str, Any] = {
        "inputs": ["time", "the"],
        "params": {"length": 5, "temperature": 0.5, "seed": 1},
    }
    with serving(tmp_path, *arguments, health="ping") as address:
        answer = requests.post(f"{address}/invocations", json=asked, timeout=60)
    texts = json.loads(answer.text)["predictions"]
    assert [num_tokens(text) for text in texts] == [9, 8]
