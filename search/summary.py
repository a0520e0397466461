"""What is said of a search: at its start, at its end, and as JSON."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.corpus import Corpus
from search.study import SearchStudy, count_states, rows_of
from search.texts import describe_corpus
from search.tracking import Tracker
from search.view import View


def summarize(
    study: SearchStudy,
    corpus: Corpus,
    tracker: Tracker,
    wall_s: float,
    train_s: float,
    num_workers: int,
) -> dict[str, Any]:
    """The search in plain values: what `--json` prints.

    wall_s and train_s (seconds in training steps, all workers together) are this session's.
    """
    metric = study.config.search.metric
    best = study.best()
    found: dict[str, Any] | None = None
    if best is not None:
        rows = rows_of(best)
        row = min(rows, key=lambda row: (row[metric], row["epoch"]))
        checkpoint = study.checkpoint(best)
        found = {
            "trial": best.number,
            metric: row[metric],
            "params": best.params,
            "checkpoint": str(checkpoint) if checkpoint else None,
            "sample_text": row["sample_text"],
            "mlflow_run_id": tracker.run_id(best.number),
        }
    return {
        "search": study.name,
        "trials": count_states(study.trials()),
        "best": found,
        "corpus": describe_corpus(corpus),
        "wall_s": round(wall_s, 3),
        "train_s": round(train_s, 3),
        "workers": num_workers,
    }


def greeting(study: SearchStudy, corpus: Corpus, num_workers: int) -> Iterator[str]:
    """What is said before the first trial."""
    if corpus.notice:
        yield corpus.notice
    if study.journal.lost_bytes:
        yield (
            f"{study.journal.path}: {study.journal.lost_bytes} bytes of an unfinished record were "
            f"cut off; {len(study.trials())} trials recovered"
        )
    yield (
        f"search {study.name}: {study.config.search.trials} trials, {num_workers} at a time, on "
        f"{corpus.name} ({len(corpus.tokens)} tokens, {len(corpus.vocab)} symbols)"
    )
    for name, count in study.attrs.get("warm_start", {}).items():
        left_out = f"; {count['left_out']} lie outside the space" if count["left_out"] else ""
        yield f"warm start: {count['taken']} trials of search {name}{left_out}"


def tell(
    view: View, study: SearchStudy, summary: dict[str, Any], tracker: Tracker, root: Path
) -> None:
    """Say how the search ended and how to go on."""
    counts = summary["trials"]
    unfinished = f", {counts['RUNNING']} to go on with" if counts["RUNNING"] else ""
    view.say(
        f"{counts['COMPLETE']} complete, {counts['PRUNED']} pruned, {counts['FAIL']} failed"
        f"{unfinished}; {summary['wall_s']:.0f} s, "
        f"{summary['train_s'] / (summary['wall_s'] * summary['workers']):.0%} of it in training"
    )
    best = summary["best"]
    if best:
        metric = study.config.search.metric
        params = ", ".join(f"{key}={value}" for key, value in best["params"].items())
        view.say(f"best: trial {best['trial']}, {metric} {best[metric]:.4f}, {params}")
        view.say(f"  text: {best['sample_text']}")
        view.say(f"  checkpoint: {best['checkpoint']}")
    elif counts["FAIL"]:
        view.say("no trial succeeded; their reasons are in MLflow, tag `reason`")
    if not study.is_done():
        at_root = "" if root == Path.cwd() else f" --root {shlex.quote(str(root))}"
        view.say(f"go on: python search/run.py --name {study.name}{at_root}")
    view.say(f"see it: {tracker.ui_command()}")
    links = tracker.links()
    if links is not None:
        view.say(f"  trials: {links.table}")
        view.say(f"  curves: {links.charts}")
    view.say(f"  report: {study.journal.path.parent / 'report' / 'report.html'}")
