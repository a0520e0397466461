"""What a person may set: typed, checked before anything starts, with one place for each default.

Precedence: the defaults here < the YAML file < `--set key.path=value` and flags.
"""

import difflib
import re
import reprlib  # a few aliases of aliases make a value whose own repr never ends
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

CONFIGS = Path(__file__).parent.parent / "configs"
Number = TypeVar("Number", int, float)
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PARAMS = ("hidden_size", "lr", "clip_threshold", "sampling")
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"  # of a search, and so of a folder


class ConfigError(ValueError):
    """What a person gave is wrong; the message is one line: rule, value, where, next step."""


class Section(BaseModel):
    """A part of the config: unknown keys are refused, and no value is bent into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(Section):
    """The text, and how much of it."""

    corpus: str = "timemachine"
    cleaning: Literal["letters", "none"] = "letters"
    max_tokens: int | None = Field(None, ge=1)
    val_fraction: float = Field(0.1, ge=0, lt=1)


class Train(Section):
    """What every trial has in common."""

    batch_size: int = Field(32, ge=1)
    num_steps: int = Field(35, ge=1)
    max_epochs: int = Field(64, ge=1)
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    step: Literal["auto", "native", "torch", "reference"] = "auto"
    seed: int = Field(0, ge=0)
    prefix: str = Field("time traveller", min_length=1)
    num_preds: int = Field(50, ge=0)


class Domain(Section, Generic[Number]):
    """One of `choices`, or any number from `low` to `high`, both included.

    log: proposals are spread evenly by magnitude.
    """

    choices: list[Number] | None = Field(None, min_length=1)
    low: Number | None = None
    high: Number | None = None
    log: bool = False

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.choices is not None:
            if (self.low, self.high, self.log) != (None, None, False):
                raise ValueError(
                    "a domain is {choices: [...]} or {low, high, log}, not both; set it as a whole"
                )
            values = self.choices
        elif self.low is None or self.high is None:
            raise ValueError(
                f"a domain needs `choices`, or `low` and `high`, but got {self._given()}"
            )
        elif not self.low < self.high:
            raise ValueError(f"`low < high` must hold, but got {self._given()}")
        else:
            values = [self.low, self.high]
        if not all(0 < value < float("inf") for value in values):
            raise ValueError(f"every value must be above 0 and finite, but got {self._given()}")
        return self

    def holds(self, value: Any) -> bool:
        """Whether a proposal could be this value."""
        if self.choices is not None:
            return value in self.choices
        assert self.low is not None and self.high is not None
        return bool(self.low <= value <= self.high)

    def _given(self) -> str:
        given = [key for key in type(self).model_fields if key in self.model_fields_set]
        return ", ".join(f"{key}={getattr(self, key)}" for key in given) or "none"

    __str__ = _given


class Sampling(Section):
    """Which of the chapter's two ways to cut batches."""

    choices: list[Literal["random", "sequential"]] = Field(min_length=1)

    def holds(self, value: Any) -> bool:
        """Whether a proposal could be this value."""
        return value in self.choices


class Space(Section):
    """The domains that proposals come from."""

    hidden_size: Domain[int] = Domain[int](low=64, high=512, log=True)
    lr: Domain[float] = Domain[float](low=0.1, high=4.0, log=True)
    clip_threshold: Domain[float] = Domain[float](low=0.1, high=10.0, log=True)
    sampling: Sampling = Sampling(choices=["random", "sequential"])


class Setting(Section):
    """Parameters that a trial is to have; those left out are proposed."""

    hidden_size: int | None = None
    lr: float | None = None
    clip_threshold: float | None = None
    sampling: Literal["random", "sequential"] | None = None

    @property
    def params(self) -> dict[str, Any]:
        """Those that are given."""
        return self.model_dump(exclude_none=True)


class Plugin(BaseModel):
    """A sampler or pruner of Optuna's by name; every other key is an argument of its own."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def arguments(self) -> dict[str, Any]:
        """Optuna's own argument names and their values."""
        return dict(self.__pydantic_extra__ or {})


class Search(Section):
    """How the search goes about it."""

    trials: int = Field(64, ge=1)
    metric: Literal["val_perplexity", "train_perplexity"] = "val_perplexity"
    sampler: Plugin = Plugin(name="tpe")
    pruner: Plugin = Plugin.model_validate(
        {"name": "successive_halving", "min_resource": 4, "reduction_factor": 4}
    )
    cpus_per_trial: Positive = 1
    gpus_per_trial: float | Literal["auto"] = "auto"
    max_concurrent: int | None = Field(None, ge=1)
    max_failures: int = Field(3, ge=0)
    time_budget_s: Positive | None = None
    enqueue: list[Setting] = []
    """The first trials, in this order."""
    warm_start: list[Annotated[str, Field(pattern=NAME)]] = []
    """Earlier searches whose finished trials the sampler learns from."""

    @model_validator(mode="after")
    def _gpus(self) -> Self:
        if self.gpus_per_trial != "auto" and not 0 <= self.gpus_per_trial < float("inf"):
            raise ValueError(f"`gpus_per_trial >= 0` must hold, but got {self.gpus_per_trial}")
        return self


class Tracking(Section):
    """Where MLflow writes."""

    uri: str | None = None
    experiment: str = Field("rnn-search", min_length=1)


