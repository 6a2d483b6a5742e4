"""The numbers of the page as rows: per pair and round, how the run was made, and where its time went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tsdf_ray.report.answer import percent
from tsdf_ray.report.data import Key, Run, Value

METRICS = {
    "protection": "Protection: forgeries that fail, after retraining",
    "edit_success_before": "Edit success, before retraining",
    "edit_success_after": "Edit success, after retraining",
    "hair_edit_success_before": "Hair edit success, before",
    "hair_edit_success_after": "Hair edit success, after",
    "sr_mask_before": "SR_mask, before retraining",
    "sr_mask_after": "SR_mask, after retraining",
    "sr_mask_after_initial": "SR_mask, after, reference by the first generator",
    "persistence": "Persistence: area under the decay curve over its start",
    "half_life": "Half-life of SR_mask, in retraining steps",
    "yield": "Yield: photos the attacker could use",
    "psnr": "PSNR of the published photo, dB",
    "ssim": "SSIM of the published photo",
    "lpips": "LPIPS of the published photo",
    "identity_similarity": "Identity: forgery and photo, cosine",
    "identity_similarity_clean": "Identity: forgery and unprotected forgery, cosine",
}
_PLAIN = {"half_life": 0, "psnr": 1, "ssim": 2, "duq": 2, "persistence": 2, "l2_mask": 3, "lpips": 3}
_PLAIN |= {"identity_similarity": 2, "identity_similarity_clean": 2}
"""Metrics that are no shares, and their decimals."""
_SETS = {"frechet": "Fréchet", "kernel": "Kernel"}
"""Distances of sets of forgeries, by how their names begin; what follows is the network of the features."""


@dataclass(frozen=True)
class Entry:
    """One cell of the table."""

    main: str
    interval: str
    reason: str
    n: int | None


@dataclass(frozen=True)
class Line:
    """One metric over the rounds."""

    label: str
    cells: tuple[Entry, ...]


def pair_table(run: Run, pair: Key) -> tuple[Line, ...]:
    """Every metric of a pair, one cell per round; those unknown here stand at the end under their own name."""
    known = run.summary["pairs"]["/".join(pair)]
    more = [name for name, values in known.items() if name not in METRICS and _is_series(values)]
    lines = []
    for name in [*METRICS, *more]:
        values = run.over_rounds(pair, name)
        if values:
            lines.append(Line(_label(name), tuple(entry(name, v) for v in values)))
    for detector, values in run.duq(pair).items():
        kind = "white-box" if run.white_box(pair[0], detector) else "held-out"
        lines.append(Line(f"DUQ, {detector} ({kind})", tuple(entry("duq", v) for v in values)))
    return tuple(lines)


def _label(metric: str) -> str:
    kind, _, network = metric.partition("_")
    if kind in _SETS:
        return f"{_SETS[kind]} distance of forgeries to unprotected ones, by features of {network}"
    return METRICS.get(metric, metric)


def _is_series(values: Any) -> bool:
    return isinstance(values, list) and all(v is None or (isinstance(v, dict) and "value" in v) for v in values)


def entry(metric: str, value: Value) -> Entry:
    """A value as text: shares in per cent, others with their decimals, a missing one with its reason."""
    decimals = 3 if metric.partition("_")[0] in _SETS else _PLAIN.get(metric)

    def text(number: float) -> str:
        shown = f"{100 * number:.0f}" if decimals is None else f"{number:.{decimals}f}"
        return shown.replace("-", "−")

    low = "" if value.low is None else text(value.low)
    high = "" if value.high is None else text(value.high)
    if value.censored_above:
        # A half-life that was not reached (no value), or not in all resamples (an interval that is open above).
        above = f"> {text(value.censored_above)}"
        if value.value is None:
            return Entry(above, "not reached", "", value.n)
        high = high or above
    if value.value is None:
        return Entry("–", "", value.reason or "not available", value.n)
    main = percent(value.value) if decimals is None else text(value.value)
    interval = f"{low}\u202f–\u202f{high}" if low and high else ""
    return Entry(main, interval, "", value.n)


@dataclass(frozen=True)
class Phase:
    """Seconds all matches together spent in one step of one role."""

    role: str
    step: str
    seconds: float
    share: float
    """Of the longest phase, for the bar."""


def phases(run: Run) -> tuple[Phase, ...]:
    """Time per role and step, from events.jsonl, longest first."""
    spent: dict[tuple[str, str], float] = {}
    for event in run.events:
        if {"role", "step", "start", "end"} <= event.keys():
            key = (str(event["role"]), str(event["step"]))
            spent[key] = spent.get(key, 0.0) + float(event["end"]) - float(event["start"])
    longest = max(spent.values(), default=0.0) or 1.0
    ranked = sorted(spent.items(), key=lambda item: -item[1])
    return tuple(Phase(role, step, seconds, seconds / longest) for (role, step), seconds in ranked)


def facts(run: Run) -> list[tuple[str, str]]:
    """How the run was made, as label and text."""
    info = run.info
    machine = info.get("machine") or {}
    versions = info.get("versions") or {}
    started = info.get("started")
    seconds = run.summary.get("seconds", info.get("seconds"))
    rows = [
        ("Status", str(info.get("status", run.summary.get("status", "unknown")))),
        ("Seeds", ", ".join(str(seed) for seed in run.seeds)),
        ("Started", datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M UTC") if started else ""),
        ("Duration", duration(seconds) if seconds is not None else ""),
        ("Machine", ", ".join(f"{key} {value}" for key, value in machine.items() if value)),
        ("Versions", ", ".join(f"{key} {value}" for key, value in versions.items())),
        ("Scenario SHA-256", str(info.get("digest", ""))),
    ]
    return [(label, text) for label, text in rows if text]


def duration(seconds: float) -> str:
    """'48 s', '5 min 1 s', '2 h 3 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def failures(run: Run) -> list[tuple[str, str]]:
    """Matches that failed, with the reason."""
    return _named(run.info.get("failed"))


def skipped(run: Run) -> list[tuple[str, str]]:
    """Photos that were left out, with the reason where one is known."""
    return _named(run.info.get("skipped"))


def pauses(run: Run) -> list[tuple[str, str]]:
    """Matches whose attacker did not retrain, with the rounds and the reason."""
    rounds: dict[tuple[str, str], list[int]] = {}
    for line in run.manifest:
        if line.get("reason"):
            rounds.setdefault((str(line.get("match")), str(line["reason"])), []).append(int(line.get("round", 0)))
    return [
        (f"{match}, round{'s' if len(found) > 1 else ''} {', '.join(str(r) for r in found)}", reason)
        for (match, reason), found in rounds.items()
    ]


def _named(items: Any) -> list[tuple[str, str]]:
    if isinstance(items, dict):
        return [(str(name), str(reason)) for name, reason in items.items()]
    rows: list[tuple[str, str]] = []
    for item in items or []:
        if isinstance(item, dict):
            rest = {key: value for key, value in item.items() if key != "reason"}
            rows.append((", ".join(str(v) for v in rest.values()), str(item.get("reason", ""))))
        else:
            rows.append((str(item), ""))
    return rows
