"""The registered model: `models:/rnn-char-lm@best` is the best there is on its text."""

import importlib.metadata
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from search.study import SearchStudy, value_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

NAME = "rnn-char-lm"
ALIAS = "best"
PROJECT = Path(__file__).parent.parent
PACKAGES = ("mlflow", "torch", "numpy", "safetensors", "platformdirs")
EXAMPLE = (["time traveller"], {"length": 50, "temperature": 0.0, "seed": 0})
SERVE = f"mlflow models serve -m models:/{NAME}@{ALIAS} --env-manager local"


def register_best(client: "MlflowClient", study: SearchStudy, run_id: str, artifacts: Any) -> bool:
    """Register the search's best trial where it beats all that compare with it; say whether.

    run_id, artifacts: the best trial's run and where its files go. What compares: models of the
    same text, as much of it held out, by the same metric. Costs 3 s of CPU, most of it
    the import of torch: MLflow loads the model and lets it write once before it keeps it. Raises
    what MLflow raises.
    """
    best = study.best()
    folder = study.checkpoint(best) if best else None
    if best is None or folder is None:
        return False
    value = value_of(best)
    assert value is not None
    rivals = [float(version.tags["value"]) for version in _rivals(client, study)]
    if min(rivals, default=float("inf")) <= value:
        return False
    with tempfile.TemporaryDirectory() as scratch:
        save_model(folder, Path(scratch) / "model")
        artifacts.log_artifacts(str(Path(scratch) / "model"), "model")
    tags = {**_terms(study), "value": repr(value), "search": study.name, "trial": str(best.number)}
    version = client.create_model_version(
        NAME, f"{artifacts.artifact_uri}/model", run_id, tags=tags, description=_describe(best)
    )
    client.set_registered_model_alias(NAME, ALIAS, version.version)
    return True


def save_model(weights: Path, target: Path) -> None:
    """Write one checkpoint as an MLflow model into `target`, a folder that is not there yet."""
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of the type hints of its own classes
        import mlflow.pyfunc

        for path in (weights, weights.with_suffix(".json")):
            shutil.copy(path, scratch)
        mlflow.pyfunc.save_model(
            target,
            python_model=str(PROJECT / "search" / "writer.py"),
            artifacts={"checkpoint": scratch},
            code_paths=[str(PROJECT / "model"), str(PROJECT / "data")],
            input_example=EXAMPLE,
            # Named here: to find them out, MLflow would load the model in another process.
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES],
        )


def _rivals(client: "MlflowClient", study: SearchStudy) -> "list[ModelVersion]":
    """The versions whose value means the same as this search's."""
    if not client.search_registered_models(f"name = '{NAME}'"):
        client.create_registered_model(NAME)
        return []
    terms = _terms(study).items()
    return [
        version
        for version in client.search_model_versions(f"name = '{NAME}'")
        if terms <= version.tags.items()
    ]


def _terms(study: SearchStudy) -> dict[str, str]:
    """What must be the same for two values to compare."""
    corpus = study.attrs["corpus"]
    return {
        "corpus_sha256": corpus["sha256"],
        "corpus_tokens": str(corpus["tokens"]),
        "corpus_vocab": str(corpus["vocab"]),
        "val_fraction": str(study.config.data.val_fraction),
        "metric": study.config.search.metric,
    }


def _describe(best: FrozenTrial) -> str:
    params = ", ".join(f"{key} {value}" for key, value in best.params.items())
    return f"Trial {best.number}: {params}. Serve it: `{SERVE}`"
