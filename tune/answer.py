"""The answer of a search in words: the best setting, what came of it on unseen people, and beside it what was known."""

from __future__ import annotations

from markupsafe import Markup

from tsdf_ray.report.answer import listed
from tune.analysis import Measured
from tune.results import Player, Results
from tune.words import between, number, params_text, short_names, wish


def headline(results: Results) -> Markup:
    """One sentence."""
    best = [player for player in results.players if player.kind == "best"]
    if not best:
        return Markup("No best setting yet: {}.").format(results.best[1])
    count = sum(trial.state == "complete" for trial in results.trials)
    complete = Markup("{} complete trial{}").format(count, "" if count == 1 else "s")
    if len(results.search.objectives) == 1:
        words = "The best of {} is <b>{}</b>: {}."
        return Markup(words).format(complete, title_of(best[0]), _both(results, best[0]))  # noqa: S704 - our own words
    front = Markup("Of {}, {} form{} the front").format(
        complete, len(results.front), "s" if len(results.front) == 1 else ""
    )
    if len(best) == 1:
        return Markup("{}: <b>{}</b>, with {}.").format(front, title_of(best[0]), _both(results, best[0]))
    pair = (best[0], best[-1])
    where = " on unseen people" if all(player.replayed for player in pair) else " in the search"
    ends = [Markup("<b>{}</b> ({})").format(title_of(p), _said(results, p, where == " in the search")) for p in pair]
    return Markup("{}, from {} to {}{}.").format(front, *ends, where)


def more(results: Results) -> tuple[Markup, ...]:
    """What stands below it."""
    best = [player for player in results.players if player.kind == "best"]
    said: list[Markup] = []
    if best and best[0].trial:
        names = short_names(results.search.parameters)
        named = "" if len(best) == 1 or len(results.search.objectives) == 1 else f" of {title_of(best[0])}"
        said.append(Markup("Parameters{}: {}.").format(named, params_text(best[0].trial.params, names)))
    for kind, word in (("start", "Start points"), ("baseline", "Baselines")):
        others = [p for p in results.players if p.kind == kind and (p.searched or p.replayed)]
        if others:
            parts = [Markup("<b>{}</b> ({})").format(p.name, _said(results, p)) for p in others[:4]]
            where = "on unseen people" if all(p.replayed for p in others[:4]) else "on unseen people where replayed"
            where = where if results.replays else "in the search"
            said.append(Markup("{}, {}: {}.").format(word, where, listed(parts)))
    if best:
        said += _compared(results, best[0])
        said += [text for player in best if (text := _broken(results, player))]
    if not results.replays and best:
        why = results.notes.get("replay", "not played")
        said.append(Markup("Not replayed ({}): the numbers are those that chose the best, and flatter it.").format(why))
    return tuple(said)


def title_of(player: Player) -> str:
    """'trial 7', 'paper (trial 0)'."""
    if player.trial is None:
        return player.name
    number = f"trial {player.trial.number}"
    return f"{player.trial.point} ({number})" if player.trial.point else number


def _said(results: Results, player: Player, searched: bool = False) -> Markup:
    """'protection 81.0 % (76.0–85.1 %), psnr 33.1': of the replay, unless `searched` or not replayed."""
    values = player.searched if searched or not player.replayed else player.replayed
    parts = []
    for name, objective in results.search.objectives.items():
        found = values.get(name) or Measured(None)
        span = between(objective.metric, found) if not searched else ""
        parts.append(f"{name} {number(objective.metric, found.value)}" + (f", {span}" if span else ""))
    return Markup("{}").format("; ".join(parts))


def _both(results: Results, player: Player) -> Markup:
    """'protection 86.3 % in the search, 81.0 % (95 % interval 76.0–85.1 %) on unseen people'."""
    parts = []
    for name, objective in results.search.objectives.items():
        before, after = player.searched.get(name), player.replayed.get(name)
        told = []
        if before and before.value is not None:
            told.append(Markup("{} in the search").format(number(objective.metric, before.value)))
        if after and after.value is not None:
            span = between(objective.metric, after)
            interval = Markup(" (95\u00a0% interval {})").format(span) if span else ""
            told.append(Markup("{}{} on unseen people").format(number(objective.metric, after.value), interval))
        parts.append(Markup("{} {}").format(name, Markup(", ").join(told) if told else "not measured"))
    return Markup("; ").join(parts)


def _compared(results: Results, best: Player) -> list[Markup]:
    """The replayed best beside every other replayed setting that is no best one, by the first objective."""
    name, objective = next(iter(results.search.objectives.items()))
    own = best.replayed.get(name)
    if own is None or own.value is None:
        return []
    sign = 1 if objective.direction == "maximize" else -1
    groups: dict[str, list[Markup]] = {}
    for player in results.players:
        other = player.replayed.get(name)
        if player.kind == "best" or other is None or other.value is None:
            continue
        ahead = sign * own.value > sign * other.value
        apart = _apart(own, other)
        if apart is None:
            verdict = "ahead of" if ahead else "not ahead of"
        else:
            verdict = ("clearly ahead of" if ahead else "clearly behind") if apart else "not to be told apart from"
        groups.setdefault(verdict, []).append(Markup("<b>{}</b>").format(player.name))
    if not groups:
        return []
    clauses = [Markup("{} {}").format(verdict, listed(names)) for verdict, names in groups.items()]
    by = " (by whether their 95\u00a0% intervals overlap)" if own.low is not None else ""
    return [Markup("In the replay, by {}, {} is {}{}.").format(name, title_of(best), listed(clauses), by)]


def _apart(a: Measured, b: Measured) -> bool | None:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return None
    return a.low > b.high or b.low > a.high


def _broken(results: Results, player: Player) -> Markup | None:
    """Constraints that a best setting breaks in the replay."""
    parts = []
    for name, constraint in results.search.constraints.items():
        got = player.replayed.get(name)
        if got is None or got.value is None:
            continue
        least, most = constraint.at_least, constraint.at_most
        if (least is not None and got.value < least) or (most is not None and got.value > most):
            parts.append(Markup("{} {}: {}").format(name, wish(constraint), number(constraint.metric, got.value)))
    if not parts:
        return None
    return Markup("Beware: in the replay {} breaks {}.").format(title_of(player), listed(parts))
