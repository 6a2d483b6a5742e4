"""What a scenario needs beyond the package: weights and photos that are the user's to bring.

`scenarios list` shows what is missing, `play` refuses to start without it: both ask here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tsdf_ray.errors import UserError
from tsdf_ray.files import FOLDER, located

if TYPE_CHECKING:  # kept light: the list of scenarios is shown without torch
    from tsdf_ray.game.plan import Supply
    from tsdf_ray.scenario import Scenario

Layout = TypeVar("Layout")
NETWORKS = {"feature_network": "features", "identity": "identity", "lpips": "LPIPS"}
"""Networks of the user's in `evaluation`."""
CELEBA = ("img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt")


@dataclass(frozen=True)
class Need:
    """One thing that the package does not hold."""

    key: str
    """The scenario's key."""
    path: str | None
    """What the scenario gives there; None: nothing, and it must."""
    what: str
    """For people: `200000-G.ckpt (stargan, official)`, `CelebA`."""
    remedy: str
    """Where it comes from, or what to do."""
    inside: tuple[str, ...] = ()
    """What must lie in the folder `path`."""

    @property
    def problem(self) -> str | None:
        """Why it is not at hand, None when it is. Nothing is read."""
        if self.path is None:
            return "its weights are not packaged"
        place = located(self.path)
        if not place.exists():
            return f"no such file or folder: {self.path}"
        absent = [name for name in self.inside if not (place / name).exists()]
        return f"{place} holds no {', no '.join(absent)}" if absent else None


def generator_weights(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """(key, packaged name or file) of every generator that a scenario names."""
    yield "generator", scenario.generator
    for name, entry in scenario.defenders.items():
        if entry.surrogate is not None:
            yield f"defenders.{name}.surrogate", entry.surrogate
        yield from ((f"defenders.{name}.generators", weights) for weights in entry.generators)
    yield from (("evaluation.generators", weights) for weights in scenario.evaluation.generators)


def needs_of(scenario: Scenario) -> list[Need]:
    """Everything that is not packaged, in the order of the keys, whether it is at hand or not."""
    from tsdf_ray import generators, judges

    needs = [
        _generator(key, weights)
        for key, weights in generator_weights(scenario)
        if not generators.weights.is_packaged(weights)
    ]
    if not judges.judge.is_packaged(scenario.judge):
        remedy = f"a judge's file of yours; packaged: {judges.judge.packaged_names()}"
        needs.append(Need("judge", scenario.judge, f"{Path(scenario.judge).name} (judge)", remedy))
    needs += _detectors(scenario)
    for key, what in NETWORKS.items():
        given = getattr(scenario.evaluation, key)
        if given is not None:
            needs.append(Need(f"evaluation.{key}", given, f"{Path(given).name} ({what})", "a file of yours"))
    if scenario.faces.path is not None:
        path, source = str(scenario.faces.path), scenario.faces.source
        if source == "celeba":
            remedy = "CelebA's folder, from mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
            needs.append(Need("faces.path", path, "CelebA", remedy, CELEBA))
        else:
            needs.append(Need("faces.path", path, f"{path} (photos)", f"photos of yours (source {source})"))
    return needs


def _generator(key: str, weights: str) -> Need:
    from tsdf_ray.generators.catalogue import releases_like
    from tsdf_ray.generators.weights import packaged_names

    name, releases = Path(weights).name, releases_like(weights)
    if not releases:
        return Need(key, weights, f"{name} (generator)", f"a file of yours; packaged: {packaged_names()}")
    families = " or ".join(release.family for release in releases)
    sources = " or ".join(release.source for release in releases)
    return Need(key, weights, f"{name} ({families}, official)", f"the official file, from {sources}")


def _detectors(scenario: Scenario) -> Iterator[Need]:
    from tsdf_ray.detectors.weights import OFFICIAL

    for name in scenario.detectors:
        given = scenario.detector_weights.get(name)
        if name in OFFICIAL:
            file, source = OFFICIAL[name]
            remedy = f"give the path of the official {file} ({source})"
            yield Need(f"detector_weights.{name}", given, f"{file} ({name}, official)", remedy)
        elif given is not None:
            remedy = "a file of yours; leave the key out for the packaged weights"
            yield Need(f"detector_weights.{name}", given, f"{Path(given).name} ({name})", remedy)


def ready(scenario: Scenario, supply: Supply, plan: Callable[[Scenario, Supply], Layout]) -> Layout:
    """The plan of a scenario that can start: `plan` of a race, `trial_plan` of a search (game/plan.py).

    Raises one UserError that names everything missing: key, file, where it comes from, and CPUs or GPUs that no machine
    has.
    """
    absent = [(need, problem) for need in needs_of(scenario) if (problem := need.problem) is not None]
    refusals = [f"{need.key}: {problem}; {need.remedy}" for need, problem in absent]
    try:
        layout = plan(scenario, supply)
    except UserError as error:
        refusals.append(str(error))
    if any(need.path is not None and not Path(need.path).is_absolute() for need, _ in absent):
        refusals.append(f"relative paths are looked for in the current folder, then below ${FOLDER}")
    if refusals:
        raise UserError("\n  ".join(refusals) if len(refusals) == 1 else "\n  ".join(["not at hand:", *refusals]))
    return layout