class SearchConfig(Section):
    """All of it."""

    data: Data = Data()
    train: Train = Train()
    space: Space = Space()
    search: Search = Search()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _has_metric(self) -> Self:
        if self.data.val_fraction == 0 and self.search.metric == "val_perplexity":
            raise ValueError(
                "`data.val_fraction > 0` must hold for search.metric=val_perplexity, but got 0; "
                "hold some of the text out, or set search.metric=train_perplexity"
            )
        return self

    @model_validator(mode="after")
    def _enqueued_in_space(self) -> Self:
        for setting in self.search.enqueue:
            for name, value in setting.params.items():
                domain = getattr(self.space, name)
                if not domain.holds(value):
                    raise ValueError(
                        f"a setting of search.enqueue must lie in the space, but got "
                        f"{name}={value} and space.{name} is {domain}"
                    )
        return self

    def dump(self) -> dict[str, Any]:
        """The config as plain values, as the study and MLflow keep it."""
        return self.model_dump(mode="json")


# A search that goes on may change how it works, but not what its numbers mean.
ADJUSTABLE = (
    "search.trials",
    "search.cpus_per_trial",
    "search.gpus_per_trial",
    "search.max_concurrent",
    "search.max_failures",
    "search.time_budget_s",
    "tracking.uri",
)


def load_config(path: Path | None, settings: Sequence[str] = ()) -> SearchConfig:
    """Read a YAML file (None: `configs/default.yaml`), lay `key.path=value` settings over it.

    Raises ConfigError, in one line, for a file that cannot be read and anything it says wrong.
    """
    path = path or CONFIGS / "default.yaml"
    return build_config(_read(path), settings, where=str(path))


def build_config(
    values: Mapping[str, Any], settings: Sequence[str] = (), where: str = "--set"
) -> SearchConfig:
    """Check plain values with settings laid over them; `where` is for messages."""
    merged = dict(values)
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise ConfigError(f"`--set key.path=value` must hold, but got {setting!r}")
        try:
            value = _parse(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {key}: the value must be YAML, but got {text!r}") from error
        merged = _with(merged, key.split("."), value)
    try:
        return SearchConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, where, settings)) from error


def continue_config(
    stored: Mapping[str, Any], path: Path | None, settings: Sequence[str]
) -> SearchConfig:
    """The config of a search that goes on: as stored, or as the file says, under the settings.

    Raises ConfigError where that would change what the numbers of its trials mean.
    """
    before = build_config(stored)
    after = load_config(path, settings) if path else build_config(stored, settings)
    changed = _leaves(before.dump()).items() ^ _leaves(after.dump()).items()
    for key in sorted({key for key, _ in changed}):
        if key not in ADJUSTABLE:
            raise ConfigError(
                f"{key} cannot change in a search that goes on, since its trials would no longer "
                f"compare; start a new one with another --name"
            )
    return after


class Yaml(yaml.SafeLoader):
    """YAML 1.2's numbers, so that 1e-3 is one, and no key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; a key that stands there twice is refused instead of the first one lost."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """An integer; one that no array could hold is refused."""
        value: int = super().construct_yaml_int(node)
        if abs(value) >= 2**63:
            raise yaml.constructor.ConstructorError(
                None, None, "an integer must fit into 64 bits", node.start_mark
            )
        return value


Yaml.add_constructor("tag:yaml.org,2002:int", Yaml.construct_yaml_int)
Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _parse(text: str) -> Any:
    """YAML as plain values. Raises yaml.YAMLError, whatever is wrong with it."""
    try:
        return yaml.load(text, Loader=Yaml)
    except (ValueError, LookupError, AttributeError, RecursionError) as error:
        # What PyYAML lets through: `2024-13-45`, `!!int x`, `!!bool x`, `!!timestamp x`, `[[[[...`
        raise yaml.YAMLError(f"a value cannot be read: {error!r}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = _parse(path.read_text("utf-8"))
    except OSError as error:
        known = ", ".join(sorted(file.name for file in CONFIGS.glob("*.yaml")))
        raise ConfigError(
            f"--config must name a readable YAML file, but got {error}; there are {known} "
            f"in {CONFIGS}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a config must be a mapping, but got {reprlib.repr(values)}")
    return values


def _with(values: Any, keys: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of nested mappings with one leaf set."""
    below = dict(values) if isinstance(values, Mapping) else {}
    below[keys[0]] = _with(below.get(keys[0]), keys[1:], value) if keys[1:] else value
    return below


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    leaves: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = repr(value)
    return leaves


def _explain(error: ValidationError, where: str, settings: Sequence[str]) -> str:
    """The first thing wrong, in one line: where, the rule, the value, the nearest known key."""
    first = max(error.errors(include_url=False), key=lambda e: e["type"] == "extra_forbidden")
    keys = [str(key) for key in first["loc"]]
    if keys[:2] == ["search", "gpus_per_trial"]:  # pydantic adds which of its types it tried
        keys = keys[:2]
    key = ".".join(keys)
    source = where
    for setting in settings:
        path = setting.split("=")[0]
        if f"{key}.".startswith(f"{path}.") or f"{path}.".startswith(f"{key}."):
            source = f"--set {setting}"
    if first["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        near = difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"unknown key {key!r} ({source}); {hint}"
    message = first["msg"].removeprefix("Value error, ")
    got = "" if "but got" in message else f", but got {reprlib.repr(first['input'])}"
    return f"{message}{got} ({source}{': ' + key if key else ''})"


def _known_keys(path: Sequence[str]) -> list[str]:
    model: Any = SearchConfig
    for key in path:
        model = get_args(model)[0] if key.isdigit() else model.model_fields[key].annotation
    return list(model.model_fields)
