"""The section `search`: which keys of a scenario are searched, for what, and how. The search itself is `tune`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from tsdf_ray.scenario.strict import Strict

Condition = dict[str, Any]
_WHEN = "counts only while these choices are taken: parameter -> value or list of values; else the scenario's own value"


class Uniform(Strict):
    """A real number, all values alike."""

    kind: Literal["uniform"] = Field(description="a real number")
    low: float = Field(ge=-1e9, le=1e9, description="least value")
    high: float = Field(ge=-1e9, le=1e9, description="greatest value")
    step: float | None = Field(None, gt=0, le=1e9, description="only low, low + step, ... up to high")
    when: Condition = Field(default_factory=dict, description=_WHEN)

    @model_validator(mode="after")
    def _rises(self) -> Uniform:
        _check_range(self.low, self.high)
        return self


class LogUniform(Strict):
    """A positive number, all orders of magnitude alike."""

    kind: Literal["loguniform"] = Field(description="a positive real number, over orders of magnitude")
    low: float = Field(gt=0, le=1e9, description="least value")
    high: float = Field(gt=0, le=1e9, description="greatest value")
    when: Condition = Field(default_factory=dict, description=_WHEN)

    @model_validator(mode="after")
    def _rises(self) -> LogUniform:
        _check_range(self.low, self.high)
        return self


class Int(Strict):
    """A whole number."""

    kind: Literal["int"] = Field(description="a whole number")
    low: int = Field(ge=-(10**9), le=10**9, description="least value")
    high: int = Field(ge=-(10**9), le=10**9, description="greatest value")
    step: int = Field(1, ge=1, le=10**9, description="only low, low + step, ... up to high; 1 with log")
    log: bool = Field(False, description="all orders of magnitude alike; low must be positive")
    when: Condition = Field(default_factory=dict, description=_WHEN)

    @model_validator(mode="after")
    def _rises(self) -> Int:
        _check_range(self.low, self.high)
        if self.log and (self.low < 1 or self.step != 1):
            raise PydanticCustomError("range", "log needs a positive low and no step", {"path": ["log"]})
        return self


class Choice(Strict):
    """One of a few values, of any kind a scenario's key may have: numbers, names, lists, sections."""

    kind: Literal["choice"] = Field(description="one of a few values")
    values: tuple[Any, ...] = Field((), description="what it may be")
    named: dict[str, Any] = Field(
        default_factory=dict, description="in place of `values`: name -> value, where values are long"
    )
    when: Condition = Field(default_factory=dict, description=_WHEN)

    @model_validator(mode="after")
    def _some(self) -> Choice:
        if bool(self.values) == bool(self.named):
            raise PydanticCustomError("choice", "give either `values` or `named`", {"path": ["values"]})
        if len(self.options) != len(self.values or self.named):
            raise PydanticCustomError("choice", "a value is given twice; keep one", {"path": ["values"]})
        return self

    @property
    def options(self) -> dict[str | int | float | bool | None, Any]:
        """What it is called -> the value. Plain values are called themselves; others by name or as compact JSON."""
        if self.named:
            return dict(self.named.items())
        return {
            value if isinstance(value, str | int | float | bool | None) else json.dumps(value): value
            for value in self.values
        }


Parameter = Annotated[Uniform | LogUniform | Int | Choice, Field(discriminator="kind")]


def _check_range(low: float, high: float) -> None:
    if not low < high:
        raise PydanticCustomError("range", "low must be below high", {"path": ["low"]})


class Measure(Strict):
    """A number taken from the summary of a match: which metric, of which pairs and rounds."""

    metric: str = Field(
        min_length=1, description="a name in `pairs` of summary.json (docs/run-directory.md); `duq.DETECTOR` for one"
    )
    defenders: tuple[str, ...] = Field((), description="of these; default: all that a trial plays")
    attackers: tuple[str, ...] = Field((), description="against these; default: all that a trial plays")
    rounds: Literal["last", "mean"] | Annotated[int, Field(ge=1)] = Field(
        "last", description="the last round, the mean over rounds, or one round by number"
    )
    over: Literal["mean", "worst"] = Field(
        "mean", description="over attackers: their mean, or the one against which it is worst"
    )


class Objective(Measure):
    """What the search makes as large, or as small, as it can."""

    direction: Literal["maximize", "minimize"] = Field("maximize", description="which way is better")


class Constraint(Measure):
    """What a setting must keep to; one that does not is never best."""

    at_least: float | None = Field(None, ge=-1e9, le=1e9, description="least value allowed")
    at_most: float | None = Field(
        None, ge=-1e9, le=1e9, description="greatest value allowed; one of both must be given"
    )

    @model_validator(mode="after")
    def _one(self) -> Constraint:
        if (self.at_least is None) == (self.at_most is None):
            raise PydanticCustomError("constraint", "give either `at_least` or `at_most`", {})
        return self


