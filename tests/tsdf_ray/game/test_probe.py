"""The one-batch probe, on the smallest scenario; and counted sizes against real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.executor import LASTING
from tsdf_ray import api
from tsdf_ray.errors import UserError
from tsdf_ray.game.passes import match_lines
from tsdf_ray.game.plan import Supply, plan
from tsdf_ray.game.probe import _affordable, probe, small
from tsdf_ray.game.sizes import KEPT, SEEDS, disk, object_peak, weights_of
from tsdf_ray.game.walltime import ROLE_OF, stated_rates, time_of, with_measured
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.recorder import KEPT_CHECKPOINTS

SMOKE = Scenario.load("smoke")


def test_a_small_match_keeps_every_size_that_a_step_has() -> None:
    big = Scenario.load("paper/persistence")
    for defender, attacker in big.pairs:
        game = small(big, defender, attacker)
        assert (game.faces.size, game.precision, game.threads) == (big.faces.size, big.precision, big.threads)
        before, now = big.attackers[attacker], game.attackers[attacker]
        assert now.retrain.train.batch == before.retrain.train.batch
        assert (game.rounds, len(game.seeds), len(game.pairs)) == (1, 1, 1)
        assert now.collect.photos >= now.retrain.train.batch
        few = sum(line.gflop for line in match_lines(game, defender, attacker))
        assert few < sum(line.gflop for line in match_lines(big, defender, attacker)) / 50


def test_a_small_match_of_every_packaged_scenario_can_be_made() -> None:
    from tsdf_ray.library import entries

    for entry in entries():
        game = Scenario.load(entry.name)
        assert small(game, *game.pairs[-1]).rounds == 1


def test_what_would_take_too_long_is_cut_or_left() -> None:
    assert _affordable(SMOKE, gpu=False) == (small(SMOKE, "tsdf", "mtcnn"), False)
    wide = ("faces.size=256", "faces.counts.defender=64", "defenders.tsdf.batch=64")
    large = Scenario.load("smoke", ("generator=stargan-128", *wide))
    game, cut = _affordable(large, gpu=False)
    assert cut
    assert game.faces.counts.defender == game.attackers["mtcnn"].retrain.train.batch == 2
    assert _affordable(large, gpu=True)[1] is False
    paper = Scenario.load("paper/persistence")
    with pytest.raises(UserError, match="even 2 photos of each step take ~"):
        _affordable(paper, gpu=False)


def test_probe_measures_and_its_bytes_are_those_counted() -> None:
    found = probe(SMOKE)
    assert set(found.rates) == set(ROLE_OF) - {"study"}, "all that a match of smoke computes"
    assert all(rate > 0 for rate in found.rates.values())
    assert 0.95 < found.correction < 1.1
    assert (found.device, found.gpu_bytes) == ("cpu", 0)
    assert found.peak_bytes > 100e6
    # Extrapolated to the small match itself, it is what was measured.
    game = small(SMOKE, "tsdf", "mtcnn")
    made = plan(game, Supply(2, 0))
    time = time_of(game, made, 1, with_measured(stated_rates(game, made), found.rates))
    assert sum(time.steps.values()) == pytest.approx(sum(found.steps.values()), rel=0.01)


def test_constants_of_other_rooms() -> None:
    assert (KEPT, SEEDS) == (KEPT_CHECKPOINTS, LASTING)


def test_more_of_everything_is_larger() -> None:
    weights = weights_of(SMOKE)
    plain = sum(disk(SMOKE, weights).values())
    rich = Scenario.load("smoke", ("rounds=4", "seeds=[0, 1]", "attackers.mtcnn.collect={photos: 8, pool: cumulative}"))
    assert sum(disk(rich, weights).values()) > 2 * plain
    assert disk(rich, weights)["checkpoints"] == 4 * weights.whole + 2 * (3 + 4) * 8 * 3 * 64**2
    assert object_peak(rich, weights, 2) > object_peak(rich, weights, 1) > object_peak(SMOKE, weights, 1)


@pytest.mark.slow
def test_disk_is_what_a_run_takes(tmp_path: Path) -> None:
    api.play(SMOKE, tmp_path / "run", executor="inprocess")
    for name, counted in disk(SMOKE, weights_of(SMOKE)).items():
        folder = tmp_path / "run" / ("figures" if name == "report" else name)
        files = [path for path in folder.rglob("*") if path.is_file()]
        files += [tmp_path / "run/report.html"] if name == "report" else []
        real = sum(path.stat().st_size for path in files)
        loose = 3.0 if name in {"parts", "tables", "report"} else 1.15
        assert real / loose < counted < real * loose, name
