"""The winner as MLflow serves it: a prefix in, a text out.

MLflow keeps this file itself and runs it when the model is loaded, so that no pickle is read. It
stands alone: with it travel `model/`, `data/` and one checkpoint.
"""

from pathlib import Path
from typing import Any

import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from data.vocab import Vocab
from model import RNNModelScratch, init_rnn_state, predict, rnn
from model.checkpoint import checkpoint_paths, load_checkpoint

PARAM_NAMES = ("W_xh", "W_hh", "b_h", "W_hq", "b_q")


class Writer(PythonModel):
    """Goes on from each prefix, on the CPU."""

    def load_context(self, context: Any) -> None:
        """Read the checkpoint's folder. Raises CheckpointError where it is not whole."""
        (path,) = checkpoint_paths(Path(context.artifacts["checkpoint"]))
        checkpoint = load_checkpoint(path)
        params = [checkpoint.tensors[name] for name in PARAM_NAMES]
        self.vocab = Vocab.from_tokens(checkpoint.state["vocab"])
        self.net = RNNModelScratch(
            len(self.vocab),
            params[1].shape[0],
            "cpu",
            lambda vocab_size, num_hiddens, device: params,
            init_rnn_state,
            rnn,
        )

    # MLflow takes both forms of `predict`; its annotations know only the one with a context.
    def predict(  # type: ignore[override]
        self, model_input: list[str], params: dict[str, Any] | None = None
    ) -> list[str]:
        """A text for each prefix; the same seed gives the same text.

        params: `length` in characters, `temperature` (0: always the likeliest), `seed`.
        """
        asked = params or {}
        return [
            predict(
                prefix,
                asked.get("length", 50),
                self.net,
                self.vocab,
                "cpu",
                asked.get("temperature", 0.0),
                torch.Generator().manual_seed(asked.get("seed", 0)),
            )
            for prefix in model_input
        ]


set_model(Writer())