class Sampler(Strict):
    """How the next setting is chosen from those that have been played (Optuna)."""

    kind: Literal["tpe", "motpe", "nsga2", "gp", "random", "grid", "sobol"] = Field(
        "tpe",
        description="tree-structured Parzen estimator (motpe: the same, of several objectives), NSGA-II, Gaussian "
        "process, random, every point of a grid, Sobol sequence",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of the sampler")
    startup: int = Field(8, ge=1, le=100_000, description="random trials before tpe, motpe and gp begin to model")
    population: int = Field(16, ge=2, le=100_000, description="of nsga2")


class Scheduler(Strict):
    """When a trial that does badly is stopped early."""

    kind: Literal["none", "asha"] = Field(
        "none", description="asha: after each rung of rounds only the best share goes on (successive halving)"
    )
    grace: int = Field(1, ge=1, description="rounds every trial plays")
    reduction: float = Field(3.0, gt=1.0, le=100.0, description="1 / share that goes on; rungs: grace times its powers")
    objective: str | None = Field(None, description="the objective that decides; default: the first")


class Start(Strict):
    """What is known before the search begins."""

    points: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="settings to play first, by name (shown in the report): parameter -> value; the sampler chooses "
        "parameters that are left out",
    )
    runs: tuple[str, ...] = Field((), description="folders of earlier searches whose finished trials are learned from")
    storage: str | None = Field(None, description="URL of an Optuna storage to learn from, as sqlite:///FILE")
    study: str | None = Field(None, description="the study in `storage`; may be left out where there is one alone")


class Replay(Strict):
    """The best settings again, with fresh seeds on people the search never saw."""

    best: int = Field(3, ge=1, le=100, description="how many settings, best first (of several objectives: the front)")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] | None = Field(
        None, description="default: as many as a trial has, counted on from the largest; []: no replay"
    )
    held_out: float = Field(
        0.5, gt=0, lt=1, description="share of the people that can be judged on, kept from the search for the replay"
    )


class SearchConfig(Strict):
    """What `tsdf-ray tune` does with a scenario. `play` leaves it alone."""

    parameters: dict[str, Parameter] = Field(
        min_length=1,
        description="dotted key of a scenario (defenders.NAME, attackers.NAME, publish, generator) -> distribution",
    )
    objectives: dict[str, Objective] = Field(min_length=1, description="by name; several give a front of trade-offs")
    constraints: dict[str, Constraint] = Field(default_factory=dict, description="by name")
    sampler: Sampler = Field(Sampler(), description="how settings are chosen")
    scheduler: Scheduler = Field(Scheduler(), description="when a trial is stopped early")
    trials: int = Field(32, ge=1, le=100_000, description="settings played, `start.points` among them")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] | None = Field(
        None, min_length=1, description="of every trial, played in step; default: the scenario's"
    )
    parallel: int | None = Field(None, ge=1, description="at most so many trials at once; default: all that fit")
    seconds: float | None = Field(
        None, gt=0, le=1e9, description="no new trial after this time, and running ones are cut"
    )
    storage: Literal["memory", "sqlite", "journal"] = Field(
        "sqlite", description="where Optuna's study lies: nowhere, DIR/optuna.db or DIR/optuna.journal"
    )
    start: Start = Field(Start(), description="what is known before")
    replay: Replay = Field(Replay(), description="the best settings again, on unseen people")

    @property
    def rung_objective(self) -> str:
        """The objective that the scheduler looks at."""
        return self.scheduler.objective or next(iter(self.objectives))

    @property
    def texts(self) -> set[str]:
        """Every text in the options of its choices: what a trial may name and the scenario itself does not."""
        found: set[str] = set()
        waiting: list[Any] = [list(p.options.values()) for p in self.parameters.values() if isinstance(p, Choice)]
        while waiting:
            item = waiting.pop()
            if isinstance(item, str):
                found.add(item)
            elif isinstance(item, Mapping | list | tuple):
                waiting += item.values() if isinstance(item, Mapping) else item
        return found


def as_option(parameter: Choice, value: Any) -> Any:
    """What a value of a choice is called. Raises KeyError when it is none of its values."""
    for name, given in parameter.options.items():
        if given == value and type(given) is type(value):
            return name
    raise KeyError(value)


def applies(parameter: Parameter, taken: Mapping[str, Any]) -> bool:
    """Does a parameter count, given the values (names of choices) `taken` by those it depends on?"""
    return all(
        name in taken and taken[name] in (wanted if isinstance(wanted, list) else [wanted])
        for name, wanted in parameter.when.items()
    )
