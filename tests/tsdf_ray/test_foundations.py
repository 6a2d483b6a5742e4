"""Named randomness, registries and digests: what everything else stands on."""

from __future__ import annotations

import hashlib
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsdf_ray import registry
from tsdf_ray.digest import array_digest, file_digest
from tsdf_ray.errors import UserError
from tsdf_ray.randomness import numpy_rng, seed_for, torch_rng
from tsdf_ray.registry import known, look_up

seeds = st.integers(0, 2**31 - 1)
name = st.one_of(st.text(alphabet="abcdef-_ 01", max_size=8), st.integers(0, 1000))
names = st.lists(name, max_size=4)


class TestRandomness:
    @given(seeds, names)
    def test_a_seed_depends_on_its_names_alone(self, seed: int, path: list[str | int]) -> None:
        value = seed_for(seed, *path)
        torch.manual_seed(seed)
        torch.rand(3)
        assert seed_for(seed, *path) == value
        assert 0 <= value < 2**63

    @given(seeds, names, names)
    def test_other_names_other_seeds(self, seed: int, one: list[str | int], other: list[str | int]) -> None:
        same = [str(n) for n in one] == [str(n) for n in other]
        assert (seed_for(seed, *one) == seed_for(seed, *other)) == same

    @given(seeds, seeds)
    def test_other_run_seeds_other_seeds(self, one: int, other: int) -> None:
        assert (seed_for(one, 1, "defender") == seed_for(other, 1, "defender")) == (one == other)

    def test_order_and_joints_of_names_matter(self) -> None:
        assert len({seed_for(0, "a", "b"), seed_for(0, "b", "a"), seed_for(0, "ab"), seed_for(0, "a", "b", "")}) == 4

    def test_golden(self) -> None:
        # Written down once: a change here would change the result of every run.
        assert seed_for(0) == int.from_bytes(hashlib.sha256(b"0").digest()[:8], "little") >> 1
        expected = int.from_bytes(hashlib.sha256(b"7\x1f2\x1fattacker\x1fretrain").digest()[:8], "little") >> 1
        assert seed_for(7, 2, "attacker", "retrain") == expected

    def test_generators_repeat_and_leave_the_global_state_alone(self) -> None:
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
        first = torch.rand(5, generator=torch_rng(1, "x"))
        assert torch.equal(first, torch.rand(5, generator=torch_rng(1, "x")))
        assert not torch.equal(first, torch.rand(5, generator=torch_rng(1, "y")))
        assert numpy_rng(1, "x").integers(1 << 60) == numpy_rng(1, "x").integers(1 << 60)
        assert numpy_rng(1, "x").integers(1 << 60) != numpy_rng(2, "x").integers(1 << 60)
        assert torch.equal(before[0], torch.get_rng_state())
        assert (before[1] == np.random.get_state()[1]).all()  # type: ignore[index]


class TestRegistry:
    @pytest.fixture
    def plugins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        points = [
            EntryPoint("counter", "collections:Counter", "tsdf_ray.toys"),
            EntryPoint("absent", "no_such_module_of_anybody:Thing", "tsdf_ray.toys"),
            EntryPoint("int", "collections:OrderedDict", "tsdf_ray.toys"),
            EntryPoint("other", "collections:deque", "tsdf_ray.games"),
        ]
        monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints(points).select(group=group))

    @pytest.mark.usefixtures("plugins")
    def test_built_in_first_then_plug_ins(self) -> None:
        from collections import Counter

        assert look_up("toys", "int", {"int": int}) is int, "a plug-in cannot replace a built-in"
        assert look_up("toys", "counter", {"int": int}) is Counter  # type: ignore[comparison-overlap]
        assert known("toys", {"int": int}) == "absent, counter, int"

    @pytest.mark.usefixtures("plugins")
    def test_unknown_name_lists_the_valid_ones(self) -> None:
        with pytest.raises(UserError, match="toys: unknown name 'other'; valid names: absent, counter, int"):
            look_up("toys", "other", {"int": int})

    @pytest.mark.usefixtures("plugins")
    def test_a_plug_in_that_cannot_be_loaded_is_named(self) -> None:
        with pytest.raises(UserError, match=r"plug-in 'absent' \(no_such_module_of_anybody:Thing\)"):
            look_up("toys", "absent", {"int": int})

    def test_ours_are_registered(self) -> None:
        executor = look_up("executors", "ray", {})  # type: ignore[var-annotated]
        assert executor.__name__ == "RayExecutor"


arrays = st.dictionaries(
    st.text(alphabet="abc.", min_size=1, max_size=5),
    st.lists(st.integers(-9, 9), min_size=1, max_size=6).map(lambda values: np.array(values, np.float32)),
    min_size=1,
    max_size=4,
)


class TestDigest:
    @given(arrays)
    def test_equal_content_equal_digest(self, value: dict[str, np.ndarray]) -> None:
        backwards = {key: value[key].copy() for key in reversed(value)}
        tensors = {key: torch.from_numpy(array) for key, array in value.items()}
        strided = {key: np.repeat(array, 2)[::2] for key, array in value.items()}
        assert len({array_digest(form) for form in (value, backwards, tensors, strided)}) == 1

    @given(arrays)
    def test_every_part_counts(self, value: dict[str, np.ndarray]) -> None:
        first = sorted(value)[0]
        array = value[first]
        others = [
            value | {first: array + 1},
            value | {first: array.astype(np.float64)},
            value | {first: array[None]},
            {f"{key}x" if key == first else key: array for key, array in value.items()},
            value | {"new": array},
        ]
        digests = [array_digest(value), *(array_digest(other) for other in others)]
        assert len(set(digests)) == len(digests)

    def test_file_digest(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"abc" * 100_000)
        assert file_digest(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
