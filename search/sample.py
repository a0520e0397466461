"""Text from a search's best trial: python search/sample.py --prefix "time traveller"

The text goes to stdout, everything else to stderr.
"""

import secrets
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from search.command import run_command
from search.config import ConfigError

if TYPE_CHECKING:
    from data import Vocab
    from model.checkpoint import Checkpoint

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def sample(
    prefix: Annotated[
        str | None, typer.Option(help="What the text begins with. Default: the search's own.")
    ] = None,
    length: Annotated[int, typer.Option(min=0, help="How many characters to add.")] = 200,
    temperature: Annotated[
        float, typer.Option(help="0: the likeliest character each time; higher: bolder.")
    ] = 0.8,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="For the same text again.")
    ] = None,
    which: Annotated[
        Literal["best", "latest"], typer.Option("--from", help="The checkpoint to take.")
    ] = "best",
    name: Annotated[
        str | None, typer.Option(help="The search's name. Default: the latest.")
    ] = None,
    trial: Annotated[int | None, typer.Option(help="The trial. Default: the best.")] = None,
    run_id: Annotated[str | None, typer.Option(help="The trial, by its MLflow run.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Where runs/ is. Default: the current folder.")
    ] = None,
) -> None:
    """Write text with a trained model. It may be of a search that still runs."""
    if not 0 <= temperature < float("inf"):
        raise ConfigError(f"`temperature >= 0` must hold, but got {temperature} (--temperature)")
    from search.pick import find_target, pick_trial, read_checkpoint
    from search.study import open_study

    target = find_target((root or Path.cwd()).absolute(), name, trial, run_id)
    with closing(open_study(target.folder, read_only=True)) as search:
        owner, chosen = pick_trial(target, search)
        checkpoint, notices = read_checkpoint(owner, chosen, which)
    if prefix is None:
        prefix = search.config.train.prefix
    drawn = temperature > 0 and seed is None
    if seed is None:
        seed = secrets.randbelow(2**31)
    text = write(checkpoint, prefix, length, temperature, seed)
    metric = search.config.search.metric
    value = checkpoint.state["row"][metric]
    about = f"search {search.name}, {owner.label(chosen.number)}, epoch {checkpoint.epoch}"
    notices.append(f"{about}, {metric} {value:.4f}")
    if drawn:
        notices.append(f"the same text again: --seed {seed}")
    for notice in notices:
        print(notice, file=sys.stderr)
    if sys.stdout.isatty():
        from search.view import printable

        text = printable(text)
    print(text)


def write(
    checkpoint: "Checkpoint", prefix: str, length: int, temperature: float, seed: int
) -> str:
    """`prefix` and `length` characters after it, computed on the CPU as in training.

    Raises ConfigError for a prefix with symbols that the model does not know.
    """
    import torch

    from data import Vocab
    from model import RNNModelScratch, init_rnn_state, predict, rnn
    from model.step import choose_step
    from search.training import PARAM_NAMES

    vocab = Vocab.from_tokens(checkpoint.state["vocab"])
    _check_known(prefix, vocab)
    params = [checkpoint.tensors[name] for name in PARAM_NAMES]
    net = RNNModelScratch(
        len(vocab),
        checkpoint.state["params"]["hidden_size"],
        "cpu",
        lambda vocab_size, num_hiddens, device: params,
        init_rnn_state,
        rnn,
    )
    generator = torch.Generator().manual_seed(seed)
    _, step, _ = choose_step(checkpoint.state["step"], "cpu")
    return predict(prefix, length, net, vocab, "cpu", temperature, generator, step.forward)


def _check_known(prefix: str, vocab: "Vocab") -> None:
    if not prefix:
        raise ConfigError("a prefix must hold at least one character, but got '' (--prefix)")
    unknown = "".join(dict.fromkeys(char for char in prefix if char not in vocab.token_to_idx))
    if unknown:
        raise ConfigError(
            f"a prefix must hold symbols of the text alone, but got {unknown!r:.80}; "
            f"known: {''.join(vocab.idx_to_token[1:])!r:.80} (--prefix)"
        )


if __name__ == "__main__":
    run_command(app)
