"""The files in configs/: each loads, and default.yaml says what the defaults are."""

from pathlib import Path

import pytest
import yaml

from search.config import CONFIGS, SearchConfig, load_config
from search.samplers import make_pruner, make_sampler


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_file_loads(path: Path) -> None:
    config = load_config(path)
    make_sampler(config, 0), make_pruner(config)


@pytest.mark.parametrize("section", list(SearchConfig.model_fields))
def test_the_default_file_gives_every_field_its_default(section: str) -> None:
    fields = dict(getattr(SearchConfig(), section))
    written = yaml.safe_load((CONFIGS / "default.yaml").read_text())[section]
    assert list(written) == list(fields)
    assert dict(getattr(load_config(None), section)) == fields


def test_the_seed_file_is_the_chapters_run() -> None:
    config = load_config(CONFIGS / "seed.yaml")
    train = config.train
    assert (train.batch_size, train.num_steps, train.max_epochs) == (32, 35, 500)
    assert (config.data.max_tokens, config.data.cleaning) == (10_000, "letters")
    assert config.search.metric == "train_perplexity"
    domains = [domain.choices for _, domain in config.space]
    assert domains == [[512], [1.0], [1.0], ["sequential"]]
