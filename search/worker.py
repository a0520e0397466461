"""The Ray side of a trial: a class that Tune starts once a worker and reuses trial after trial."""

from typing import TYPE_CHECKING, Any

from ray import tune

from search.messages import TrainingData, TrialSpec

if TYPE_CHECKING:
    from search.training import Training


class TrialWorker(tune.Trainable):
    """Runs one trial after another. Each `step()` returns one `Report`, whole.

    The config that Tune hands on holds a `spec`; `data` is put into Ray's store once a search.
    A worker that died is started again with the same spec, and goes on from the trial's last
    checkpoint. torch is imported where a trial starts, and never in the driver.
    """

    _training: "Training | None"

    def setup(self, config: dict[str, Any], data: TrainingData | None = None) -> None:
        """Start the first trial. Called by Tune with what `tune.with_parameters` bound."""
        assert data is not None
        self._data = data
        self._start(config["spec"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start the next trial in this process; nothing of the last one is left."""
        self._start(new_config["spec"])
        return True

    def step(self) -> dict[str, Any]:
        """Train until a report is due.

        The first step of a trial builds it, and a worker's first imports torch: were that done in
        `setup`, Tune would take a worker that is done with its trial for one that still starts,
        and end the other, again and again where trials are short.
        """
        if self._training is None:
            import torch

            from search.training import Training

            torch.set_num_threads(self._spec.num_threads)
            self._training = Training(self._spec, self._data)
        return {"report": self._training.advance()}

    def _start(self, spec: TrialSpec) -> None:
        self._spec = spec
        self._training = None
