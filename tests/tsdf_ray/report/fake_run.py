"""A made-up run directory for the report's tests: the documented layout, seeded draws, drawn faces, no real photo.

`make_run(folder)` leaves two defenders against two attackers over three rounds and two seeds. The draws imitate what a
race may look like: `found` is worn down by both attackers, `tsdf` starves the one whose detector it knows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageDraw, ImageFilter
from safetensors.numpy import save_file

DEFENDERS = ("found", "tsdf")
ATTACKERS = ("retinaface", "mtcnn")
DETECTORS = ("retinaface", "mtcnn")
EDITS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male")
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
KEYS = ("seed", "defender", "attacker", "round", "judged_round", "step_share", "phase", "split", "model")
HAIR = {"Black_Hair": (35, 28, 30), "Blond_Hair": (222, 190, 120), "Brown_Hair": (110, 70, 45), "Male": (90, 80, 75)}


class Draws:
    """Rows per photo and edit, and their aggregates, from one seeded generator."""

    def __init__(self, seed: int, photos: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.photos = photos
        self.rows: dict[str, list[Any]] = {k: [] for k in (*KEYS, "photo", "edit", "metric", "value", "weight")}

    def add(self, keys: tuple[Any, ...], metric: str, values: Iterable[float], edits: int = 3) -> None:
        """One row per photo and edit; `values` are given in that order."""
        drawn = list(values)
        columns = dict(zip(KEYS, keys, strict=True))
        for name, value in columns.items():
            self.rows[name] += [value] * len(drawn)
        self.rows["photo"] += [f"photo-{i // edits:03d}.jpg" for i in range(len(drawn))]
        self.rows["edit"] += [EDITS[i % edits] if edits > 1 else "" for i in range(len(drawn))]
        self.rows["metric"] += [metric] * len(drawn)
        self.rows["value"] += drawn
        self.rows["weight"] += [1.0] * len(drawn)

    def forgeries(self, keys: tuple[Any, ...], success: float, distorted: float) -> None:
        """Edit success, SR_mask and protection of one set of (photo, edit) pairs."""
        n = self.photos * 3
        ease = np.repeat(self.rng.normal(0, 0.12, self.photos), 3)
        edited = (self.rng.random(n) < np.clip(success + ease, 0, 1)).astype(float)
        broken = (self.rng.random(n) < np.clip(distorted, 0, 1)).astype(float)
        self.add(keys, "edit_success", edited)
        self.add(keys, "sr_mask", broken)
        self.add(keys, "protection", np.maximum(1 - edited, broken))

    def images(self) -> pa.Table:
        """tables/images.parquet."""
        return pa.table(self.rows)

    def metrics(self) -> pa.Table:
        """tables/metrics.parquet: per seed, and pooled (seed null), with normal intervals."""
        frame = self.images().to_pandas()
        frame["step_share"] = frame["step_share"].astype(float)
        parts = []
        for keys in ([*KEYS, "metric"], [k for k in (*KEYS, "metric") if k != "seed"]):
            grouped = frame.groupby(keys, dropna=False, sort=False)["value"]
            table = grouped.agg(["mean", "std", "count"]).reset_index()
            table["seed"] = table["seed"] if "seed" in keys else None
            half = 1.96 * table["std"].fillna(0) / np.sqrt(table["count"])
            table["low"], table["high"] = table["mean"] - half, table["mean"] + half
            shares = ~table["metric"].isin(["psnr", "ssim", "duq"])
            table.loc[shares, ["low", "high"]] = table.loc[shares, ["low", "high"]].clip(0, 1)
            parts.append(table.rename(columns={"mean": "value", "count": "n"}).drop(columns="std"))
        tables = [pa.Table.from_pandas(p, preserve_index=False) for p in parts]
        schema = tables[0].schema.set(tables[0].schema.get_field_index("seed"), pa.field("seed", pa.int64()))
        order = [*KEYS, "metric", "value", "low", "high", "n"]
        table = pa.concat_tables([t.select(order).cast(pa.schema([schema.field(n) for n in order])) for t in tables])
        reasons: list[str | None] = [None] * table.num_rows
        return table.append_column("reason", pa.array(reasons, pa.string()))


def _levels(defender: str, attacker: str, r: int) -> tuple[float, float, float, float]:
    """Edit success and distortion, before and after the retraining of round r."""
    if defender == "tsdf" and attacker == "retinaface":
        return 0.42, 0.42, 0.66, 0.63
    grown = 0.06 * (r - 1)
    if defender == "tsdf":
        return 0.45 + grown, 0.80 + grown / 3, 0.62 - grown, 0.16
    return 0.36 + grown, 0.86 + grown / 3, 0.90 - 2 * grown, 0.12


def draw_race(draws: Draws, seed: int, defender: str, attacker: str, rounds: int) -> None:
    """All rows of one match."""
    for r in range(1, rounds + 1):
        s0, s1, d0, d1 = _levels(defender, attacker, r)
        pair = (seed, defender, attacker)
        draws.forgeries((*pair, r, r - 1, 1.0, "before", "evaluation", "G"), s0, d0)
        draws.forgeries((*pair, r, r, 1.0, "after", "evaluation", "G"), s1, d1)
        for share in SHARES:
            far = 1 - np.exp(-5 * share)
            draws.forgeries(
                (*pair, r, r, share, "decay", "evaluation", "G"), s0 + (s1 - s0) * far, d0 + (d1 - d0) * far
            )
        for later in range(r + 1, rounds + 1):
            away = later - r
            draws.forgeries((*pair, r, later, 1.0, "later", "evaluation", "G"), s1 + 0.03 * away, d1 * 0.7**away)
        draws.forgeries((*pair, r, r, 1.0, "reference", "evaluation", "none"), 0.92, 0.0)
        draws.forgeries((*pair, r, r, 1.0, "reference", "evaluation", "noise"), 0.91, 0.02)
        starved = defender == "tsdf" and attacker == "retinaface"
        usable = draws.rng.random(draws.photos) < (0.03 if starved else 0.99)
        draws.add((*pair, r, r, 1.0, "preparation", "attacker", attacker), "yield", usable.astype(float), 1)
        for detector in DETECTORS:
            hidden = defender == "tsdf" and detector == "retinaface"
            found = draws.rng.random(draws.photos) < (0.06 if hidden else 0.97)
            draws.add((*pair, r, r, 1.0, "detection", "evaluation", detector), "duq", found.astype(float), 1)
        level = 30.5 if defender == "tsdf" else 31.2
        draws.add(
            (*pair, r, r, 1.0, "visibility", "evaluation", ""), "psnr", draws.rng.normal(level, 0.2, draws.photos), 1
        )
        draws.add(
            (*pair, r, r, 1.0, "visibility", "evaluation", ""), "ssim", draws.rng.normal(0.87, 0.01, draws.photos), 1
        )


PER_ROUND = {
    "edit_success_before": ("before", "edit_success"),
    "edit_success_after": ("after", "edit_success"),
    "sr_mask_before": ("before", "sr_mask"),
    "sr_mask_after": ("after", "sr_mask"),
    "protection": ("after", "protection"),
    "yield": ("preparation", "yield"),
    "psnr": ("visibility", "psnr"),
    "ssim": ("visibility", "ssim"),
}


def summarise(metrics: pa.Table, rounds: int, scenario: str, seeds: list[int]) -> dict[str, Any]:
    """summary.json from the pooled rows of metrics.parquet."""
    frame = metrics.to_pandas()
    frame = frame[frame["seed"].isna()]
    pairs: dict[str, Any] = {}

    def value(rows: Any) -> dict[str, Any]:
        if len(rows) == 0:
            return {"value": None, "low": None, "high": None, "n": 0, "reason": "nothing was measured"}
        row = rows.iloc[0]
        return {"value": row["value"], "low": row["low"], "high": row["high"], "n": int(row["n"])}

    for defender in DEFENDERS:
        for attacker in ATTACKERS:
            own = frame[(frame["defender"] == defender) & (frame["attacker"] == attacker)]
            pair: dict[str, Any] = {name: [] for name in PER_ROUND} | {"duq": {d: [] for d in DETECTORS}}
            pair |= {"half_life": [], "persistence": []}
            for r in range(1, rounds + 1):
                now = own[own["round"] == r]
                for name, (phase, metric) in PER_ROUND.items():
                    pair[name].append(value(now[(now["phase"] == phase) & (now["metric"] == metric)]))
                for d in DETECTORS:
                    pair["duq"][d].append(value(now[(now["model"] == d) & (now["metric"] == "duq")]))
                starved = (defender, attacker) == ("tsdf", "retinaface")
                pair["half_life"].append(
                    {"value": None, "low": None, "high": None, "n": 144, "censored_above": 100}
                    if starved
                    else {"value": 31.0, "low": 24.0, "high": 44.0, "n": 144}
                )
                pair["persistence"].append({"value": 0.97 if starved else 0.38, "low": 0.3, "high": 0.99, "n": 144})
            empty = {"value": None, "low": None, "high": None, "n": 0, "reason": "no edited pixel in the reference"}
            pair["sr_mask_after_initial"] = [empty, *pair["sr_mask_after"][1:]]
            known = ["retinaface"] if defender == "tsdf" else []
            pair["detectors"] = {d: {"white_box": d in known} for d in DETECTORS}
            pairs[f"{defender}/{attacker}"] = pair
    return {
        "schema": 1,
        "scenario": scenario,
        "status": "complete",
        "seconds": 301.2,
        "seeds": seeds,
        "pairs": pairs,
    }


def face(rng: np.random.Generator, size: int, hair: str) -> Image.Image:
    """A drawn face: nobody's."""
    big = size * 2
    skin = tuple(int(v) for v in rng.integers((190, 140, 110), (235, 185, 155)))
    sky = tuple(int(v) for v in rng.integers(90, 200, 3))
    picture = Image.new("RGB", (big, big), sky)
    pen = ImageDraw.Draw(picture)
    c = big / 2
    pen.ellipse((c - 0.36 * big, 0.08 * big, c + 0.36 * big, 0.86 * big), fill=HAIR[hair])
    pen.rectangle((c - 0.36 * big, 0.46 * big, c + 0.36 * big, big), fill=HAIR[hair])
    pen.rectangle((c - 0.12 * big, 0.7 * big, c + 0.12 * big, big), fill=skin)
    pen.ellipse((c - 0.26 * big, 0.22 * big, c + 0.26 * big, 0.88 * big), fill=skin)
    for side in (-1, 1):
        x = c + side * 0.11 * big
        pen.ellipse((x - 0.05 * big, 0.46 * big, x + 0.05 * big, 0.51 * big), fill=(250, 250, 250))
        pen.ellipse((x - 0.022 * big, 0.46 * big, x + 0.022 * big, 0.51 * big), fill=(50, 70, 80))
        pen.arc((x - 0.07 * big, 0.40 * big, x + 0.07 * big, 0.48 * big), 200, 340, fill=HAIR[hair], width=5)
    pen.line((c, 0.52 * big, c - 0.03 * big, 0.63 * big, c + 0.02 * big, 0.64 * big), fill=(150, 100, 80), width=3)
    pen.ellipse((c - 0.08 * big, 0.70 * big, c + 0.08 * big, 0.75 * big), fill=(185, 80, 85))
    return picture.filter(ImageFilter.GaussianBlur(1.5)).resize((size, size), Image.Resampling.LANCZOS)


