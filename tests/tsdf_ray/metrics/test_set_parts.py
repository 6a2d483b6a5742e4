"""Distances of sets from parts: equal to those of sets.py on everything at once, however the photos are divided."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from tsdf_ray.metrics.set_parts import NOTHING, Distance, SetPart, distances, together
from tsdf_ray.metrics.sets import SetPairs, frechet, kernel, set_measures

WIDTH = 5


def game(photos: int, seed: int = 0) -> tuple[list[str], SetPairs]:
    """Names, and pairs of forgeries of which a photo has one to three; features far from zero lose digits first."""
    rng = np.random.default_rng(seed)
    photo = np.arange(photos).repeat(rng.integers(1, 4, photos))
    person = rng.normal(size=(photos, WIDTH))[photo] + 40
    y = person + 0.3 * rng.normal(size=person.shape)
    x = 1.1 * y + 0.5 * rng.normal(size=y.shape)
    return [f"{n:05d}.png" for n in range(photos)], SetPairs(x.astype(np.float32), y.astype(np.float32), photo)


def cut(names: list[str], pairs: SetPairs, ends: list[int]) -> list[bytes]:
    """Parts of consecutive photos, as they are filed."""
    found = []
    for start, end in zip([0, *ends], [*ends, len(names)], strict=True):
        own = (pairs.photo_P >= start) & (pairs.photo_P < end)
        part = SetPairs(pairs.forged_PD[own], pairs.clean_PD[own], pairs.photo_P[own] - start)
        found.append(SetPart.of(names[start:end], part, len(names)).content() if own.any() else NOTHING)
    return found


def measured(parts: list[bytes]) -> dict[str, Distance]:
    return {found.metric: found for found in distances("net", together(map(SetPart.read, parts)))}


@pytest.mark.parametrize("ends", [[], [100], [1, 2, 2, 90, 150, 299]], ids=["one", "two", "seven"])
def test_parts_give_what_everything_at_once_gives(ends: list[int]) -> None:
    photos = 300
    names, pairs = game(photos)
    found = measured(cut(names, pairs, ends))
    for metric, (pseudo, weight) in set_measures("net", pairs, photos).items():
        assert np.all(weight == 1)
        error = pseudo.std(ddof=1) / np.sqrt(photos)
        got = found[metric]
        assert got.value == pytest.approx(pseudo.mean(), rel=1e-8)
        assert (got.low, got.high) == pytest.approx((pseudo.mean() - 1.96 * error, pseudo.mean() + 1.96 * error), 1e-6)
        assert got.n == photos


def test_neither_order_nor_cut_matter() -> None:
    names, pairs = game(300)
    parts = cut(names, pairs, [40, 130, 210])
    found = measured(parts)
    for other in (parts[::-1], cut(names, pairs, [200])):
        again = measured(other)
        assert again["kernel_net"] == found["kernel_net"], "the same photos in the same order"
        assert again["frechet_net"].value == pytest.approx(found["frechet_net"].value, rel=1e-9)
    assert measured(parts) == found


def test_many_photos_are_sampled_for_the_kernel_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    photos, sample = 2400, 150
    monkeypatch.setattr(import_module("tsdf_ray.metrics.set_parts"), "SAMPLE", sample)
    names, pairs = game(photos)
    parts = cut(names, pairs, list(range(300, photos, 300)))
    read = [part for part in map(SetPart.read, parts) if part is not None]
    assert sample <= sum(len(part.draw_S) for part in read) < photos / 2, "candidates, and no more, are filed"
    whole = together(read)
    assert whole is not None
    assert len(whole.draw_S) == sample
    x, y = (side.astype(np.float64) for side in pairs[:2])
    value, pseudo = frechet(x, y, pairs.photo_P, photos)
    found = measured(parts)
    assert found["frechet_net"].value == pytest.approx(value, rel=1e-8)
    assert found["frechet_net"].n == photos
    error = pseudo.std(ddof=1) / np.sqrt(photos)
    assert found["frechet_net"].high == pytest.approx(value + 1.96 * error, abs=error / 2), "errors of 150 photos"

    # The kernel distance is that of the sampled photos, taken out by hand.
    drawn = np.concatenate([part.draw_S for part in map(SetPart.read, cut(names, pairs, [])) if part is not None])
    assert set(whole.draw_S) == set(np.sort(drawn)[:sample])
    x, y = (side.astype(np.float64) for side in whole.pairs[:2])
    assert found["kernel_net"].value == kernel(x, y, whole.pairs.photo_P, sample)[0]
    assert found["kernel_net"].n == sample
    exact = kernel(*(side.astype(np.float64) for side in pairs[:2]), pairs.photo_P, photos)[0]
    low, high = found["kernel_net"].low, found["kernel_net"].high
    assert low is not None
    assert high is not None
    assert low - (high - low) < exact < high + (high - low)


def test_the_sampled_forgeries_are_those_of_the_sampled_photos() -> None:
    names, pairs = game(60)
    whole = together(map(SetPart.read, cut(names, pairs, [25])))
    assert whole is not None
    rows = {row.tobytes() for row in pairs.forged_PD}
    assert {row.tobytes() for row in whole.pairs.forged_PD} == rows
    # A photo's own forgeries: as many as it had, in the order of the draws.
    own = np.bincount(pairs.photo_P)
    draws = {int(SetPart.of([name], SetPairs(pairs.forged_PD[:1], pairs.clean_PD[:1], np.zeros(1, int)), 1).draw_S[0]):
             own[n] for n, name in enumerate(names)}  # fmt: skip
    assert [draws[int(draw)] for draw in whole.draw_S] == np.bincount(whole.pairs.photo_P).tolist()
    assert list(whole.draw_S) == sorted(draws)


@pytest.mark.parametrize("photos", [0, 30])
def test_too_few_forgeries_have_the_evaluators_reason(photos: int) -> None:
    names, pairs = game(photos)
    found = measured(cut(names, pairs, [photos // 2]))
    assert found["frechet_net"].value is None
    assert found["frechet_net"].reason == (
        "too few forgeries: a Fréchet distance needs two per feature of the network, and 200"
    )
    assert found["kernel_net"].reason == "too few forgeries: a kernel distance needs 200"


@pytest.mark.parametrize("content", [b"", b"nonsense", NOTHING[:-1]])
def test_a_damaged_file_is_said_to_be_one(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        SetPart.read(content)
