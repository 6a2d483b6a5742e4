"""Every mistake in a search is told with its line, key and remedy, before anything is played."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsdf_ray.errors import UserError
from tsdf_ray.scenario import Scenario

EPSILON = "defenders.tsdf.v2.epsilon: {kind: uniform, low: 0.02, high: 0.1}"
EPOCHS = "defenders.tsdf.v2.epochs: {kind: int, low: 1, high: 4}"
WHEN = "when: {defenders.tsdf.v2.share.choice: random}"
P = "search.parameters.defenders.tsdf.v2"

# What is changed, into what, the line, and what the message says beside the key.
CASES = {
    "a section that is none": ("  sampler: {", "  samplr: {", 34, ["search.samplr", "'sampler'", "parameters, obj"]),
    "a kind that is none": ("kind: int,", "kind: itn,", 18, [f"{P}.epochs.kind", "'itn'", "Did you mean 'int'"]),
    "a key of another kind": ("{kind: int,", "{kind: int, value: 3,", 18, [f"{P}.epochs.value", "step, log, when"]),
    "a range upside down": ("low: 1, high: 4", "low: 4, high: 1", 18, [f"{P}.epochs.low", "must be below high"]),
    "a range without an end": ("high: 0.1}", "high: .inf}", 17, [f"{P}.epsilon.high", "less than or equal to", "inf"]),
    "a log of nothing": ("low: 1, high: 4", "low: 0, high: 4, log: true", 18, [f"{P}.epochs.log", "positive low"]),
    "a choice without values": ("values: [random, weakest]", "values: []", 19, ["share.choice", "`values` or `named`"]),
    "a value twice": ("[random, weakest]", "[random, random]", 19, ["share.choice", "given twice"]),
    "a part of the scenario that stands": (
        EPSILON,
        "rounds: {kind: int, low: 1, high: 2}",
        17,
        ["search.parameters.rounds", "begin with defenders.NAME, attackers.NAME or publish"],
    ),
    "a player without a key": (
        EPSILON,
        "attackers: {kind: choice, values: [1]}",
        17,
        ["parameters.attackers:", "NAME"],
    ),
    "a player who is none": (
        EPSILON,
        "attackers.plan.collect.photos: {kind: int, low: 8, high: 16}",
        17,
        ["unknown name 'plan' in attackers", "Did you mean 'plain'", "plain, other"],
    ),
    "a key that is none": (
        EPSILON,
        EPSILON.replace("epsilon", "epsilom"),
        17,
        [f"{P}.epsilom", "unknown key 'epsilom'", "Did you mean 'epsilon'", "tau, beta"],
    ),
    "a key below a value": (
        EPSILON,
        EPSILON.replace("epsilon", "epsilon.deep"),
        17,
        ["defenders.tsdf.v2.epsilon is not a section"],
    ),
    "a key of a kind not taken": (
        EPSILON,
        "publish.quality: {kind: int, low: 30, high: 90}",
        17,
        ["search.parameters.publish.quality", "unknown key 'quality' in publish"],
    ),
    "a place in an empty list": (
        EPSILON,
        "attackers.plain.purify.train.0: {kind: choice, values: [{kind: blur}]}",
        17,
        ["attackers.plain.purify.train is a list of 0"],
    ),
    "an end out of range": (
        "low: 0.02,",
        "low: -0.02,",
        17,
        [f"{P}.epsilon.low", "defenders.tsdf.v2.epsilon = -0.02 gives no valid", "or equal to 0"],
    ),
    "the other end out of range": ("high: 0.1}", "high: 1.5}", 17, [f"{P}.epsilon.high", "= 1.5", "or equal to 1"]),
    "an option the key does not take": (
        "[random, weakest]",
        "[random, weak]",
        19,
        [f"{P}.share.choice.values.1", "= 'weak'", "must be 'random' or 'weakest'"],
    ),
    "a named option with an unknown key": (
        "rough: {steps: 50,",
        "rough: {stops: 50,",
        28,
        [f"{P}.poison.named.rough", "defenders.tsdf.v2.poison.stops", "Did you mean 'steps'"],
    ),
    "real numbers where whole ones stand": (
        EPOCHS,
        EPOCHS.replace("int", "uniform"),
        18,
        [f"{P}.epochs:", "epochs = 2.14 gives no valid", "integer"],
    ),
    "orders of magnitude where whole numbers stand": (
        EPOCHS,
        EPOCHS.replace("int", "loguniform").replace("4", "7"),
        18,
        [f"{P}.epochs:", "integer"],
    ),
    "a condition on nothing": (WHEN, WHEN.replace("choice:", "choise:"), 25, ["no parameter", "v2.share.choice'?"]),
    "a condition on a number": (
        WHEN,
        "when: {defenders.tsdf.v2.epochs: 2}",
        25,
        ["fraction.when.defenders.tsdf.v2.epochs", "of kind int", "only choices"],
    ),
    "a condition that never holds": (
        WHEN,
        WHEN.replace("random", "[weakest, randm]"),
        25,
        ["'randm' is no option", "options: random, weakest"],
    ),
    "a condition on itself": (
        "values: [random, weakest]",
        "values: [random, weakest], when: {defenders.tsdf.v2.share.choice: random}",
        19,
        [f"{P}.share.choice.when", "only while it counts itself"],
    ),
    "a metric that is none": ("metric: psnr", "metric: psrn", 31, ["search.objectives.seen.metric", "'psnr'", "ssim"]),
    "a metric without its network": ("metric: psnr", "metric: lpips", 31, ["seen.metric", "evaluation.lpips"]),
    "a distance by another network": ("metric: psnr", "metric: frechet_x", 31, ["'frechet_x'", "frechet_judge"]),
    "a detector that is not asked": (
        "metric: psnr",
        "metric: duq.centerface",
        31,
        ["duq.centerface", "duq.retinaface"],
    ),
    "a detector of one attacker alone": (
        "metric: psnr",
        "metric: duq.mtcnn",
        31,
        ["not all attackers", "evaluation.det"],
    ),
    "a defender who is none": ("{metric: ssim,", "{metric: ssim, defenders: [tsdf],", 33, ["'tsdf'", "found, tsdf.v2"]),
    "a defender who is not searched": (
        "{metric: ssim,",
        "{metric: ssim, defenders: [tsdf.v2, found],",
        33,
        ["search.constraints.quality.defenders.1", "found does not play in a trial", "In a trial: tsdf.v2"],
    ),
    "an attacker who is none": (
        "{metric: ssim,",
        "{metric: ssim, attackers: [othr],",
        33,
        ["quality.attackers.0", "Did you mean 'other'"],
    ),
    "a round that is never played": ("metric: psnr", "metric: psnr, rounds: 4", 31, ["seen.rounds", "scenario has 3"]),
    "a constraint without a bound": (", at_least: 0.9", "", 33, ["constraints.quality", "`at_least` or `at_most`"]),
    "a sampler that is none": ("kind: tpe", "kind: tpee", 34, ["search.sampler.kind", "'tpee'"]),
    "a grid of real numbers": ("kind: tpe", "kind: grid", 17, [f"{P}.epsilon", "no end of values", "give it a step"]),
    "a grid of conditions": ("kind: tpe", "kind: grid", 25, ["fraction.when", "sampler grid knows no conditions"]),
    "a sequence of conditions": ("kind: tpe", "kind: sobol", 25, ["fraction.when", "sobol knows no conditions"]),
    "several rounds that are all": ("kind: asha", "kind: asha, grace: 3", 35, ["scheduler.grace", "can stop nothing"]),
    "an objective that is none": ("kind: asha", "kind: asha, objective: sen", 35, ["scheduler.objective", "'seen'"]),
    "an objective that comes too late": (
        "over: worst",
        "rounds: 2",
        30,
        ["search.objectives.protection.rounds", "asha looks at protection from round 1 on", "grace 2"],
    ),
    "a point of nothing": ("epochs: 2", "epoks: 2", 43, ["start.points.other", "no parameter", "v2.epochs'?"]),
    "a point out of range": (
        "epochs: 2",
        "epochs: 5",
        43,
        ["points.other.defenders", "5 is outside the range from 1 to 4"],
    ),
    "a point between whole numbers": ("epochs: 2", "epochs: 2.5", 43, ["2.5 is no whole number"]),
    "a point that is no number": ("epochs: 2", "epochs: true", 43, ["True is no number"]),
    "a point off the grid": ("fraction: 0.5", "fraction: 0.6", 41, ["0.6 is not 0.0 and some steps of 0.25"]),
    "a point that is no option": ("poison: rough", "poison: ruff", 44, ["'ruff' is no option", "gentle, rough"]),
    "a point whose condition does not hold": (
        "        defenders.tsdf.v2.share.choice: random\n",
        "",
        40,
        ["counts only while defenders.tsdf.v2.share.choice is random", "give the point that too"],
    ),
    "more points than trials": (
        "  start:",
        "  trials: 1\n  start:",
        38,
        ["search.start.points", "2 points, but 1 trials"],
    ),
    "a seed twice": ("  start:", "  seeds: [4, 4]\n  start:", 36, ["search.seeds", "twice"]),
    "a replay with a trial's seed": (
        "held_out: 0.25",
        "seeds: [1, 2]",
        45,
        ["search.replay.seeds", "1: trials", "fresh"],
    ),
    "a study of no storage": ("  start:", "  start:\n    study: x", 37, ["search.start.study", "`storage` alone"]),
    "people held out twice": (
        "  counts: {def",
        "  held_out: {use: rest}\n  counts: {def",
        5,
        ["faces.held_out", "search.replay.held_out"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_mistake(case: str, searched: str, tmp_path: Path) -> None:
    old, new, line, words = CASES[case]
    assert searched.count(old) == 1
    path = tmp_path / "mine.yaml"
    path.write_text(searched.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        Scenario.load(path)
    said = [text for text in str(caught.value).splitlines() if all(word in text for word in words)]
    assert said, str(caught.value)
    assert said[0].startswith(f"{path}:{line}: "), said[0]


def test_motpe_wants_several_objectives(searched: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(searched.replace("    seen: {metric: psnr}\n", "").replace("kind: tpe", "kind: motpe"))
    with pytest.raises(UserError, match=r"mine\.yaml:33: search\.sampler\.kind: motpe is for several objectives"):
        Scenario.load(path)


def test_conditions_in_a_circle(searched: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = searched.replace("[random, weakest]}", "[random, weakest], when: {defenders.tsdf.v2.poison: rough}}")
    path.write_text(text.replace("      named:", "      when: {defenders.tsdf.v2.share.choice: random}\n      named:"))
    with pytest.raises(UserError) as caught:
        Scenario.load(path)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:19", f"{path}:28"]
    assert all("would count only while it counts itself" in line for line in lines)


def test_two_points_that_are_one(searched: str, tmp_path: Path) -> None:
    """An option by its value is the option by its name, and 2 is 2.0."""
    path = tmp_path / "mine.yaml"
    twin = "twin: {defenders.tsdf.v2.poison: {steps: 50, rule: adam}, defenders.tsdf.v2.epochs: 2.0}"
    path.write_text(searched.replace("  replay:", f"      {twin}\n  replay:"))
    with pytest.raises(UserError, match=r"mine\.yaml:45: search\.start\.points\.twin: is the same as other; keep one"):
        Scenario.load(path)


def test_mistakes_in_several_places_are_told_at_once(searched: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        searched.replace("low: 0.02", "low: -1").replace("metric: psnr", "metric: x").replace("epochs: 2", "epochs: 9")
    )
    with pytest.raises(UserError) as caught:
        Scenario.load(path)
    assert len(str(caught.value).splitlines()) == 3


def test_a_change_on_the_command_line_is_named(searched: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(searched)
    with pytest.raises(UserError, match=r"^--set search\.scheduler\.grace=7: search\.scheduler\.grace: asha can stop"):
        Scenario.load(path, ("search.scheduler.grace=7",))
