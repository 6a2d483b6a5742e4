"""The charts of a search's report: the front, what decides, the history, and the winner's curse."""

from __future__ import annotations

from functools import partial

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tsdf_ray.report.charts import GRID, INK, MUTED, PANEL, PAPER, Chart, Panel, message, shorten
from tsdf_ray.scenario.search import Objective
from tune.front import kept_to
from tune.front_figure import BEST, KINDS, START, front_chart
from tune.map_figure import map_chart
from tune.parallel import parallel_chart
from tune.results import Player, Results
from tune.words import better_words, short_names, tick


def all_charts(results: Results) -> dict[str, Chart]:
    """Every chart the search has data for, by name."""
    charts = [
        front_chart(results),
        replay_chart(results),
        map_chart(results),
        importance_chart(results),
        parallel_chart(results),
        history_chart(results),
    ]
    return {chart.name: chart for chart in charts if chart.panels}


def importance_chart(results: Results) -> Chart:
    """Bars per objective."""
    names = short_names(results.search.parameters)
    panels = []
    for objective, found in results.importances.items():
        height = 0.36 * min(len(found.shares or names), 12) + 0.5
        draw = partial(_bars, found.shares, found.reason, names)
        panels.append(Panel(f"for {objective}", draw, (PANEL[0], height), (0.4, 0.08, 0.88, 0.97)))
    if all(found.shares is None for found in results.importances.values()):
        panels = []
    return Chart("importance", "Which parameters decide", tuple(panels))


def _bars(shares: dict[str, float] | None, reason: str | None, names: dict[str, str], axes: Axes) -> None:
    if shares is None:
        message(axes, f"Not available: {reason}")
        return
    shown = list(shares.items())[:12]
    axes.barh(range(len(shown)), [share for _, share in shown], height=0.55, color=BEST, alpha=0.8)
    for y, (_, share) in enumerate(shown):
        axes.text(share, y, f" {100 * share:.0f}%", va="center", color=INK, fontsize=10.5)
    axes.set_yticks(range(len(shown)), [shorten(names[name], 22) for name, _ in shown])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, max(share for _, share in shown) * 1.02)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def history_chart(results: Results) -> Chart:
    """Value by trial number, one panel per objective, with the best so far."""
    if not any(trial.last for trial in results.trials):
        return Chart("history", "History", ())
    panels = [
        Panel(
            f"{name}: {better_words(objective)}",
            partial(_history, results, name, objective),
            (6.6, 3.4),
            (0.11, 0.16, 0.97, 0.97),
        )
        for name, objective in results.search.objectives.items()
    ]
    return Chart("history", "History: how the search went", tuple(panels))


def _history(results: Results, name: str, objective: Objective, axes: Axes) -> None:
    sign = 1 if objective.direction == "maximize" else -1
    best: list[tuple[float, float]] = []
    for trial in results.trials:
        value = results.values(trial).get(name)
        if value is None:
            continue
        able = trial.last is not None and kept_to(results.search, trial.last)
        if trial.state == "complete":
            colour = START if trial.point else BEST
            axes.plot(trial.number, value, "s" if trial.point else "o", color=colour, markersize=6.5, zorder=3,
                      markeredgewidth=1.3, markerfacecolor=colour if able else PAPER)  # fmt: skip
            if able and (not best or sign * value > sign * best[-1][1]):
                best.append((trial.number, value))
        else:
            marker = {"pruned": "x", "running": "."}.get(trial.state, "v")
            axes.plot(
                trial.number, value, marker, color=MUTED, markersize=6, alpha=0.8, markeredgewidth=1.4, zorder=2.5
            )
    if best:
        best.append((max(len(results.trials) - 1, best[-1][0]), best[-1][1]))
        axes.plot(*zip(*best, strict=True), color=BEST, linewidth=1.8, alpha=0.55, drawstyle="steps-post", zorder=2)
    low, high = axes.get_ylim()
    for trial in results.trials:
        if trial.state == "failed" and name not in results.values(trial):
            axes.plot(trial.number, low - 0.06 * (high - low), "v", color=MUTED, markersize=6, clip_on=False)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlim(-0.8, max(len(results.trials), 1) - 0.2)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(objective.metric, value)))
    axes.grid(axis="y", color=GRID, linewidth=0.8)


def replay_chart(results: Results) -> Chart:
    """What the search measured, and what the same setting did on fresh seeds and unseen people."""
    players = [player for player in results.players if any(v.value is not None for v in player.replayed.values())]
    if not players:
        return Chart("replay", "", ())
    size = (PANEL[0], 0.42 * len(players) + 0.85)
    margins = (0.27, 0.5 / size[1], 0.97, 1 - 0.06 / size[1])
    panels = [
        Panel(f"{name}: {better_words(objective)}", partial(_replay, players, name, objective.metric), size, margins)
        for name, objective in results.search.objectives.items()
    ]
    return Chart("replay", "What the search promised, and what came of it on unseen people", tuple(panels))


def _replay(players: list[Player], name: str, metric: str, axes: Axes) -> None:
    for y, player in enumerate(players):
        colour, marker, _ = KINDS[player.kind]
        promised, got = player.searched.get(name), player.replayed.get(name)
        before, after = promised.value if promised else None, got.value if got else None
        if before is not None and after is not None:
            axes.plot([before, after], [y, y], color=MUTED, linewidth=1.2, linestyle=(0, (1, 2)), zorder=2)
        if before is not None:
            axes.plot(
                before, y, marker, color=colour, markersize=8, markerfacecolor=PAPER, markeredgewidth=1.6, zorder=3
            )
        if got and after is not None:
            if got.low is not None and got.high is not None:
                axes.plot([got.low, got.high], [y, y], color=colour, linewidth=3, alpha=0.45, zorder=2.5)
            axes.plot(after, y, marker, color=colour, markersize=8, markeredgewidth=1.6, zorder=4)
    axes.set_ylim(len(players) - 0.4, -0.6)
    axes.set_yticks(range(len(players)), [shorten(player.name.replace("_", " "), 15) for player in players])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.margins(0.08, 0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(metric, value)))
    axes.grid(axis="x", color=GRID, linewidth=0.8)
