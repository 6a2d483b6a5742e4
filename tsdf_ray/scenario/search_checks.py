"""What a search must keep to that its sections alone cannot know: keys, values and names of the scenario around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from tsdf_ray.errors import UserError
from tsdf_ray.scenario.explain import explained
from tsdf_ray.scenario.keys import did_you_mean
from tsdf_ray.scenario.model import Scenario
from tsdf_ray.scenario.search import Choice, Int, LogUniform, Parameter, SearchConfig, Uniform, applies
from tsdf_ray.scenario.search_measures import measure_mistakes
from tsdf_ray.scenario.search_paths import locate, trouble_with, with_values
from tsdf_ray.scenario.search_trials import (
    base_content,
    baseline_sides,
    checked,
    option_of,
    real_values,
    resolve_point,
    trial_content,
    trial_sides,
)
from tsdf_ray.scenario.yamlfile import KeyPath

__all__ = [
    "baseline_sides",
    "check_search",
    "locate",
    "option_of",
    "real_values",
    "resolve_point",
    "trial_content",
    "trial_sides",
    "with_values",
]

Mistake = tuple[KeyPath, str]
"""Key, and what is wrong with it."""


def check_search(scenario: Scenario) -> list[InitErrorDetails]:
    """Every mistake in the search of a scenario that is otherwise good, each at its key."""
    search = scenario.search
    assert search is not None
    found = list(_conditions(search))
    if not found:
        # Whether a key exists and takes a value may hang on conditions: with wrong ones nothing could be said.
        found += _values(base_content(scenario), search)
        found += _points(search)
    found += _way(scenario, search)
    found += measure_mistakes(scenario, search, None if found else trial_sides(scenario))
    return [
        InitErrorDetails(type=PydanticCustomError("search", "{text}", {"text": text}), loc=where, input={})
        for where, text in found
    ]


def _conditions(search: SearchConfig) -> Iterator[Mistake]:
    """`when` names other choices and options of theirs, and goes round in no circle."""
    for name, parameter in search.parameters.items():
        for other, wanted in parameter.when.items():
            where = ("search", "parameters", name, "when", other)
            on = search.parameters.get(other)
            if on is None:
                near = did_you_mean(other, search.parameters)
                yield where, f"no parameter is called so.{near} Parameters: {', '.join(search.parameters)}"
            elif not isinstance(on, Choice):
                yield where, f"{other} is of kind {on.kind}; only choices can be conditions"
            elif other == name or name in _above(search, other):
                yield where, f"{name} would count only while it counts itself; leave one condition out"
            else:
                given = wanted if isinstance(wanted, list) else [wanted]
                for value in given or ["no value"]:
                    if not any(value == option and type(value) is type(option) for option in on.options):
                        options = ", ".join(map(str, on.options))
                        yield where, f"{value!r} is no option of {other}; options: {options}"


def _above(search: SearchConfig, name: str) -> set[str]:
    """Everything a parameter depends on, directly or not."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        above = search.parameters[waiting.pop()].when
        fresh = [other for other in above if other not in found and other in search.parameters]
        found.update(fresh)
        waiting += fresh
    return found


def _conditioned(search: SearchConfig, name: str) -> dict[str, Any]:
    """Values of the choices a parameter depends on, with which it counts."""
    found: dict[str, Any] = {}
    for other, wanted in search.parameters[name].when.items():
        on = search.parameters[other]
        assert isinstance(on, Choice)
        found |= _conditioned(search, other)
        found[other] = on.options[wanted[0] if isinstance(wanted, list) else wanted]
    return found


def _values(content: dict[str, Any], search: SearchConfig) -> Iterator[Mistake]:
    """Every parameter is a key of the scenario, which takes its values."""
    for name, parameter in search.parameters.items():
        where = ("search", "parameters", name)
        try:
            around = with_values(content, _conditioned(search, name))
        except UserError:
            continue  # said of the condition itself
        trouble = trouble_with(around, name)
        if trouble is not None:
            yield where, trouble
            continue
        good = True
        for place, value in _tried(parameter):
            refused = _refused(with_values(around, {name: value})) if place or good else None
            if refused is not None:
                good = False
                yield (*where, *place), f"{name} = {value!r} gives no valid scenario: {refused}"


def _tried(parameter: Parameter) -> list[tuple[KeyPath, Any]]:
    """(where it stands, value): all options of a choice; the ends of a range, and of real numbers one between, which
    stands nowhere: it shows where only whole ones can stand."""
    if isinstance(parameter, Choice):
        section = "named" if parameter.named else "values"
        names: list[str | int] = [*parameter.named] if parameter.named else [*range(len(parameter.values))]
        return [((section, at), value) for at, value in zip(names, parameter.options.values(), strict=True)]
    low, high = parameter.low, parameter.high
    if isinstance(parameter, LogUniform):
        return [(("low",), low), (("high",), high), ((), (low * high) ** 0.5)]
    if isinstance(parameter, Int):
        return [(("low",), low), (("high",), high - (high - low) % parameter.step)]
    if parameter.step is None:
        return [(("low",), low), (("high",), high), ((), low + 0.38 * (high - low))]
    steps = int((high - low) / parameter.step + 1e-9)
    return [(("low",), low), (("high",), low + steps * parameter.step), ((), low + parameter.step)]


