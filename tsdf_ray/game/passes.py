"""How many passes through which networks a match makes: the counts behind the cost of a scenario.

An upper count: every photo is usable, no photo is hidden early, nothing but what a formula says is taken from a cache.
Channels, metrics without a network and the report's pictures are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tsdf_ray.attackers import AttackerConfig, DenoiseStep, SubtractStep
from tsdf_ray.attackers.denoiser import PATCH
from tsdf_ray.crew import pieces
from tsdf_ray.defenders import (
    AntiForgeryConfig,
    CmuaConfig,
    FacePoisonConfig,
    FoundConfig,
    InterruptionConfig,
    PgdConfig,
    TsdfConfig,
)
from tsdf_ray.errors import UserError
from tsdf_ray.game.needs import generator_weights
from tsdf_ray.game.units import DETECTORS, GENERATORS, JUDGE, SIDE
from tsdf_ray.generators.catalogue import family_of, releases_like
from tsdf_ray.scenario import Scenario

Families = list[tuple[str, str]]
"""(key of the scenario, family or packaged weights); the attackers' generator comes first."""
GRADIENT = 2
"""A pass and the gradient with respect to the photo, in passes: weights get none."""


@dataclass(frozen=True)
class Line:
    """`photos` passes of one kind by one network; `gflop` of all of them."""

    step: str
    """learn, publish, study, prepare, retrain or evaluate."""
    model: str
    """A family, a detector, `judge` or `denoiser`."""
    what: str
    photos: int
    gflop: float


@dataclass
class Ledger:
    """Lines of one match, from photos of `side` px."""

    side: int
    lines: list[Line] = field(default_factory=list)

    def generator(self, step: str, family: str, what: str, photos: int) -> None:
        """`what`: edit, edit_gradient, features_gradient, critic, step."""
        plain = what.removesuffix("_gradient")
        each = float(getattr(GENERATORS[family], plain)) * (GRADIENT if plain != what else 1)
        self._add(step, family, what, photos, each * (self.side / SIDE) ** 2)

    def detector(self, step: str, name: str, what: str, photos: int, enlarge: float = 1.0) -> None:
        """`what`: detect, detect_gradient."""
        each = DETECTORS[name] * (GRADIENT if what == "detect_gradient" else 1)
        self._add(step, name, what, photos, each * (self.side * enlarge / SIDE) ** 2)

    def judge(self, photos: int) -> None:
        """Edits looked at."""
        self._add("evaluate", "judge", "judge", photos, JUDGE)

    def denoiser(self, step: str, what: str, config: DenoiseStep, photos: int, side: int, passes: int) -> None:
        """Convolutions of 3 x 3 at full side."""
        pairs = 2 * 3 * config.width + (config.layers - 2) * config.width**2
        self._add(step, "denoiser", what, photos, passes * 2 * 9 * pairs * side**2 / 1e9)

    def _add(self, step: str, model: str, what: str, photos: int, each: float) -> None:
        if photos:
            self.lines.append(Line(step, model, what, photos, photos * each))


def match_lines(scenario: Scenario, defender: str, attacker: str) -> list[Line]:
    """The passes of all rounds of one match.

    Raises UserError, saying which, for a defence, detector or family whose cost is not known (a plug-in's, a file that
    is not there and has no official name).
    """
    families = [(key, _family(key, name)) for key, name in generator_weights(scenario)]
    named = {*scenario.defenders[defender].config.detectors, *scenario.attackers[attacker].prepare.detectors}
    for name in sorted({*named, *scenario.evaluation.detectors} - DETECTORS.keys()):
        raise UserError(f"the cost of the detector {name!r} is not known")
    ledger = Ledger(scenario.faces.size)
    for round in range(1, scenario.rounds + 1):
        _defend(ledger, scenario, defender, attacker, families)
        _adapt(ledger, scenario, attacker, families[0][1], round)
        _evaluate(ledger, scenario, attacker, families, round)
    return ledger.lines


def _family(key: str, weights: str) -> str:
    if weights in GENERATORS:
        return weights
    family = family_of(weights)
    if family not in GENERATORS:
        raise UserError(f"the cost of {key} {weights!r} is not known")
    return family


def _known(scenario: Scenario, defender: str, families: Families) -> list[str]:
    """Families a defender learns against: a surrogate in the place of the attackers' generator, and further ones."""
    keys = {f"defenders.{defender}.surrogate", f"defenders.{defender}.generators"}
    own = [family for key, family in families if key in keys]
    return own if scenario.defenders[defender].surrogate is not None else [families[0][1], *own]


