"""People held out for a replay: the same whatever the seed, in no set of a search, alone judged in the replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tsdf_ray.errors import UserError
from tsdf_ray.faces import HAIR, Counts, FacesConfig, HeldOut, Index, load_splits
from tsdf_ray.faces.held_out import held_out_people
from tsdf_ray.faces.splits import _pools

MakeParquet = Callable[..., Path]
SETS = ("defender", "attacker", "evaluation")


def config(held_out: HeldOut | None, **counts: int) -> FacesConfig:
    return FacesConfig(counts=Counts(**({"defender": 1, "attacker": 1, "evaluation": 1} | counts)), held_out=held_out)


def parquet(path: Path, held_out: HeldOut | None, **counts: int) -> FacesConfig:
    wanted = Counts(**({"defender": 5, "attacker": 5, "evaluation": 5} | counts))
    return FacesConfig(source="parquet", path=path, size=32, counts=wanted, held_out=held_out)


def an_index(people: list[tuple[str | None, int, bool]], hair: bool) -> Index:
    """Person p has (split, photos, known by name?); without a name each photo is a person. Every third photo has no
    hair colour, and cannot be used with a generator that edits hair."""
    rows = [(p, k) for p, (_, photos, _) in enumerate(people) for k in range(photos)]
    attributes = HAIR if hair else ("Male",)
    labels_NA = np.zeros((len(rows), len(attributes)), dtype=np.uint8)
    if hair:
        labels_NA[[n for n in range(len(rows)) if n % 3], 1] = 1
    return Index(
        ids=tuple(f"p{p}-{k}" for p, k in rows),
        labels_NA=labels_NA,
        attributes=attributes,
        splits=tuple(people[p][0] for p, _ in rows),
        identities=tuple(f"person {p}" if people[p][2] else None for p, _ in rows),
    )


def names_of(index: Index) -> dict[str, str]:
    return {key: name or key for key, name in zip(index.ids, index.identities, strict=True)}


crowds = st.lists(
    st.tuples(st.sampled_from([None, "training", *SETS, "validation"]), st.integers(1, 3), st.booleans()),
    min_size=12,
    max_size=60,
)
shares = st.floats(0.05, 0.95)
seeds = st.integers(0, 2**31 - 1)


@settings(max_examples=80, deadline=None)
@given(crowds, shares, seeds, seeds, st.booleans(), st.booleans())
def test_a_replay_is_judged_on_nobody_that_the_search_saw(
    crowd: list[tuple[str | None, int, bool]], share: float, seed: int, other: int, hair: bool, other_hair: bool
) -> None:
    """Whatever the seeds, and the attributes of the generators, of both."""
    searched, replayed = an_index(crowd, hair), an_index(crowd, other_hair)
    try:
        rest = _pools(searched, config(HeldOut(share=share, use="rest")), seed)
        held = _pools(replayed, config(HeldOut(share=share, use="held")), other)
    except UserError:
        assume(False)
    names = names_of(searched)
    seen = {names[key] for pool in rest.values() for key in pool}
    judged = {names[key] for key in held["evaluation"]}
    assert judged
    assert not judged & seen
    assert not judged & {names[key] for split in ("defender", "attacker") for key in held[split]}
    assert not {key for pool in rest.values() for key in pool} & set(held["evaluation"])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), shares)
def test_about_the_share_of_the_people_is_held_out(people: int, share: float) -> None:
    index = an_index([(("evaluation", "training")[p % 2], 1 + p % 3, True) for p in range(people)], hair=False)
    person = [str(name) for name in index.identities]
    held = held_out_people(index, person, share)
    judged = {name for name, split in zip(person, index.splits, strict=True) if split == "evaluation"}
    assert held <= judged
    assert abs(len(held) - share * len(judged)) <= 0.5


def test_photos_of_the_training_split_are_never_held_out() -> None:
    index = an_index([("training", 1, True)] * 10 + [("attacker", 1, True)] * 10 + [(None, 1, False)] * 10, hair=False)
    person = [name or f"photo {key}" for key, name in zip(index.ids, index.identities, strict=True)]
    assert len(held_out_people(index, person, 0.5)) == 5
    assert all(name.startswith("photo") for name in held_out_people(index, person, 0.5))


def test_without_it_the_sets_are_those_of_before() -> None:
    """Ids of the packaged sample as they were chosen before anyone could be held out."""
    sets = load_splits(FacesConfig(counts=Counts(defender=3, attacker=3, evaluation=3)), 3)
    assert sets.defender.ids == ("002443", "000821", "001973")
    assert sets.attacker.ids == ("002213", "004893", "000560")
    assert sets.evaluation.ids == ("002961", "004703", "004274")


def test_the_sample_can_hold_half_of_its_people_out() -> None:
    counts = {"defender": 4, "attacker": 4, "evaluation": 6}
    rest = load_splits(config(HeldOut(use="rest"), **counts), 0)
    held = [load_splits(config(HeldOut(use="held"), **counts), seed) for seed in (0, 1)]
    assert held[0].defender.ids == rest.defender.ids, "given splits: only the evaluation changes"
    assert held[0].attacker.ids == rest.attacker.ids
    assert held[0].evaluation.ids != held[1].evaluation.ids
    for replay in held:
        assert not set(replay.evaluation.ids) & set(rest.evaluation.ids)


@pytest.mark.parametrize(
    ("held_out", "counts", "words"),
    [
        (
            HeldOut(use="held"),
            {"evaluation": 17},
            ["17 evaluation", "there are 10", "share 0.5, use held", "raise faces."],
        ),
        (
            HeldOut(use="rest"),
            {"evaluation": 17},
            ["17 evaluation", "there are 10", "use rest", "or lower faces.held_out"],
        ),
        (HeldOut(share=0.9), {"evaluation": 3}, ["faces.counts.evaluation", "search.replay.held_out"]),
    ],
)
def test_too_few_photos_of_the_people_left(
    make_parquet: MakeParquet, held_out: HeldOut, counts: dict[str, int], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        load_splits(parquet(make_parquet(), held_out, **counts), 0)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_holding_people_out_is_no_remedy_where_it_takes_nobody(make_parquet: MakeParquet) -> None:
    with pytest.raises(UserError) as caught:
        load_splits(parquet(make_parquet(), HeldOut(), attacker=21), 0)
    assert str(caught.value).endswith("lower faces.counts.attacker"), str(caught.value)


def test_bad_data_is_told_alike(make_parquet: MakeParquet) -> None:
    """One person in two given splits, whether held out or not."""
    path = make_parquet(identity=["same"] * 60)
    for held_out in (None, HeldOut(use="rest"), HeldOut(use="held")):
        with pytest.raises(UserError, match="both show identity same; give every person one split"):
            load_splits(parquet(path, held_out), 0)


@pytest.mark.parametrize("bad", [{"share": 0}, {"share": 1}, {"use": "all"}, {"shares": 0.5}], ids=str)
def test_bad_sections_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FacesConfig.model_validate({"held_out": bad})


def test_the_config_says_nothing_of_it_when_nobody_is_held_out() -> None:
    assert "held_out" not in FacesConfig().model_dump()
    made = FacesConfig(held_out=HeldOut(share=0.25, use="held"))
    assert FacesConfig.model_validate_json(made.model_dump_json()) == made
