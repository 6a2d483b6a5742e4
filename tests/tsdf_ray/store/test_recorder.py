"""Damaged files: the rounds that need them are played again, what came of it equals an undisturbed run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tsdf_ray.errors import MatchFailed
from tsdf_ray.game.materials import Materials
from tsdf_ray.game.spec import MatchSpec, all_matches
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.finish import finish_run
from tsdf_ray.store.manifest import Entry, Manifest, round_file
from tsdf_ray.store.recorder import Recorder
from tsdf_ray.store.rundir import RunDirectory
from tsdf_ray.testing.rounds import made_up_materials, made_up_round

ROUNDS = 4
GAME = Scenario.load("smoke", (f"rounds={ROUNDS}", "attackers.mtcnn.collect={photos: 4, pool: cumulative}"))
MATCH = all_matches(GAME)[0]


class Kept:
    """Stands for the run a recorder writes into."""

    def __init__(self) -> None:
        self.lines: list[Mapping[str, Any]] = []
        self.recorded_rounds: list[int] = []

    def check(self) -> None:
        """Ours."""

    def log(self, line: Mapping[str, Any]) -> None:
        self.lines.append(line)

    def recorded(self, entry: Entry) -> None:
        self.recorded_rounds.append(entry.round)


@pytest.fixture(scope="module")
def materials() -> Materials:
    return made_up_materials(0)


def play(root: Path, materials: Materials, until: int = ROUNDS, match: MatchSpec = MATCH) -> tuple[Kept, list[str]]:
    """Play on from where the match stands, as the round loop does; what was told."""
    kept, told = Kept(), list[str]()
    recorder = Recorder(root, Manifest(root / "manifest.jsonl"), kept, told.append)
    standing = recorder.standing(match, materials)
    for r in range(standing.round + 1, until + 1):
        recorder.record(match, made_up_round(match, r, materials))
    return kept, told


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, materials: Materials) -> Callable[[int], Path]:
    """A run after so many rounds, made once."""
    made: dict[int, Path] = {}

    def until(rounds: int) -> Path:
        if rounds not in made:
            made[rounds] = tmp_path_factory.mktemp(f"rounds-{rounds}") / "run"
            made[rounds].mkdir()
            play(made[rounds], materials, rounds)
        return made[rounds]

    return until


def flip(path: Path, seed: int) -> None:
    data = bytearray(path.read_bytes())
    data[int(np.random.default_rng(seed).integers(len(data)))] ^= 1 << seed % 8
    path.write_bytes(data)


def cut(path: Path, seed: int) -> None:
    size = path.stat().st_size
    with path.open("rb+") as file:
        file.truncate(int(np.random.default_rng(seed).integers(size)))


def remove(path: Path, seed: int) -> None:
    path.unlink()


# After 3 of 4 rounds: checkpoints 2 and 3 are kept.
UNFINISHED = {
    ("checkpoints", 3): 3,
    ("checkpoints", 2): 4,  # nobody needs it
    ("perturbations", 3): 3,
    ("perturbations", 2): 1,  # there is no checkpoint of round 1
    ("perturbations", 1): 1,
    ("parts", 3): 3,
    ("parts", 1): 1,
    ("samples", 3): 4,  # of a round that is not the last
}
# After all 4: checkpoints 3 and 4.
FINISHED = {
    ("parts", 4): 4,
    ("parts", 3): 1,
    ("samples", 4): 4,
    ("samples", 2): 5,
    ("perturbations", 4): 5,
    ("checkpoints", 4): 5,
}


@pytest.mark.parametrize("harm", [flip, cut, remove])
@pytest.mark.parametrize(
    ("rounds", "folder", "round", "again_from"),
    [(3, folder, r, again) for (folder, r), again in UNFINISHED.items()]
    + [(4, folder, r, again) for (folder, r), again in FINISHED.items()],
)
def test_a_damaged_file_costs_the_rounds_that_need_it(
    tmp_path: Path,
    played: Callable[[int], Path],
    materials: Materials,
    harm: Callable[[Path, int], None],
    rounds: int,
    folder: str,
    round: int,
    again_from: int,
) -> None:
    root = tmp_path / "run"
    shutil.copytree(played(rounds), root)
    name = round_file(folder, MATCH.id, round)
    harm(root / name, seed=7 * round + rounds)
    before = (root / "manifest.jsonl").read_bytes()
    kept, told = play(root, materials)
    assert kept.recorded_rounds == list(range(again_from, ROUNDS + 1))
    assert (root / "manifest.jsonl").read_bytes().startswith(before), "lines are only ever appended"
    if again_from <= rounds:
        assert [line["event"] for line in kept.lines] == ["damaged"]
        assert kept.lines[0]["again_from"] == again_from
        assert name in told[0]
        assert "played again" in told[0]
        assert "checkpoints" not in told[0] or folder == "checkpoints", "one that was not kept is no damage"
    else:
        assert told == []
    whole = played(ROUNDS)
    assert results(root) == results(whole)
    for entry in Manifest(root / "manifest.jsonl").of(MATCH.id):
        part = entry.file("parts")
        assert (root / part).read_bytes() == (whole / part).read_bytes()


def results(root: Path) -> list[tuple[int, dict[str, str]]]:
    return [(e.round, e.digests) for e in Manifest(root / "manifest.jsonl").of(MATCH.id)]


def test_all_checkpoints_damaged_is_from_the_beginning(
    tmp_path: Path, played: Callable[[int], Path], materials: Materials
) -> None:
    root = tmp_path / "run"
    shutil.copytree(played(3), root)
    for r in (2, 3):
        flip(root / round_file("checkpoints", MATCH.id, r), r)
    kept, told = play(root, materials)
    assert kept.recorded_rounds == [1, 2, 3, 4]
    assert "rounds 1 to 3 are played again, from the beginning" in told[0]
    assert results(root) == results(played(ROUNDS))


def test_killed_while_it_repairs_it_goes_on_repairing(
    tmp_path: Path, played: Callable[[int], Path], materials: Materials
) -> None:
    """The first rounds are replaced, the damaged one not yet: it is found again, from a nearer checkpoint."""
    root = tmp_path / "run"
    shutil.copytree(played(ROUNDS), root)
    flip(root / round_file("parts", MATCH.id, 3), 1)
    assert play(root, materials, until=2)[0].recorded_rounds == [1, 2]
    assert play(root, materials)[0].recorded_rounds == [3, 4]
    assert play(root, materials)[0].recorded_rounds == []
    assert results(root) == results(played(ROUNDS))


def test_a_round_that_comes_out_differently_ends_what_followed(
    tmp_path: Path, played: Callable[[int], Path], materials: Materials
) -> None:
    root = tmp_path / "run"
    shutil.copytree(played(3), root)
    manifest = Manifest(root / "manifest.jsonl")
    old = manifest.of(MATCH.id)[1]
    manifest.append(Entry(**(vars(old) | {"digests": old.digests | {"generator": "other"}})))
    for again in (manifest, Manifest(root / "manifest.jsonl")):
        assert [entry.round for entry in again.of(MATCH.id)] == [1, 2]
    manifest.append(old)
    assert [entry.round for entry in Manifest(root / "manifest.jsonl").of(MATCH.id)] == [1, 2]


def test_a_pool_is_not_carried_on_from_a_damaged_checkpoint(
    tmp_path: Path, played: Callable[[int], Path], materials: Materials
) -> None:
    """Else the next checkpoint's digest would vouch for it."""
    root = tmp_path / "run"
    shutil.copytree(played(3), root)
    recorder = Recorder(root, Manifest(root / "manifest.jsonl"))
    assert recorder.standing(MATCH, materials).round == 3
    flip(root / round_file("checkpoints", MATCH.id, 3), 3)
    with pytest.raises(MatchFailed, match=r"checkpoints/.*round-003.*differs"):
        recorder.record(MATCH, made_up_round(MATCH, 4, materials))
    assert len(Manifest(root / "manifest.jsonl").of(MATCH.id)) == 3


