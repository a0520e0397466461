"""The config: what is right is kept as given, what is wrong is one ConfigError that says where."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from search.config import ConfigError, SearchConfig, build_config, continue_config, load_config

KEYS = st.text(max_size=5) | st.sampled_from(
    ["data", "train", "space", "search", "lr", "choices", "low", "name", "seed", "float"]
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def test_nothing_given_is_the_defaults() -> None:
    assert build_config({}) == SearchConfig()


def test_a_dumped_config_comes_back() -> None:
    config = build_config({"space": {"lr": {"choices": [0.5, 1]}}, "search": {"sampler": "gp"}})
    assert build_config(config.dump()) == config


@given(PLAIN)
@example({"float": 1})
@example({"search": {"gpus_per_trial": {"float": 1}}})
def test_any_plain_values_are_a_config_or_a_config_error(values: Any) -> None:
    given_values = values if isinstance(values, dict) else {"data": values}
    try:
        assert isinstance(build_config(given_values), SearchConfig)
    except ConfigError as error:
        assert "\n" not in str(error)


@given(st.binary(max_size=200) | st.text().map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_a_config_or_a_config_error(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(raw)
    try:
        load_config(path)
    except ConfigError as error:
        assert "any.yaml" in str(error)


@given(st.text(), st.text())
def test_any_setting_is_taken_or_refused(key: str, value: str) -> None:
    for setting in (f"{key}={value}", f"train.{key}={value}", f"train.seed={value}"):
        try:
            build_config({}, [setting])
        except ConfigError:
            continue


@pytest.mark.parametrize(
    "value",
    [
        "2024-13-45",
        "0x_",
        "!!int x",
        "!!float x",
        "!!bool x",
        "!!timestamp x",
        "!!python/object/apply:os.getcwd []",
        "[" * 500,
        "9" * 5000,
        "0x" + "f" * 5000,
        "9223372036854775808",
    ],
)
def test_a_value_that_yaml_cannot_make_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"--set train.seed: the value must be YAML"):
        build_config({}, [f"train.seed={value}"])
    path = tmp_path / "wrong.yaml"
    path.write_text(f"train: {{seed: {value}}}")
    with pytest.raises(ConfigError, match=r"wrong\.yaml: not YAML"):
        load_config(path)


def test_aliases_of_aliases_are_refused_without_being_written_out(tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    lines = ["a0: &a0 [1]", *(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]" for i in range(1, 30))]
    path.write_text("\n".join([*lines, "data: *a29"]))
    with pytest.raises(ConfigError):
        load_config(path)
    path.write_text("- " + "\n- ".join(line.partition(" ")[2] for line in lines))
    with pytest.raises(ConfigError, match="a config must be a mapping"):
        load_config(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trian": {}}, r"unknown key 'trian' \(--set\); did you mean 'train'\?"),
        ({"space": {"lr": {"hihg": 1}}}, r"unknown key 'space.lr.hihg' .* 'high'"),
        ({"train": {"zzz": 1}}, r"unknown key 'train.zzz' .*; known here: batch_size, num_steps"),
        ({"float": 1}, r"unknown key 'float'"),
        ({"train": {"max_epochs": 0}}, r"greater than or equal to 1, but got 0 .*max_epochs"),
        ({"train": {"max_epochs": True}}, "valid integer, but got True"),
        ({"train": {"max_epochs": "8"}}, "valid integer, but got '8'"),
        ({"train": {"device": "tpu"}}, "but got 'tpu'"),
        ({"data": {"val_fraction": 1.0}}, "less than 1, but got 1.0"),
        ({"data": {"val_fraction": 0}}, r"`data.val_fraction > 0` must hold for search.metric"),
        ({"search": {"trials": 0}}, "but got 0"),
        ({"search": {"gpus_per_trial": -1}}, "`gpus_per_trial >= 0` must hold, but got -1"),
        ({"search": {"cpus_per_trial": float("inf")}}, "finite number, but got inf"),
        ({"search": {"time_budget_s": float("nan")}}, "but got nan"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(values)


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ({"low": 4, "high": 1}, r"`low < high` must hold, but got low=4.0, high=1.0"),
        ({"low": 1, "high": 1}, "`low < high` must hold"),
        ({"low": float("nan"), "high": 1}, "`low < high` must hold"),
        ({"low": 0, "high": 1}, "every value must be above 0 and finite, but got low=0.0"),
        ({"low": 1, "high": float("inf")}, "every value must be above 0 and finite"),
        ({"choices": [1, -1]}, "every value must be above 0 and finite"),
        ({"choices": []}, "at least 1 item"),
        ({"choices": [1], "low": 1}, "not both"),
        ({"low": 1}, "a domain needs `choices`, or `low` and `high`, but got low=1.0"),
        ({}, "but got none"),
        (0.5, "but got 0.5"),
    ],
)
def test_a_domain_that_is_none_is_refused(domain: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config({"space": {"lr": domain}})


def test_a_setting_lies_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train: {max_epochs: 5, batch_size: 6}")
    train = load_config(path, ["train.max_epochs=7"]).train
    assert (train.max_epochs, train.batch_size, train.num_steps) == (7, 6, 35)


def test_a_setting_may_be_a_whole_mapping_or_a_name() -> None:
    settings = ["space.lr={choices: [0.5]}", "search.pruner=nop", "data.max_tokens=null"]
    config = build_config({}, settings)
    assert config.space.lr.choices == [0.5]
    assert config.search.pruner.name == "nop"


def test_wrong_settings_are_named_and_not_the_file() -> None:
    with pytest.raises(ConfigError, match=r"\(--set train.max_epochs=0: train.max_epochs\)"):
        build_config({}, ["train.batch_size=3", "train.max_epochs=0"], where="some.yaml")
    for setting in ("train.seed", "=1", ""):
        with pytest.raises(ConfigError, match=r"`--set key.path=value` must hold"):
            build_config({}, [setting])


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "0.001", "+1e-3", ".1e-2", "1.e-3"])
def test_numbers_may_be_written_as_people_write_them(number: str) -> None:
    config = build_config({}, [f"space.lr={{low: {number}, high: 1}}"])
    assert config.space.lr.low == 0.001


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("train:\n  seed: 1\n  seed: 2\n")
    with pytest.raises(ConfigError, match="key 'seed' is given twice"):
        load_config(path)


@pytest.mark.parametrize("text", ["[]", "a", "1"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="a config must be a mapping, but got"):
        load_config(path)


def test_a_file_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    for name in ("missing.yaml", ".", "x" * 300):
        with pytest.raises(ConfigError, match=r"there are default.yaml, .*smoke.yaml"):
            load_config(tmp_path / name)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    assert load_config(tmp_path / "empty.yaml") == SearchConfig()


@pytest.mark.parametrize("setting", ["search.trials=128", "search.max_failures=0"])
def test_a_search_that_goes_on_may_work_otherwise(setting: str) -> None:
    config = continue_config(SearchConfig().dump(), None, [setting])
    assert config == build_config({}, [setting]) != SearchConfig()


@pytest.mark.parametrize(
    "setting", ["train.seed=1", "space.lr={choices: [1]}", "search.pruner=nop"]
)
def test_a_search_that_goes_on_keeps_what_its_numbers_mean(setting: str) -> None:
    with pytest.raises(ConfigError, match="cannot change in a search that goes on"):
        continue_config(SearchConfig().dump(), None, [setting])


def test_a_search_that_goes_on_may_be_given_its_file_again(tmp_path: Path) -> None:
    path = tmp_path / "same.yaml"
    path.write_text(yaml.safe_dump({"train": {"seed": 3}}))
    stored = load_config(path).dump()
    assert continue_config(stored, path, ["search.trials=2"]).search.trials == 2
    path.write_text("train: {seed: 4}")
    with pytest.raises(ConfigError, match=r"train.seed cannot change"):
        continue_config(stored, path, [])
