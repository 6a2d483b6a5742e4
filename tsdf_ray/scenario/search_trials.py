"""What a search plays: the pairs of a trial, those played once beside it, and the scenario of one trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from tsdf_ray.errors import UserError
from tsdf_ray.scenario.explain import explained
from tsdf_ray.scenario.model import Scenario
from tsdf_ray.scenario.search import Choice, Parameter, SearchConfig
from tsdf_ray.scenario.search_paths import PLAYERS, locate, with_values

Sides = tuple[list[str], list[str]]
"""Defenders and attackers, in the order of the file; each of the ones meets each of the others."""


def base_content(scenario: Scenario) -> dict[str, Any]:
    """The scenario that is searched, without its search: plain values, all defaults filled."""
    content = scenario.model_dump(mode="json")
    content.pop("search", None)
    return content


def trial_sides(scenario: Scenario) -> Sides:
    """Who plays in a trial: the players that parameters touch, each against all others where only one side is touched.

    Everybody, where a parameter is nobody's own (publish, generator).
    """
    everybody = list(scenario.defenders), list(scenario.attackers)
    touched = _touched(scenario)
    if touched is None:
        return everybody
    return touched[0] or everybody[0], touched[1] or everybody[1]


def baseline_sides(scenario: Scenario) -> list[Sides]:
    """Who is worth playing once beside the search: the untouched players of the side that it searches, if any."""
    touched = _touched(scenario)
    if touched is None or all(touched):
        return []
    defenders, attackers = list(scenario.defenders), list(scenario.attackers)
    if touched[0]:
        defenders = [name for name in defenders if name not in touched[0]]
    else:
        attackers = [name for name in attackers if name not in touched[1]]
    return [(defenders, attackers)] if defenders and attackers else []


def one_side(scenario: Scenario) -> Literal["defenders", "attackers"] | None:
    """The side that is searched, where it is one alone: its players meet the same opponents in every trial."""
    touched = _touched(scenario)
    if touched is None or all(touched):
        return None
    return "defenders" if touched[0] else "attackers"


def _touched(scenario: Scenario) -> Sides | None:
    """The players that parameters belong to; None when one belongs to none."""
    content = base_content(scenario)
    paths = [locate(content, dotted) for dotted in _search(scenario).parameters]
    if not all(path[0] in PLAYERS for path in paths):
        return None
    names = {side: {path[1] for path in paths if path[0] == side} for side in PLAYERS}
    return (
        [name for name in scenario.defenders if name in names["defenders"]],
        [name for name in scenario.attackers if name in names["attackers"]],
    )


def trial_content(
    scenario: Scenario,
    params: Mapping[str, Any],
    *,
    name: str,
    defenders: Sequence[str],
    attackers: Sequence[str],
    seeds: Sequence[int],
    held_out_use: Literal["rest", "held"],
) -> Scenario:
    """The checked scenario of one trial: without a search, the values of `params` put in (of choices: the values, not
    their names, see `real_values`), with these players and seeds alone, and people held out for the replay.

    Raises UserError when the values together give no scenario.
    """
    search = _search(scenario)
    content = base_content(scenario)
    # Before players are left out, so that names with dots are found as they were checked.
    content = with_values(content, params)
    content |= {"name": name, "seeds": list(seeds)}
    content["defenders"] = {key: content["defenders"][key] for key in scenario.defenders if key in defenders}
    content["attackers"] = {key: content["attackers"][key] for key in scenario.attackers if key in attackers}
    if search.replay.seeds != ():
        content["faces"]["held_out"] = {"share": search.replay.held_out, "use": held_out_use}
    try:
        return checked(content)
    except ValidationError as error:
        given = ", ".join(f"{key} = {value!r}" for key, value in params.items())
        why = "; ".join(f"{'.'.join(map(str, path))}: {text}" for path, text in explained(error, content))
        raise UserError(f"{name}: these values together give no valid scenario ({given}): {why}") from error


def setting_content(
    scenario: Scenario,
    params: Mapping[str, Any],
    *,
    name: str,
    seeds: Sequence[int],
    held_out_use: Literal["rest", "held"],
) -> Scenario:
    """The same with everybody who plays in a trial."""
    defenders, attackers = trial_sides(scenario)
    return trial_content(
        scenario,
        params,
        name=name,
        defenders=defenders,
        attackers=attackers,
        seeds=seeds,
        held_out_use=held_out_use,
    )


def checked(content: Mapping[str, Any]) -> Scenario:
    """The scenario of a content whose values or players have been changed; weights of detectors that nobody names any
    more are left out. Raises ValidationError."""
    weights = content.get("detector_weights", {})
    if not weights:
        return Scenario.model_validate(content)
    plain = Scenario.model_validate({**content, "detector_weights": {}})
    kept = {detector: file for detector, file in weights.items() if detector in plain.detectors}
    return Scenario.model_validate({**content, "detector_weights": kept})


def option_of(parameter: Choice, given: Any) -> Any:
    """The name of the option that `given` is: its name, or its value. Raises KeyError when it is neither."""
    for same_kind in (True, False):
        for options in (zip(parameter.options, parameter.options, strict=True), parameter.options.items()):
            for name, one in options:
                if _equal(given, one, same_kind):
                    return name
    raise KeyError(given)


def _equal(a: Any, b: Any, same_kind: bool) -> bool:
    # True is no 1; but 1 and 1.0 are one number, unless there is an option for each.
    return bool(a == b) and (type(a) is type(b) or not (same_kind or isinstance(a, bool) or isinstance(b, bool)))


def resolve_point(search: SearchConfig, point: Mapping[str, Any]) -> dict[str, Any]:
    """A point of `start.points` as a sampler takes it: options by name, numbers of their parameter's kind.

    The search has been checked. Raises KeyError otherwise.
    """
    return {name: _taken(search.parameters[name], value) for name, value in point.items()}


def _taken(parameter: Parameter, value: Any) -> Any:
    if isinstance(parameter, Choice):
        return option_of(parameter, value)
    return int(value) if parameter.kind == "int" else float(value)


def real_values(search: SearchConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """What a sampler says (options by name) as values for the scenario. Raises KeyError for an unknown option."""
    found = {}
    for name, value in params.items():
        parameter = search.parameters[name]
        found[name] = parameter.options[value] if isinstance(parameter, Choice) else value
    return found


def _search(scenario: Scenario) -> SearchConfig:
    assert scenario.search is not None, "a scenario with a search"
    return scenario.search
