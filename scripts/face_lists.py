"""Which synthetic face serves what, and what was seen by eye: numbers and lists, no pictures."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache"
ATTRIBUTES = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male")
SPLITS = (*["sample"] * 5, *["editor"] * 3, *["judge"] * 2)
EDITOR_FROM = 7_000


def split_of(face: str) -> str:
    """The use of a face, by its six-digit number."""
    return SPLITS[int(face) % len(SPLITS)] if int(face) < EDITOR_FROM else "editor"


def excluded(reason: str | None = None) -> set[str]:
    """Numbers in scripts/excluded_faces.txt: those left out for this reason, or for any."""
    lines = (ROOT / "scripts" / "excluded_faces.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    return {number.zfill(6) for number, why, *_ in rows if reason in (None, why)}


def corrected() -> dict[str, tuple[int, ...]]:
    """Number -> Black_Hair, Blond_Hair, Brown_Hair, Male as a person set them in `corrected_labels.txt`."""
    lines = (ROOT / "scripts" / "corrected_labels.txt").read_text().splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    colours = ("black", "blond", "brown")
    return {face: (*(int(hair == colour) for colour in colours), int(sex == "m")) for face, hair, sex in rows}
