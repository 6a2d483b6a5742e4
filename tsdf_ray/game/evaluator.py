"""The evaluator's steps in a match: what is judged when. The measuring itself is `tsdf_ray.metrics.Evaluator`.

It alone loads the judge. Forgeries start from photos as the attacker purifies them for that (`purify.inference`), with
what it learned in the judged round, clean and noisy references alike. Forgeries by one generator from one set of
published photos are measured once: the rows taken before the retraining are also the decay curve's start, those after
it its end.
"""

from __future__ import annotations

import pyarrow as pa

from tsdf_ray.attackers import Prepared, Purifier, Retrained, Studied, Worklog
from tsdf_ray.channels import publish
from tsdf_ray.crew import ALONE, Seat
from tsdf_ray.defenders import DefenceState, Knowledge, make_defender
from tsdf_ray.digest import array_digest
from tsdf_ray.faces import FaceSet
from tsdf_ray.files import labels_of
from tsdf_ray.game.materials import Materials, detectors_with, family_with
from tsdf_ray.game.needs import generator_weights
from tsdf_ray.game.networks import networks
from tsdf_ray.game.samples import Purify, Samples
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.game.steps import Measured, Published
from tsdf_ray.generators import Family, Tensors, load_family
from tsdf_ray.judges import attackers_judge, load_judge
from tsdf_ray.metrics import Evaluator, Stage, restage


