"""The answer in words: which protection still works after the last round, against whom, and how sure we are.

Three verdicts on a pair, by protection (share of forgeries that fail) against the last generator, beside that of
unprotected photos in the same race: it *holds* when it stops at least half of the forgeries that would succeed without
it; it is *worn down* when it still stops some, but fewer; else *no effect* can be told. So a generator that fails
anyway is no merit of a protection. Defenders are compared paired, by photo and seed, in their worst case over the
attackers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tsdf_ray.report.data import Key, Run, Value
from tsdf_ray.report.gains import Gains

HOLDS, WORN, NOTHING, UNKNOWN = "holds", "worn down", "no effect", "not measured"
_WORDS = {HOLDS: "still works against", WORN: "is worn down by", NOTHING: "shows no effect against"}
WEAKENED = 0.15
"""A fall of edit success on unprotected photos, from G_0 to the last generator, worth a warning."""

NAMED = 8
"""Most names in a sentence."""


@dataclass(frozen=True)
class Cell:
    """One pair after its last round."""

    pair: Key
    value: Value
    gain: Value
    """Over unprotected photos of the same races, paired by photo and seed."""
    verdict: str


@dataclass(frozen=True)
class Answer:
    """What stands on top of the page."""

    headline: Markup
    more: tuple[Markup, ...]
    cells: dict[Key, Cell]
    unprotected: dict[str, Value]
    """Attacker -> share of forgeries from unprotected photos that fail too."""
    ranked: tuple[str, ...] = ()
    """Defenders, the strongest first."""


def answer(run: Run) -> Answer:
    """Compare the pairs of a run after their last rounds."""
    gains = Gains(run)
    cells = {pair: _cell(run, pair, gains.over_none(pair)) for pair in run.pairs}
    unprotected = {a: run.reference(a, run.rounds, "none", "protection") for a in run.attackers}
    ranked = sorted(run.defenders, key=lambda d: _strength(run, cells, d), reverse=True)
    measured = [d for d in ranked if _worst(run, cells, d)]
    if not measured:
        reason = next((c.value.reason for c in cells.values() if c.value.reason), "no finished round")
        return Answer(
            Markup("Nothing can be said yet: protection is not available ({}).").format(reason),
            (),
            cells,
            unprotected,
            tuple(ranked),
        )
    rounds = _count(run.rounds, "round")
    headline = Markup("After {}, {}.").format(rounds, _clause(run, cells, measured[0]))
    more: list[Markup] = []
    if not any(cell.verdict in {HOLDS, WORN} for cell in cells.values()):
        headline = Markup("After {}, no protection shows an effect: {}.").format(rounds, _best_of_none(run, cells))
    if len(measured) > 1:
        clauses = [_clause(run, cells, d) for d in measured[1:4]]
        more.append(Markup("; ").join(clauses) + ".")
        more.append(_comparison(run, cells, measured, gains))
    more += _unadapted(run)
    more += _weakened(run)
    if len(run.seeds) == 1:
        more.append(Markup("1 seed: the intervals cover photos of one race, not races."))
    else:
        more.append(
            Markup("Intervals (95 %) cover {} races with different seeds, and the photos in them.").format(
                len(run.seeds)
            )
        )
    return Answer(headline, tuple(more), cells, unprotected, tuple(ranked))


def _cell(run: Run, pair: Key, gain: Value) -> Cell:
    value = run.last(pair)
    if value.value is None:
        return Cell(pair, value, gain, UNKNOWN)
    without = run.reference(pair[1], len(run.over_rounds(pair, "protection")), "none", "protection", pair[0])
    low, failing = gain.low, without.value or 0.0
    if low is None:
        # No photo-wise reference: fall back on the two intervals.
        low = (-1.0 if value.low is None else value.low) - (without.high if without.high is not None else failing)
    if low <= 0:
        return Cell(pair, value, gain, NOTHING)
    return Cell(pair, value, gain, HOLDS if value.value - failing >= 0.5 * (1 - failing) else WORN)


def _unadapted(run: Run) -> list[Markup]:
    """A warning when attackers never retrain: holding against them says nothing of one that adapts."""
    entries = run.scenario.get("attackers", {})
    idle = [a for a in run.attackers if (entries.get(a, {}).get("retrain") or {}).get("mode") == "none"]
    if not idle:
        return []
    if len(idle) == len(run.attackers):
        return [Markup("No attacker retrains here: this is protection before any adaptation.")]
    names = listed([Markup("<b>{}</b>").format(name) for name in idle])
    return [Markup("Without retraining: {}.").format(names)]


def _weakened(run: Run) -> list[Markup]:
    """A warning when attackers unlearned to edit unprotected photos: that flatters every protection."""
    races = []
    for defender, attacker in run.pairs:
        last = len(run.over_rounds((defender, attacker), "protection"))
        first = run.reference(attacker, 0, "none", "edit_success", defender).value
        end = run.reference(attacker, last, "none", "edit_success", defender).value
        if first is not None and end is not None and first - end > WEAKENED:
            words = Markup("<b>{}</b> against {} (from {} to {} of edits)")
            races.append(words.format(attacker, defender, percent(first), percent(end)))
    words = Markup(
        "Beware: retraining cost attackers their skill on unprotected photos too, which flatters protection: {}."
    )
    return [words.format(listed(races))] if races else []


def _worst(run: Run, cells: dict[Key, Cell], defender: str) -> Cell | None:
    """The attacker against whom the defender protects least."""
    known = [cells[p] for p in run.pairs if p[0] == defender and cells[p].value.value is not None]
    return min(known, key=lambda c: c.value.value or 0.0, default=None)


def _strength(run: Run, cells: dict[Key, Cell], defender: str) -> tuple[int, int, float]:
    """For ranking: attackers it holds against, attackers it has an effect on, protection in the worst case."""
    verdicts = [cell.verdict for pair, cell in cells.items() if pair[0] == defender]
    worst = _worst(run, cells, defender)
    value = worst.value.value if worst else None
    held, effective = verdicts.count(HOLDS), verdicts.count(HOLDS) + verdicts.count(WORN)
    return held, effective, -1.0 if value is None else value


def _best_of_none(run: Run, cells: dict[Key, Cell]) -> Markup:
    """The largest gain, when none can be told from no protection."""
    best = max((c for c in cells.values() if c.value.known), key=lambda c: c.gain.value or 0.0)
    defender, attacker = best.pair
    bare = run.reference(attacker, len(run.over_rounds(best.pair, "protection")), "none", "protection", defender)
    words = "even with <b>{}</b> no more of <b>{}</b>’s forgeries fail ({}, 95\u00a0% interval {}) than without ({})"
    named = (defender, attacker, percent(best.value.value), span(best.value), percent(bare.value))
    return Markup(words).format(*named)  # noqa: S704 - our own words; what is filled in is escaped


def _clause(run: Run, cells: dict[Key, Cell], defender: str) -> Markup:
    """'tsdf still works against A (88 % of forgeries fail, 95 % interval 85–91 %), but is worn down by B (...)'."""
    own = [cells[p] for p in run.pairs if p[0] == defender and cells[p].value.known]
    said: list[tuple[str, Markup]] = []
    for verdict, words in _WORDS.items():
        group = [c for c in own if c.verdict == verdict]
        if group:
            said.append((verdict, Markup("{} {}").format(words, _against(group, full=not said))))
    but = ", but " if said[0][0] == HOLDS else ", and "
    clause = Markup("<b>{}</b> {}").format(defender, said[0][1])
    return clause + but + listed([text for _, text in said[1:]]) if said[1:] else clause


def _against(cells: Sequence[Cell], full: bool) -> Markup:
    """Every attacker with its numbers; of more than `NAMED` how many they are, and the two ends."""
    many = len(cells) > NAMED
    if many:
        ordered = sorted(cells, key=lambda c: c.value.value or 0.0)
        cells = ordered[0], ordered[-1]
    parts = []
    for i, cell in enumerate(cells):
        between = " of forgeries fail, 95\u00a0% interval " if full and i == 0 else ", "
        value = cell.value
        parts.append(Markup("<b>{}</b> ({}{}{})").format(cell.pair[1], percent(value.value), between, span(value)))
    return Markup("{} attackers, from {} to {}").format(len(ordered), *parts) if many else listed(parts)


def _comparison(run: Run, cells: dict[Key, Cell], measured: list[str], gains: Gains) -> Markup:
    """The strongest defender's worst case beside the next one's."""
    worst = sorted((w for d in measured if (w := _worst(run, cells, d))), key=lambda c: -(c.value.value or 0.0))
    a, b = worst[0], worst[1]
    difference = gains.between(a.pair, b.pair)
    names = Markup("{} ({}) and {} ({})").format(a.pair[0], percent(a.value.value), b.pair[0], percent(b.value.value))
    if difference.value is not None and difference.low is not None and difference.high is not None:
        apart: bool | None = difference.low > 0 or difference.high < 0
        measure = Markup("{} points, {} to {}, paired by photo and seed").format(
            *(points(v) for v in (difference.value, difference.low, difference.high))
        )
    else:
        apart, measure = a.value.apart_from(b.value), Markup("by whether their intervals overlap")
    told = "differ" if apart else "cannot be told apart"
    return Markup("Each against the attacker that harms it most, {} {}: {}.").format(names, told, measure)


def percent(value: float | None) -> str:
    """'88 %', with a space that does not break."""
    return "–" if value is None else f"{100 * value:.0f}\u00a0%"


def points(value: float) -> str:
    """'+13', '−4', '0': percentage points."""
    whole = round(100 * value)
    return f"{whole:+d}".replace("-", "−") if whole else "0"


def span(value: Value) -> str:
    """'85–91 %', or that there is no interval."""
    if value.low is None or value.high is None:
        return "no interval"
    # Word joiners keep the two ends on one line.
    return f"{100 * value.low:.0f}\u2060–\u2060{100 * value.high:.0f}\u00a0%"


def listed(parts: Sequence[Markup]) -> Markup:
    """'a', 'a and b', 'a, b and c'; of more than `NAMED` the first ones, and how many more there are."""
    if len(parts) > NAMED:
        parts = [*parts[: NAMED - 1], Markup("{} more").format(len(parts) - NAMED + 1)]
    if len(parts) < 2:
        return Markup("").join(parts)
    return Markup(", ").join(parts[:-1]) + " and " + parts[-1]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