@pytest.fixture
def run(tmp_path: Path, materials: Materials) -> Iterator[tuple[RunDirectory, Scenario]]:
    """A whole run of two matches."""
    game = Scenario.load("smoke", ("rounds=2", "seeds=[0, 1]", "evaluation.resamples=100"))
    directory = RunDirectory.create(tmp_path / "run", game)
    for match in all_matches(game):
        play(directory.root, materials, 2, match)
    yield directory, game
    directory.close()


def test_a_part_that_is_damaged_at_the_end_fails_its_match_alone(run: tuple[RunDirectory, Scenario]) -> None:
    directory, game = run
    harmed = all_matches(game)[1]
    flip(directory.root / round_file("parts", harmed.id, 2), 3)
    finish_run(directory, game, Manifest(directory.root / "manifest.jsonl"), "complete", 1.0)
    info = directory.info()
    assert info["status"] == "failed"
    assert list(info["failed"]) == [harmed.id]
    assert "round-002.parquet: differs" in info["failed"][harmed.id]
    images = pq.read_table(directory.root / "tables" / "images.parquet")
    assert set(zip(images["seed"].to_pylist(), images["round"].to_pylist(), strict=True)) == {(0, 1), (0, 2), (1, 1)}


def test_a_finished_run_leaves_what_was_whole(run: tuple[RunDirectory, Scenario]) -> None:
    directory, game = run
    finish_run(directory, game, Manifest(directory.root / "manifest.jsonl"), "complete", 1.0)
    assert directory.info()["status"] == "complete"
    assert not list(directory.root.rglob(".*.part"))