class EvaluatorRole:
    """Scores published photos against generators, detectors and the eye."""

    def __init__(self, match: MatchSpec, materials: Materials, seat: Seat = ALONE) -> None:
        self._match = match
        self._seat = seat
        self._materials = materials
        scenario = match.scenario
        attacker = scenario.attackers[match.attacker]
        names = dict.fromkeys([*scenario.evaluation.detectors, *attacker.prepare.detectors])
        self._all_detectors = detectors_with(scenario, names)
        self._attacker = attacker
        self._initial = family_with(scenario.generator, materials.generator).freeze()
        self._clean = materials.splits.evaluation.select(self._initial.attributes)
        self._evaluator = Evaluator(
            attackers_judge(scenario.judge, self._clean.attributes),
            self._all_detectors,
            self._clean,
            self._initial,
            **networks(scenario.evaluation),
            precision=scenario.precision,
        )
        labels = labels_of(weights for _, weights in generator_weights(scenario))
        self._further = {
            labels[weights]: self._judged(load_family(weights).freeze()) for weights in scenario.evaluation.generators
        }
        shown = {name: self._all_detectors[name] for name in scenario.evaluation.detectors}
        self._samples = Samples(self._clean, scenario.evaluation.samples, shown, scenario.precision)
        self._noise: FaceSet | None = None
        self._last: tuple[str, pa.Table] = ("", pa.table({}))

    def before(self, round: int, generator: Tensors, published: Published, studied: Studied) -> Measured:
        """w_r against G_{r-1}; detection and visibility of the published photos; in round 1 the references too."""
        log = Worklog()
        family, purify = self._family(generator), self._purify(studied, log)
        photos = published.evaluation
        rows = [
            self._forgeries(Stage(round, round - 1, "before"), family, photos, purify),
            self._evaluator.detection_rows(Stage(round, round, "detection"), photos),
            self._evaluator.visibility_rows(Stage(round, round, "visibility"), photos),
        ]
        clean = purify(self._clean, False)
        for name, judged in self._further.items():
            if round == 1:  # round 0: without protection
                rows.append(judged.forgery_rows(Stage(0, 0, "transfer", model=name), judged.initial, clean, clean))
            stage = Stage(round, 0, "transfer", model=name)
            rows.append(judged.forgery_rows(stage, judged.initial, purify(photos, True), clean))
        if round == 1:
            rows += self._references(0, family, purify)
        samples = self._samples.before(family, photos, purify)
        return Measured(pa.concat_tables(rows), samples, self._samples.notes, log.done)

    def after(
        self,
        round: int,
        generator: Tensors,
        retrained: Retrained,
        prepared: Prepared,
        published: Published,
        studied: Studied,
        *earlier: FaceSet,
    ) -> Measured:
        """w_1..w_r against G_r, the decay within the round, the attacker's data, the references against G_r."""
        log = Worklog()
        photos, purify = published.evaluation, self._purify(studied, log)
        clean = purify(self._clean, False)
        before = self._forgeries(Stage(round, round - 1, "before"), self._family(generator), photos, purify)
        family = self._family(retrained.tensors)
        after = self._forgeries(Stage(round, round, "after"), family, photos, purify)
        rows = [after]
        for s, old in enumerate(earlier, start=1):
            rows.append(self._evaluator.forgery_rows(Stage(s, round, "later"), family, purify(old, True), clean))
        rows += self._references(round, family, purify)
        # The clean crops are those of the same preparation, so of the same purification.
        collected = Purifier(self._attacker.purify, studied.fitted)(
            "prepare", self._materials.splits.attacker.take(published.chosen_N), protected=False
        )
        stage = Stage(round, round, "preparation")
        rows.append(self._evaluator.preparation_rows(stage, self._attacker.prepare, prepared, collected))
        samples = self._samples.after(family, photos, purify)
        shares, last = self._match.scenario.evaluation.decay, self._family(retrained.tensors)
        rows.append(
            self._evaluator.decay_rows(round, last, retrained, purify(photos, True), before, after, shares, clean)
        )
        return Measured(pa.concat_tables(rows), samples, {}, log.done)

    def _purify(self, studied: Studied, log: Worklog) -> Purify:
        """What this attacker does to photos before it forges; every set once per step."""
        purifier = Purifier(self._attacker.purify, studied.fitted, log)
        done: dict[tuple[str, bool], FaceSet] = {}

        def purify(photos: FaceSet, protected: bool) -> FaceSet:
            key = photos.digest, protected
            if key not in done:
                done[key] = purifier("inference", photos, protected)
            return done[key]

        return purify

    def _judged(self, family: Family) -> Evaluator:
        """What judges a further generator: its own edits of the same photos."""
        scenario, photos = self._match.scenario, self._materials.splits.evaluation.select(family.attributes)
        judge = load_judge(scenario.judge, photos.attributes)
        return Evaluator(judge, {}, photos, family, precision=scenario.precision)

    def _family(self, tensors: Tensors) -> Family:
        return family_with(self._match.scenario.generator, tensors).freeze()

    def _forgeries(self, stage: Stage, family: Family, photos: FaceSet, purify: Purify) -> pa.Table:
        """Rows of one generator on one set of photos; the last measurement is remembered, never repeated."""
        forged_from, clean = purify(photos, True), purify(self._clean, False)
        key = array_digest(family.tensors(("generator",))) + forged_from.digest + clean.digest
        if self._last[0] == key:
            return restage(self._last[1], stage)
        rows = self._evaluator.forgery_rows(stage, family, forged_from, clean)
        self._last = (key, rows)
        return rows

    def _references(self, round: int, family: Family, purify: Purify) -> list[pa.Table]:
        """Photos without a defence, and photos with noise, against G_r."""
        rows = []
        clean = purify(self._clean, False)
        for name in self._match.scenario.evaluation.references:
            stage = Stage(round, round, "reference", model=name)
            if name == "none":
                rows.append(self._evaluator.clean_rows(stage, family, clean))
            else:
                rows.append(self._evaluator.forgery_rows(stage, family, purify(self._noisy(), False), clean))
        return rows

    def _noisy(self) -> FaceSet:
        """The evaluation photos with uniform noise of the defender's own budget, published like its photos."""
        if self._noise is None:
            scenario = self._match.scenario
            epsilon = scenario.defenders[self._match.defender].config.epsilon
            noise = make_defender("noise", {"epsilon": epsilon})
            knowledge = Knowledge(self._match.seed, 0, {}, {}, self._clean)
            self._noise = publish(noise.protect(DefenceState(knowledge), self._clean), scenario.publish)
        return self._noise
