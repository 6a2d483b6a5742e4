"""Transfer tables from rows written by hand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tsdf_ray.metrics import METRICS
from tsdf_ray.metrics.transfer import transfer

SCENARIO: dict[str, Any] = {
    "generator": "editor-128",
    "defenders": {
        "found": {
            "kind": "found",
            "knowledge": "last_round",
            "detectors": [],
            "generators": ["elsewhere/stargan.ckpt"],
        },
        "tsdf": {"kind": "tsdf", "knowledge": "surrogate", "surrogate": "hisd", "detectors": ["retinaface"]},
    },
}


def row(defender: str, phase: str, model: str, metric: str, value: float | None, **more: Any) -> dict[str, Any]:
    given = {"attacker": "a", "round": 1, "judged_round": 1, "step_share": 1.0, "split": "evaluation", "n": 9}
    given |= {"defender": defender, "phase": phase, "model": model, "metric": metric, "value": value}
    known = {"low": value - 0.1, "high": value + 0.1} if value is not None else {"reason": "no face"}
    return given | known | more


def tables(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return transfer(pa.Table.from_pylist(list(rows), METRICS), SCENARIO)


def shown(table: dict[str, Any]) -> dict[str, Any]:
    """Defender -> model -> value, white-box ones with a star."""
    return {
        d: {m: (c["value"], "*") if c["white_box"] else c["value"] for m, c in r["cells"].items()}
        for d, r in table["rows"].items()
    }


def test_detectors_of_the_last_round() -> None:
    found = tables(
        row("found", "detection", "retinaface", "duq", 0.5),
        row("found", "detection", "retinaface", "duq", 1.0, round=2),
        row("found", "detection", "mtcnn", "duq", 0.9, round=2),
        row("found", "detection", "mtcnn", "duq", 0.1, round=2, seed=0),  # one seed's
        row("tsdf", "detection", "retinaface", "duq", 0.2),  # it has one round only
        row("tsdf", "detection", "mtcnn", "duq", None),
        row("tsdf", "detection", "mtcnn", "f1", 0.3),
        row("tsdf", "preparation", "mtcnn", "duq", 0.3, split="attacker"),
    )
    assert len(found) == 1
    table = found[0]
    assert (table["of"], table["metric"], table["attacker"]) == ("detectors", "duq", "a")
    assert table["models"] == ["retinaface", "mtcnn"]
    assert shown(table) == {
        "found": {"retinaface": 1.0, "mtcnn": 0.9},
        "tsdf": {"retinaface": (0.2, "*"), "mtcnn": None},
    }
    assert (table["rows"]["found"]["round"], table["rows"]["tsdf"]["round"]) == (2, 1)
    assert table["rows"]["tsdf"]["cells"]["mtcnn"]["reason"] == "no face"
    known = table["rows"]["tsdf"]["cells"]["retinaface"]
    assert (round(known["low"], 9), round(known["high"], 9), known["n"]) == (0.1, 0.3, 9)
    assert "reason" not in known


def test_generators_beside_the_attackers_own() -> None:
    found = tables(
        row("found", "before", "editor", "sr_mask", 0.9, judged_round=0),
        row("found", "after", "editor", "sr_mask", 0.2),
        row("found", "reference", "none", "sr_mask", 0.0),
        row("found", "transfer", "stargan", "sr_mask", 0.8),
        row("found", "transfer", "hisd", "sr_mask", 0.05),
        row("tsdf", "before", "editor", "sr_mask", 0.3, judged_round=0),
        row("tsdf", "transfer", "hisd", "sr_mask", 0.7),
        row("tsdf", "before", "editor", "sr_mask", 0.1, judged_round=0, attacker="b"),
    )
    assert [(table["of"], table["metric"], table["attacker"]) for table in found] == [("generators", "sr_mask", "a")]
    assert found[0]["models"] == ["editor-128", "stargan", "hisd"]
    assert shown(found[0]) == {
        "found": {"editor-128": (0.9, "*"), "stargan": (0.8, "*"), "hisd": 0.05},
        "tsdf": {"editor-128": 0.3, "hisd": (0.7, "*")},
    }


def test_nothing_measured_has_no_table() -> None:
    assert tables() == []
    assert tables(row("found", "before", "editor", "sr_mask", 0.9)) == []
