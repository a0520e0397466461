"""One trial's training as its worker sees it: built from a spec, or gone on with from disk.

Knows neither Ray nor Optuna nor MLflow. What it saves before a report is enough to go on bit for
bit after any kill: parameters, data generator, epoch, best so far, and the epochs that the report
carries, in case it never arrives.
"""

import dataclasses
import random
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from data import SeqDataLoader, Vocab
from model import Diverged, EpochResult, RNNModelScratch, get_params, init_rnn_state, rnn, train
from model.checkpoint import (
    Checkpoint,
    CheckpointError,
    checkpoint_paths,
    keep_checkpoints,
    save_checkpoint,
    whole_checkpoints,
)
from model.step import Step, choose_step
from model.text import sample_copied, sample_repetition
from search.messages import Report, Row, TrainingData, TrialSpec

PARAM_NAMES = ("W_xh", "W_hh", "b_h", "W_hq", "b_q")


class Training:
    """A trial on its way: `advance()` trains until a report is due and returns it."""

    def __init__(self, spec: TrialSpec, data: TrainingData) -> None:
        self.spec, self.data = spec, data
        settings = spec.train
        self.device = _device(settings["device"])
        self.rng = random.Random(spec.seed)
        self.notices: list[str] = []
        self.untold: list[Row] = []
        self.epoch = 0
        self.best: dict[str, Any] = {"epoch": None, "value": None}
        vocab = Vocab.from_tokens(data.idx_to_token)
        self.net = RNNModelScratch(
            len(vocab),
            spec.params["hidden_size"],
            self.device,
            partial(get_params, generator=torch.Generator().manual_seed(spec.seed)),
            init_rnn_state,
            rnn,
        )
        self._train_text = "".join(vocab.to_tokens(data.tokens[: data.num_train].tolist()))
        self._prefix = "".join(vocab.to_tokens(vocab[list(settings["prefix"])]))
        self.step_name: str = settings["step"]
        self._restore()
        step = self._choose_step()
        self._best_checkpoint: Checkpoint | None = None
        tokens = torch.from_numpy(data.tokens.copy()).to(self.device)
        use_random_iter = spec.params["sampling"] == "random"
        has_val = data.num_train < len(tokens)
        self.results: Iterator[EpochResult] = train(
            self.net,
            SeqDataLoader(
                tokens[: data.num_train],
                settings["batch_size"],
                settings["num_steps"],
                use_random_iter,
                self.rng,
            ),
            vocab,
            spec.params["lr"],
            settings["max_epochs"],
            self.device,
            use_random_iter,
            theta=spec.params["clip_threshold"],
            val_tokens=tokens[data.num_train - 1 :] if has_val else None,
            prefix=settings["prefix"],
            num_preds=settings["num_preds"],
            first_epoch=self.epoch + 1,
            step=step,
        )

    def _choose_step(self) -> Step:
        """The step that the trial began with, where it can be had; a notice where it cannot."""
        before = self.step_name
        self.step_name, step, reason = choose_step(before, self.device)
        if self.epoch and self.step_name != before:
            reason += f"; the trial goes on from epoch {self.epoch}, no longer bit for bit"
        if reason and (before != "auto" or self.spec.number == 0):  # once is enough for a search
            self.notices.append(f"trial {self.spec.number}: {reason}")
        return step

    def advance(self) -> Report:
        """Train until a rung, the report interval or the end; save; say what happened.

        After a restart, the epochs that were saved but perhaps never reported come first.
        """
        report = Report(rows=self.untold, notices=self.notices)
        report.computed = {"step": self.step_name, "device": str(self.device)}
        self.untold, self.notices = [], []
        if not report.rows:
            try:
                self._train(report.rows)
            except Diverged as error:
                report.diverged = str(error)
            self._save(report.rows)
        report.done = self.epoch == self.spec.train["max_epochs"] or report.diverged is not None
        if self.epoch:
            report.checkpoints = {"best": self.best["epoch"], "latest": self.epoch}
        return report

    def _train(self, rows: list[Row]) -> None:
        """Add a row for each epoch until a report is due."""
        started = time.monotonic()
        for result in self.results:
            self._take(result, rows)
            if result.epoch in self.spec.rungs:
                return
            if time.monotonic() - started >= self.spec.report_every_s:
                return

    def _take(self, result: EpochResult, rows: list[Row]) -> None:
        self.epoch = result.epoch
        written = result.sample_text[len(self._prefix) :]
        rows.append(
            {
                **dataclasses.asdict(result),
                "sample_repetition": sample_repetition(written),
                "sample_copied": sample_copied(written, self._train_text),
                "time": time.time_ns() // 1_000_000,
            }
        )
        value = getattr(result, self.spec.metric)
        if self.best["value"] is None or value < self.best["value"]:
            self.best = {"epoch": result.epoch, "value": value}
            self._best_checkpoint = self._checkpoint(rows)

    def _checkpoint(self, rows: list[Row]) -> Checkpoint:
        """All state at the end of this epoch, copied; `rows` are the epochs not yet reported."""
        state = {
            "trial": self.spec.number,
            "params": self.spec.params,
            "seed": self.spec.seed,
            "train": self.spec.train,
            "step": self.step_name,
            "metric": self.spec.metric,
            "corpus": {"name": self.data.name, "sha256": self.data.sha256},
            "vocab": self.data.idx_to_token,
            "rng": {"data": self.rng.getstate()},
            "best": self.best,
            "row": rows[-1],
            "rows": list(rows),
        }
        copies = (param.detach().clone().cpu() for param in self.net.params)
        return Checkpoint(self.epoch, dict(zip(PARAM_NAMES, copies, strict=True)), state)

    def _save(self, rows: list[Row]) -> None:
        """Write the best and the latest; keep no third, but for one before where they coincide."""
        if not rows:
            return
        folder = self.spec.folder
        if self._best_checkpoint is not None:
            save_checkpoint(folder, self._best_checkpoint)
        if self.best["epoch"] != self.epoch:
            save_checkpoint(folder, self._checkpoint(rows))
        self._best_checkpoint = None
        kept = {self.best["epoch"], self.epoch}
        if len(kept) == 1:
            older = (int(path.stem.removeprefix("epoch-")) for path in checkpoint_paths(folder))
            kept |= {next((epoch for epoch in older if epoch != self.epoch), self.epoch)}
        keep_checkpoints(folder, kept)

    def _restore(self) -> None:
        """Go on from the newest whole checkpoint, if any; name every one that is not whole."""
        damaged = False
        for checkpoint in whole_checkpoints(self.spec.folder):
            if isinstance(checkpoint, CheckpointError):
                damaged = True
                self.notices.append(f"trial {self.spec.number}: {checkpoint}")
                continue
            if not self._fits(checkpoint.state):
                break
            self._load(checkpoint)
            if damaged:
                self.notices.append(
                    f"trial {self.spec.number}: going on from epoch {checkpoint.epoch} instead"
                )
            return
        if any(checkpoint_paths(self.spec.folder)):
            keep_checkpoints(self.spec.folder, set())
            self.notices.append(f"trial {self.spec.number}: no checkpoint fits; starting again")

    def _fits(self, state: dict[str, Any]) -> bool:
        """Whether a checkpoint is this trial's: it may be one of a study that lost its end."""
        mine = (self.spec.params, self.spec.seed, self.spec.train, self.data.idx_to_token)
        theirs = (state["params"], state["seed"], state["train"], state["vocab"])
        return mine == theirs and state["corpus"]["sha256"] == self.data.sha256

    def _load(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        with torch.no_grad():
            for param, name in zip(self.net.params, PARAM_NAMES, strict=True):
                param.copy_(checkpoint.tensors[name])
        version, internal, gauss = state["rng"]["data"]
        self.rng.setstate((version, tuple(internal), gauss))
        self.step_name = state["step"]
        self.epoch, self.best, self.untold = checkpoint.epoch, state["best"], state["rows"]


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