def _defend(ledger: Ledger, scenario: Scenario, defender: str, attacker: str, families: Families) -> None:
    """Learn on the defender's photos, then protect what is collected and what is judged."""
    entry, collect = scenario.defenders[defender], scenario.attackers[attacker].collect
    config, learned = entry.config, scenario.faces.counts.defender
    shown = int(collect.protected * collect.photos + 0.5) + scenario.faces.counts.evaluation
    for family in _known(scenario, defender, families):
        unit = GENERATORS[family]
        if isinstance(config, InterruptionConfig) and not (isinstance(config, FoundConfig) and config.per_image):
            twice = isinstance(config, TsdfConfig) and config.share.choice == "weakest" and config.share.fraction > 0
            visits = config.epochs * learned * (2 if twice else 1)
            ledger.generator("learn", family, "edit", visits)
            ledger.generator("learn", family, "features_gradient", visits * config.feature_steps)
            ledger.generator("learn", family, "edit_gradient", visits)
        elif isinstance(config, CmuaConfig):
            # Every label is a visit, but a photo's own hair colour is what its own labels were: no new forgery.
            ledger.generator("learn", family, "edit", learned * (unit.edits + 1))
            ledger.generator("learn", family, "edit_gradient", learned * (unit.labels + 1) * config.steps)
        elif isinstance(config, FoundConfig | PgdConfig | AntiForgeryConfig):
            steps = config.per_image_steps if isinstance(config, FoundConfig) else config.steps
            ledger.generator("publish", family, "edit", shown * min(steps, unit.edits))
            ledger.generator("publish", family, "edit_gradient", shown * steps)
    if isinstance(config, TsdfConfig):
        step, photos = ("learn", config.epochs * learned) if config.poison.universal else ("publish", shown)
        clean = config.poison.lambda_f > 0 or not config.poison.hides_by_log_odds
        for name in config.detectors:
            ledger.detector(step, name, "detect", photos * (3 if clean else 1))
            ledger.detector(step, name, "detect_gradient", photos * config.poison.steps)
    elif isinstance(config, FacePoisonConfig):
        over_spectra = config.steps // 2
        gradients = config.masks + config.steps - over_spectra + over_spectra * config.spectra
        ledger.detector("publish", config.detectors[0], "detect", shown)
        ledger.detector("publish", config.detectors[0], "detect_gradient", shown * gradients)
    elif entry.kind not in {"none", "noise", "found", "pgd", "cmua", "anti_forgery"}:
        raise UserError(f"the cost of the defence {entry.kind!r} is not known")


def _adapt(ledger: Ledger, scenario: Scenario, attacker_name: str, family: str, round: int) -> None:
    """Study, prepare, retrain."""
    attacker = scenario.attackers[attacker_name]
    collected, train = attacker.collect.photos, attacker.retrain.train
    denoisers = list(_denoise_steps(attacker))
    for denoise in dict.fromkeys(denoisers) if round == 1 else ():
        # Forward, and back to photos and weights.
        ledger.denoiser("study", "train", denoise, denoise.steps * denoise.batch, min(PATCH, ledger.side), 3)
    for denoise in denoisers:
        ledger.denoiser("prepare", "denoise", denoise, collected, ledger.side, 1)
    for name in attacker.prepare.detectors:
        ledger.detector("prepare", name, "detect", collected, attacker.prepare.enlarge)
    if attacker.retrain.mode == "none" or not train.steps:
        return
    drawn = train.steps * train.batch
    if round == 1 and attacker.retrain.mode != "scratch" and releases_like(scenario.generator):
        # Official generators come without a discriminator.
        ledger.generator("retrain", family, "critic", attacker.retrain.warm_up * train.batch)
    ledger.generator("retrain", family, "step", drawn)
    ledger.generator("retrain", family, "critic", drawn * (train.discriminator_steps - 1))
    parts = pieces(train.batch, scenario.micro_batch)
    if len(parts) > 1 and not family.startswith("hisd"):
        # The last forgery is made again for the generator's step; HiSD's losses share none.
        ledger.generator("retrain", family, "edit", drawn)
    if attacker.retrain.mode == "adversarial":
        hard = attacker.retrain.adversarial
        protected = train.steps * train.discriminator_steps * sum(hard.count(len(part)) for part in parts)
        ledger.generator("retrain", family, "edit", protected)
        ledger.generator("retrain", family, "edit_gradient", protected * hard.steps)


def _denoise_steps(attacker: AttackerConfig) -> Iterator[DenoiseStep]:
    for step in attacker.purify.steps:
        inner = step.denoised if isinstance(step, SubtractStep) else step
        if isinstance(inner, DenoiseStep):
            yield inner


def _evaluate(ledger: Ledger, scenario: Scenario, attacker: str, families: Families, round: int) -> None:
    """Judge w_r before and after the retraining and at its inner shares, every earlier w, and the references."""
    config, family = scenario.attackers[attacker], families[0][1]
    photos = scenario.faces.counts.evaluation
    pairs, trained = photos * GENERATORS[family].edits, config.retrain.mode != "none"
    inner = sum(1 for share in scenario.evaluation.decay if 0 < share < 1) if trained else 0
    # Sets of forgeries made anew: published photos by G_{r-1}, and the clean ones (the snapshots' displaced them) ...
    sets, judged, own = 1 + int(round == 1 or inner > 0), 1, 0
    if trained:
        # ... both by G_r and by every snapshot; and earlier rounds' photos by G_r.
        sets, judged = sets + 2 + 2 * inner, judged + 1 + inner
    sets, judged = sets + round - 1, judged + round - 1
    for name in scenario.evaluation.references:
        for _ in range(2 if round == 1 else 1):
            sets, own, judged = (sets, own + photos, judged) if name == "none" else (sets + 1, own, judged + 1)
    # The clean forgeries of each new generator are looked at once.
    judged += int(round == 1) + int(trained)
    ledger.generator("evaluate", family, "edit", sets * pairs + own)
    ledger.judge(judged * pairs)
    for key, extra in families:
        if key == "evaluation.generators":
            more = photos * GENERATORS[extra].edits
            ledger.generator("evaluate", extra, "edit", more * (2 if round == 1 else 1))
            ledger.judge(more * (2 if round == 1 else 1))
    for name in scenario.evaluation.detectors:
        ledger.detector("evaluate", name, "detect", photos * (2 if round == 1 else 1))
    for name in config.prepare.detectors:
        ledger.detector("evaluate", name, "detect", config.collect.photos, config.prepare.enlarge)
