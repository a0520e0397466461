"""The chapter: the RNN, its training, its text. torch only; knows nothing of Ray or MLflow."""

from model.predict import predict
from model.rnn import RNNModelScratch, get_params, init_rnn_state, rnn
from model.train import Diverged, EpochResult, evaluate, grad_clipping, train, train_epoch

__all__ = [
    "Diverged",
    "EpochResult",
    "RNNModelScratch",
    "evaluate",
    "get_params",
    "grad_clipping",
    "init_rnn_state",
    "predict",
    "rnn",
    "train",
    "train_epoch",
]
