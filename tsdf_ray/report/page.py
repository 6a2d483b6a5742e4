"""The report: figures/*.png and one self-contained page, report.html, from the files of a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined, Template
from markupsafe import Markup

from tsdf_ray.report import many
from tsdf_ray.report.answer import HOLDS, NOTHING, UNKNOWN, WORN, Answer, Cell, answer, percent, points, span
from tsdf_ray.report.charts import SERIES, Chart
from tsdf_ray.report.data import Key, Run, Value
from tsdf_ray.report.figures import all_charts
from tsdf_ray.report.pictures import pair_strips
from tsdf_ray.report.tables import duration, facts, failures, pair_table, pauses, phases, skipped
from tsdf_ray.report.transfers import transfer_tables
from tsdf_ray.store.atomic import whole_file, write_text


@dataclass(frozen=True)
class Drawn:
    """A chart in the page: one SVG per panel."""

    title: str
    panels: tuple[tuple[str, Markup], ...]


def write_report(run_dir: Path) -> Path:
    """Write `figures/*.png` and `report.html` into a run directory, each whole; returns the page's path.

    Reads the run directory alone. Raises UserError when it is none, has no results yet, or a file of it is damaged.
    """
    run = Run.load(run_dir)
    found = answer(run)
    charts = all_charts(many.drawn(run, found.ranked))
    return write_page(run_dir, charts, render(run, charts, found))


def write_page(root: Path, charts: dict[str, Chart], text: str) -> Path:
    """Put the figures and the page into a folder, each whole; returns the page's path."""
    for chart in charts.values():
        with whole_file(root / "figures" / f"{chart.name}.png") as temporary:
            temporary.write_bytes(chart.png())
    page = root / "report.html"
    write_text(page, text)
    return page


def render(run: Run, charts: dict[str, Chart], found: Answer | None = None) -> str:
    """The page as text. Everything that comes from the run is escaped; only our own SVG and style sheet are not."""
    template = page_template(_resource("page.html"), percent=percent, span=span, share=_share)
    found = found or answer(run)
    everyone = many.lines(run, {pair: cell.verdict for pair, cell in found.cells.items()})
    grid = many.grid(run, found)
    run = many.drawn(run, found.ranked)
    return template.render(
        css=stylesheet(),
        name=str(run.summary.get("scenario") or run.info.get("scenario") or run.root.name),
        title=str(run.scenario.get("title") or ""),
        run=run,
        answer=found,
        everyone=everyone,
        grid=grid,
        states={HOLDS: "good", WORN: "mid", NOTHING: "bad", UNKNOWN: "none"},
        colours={d: i % len(SERIES) for i, d in enumerate(run.defenders)},
        payoff=_payoff(run, found.cells),
        unprotected=[(a, found.unprotected[a]) for a in run.attackers],
        visibility=_visibility(run),
        charts={name: drawn(chart) for name, chart in charts.items()},
        strips={
            d: [s for a in run.attackers if (d, a) in run.pairs and (s := pair_strips(run, (d, a)))]
            for d in run.defenders
        },
        transfers=transfer_tables(run),
        tables=[(pair, pair_table(run, pair)) for pair in run.pairs],
        facts=facts(run),
        phases=phases(run),
        failures=failures(run),
        skipped=skipped(run),
        pauses=pauses(run),
        known={d: _names(run.scenario.get("defenders", {}).get(d)) for d in run.defenders},
        prepares={a: _names(run.scenario.get("attackers", {}).get(a, {}).get("prepare")) for a in run.attackers},
    )


def page_template(text: str, **words: Any) -> Template:
    """A page's template: it escapes what is put in and refuses names it was not given; `words` are its functions."""
    environment = Environment(
        loader=BaseLoader(), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(duration=duration, **words)
    return environment.from_string(text)


def stylesheet() -> Markup:
    """The look that all pages share."""
    return Markup(_resource("page.css"))  # noqa: S704 - a packaged file


def _payoff(run: Run, cells: dict[Key, Cell]) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """Rows of the payoff table: defender, and per attacker the cell."""
    rows: list[tuple[str, list[dict[str, Any] | None]]] = []
    for d in run.defenders:
        row: list[dict[str, Any] | None] = []
        for a in run.attackers:
            cell = cells.get((d, a))
            played = len(run.over_rounds((d, a), "protection")) if cell else 0
            row.append({"cell": cell, "gain": _gain(cell.gain), "played": played} if cell else None)
        rows.append((d, row))
    return rows


def _share(value: float | None) -> str:
    """'88', for a table that says elsewhere that it is in per cent."""
    return "–" if value is None else f"{100 * value:.0f}"


def _gain(value: Value) -> str:
    if value.value is None or value.low is None or value.high is None:
        return ""
    return f"{points(value.value)} points over no protection ({points(value.low)} to {points(value.high)})"


def _visibility(run: Run) -> dict[str, list[str]]:
    """Per defender how visible its perturbation is, after the last round against its first attacker."""
    found: dict[str, list[str]] = {}
    for d in run.defenders:
        pair = next(p for p in run.pairs if p[0] == d)
        psnr = run.last(pair, "psnr")
        epsilon = run.scenario.get("defenders", {}).get(d, {}).get("epsilon")
        parts = [f"epsilon {epsilon:g}"] if isinstance(epsilon, int | float) else []
        found[d] = parts + ([f"PSNR {psnr.value:.1f} dB"] if psnr.value is not None else [])
    return found


def _names(section: dict[str, Any] | None) -> list[str]:
    """Detectors a section of the scenario names."""
    return [str(name) for name in (section or {}).get("detectors") or ()]


def drawn(chart: Chart) -> Drawn:
    """A chart as the page shows it."""
    # Matplotlib escapes the text it puts into SVG.
    svgs = [Markup(svg) for svg in chart.svgs()]  # noqa: S704
    return Drawn(chart.title, tuple(zip((p.title for p in chart.panels), svgs, strict=True)))


def _resource(name: str) -> str:
    return (files("tsdf_ray.report") / name).read_text(encoding="utf-8")
