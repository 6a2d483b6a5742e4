"""The report of a search: figures/*.png and one self-contained page, report.html, from the files of its folder."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from tsdf_ray.report.charts import Chart
from tsdf_ray.report.page import drawn, page_template, stylesheet, write_page
from tune.answer import headline, more
from tune.figures import all_charts
from tune.report_tables import columns, counted, facts, failures, gaps, setting_row, trial_rows
from tune.results import Results
from tune.tables import write_tables
from tune.words import short_names

__all__ = ["write_search_report", "write_tables"]


def write_search_report(root: Path) -> Path:
    """Write `figures/*.png` and `report.html` into a search's folder, each whole; returns the page's path.

    Reads the folder alone: also of a search that goes on, or has no replay yet. Raises UserError when it is no search,
    or a file of it is damaged.
    """
    results = Results.load(root)
    charts = all_charts(results)
    return write_page(root, charts, render(results, charts))


def render(results: Results, charts: dict[str, Chart]) -> str:
    """The page as text. Everything that comes from the search is escaped; only our own SVG and style sheet are not."""
    template = page_template((files("tune") / "page.html").read_text(encoding="utf-8"))
    best = [player for player in results.players if player.kind == "best"]
    return template.render(
        css=stylesheet(),
        name=results.scenario.name,
        title=results.scenario.title,
        status=str(results.info.get("status", "unknown")),
        headline=headline(results),
        more=more(results),
        measures=columns(results),
        names=list(short_names(results.search.parameters).values()),
        best=[setting_row(results, player) for player in best],
        why_none=results.best[1] or "",
        known=[setting_row(results, player) for player in results.players if player.kind != "best"],
        replayed=any(player.replayed for player in results.players),
        charts={name: drawn(chart) for name, chart in charts.items()},
        front_caption=_front_caption(results),
        map_caption=_map_caption(results),
        importance_caption=_importance_caption(results),
        counted=counted(results),
        rows=trial_rows(results),
        total=len(results.trials),
        failures=failures(results),
        gaps=gaps(results),
        facts=facts(results),
        scenario_yaml=results.scenario.as_yaml(),
    )


def _front_caption(results: Results) -> str:
    marks = "Squares: start points; diamonds: baselines. Hollow: breaks a constraint."
    if len(results.search.objectives) == 1:
        return f"Large blue dots: the best trials. {marks}"
    line = " Beyond the line there is no trial." if len(results.search.objectives) == 2 else ""
    return f"Blue: the front, which no trial beats in all objectives at once; large: the settings chosen.{line} {marks}"


def _map_caption(results: Results) -> str:
    found = results.map_[0]
    if found is None:
        return ""
    dots = "Each dot is a complete trial, coloured by its value (darker is better), whatever its other parameters."
    if found.surface is None:
        return f"{dots} No surface is drawn: {found.reason}."
    told = f"{100 * (found.foretold or 0):.0f} %"
    at = "" if found.psnr is None else f" at PSNR {found.psnr:.1f} dB"
    return (
        f"{dots} The surface is a smooth fit{at}, drawn only near trials; "
        f"of trials left out of the fit it explains {told} of the variance."
    )


def _importance_caption(results: Results) -> str:
    known = next((found for found in results.importances.values() if found.shares), None)
    if known is None:
        return ""
    few = " So few trials tell the strongest parameters at best." if known.trials < 50 else ""
    return (
        "PED-ANOVA (Optuna): how much a parameter separates the best "
        f"{known.top} of {known.trials} complete trials from the others, constraints aside.{few}"
    )