def _refused(content: Mapping[str, Any]) -> str | None:
    """Why a content is no scenario."""
    try:
        checked(content)
    except ValidationError as error:
        path, text = explained(error, content)[0]
        return f"{'.'.join(map(str, path))}: {text}"
    return None


def _points(search: SearchConfig) -> Iterator[Mistake]:
    """Start points give parameters values that they can take, no two alike."""
    points = search.start.points
    root = ("search", "start", "points")
    if len(points) > search.trials:
        yield root, f"{len(points)} points, but {search.trials} trials; raise search.trials"
    seen: dict[str, str] = {}
    for name, point in points.items():
        wrong: list[Mistake] = [
            ((*root, name, key), text) for key, value in point.items() if (text := _misfit(search, key, value))
        ]
        if not point:
            wrong = [((*root, name), "gives no parameter a value; give one, or leave the point out")]
        yield from wrong
        if wrong:
            continue
        taken = resolve_point(search, point)
        for key in point:
            parameter = search.parameters[key]
            if not applies(parameter, taken):
                needs = ", ".join(f"{other} is {wanted}" for other, wanted in parameter.when.items())
                yield (*root, name, key), f"counts only while {needs}; give the point that too, or leave this out"
        twin = seen.setdefault(repr(sorted(taken.items())), name)
        if twin != name:
            yield (*root, name), f"is the same as {twin}; keep one"


def _misfit(search: SearchConfig, name: str, value: Any) -> str | None:
    """Why a parameter cannot take a value."""
    parameter = search.parameters.get(name)
    if parameter is None:
        return (
            f"no parameter is called so.{did_you_mean(name, search.parameters)} Valid: {', '.join(search.parameters)}"
        )
    if isinstance(parameter, Choice):
        try:
            option_of(parameter, value)
        except KeyError:
            return f"{value!r} is no option; options: {', '.join(map(str, parameter.options))}"
        return None
    return _off_range(parameter, value)


def _off_range(parameter: Uniform | LogUniform | Int, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{value!r} is no number"
    if not parameter.low <= value <= parameter.high:
        return f"{value!r} is outside the range from {parameter.low} to {parameter.high}"
    step = None if isinstance(parameter, LogUniform) else parameter.step
    if step is not None:
        steps = (value - parameter.low) / step
        if abs(steps - round(steps)) > 1e-6:
            kind = "no whole number" if step == 1 else f"not {parameter.low} and some steps of {step}"
            return f"{value!r} is {kind}"
    return None


def _way(scenario: Scenario, search: SearchConfig) -> Iterator[Mistake]:
    """Sampler, scheduler, seeds and replay fit each other and the scenario."""
    sampler, scheduler = search.sampler.kind, search.scheduler
    for name, parameter in search.parameters.items():
        if sampler in {"grid", "sobol"} and parameter.when:
            yield ("search", "parameters", name, "when"), f"sampler {sampler} knows no conditions; choose another"
        endless = isinstance(parameter, LogUniform) or (isinstance(parameter, Uniform) and parameter.step is None)
        if sampler == "grid" and endless:
            remedy = "give it a step" if isinstance(parameter, Uniform) else "make it a choice"
            yield ("search", "parameters", name), f"has no end of values, which a grid needs; {remedy}"
    if sampler == "motpe" and len(search.objectives) == 1:
        yield ("search", "sampler", "kind"), "motpe is for several objectives; for one use tpe"
    if scheduler.kind == "asha" and scheduler.grace >= scenario.rounds:
        text = (
            f"asha can stop nothing: trials play {scheduler.grace} round(s) in any case, and {scenario.rounds} are all"
        )
        yield ("search", "scheduler", "grace"), f"{text}; give the scenario more rounds, or kind none"
    for where, seeds in ((("search", "seeds"), search.seeds), (("search", "replay", "seeds"), search.replay.seeds)):
        yield from _seeds(where, seeds or ())
    again = sorted(set(search.replay.seeds or ()) & set(search.seeds or scenario.seeds))
    if again:
        text = f"{', '.join(map(str, again))}: trials have had it; a replay needs fresh seeds"
        yield ("search", "replay", "seeds"), text
    if search.start.study is not None and search.start.storage is None:
        yield ("search", "start", "study"), "counts with `storage` alone; give it, or remove this"
    if scenario.faces.held_out is not None and search.replay.seeds != ():
        text = "the search sets it (search.replay.held_out); remove it, or set search.replay.seeds: [] for no replay"
        yield ("faces", "held_out"), text


def _seeds(where: KeyPath, seeds: Sequence[int]) -> Iterator[Mistake]:
    if len(set(seeds)) != len(seeds):
        yield where, "a seed is given twice; keep one"
