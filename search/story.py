"""The search told on one page, in Markdown: who won, what mattered, what failed, how to go on."""

import shlex
from collections.abc import Iterator

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.study import SearchStudy, count_states, rows_of, value_of

MIN_FOR_IMPORTANCE = 8  # complete trials; of fewer, what mattered is a guess
MAX_REASONS = 5


def tell_story(study: SearchStudy) -> str:
    """The page as it stands now."""
    return "\n\n".join(_sections(study)) + "\n"


def _sections(study: SearchStudy) -> Iterator[str]:
    counts = count_states(study.trials())
    corpus = study.attrs["corpus"]
    yield (
        f"# {study.name}\n\n{counts['COMPLETE']} trials complete, {counts['PRUNED']} pruned, "
        f"{counts['FAIL']} failed, {counts['RUNNING']} unfinished, of "
        f"{study.config.search.trials}, on {corpus['name']} ({corpus['tokens']} tokens, "
        f"{corpus['vocab']} symbols)."
    )
    best = study.best()
    yield _winner(study, best) if best else "No trial has a perplexity yet."
    importances = _importances(study)
    if importances:
        yield "## What mattered\n\n" + "\n".join(
            f"- `{name}`: {share:.0%} of the difference between trials"
            for name, share in importances.items()
        )
    failed = study.trials(TrialState.FAIL)
    if failed:
        yield "## What failed\n\n" + "\n".join(_failure(trial) for trial in failed[:MAX_REASONS])
    name = shlex.quote(study.name)
    go_on = [f"python search/run.py --name {name} --trials {2 * study.config.search.trials}"]
    if not study.is_done():
        go_on.insert(0, f"python search/run.py --name {name}")
    if best is not None:
        go_on += [
            f"python search/resume.py --name {name}",
            f"python search/sample.py --name {name}",
        ]
    yield "## How to go on\n\n" + "\n".join(f"    {command}" for command in go_on)


def _winner(study: SearchStudy, best: FrozenTrial) -> str:
    metric = study.config.search.metric
    row = min(rows_of(best), key=lambda row: (row[metric], row["epoch"]))
    params = "\n".join(f"| `{key}` | {_short(value)} |" for key, value in best.params.items())
    text = row.get("sample_text") or ""
    # Indented, so that whatever a text holds is shown and never taken for Markdown or HTML.
    sample = "\n".join(f"    {line}" for line in text.splitlines())
    return (
        f"## The winner: trial {best.number}\n\n{metric} **{value_of(best):.4f}** at epoch "
        f"{row['epoch']}\n\n| | |\n|---|---|\n{params}\n\nIt writes:\n\n{sample}"
    )


def _importances(study: SearchStudy) -> dict[str, float]:
    """Each parameter's share, by Optuna's own way; nothing where there is too little to tell."""
    if len(study.trials(TrialState.COMPLETE)) < MIN_FOR_IMPORTANCE:
        return {}
    try:
        return optuna.importance.get_param_importances(study.study)
    except (ValueError, RuntimeError):  # all values alike, or one value of a parameter only
        return {}


def _failure(trial: FrozenTrial) -> str:
    reason = str(trial.user_attrs.get("reason", "no reason was kept")).replace("`", "'")
    params = ", ".join(f"{key} {_short(value)}" for key, value in trial.params.items())
    return f"- trial {trial.number} ({params}): `{reason[:300]}`"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
