"""Files of a real race, cut short or with a bit flipped while nobody plays: `resume` falls back and says so, and the
tables equal those of the undisturbed race."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tsdf_ray import api
from tsdf_ray.game.control import Quiet
from tsdf_ray.game.spec import MatchSpec, all_matches
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.manifest import Manifest, round_file

ROUNDS = 3
GAME = Scenario.load(
    "smoke",
    (
        f"rounds={ROUNDS}",
        "faces.counts={defender: 8, attacker: 24, evaluation: 6}",
        "attackers.mtcnn.collect={photos: 8, pool: cumulative}",
        "attackers.mtcnn.retrain.train={steps: 4, batch: 4}",
    ),
)
MATCH = all_matches(GAME)[0].id


class Snapshots(Quiet):
    """Copies the run's folder after every round, and keeps what was noted."""

    def __init__(self, root: Path | None = None) -> None:
        super().__init__()
        self._root = root
        self.notes: list[str] = []
        self.played: list[int] = []

    def phase(self, match: MatchSpec, round: int, phase: str) -> None:
        if phase == "done":
            self.played.append(round)
            if self._root is not None:
                shutil.copytree(self._root, self._root.with_name(f"after-{round}"))

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def races(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`whole`, an undisturbed race, and `after-R`, as it lay after each round."""
    folder = tmp_path_factory.mktemp("races")
    root = folder / "whole"
    api.play(GAME, root, executor="inprocess", report=False, progress=Snapshots(root))
    return folder


def cut(share: float) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        with path.open("rb+") as file:
            file.truncate(int(share * path.stat().st_size))

    return harm


def flip(seed: int) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        rng = np.random.default_rng(seed)
        data = bytearray(path.read_bytes())
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(data))

    return harm


def resumed(races: Path, root: Path, after: int, harms: dict[str, Callable[[Path], None]]) -> Snapshots:
    """Harm the race as it lay after a round, and go on; it must equal the undisturbed one."""
    shutil.copytree(races / f"after-{after}", root)
    for name, harm in harms.items():
        harm(root / name)
    shown = Snapshots()
    run = api.resume(root, executor="inprocess", report=False, progress=shown)
    assert run.status == "complete"
    for name in ("images", "metrics"):
        wanted = pq.read_table(races / "whole" / "tables" / f"{name}.parquet")
        assert pq.read_table(root / "tables" / f"{name}.parquet").equals(wanted), name
    digests = [
        [entry.digests for entry in Manifest(each / "manifest.jsonl").of(MATCH)] for each in (races / "whole", root)
    ]
    assert digests[0] == digests[1]
    told = [line["note"] for line in events(root) if line.get("event") == "damaged"]
    assert told == [note for note in shown.notes if "played again" in note], "people and the log are told alike"
    for name in harms:
        assert name in told[0]
    return shown


def events(root: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()]


@pytest.mark.timeout(600)
def test_a_checkpoint_cut_short_is_passed_over(races: Path, tmp_path: Path) -> None:
    name = round_file("checkpoints", MATCH, 2)
    shown = resumed(races, tmp_path / "run", 2, {name: cut(0.5)})
    assert shown.played == [2, 3]
    assert any("round 2 is played again, from round 1" in note for note in shown.notes)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_flipped_bit_in_a_part_is_mended_after_the_end(races: Path, tmp_path: Path) -> None:
    shown = resumed(races, tmp_path / "run", 3, {round_file("parts", MATCH, 3): flip(5)})
    assert shown.played == [3]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.9, 0.9999])
def test_checkpoints_cut_at_any_length(races: Path, tmp_path: Path, share: float) -> None:
    assert resumed(races, tmp_path / "run", 2, {round_file("checkpoints", MATCH, 2): cut(share)}).played == [2, 3]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(6))
def test_checkpoints_with_any_bit_flipped(races: Path, tmp_path: Path, seed: int) -> None:
    assert resumed(races, tmp_path / "run", 2, {round_file("checkpoints", MATCH, 2): flip(seed)}).played == [2, 3]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("after", "folder", "round", "played"),
    [
        (2, "perturbations", 2, [2, 3]),
        (2, "perturbations", 1, [1, 2, 3]),
        (2, "parts", 1, [1, 2, 3]),
        (3, "parts", 2, [1, 2, 3]),
        (3, "samples", 3, [3]),
    ],
)
@pytest.mark.parametrize("harm", [cut(0.7), flip(11)], ids=["cut", "flip"])
def test_whatever_a_later_round_needs(
    races: Path,
    tmp_path: Path,
    after: int,
    folder: str,
    round: int,
    played: list[int],
    harm: Callable[[Path], None],
) -> None:
    assert resumed(races, tmp_path / "run", after, {round_file(folder, MATCH, round): harm}).played == played


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_with_no_checkpoint_left_the_race_begins_again(races: Path, tmp_path: Path) -> None:
    harms = {round_file("checkpoints", MATCH, r): flip(r) for r in (1, 2)}
    shown = resumed(races, tmp_path / "run", 2, harms)
    assert shown.played == [1, 2, 3]
    assert any("from the beginning" in note for note in shown.notes)
