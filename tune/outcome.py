"""What a trial hands to Ray Tune after a round, and back: flat numbers for loggers, and the report as one text.

Tune flattens nested results, and names of pairs hold slashes; so the report travels as JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tsdf_ray.store.trials import Report
from tune.scheduler import ROUND, RUNG


@dataclass(frozen=True)
class Outcome:
    """One round of a trial, or why there is none."""

    round: int
    report: Report | None = None
    failed: str | None = None
    """Why the trial cannot go on."""

    def result(self, *, done: bool, rung: float | None) -> dict[str, Any]:
        """For Tune; `rung`: what the scheduler compares, larger is better."""
        found: dict[str, Any] = {
            ROUND: self.round,
            "done": done or self.failed is not None,
            "failed": self.failed or "",
        }
        found["report"] = json.dumps(vars(self.report)) if self.report else ""
        if self.report:
            found |= {f"objective/{name}": value for name, value in self.report.values.items()}
            found |= {f"violation/{name}": value for name, value in self.report.violations.items()}
        if rung is not None:
            found[RUNG] = rung
        return found

    @staticmethod
    def of(result: dict[str, Any]) -> Outcome:
        """Back from Tune."""
        text = result.get("report")
        report = Report(**json.loads(text)) if text else None
        return Outcome(int(result.get(ROUND, 0)), report, result.get("failed") or None)
