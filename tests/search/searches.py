"""Searches for the tests of what shows one: real studies, whose trials trained nothing."""

from pathlib import Path
from typing import Any

from search.config import build_config
from search.messages import Report, Row
from search.study import SearchStudy, create_study

HOSTILE = "</script><script>document.title='run'</script><img src=x onerror=alert(1)>\x1b[31m"
ATTRS: dict[str, Any] = {
    "search_id": "0",
    "corpus": {"name": "bundled", "sha256": "0" * 64, "tokens": 24000, "vocab": 28},
    "command": "python search/run.py",
    "versions": {"optuna": "5"},
}


def row(epoch: int, value: float, text: str = "time traveller and the") -> Row:
    """What a worker tells of an epoch."""
    return {
        "epoch": epoch,
        "train_perplexity": value,
        "val_perplexity": value,
        "sample_text": text,
        "sample_repetition": 0.25,
        "sample_copied": 0.5,
        "time": 0,
    }


def make_search(
    folder: Path,
    num_trials: int,
    max_epochs: int = 4,
    text: str = "time traveller and the",
    **space: Any,
) -> SearchStudy:
    """A search whose trials reported: the later, the better; each fourth one diverged."""
    folder.mkdir(parents=True)
    values = {
        "train": {"max_epochs": max_epochs},
        "search": {"trials": max(1, num_trials), "sampler": "random", "pruner": "median"},
        "space": space,
    }
    study = create_study(folder, build_config(values), ATTRS)
    for number in range(num_trials):
        study.ask()
        for epoch in range(1, max_epochs + 1):
            diverged = "not finite" if number % 4 == 3 and epoch == 2 else None
            value = 20.0 / epoch + (number % 5)
            done = epoch == max_epochs or diverged is not None
            if study.report(number, Report([row(epoch, value, text)], done, diverged)):
                break
    return study