def samples(seed: int, defender: str, attacker: str, count: int, size: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Pictures and boxes of one round, and their metadata."""
    rng = np.random.default_rng(seed)
    hair = [list(HAIR)[i % 3] for i in range(count)]
    wanted = [EDITS[(i + 1) % 3] for i in range(count)]
    state = [int(rng.integers(1 << 30)) for _ in range(count)]

    def stack(colours: list[str]) -> np.ndarray:
        drawn = [np.asarray(face(np.random.default_rng(s), size, h)) for s, h in zip(state, colours, strict=True)]
        return np.stack(drawn).transpose(0, 3, 1, 2)

    def plus(pixels: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return np.clip(pixels.astype(int) + noise.astype(int), 0, 255).astype(np.uint8)

    photo, edited = stack(hair), stack(wanted)
    w = rng.choice([-10, 10], (1, 3, size, size)) * (rng.random((1, 1, size, size)) < 0.7)
    coarse = rng.normal(0, 60, (count, 3, size // 8, size // 8)).repeat(8, 2).repeat(8, 3)
    holds = defender == "tsdf" and attacker == "retinaface"
    tensors: dict[str, Any] = {
        "photo": photo,
        "published": plus(photo, w),
        "forgery_clean": edited,
        "forgery_clean_after": plus(edited, rng.normal(0, 3, edited.shape)),
        "forgery_before": plus(photo, coarse),
        "forgery_after": plus(photo, coarse * 0.8) if holds else plus(edited, coarse * 0.08),
    }
    box = np.array([[i, 0.2 * size, 0.16 * size, 0.8 * size, 0.9 * size, 0.99] for i in range(count)], np.float32)
    for name in DETECTORS:
        tensors[f"clean_boxes.{name}"] = box + (name == "mtcnn") * np.float32([0, 3, 2, -3, -2, 0])
        kept = box[:0] if (defender, name) == ("tsdf", "retinaface") else box + np.float32([0, 1, -2, 2, 1, -0.1])
        tensors[f"boxes.{name}"] = kept.astype(np.float32)
    ids = [f'{i:04d} "quoted" & <i>.jpg' for i in range(count)]
    return tensors, {"ids": json.dumps(ids), "edits": json.dumps(wanted)}


def scenario(name: str, title: str, seeds: list[int], rounds: int) -> dict[str, Any]:
    """scenario.yaml as played."""
    return {
        "name": name,
        "title": title,
        "seeds": seeds,
        "rounds": rounds,
        "threads": 1,
        "precision": "bfloat16",
        "faces": {"source": "sample", "size": 128},
        "publish": {"kind": "none"},
        "generator": "editor-128",
        "judge": "judge-128",
        "defenders": {
            "found": {"kind": "found", "knowledge": "last_round", "epsilon": 0.08, "detectors": []},
            "tsdf": {"kind": "tsdf", "knowledge": "last_round", "epsilon": 0.08, "detectors": ["retinaface"]},
        },
        "attackers": {a: {"prepare": {"detectors": [a], "crop": "none"}} for a in ATTACKERS},
        "evaluation": {"detectors": list(DETECTORS), "decay": list(SHARES), "references": ["none", "noise"]},
        "resources": {"cpus_per_match": 1.0},
    }


def events(match: str, rounds: int, begin: float) -> Iterable[dict[str, Any]]:
    """Lines of events.jsonl of one match."""
    steps = [("defender", "learn", 8.1), ("defender", "publish", 1.2), ("evaluator", "before", 3.4)]
    steps += [("attacker", "prepare", 2.2), ("attacker", "retrain", 17.5), ("evaluator", "after", 9.3)]
    for r in range(1, rounds + 1):
        for i, (role, step, seconds) in enumerate(steps):
            yield {"match": match, "role": role, "step": step, "round": r, "pid": 100 + i // 2,
                   "start": begin, "end": begin + seconds}  # fmt: skip
            begin += seconds


def make_run(
    root: Path,
    *,
    name: str = "quickstart",
    title: str = "Which protection still works after the attacker has retrained?",
    seeds: tuple[int, ...] = (0, 1),
    rounds: int = 3,
    photos: int = 24,
    size: int = 128,
) -> Path:
    """Write the run directory and return it."""
    draws = Draws(7, photos)
    root.mkdir(parents=True, exist_ok=True)
    lines, manifest = [], []
    for seed in seeds:
        for defender in DEFENDERS:
            for attacker in ATTACKERS:
                draw_race(draws, seed, defender, attacker, rounds)
                match = f"{defender}-vs-{attacker}-s{seed}"
                lines += list(events(match, rounds, 1.78e9 + 200 * len(manifest)))
                for r in range(1, rounds + 1):
                    tensors, notes = samples(seed, defender, attacker, 3, size)
                    path = root / "samples" / match / f"round-{r:03d}.safetensors"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path, metadata=notes)
                    starved = defender == "tsdf" and attacker == "retinaface"
                    manifest.append({
                        "match": match, "seed": seed, "defender": defender, "attacker": attacker, "round": r,
                        "files": {}, "digests": {}, "usable": 3 if starved else 126, "steps": 0 if starved else 100,
                        "reason": "3 usable photos, fewer than a batch of 16" if starved else None,
                    })  # fmt: skip
    (root / "tables").mkdir(exist_ok=True)
    pq.write_table(draws.images(), root / "tables/images.parquet")
    metrics = draws.metrics()
    pq.write_table(metrics, root / "tables/metrics.parquet")
    (root / "summary.json").write_text(json.dumps(summarise(metrics, rounds, name, list(seeds))))
    (root / "scenario.yaml").write_text(yaml.safe_dump(scenario(name, title, list(seeds), rounds), sort_keys=False))
    (root / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in manifest))
    info = {
        "schema": 1, "scenario": name, "digest": "3f" * 32, "seeds": list(seeds), "status": "complete",
        "started": 1.78e9, "seconds": 301.2, "versions": {"tsdf-ray": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "machine": {"system": "Linux", "processor": "x86_64", "cpus": 2, "python": "3.11.2"},
        "failed": {}, "skipped": [{"file": "bro\"ken'<b>.jpg", "reason": "truncated: 12 of 4,096 bytes"}],
    }  # fmt: skip
    (root / "run.json").write_text(json.dumps(info))
    return root


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG."""
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size
