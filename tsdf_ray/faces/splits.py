"""Photos for the three roles: no person in two splits, chosen by named randomness, decoded only when chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tsdf_ray.errors import UserError
from tsdf_ray.faces.celeba import CelebaSource
from tsdf_ray.faces.config import FacesConfig
from tsdf_ray.faces.decode import Pixels
from tsdf_ray.faces.faceset import HAIR, FaceSet
from tsdf_ray.faces.folder import FolderSource
from tsdf_ray.faces.held_out import held_out_people
from tsdf_ray.faces.parquet import ParquetSource
from tsdf_ray.faces.sample import sample_source
from tsdf_ray.faces.source import SPLITS, TRAINING, Face, FaceSource, Index, Tally
from tsdf_ray.files import located
from tsdf_ray.randomness import numpy_rng


@dataclass(frozen=True)
class Splits:
    """The photos of one run. No identity is in two of the sets."""

    defender: FaceSet
    attacker: FaceSet
    evaluation: FaceSet
    skipped: tuple[str, ...] = ()
    """Items left out under `on_bad: skip`, each as 'name: reason'."""


def open_source(config: FacesConfig, tally: Tally) -> FaceSource:
    """The source a config names; nothing is read yet, except that the sample must be installed."""
    if config.path is None:
        return sample_source(tally)
    path = located(config.path)
    if config.source == "celeba":
        return CelebaSource(path, tally)
    if config.source == "folder":
        return FolderSource(path, tally)
    return ParquetSource(path, tally)


def iter_faces(config: FacesConfig, tally: Tally | None = None) -> Iterator[Face]:
    """Every photo of a source, streamed, with `config.attributes` as labels; `tally` collects what is skipped.

    Raises UserError (BadPhoto for a single item) under `on_bad: stop`.
    """
    source = open_source(config, tally or Tally(config.on_bad))
    return source.faces(config.attributes, config.size, config.crop)


def load_splits(config: FacesConfig, run_seed: int, attributes: tuple[str, ...] | None = None) -> Splits:
    """Choose and decode the photos of one run.

    `attributes` (a generator's) override the config's. With two or more hair colours among them, only photos with
    exactly one of these are used. CelebA: evaluation from partition 2, defender and attacker from partition 0, divided
    by identity. A `split` column is obeyed. Otherwise people (a photo without an identity is one) are divided by
    `counts`. Equal seed and equal data give equal sets. With `held_out` the people held out are in no set (use rest),
    or they alone in the evaluation (use held). Raises UserError: bad items under `stop`, an identity in two splits,
    fewer photos than asked for.
    """
    wanted = config.attributes if attributes is None else attributes
    tally = Tally(config.on_bad)
    source = open_source(config, tally)
    index = source.index(wanted)
    pools = _pools(index, config, run_seed)
    order = {
        split: [pool[i] for i in numpy_rng(run_seed, "faces", split).permutation(len(pool))]
        for split, pool in pools.items()
    }
    chosen, pixels = _decode(source, config, order)
    row = {key: n for n, key in enumerate(index.ids)}
    sets = {split: _face_set(ids, pixels, index, row, tuple(tally.skipped)) for split, ids in chosen.items()}
    return Splits(**sets, skipped=tuple(tally.skipped))


def _pools(index: Index, config: FacesConfig, run_seed: int) -> dict[str, list[str]]:
    """Candidates per split, sorted by id."""
    hair = [a for a, name in enumerate(index.attributes) if name in HAIR]
    usable_N = index.labels_NA[:, hair].sum(axis=1) == 1 if len(hair) > 1 else np.ones(len(index.ids), dtype=bool)
    counts = {split: int(getattr(config.counts, split)) for split in SPLITS}
    person = [identity or f"photo {key}" for key, identity in zip(index.ids, index.identities, strict=True)]
    rows = sorted((n for n in range(len(index.ids)) if usable_N[n]), key=index.ids.__getitem__)
    given: list[tuple[int, str]] = [(n, split) for n in rows if (split := index.splits[n]) in SPLITS and split]
    held: frozenset[str] = frozenset()
    judged = config.held_out is not None and config.held_out.use == "held"
    if config.held_out is not None:
        # Before anyone is left out: bad data is told alike, whoever plays.
        _check_disjoint(index, person, given, config)
        held = held_out_people(index, person, config.held_out.share)
        given = [(n, split) for n, split in given if (person[n] in held) == (judged and split == "evaluation")]
    for label, parts in ((TRAINING, SPLITS[:2]), (None, SPLITS)):
        open_rows = [n for n in rows if index.splits[n] == label and person[n] not in held]
        if open_rows:
            people = [person[n] for n in open_rows]
            shares = {split: counts[split] for split in (parts[:2] if judged else parts)}
            side = divide(people, shares, numpy_rng(run_seed, "faces", "people", label or "all"))
            given += [(n, side[person[n]]) for n in open_rows]
    if judged:
        given += [(n, "evaluation") for n in rows if index.splits[n] is None and person[n] in held]
    _check_disjoint(index, person, given, config)
    pools: dict[str, list[str]] = {split: sorted(index.ids[n] for n, s in given if s == split) for split in SPLITS}
    for split, pool in pools.items():
        if len(pool) < counts[split]:
            only = " with exactly one hair colour" if len(hair) > 1 else ""
            cut = any(person[n] in held for n in rows if index.splits[n] in (split, None))
            raise UserError(_too_few(config, split, f"there are {len(pool)}{only}", cut))
    return pools


def divide(people: Sequence[str], shares: dict[str, int], rng: np.random.Generator) -> dict[str, str]:
    """Give each person (one entry per photo) to one part, so that photos follow `shares` as closely as people allow.

    People come in random order; a person goes to the part that lacks most of its share so far. With one photo per
    person and at least as many photos as shares, no part gets less than its share. Returns person -> part.
    """
    photos = Counter(people)
    names = sorted(photos)
    total, asked = len(people), sum(shares.values())
    have = dict.fromkeys(shares, 0)
    found: dict[str, str] = {}
    for i in rng.permutation(len(names)):
        name = names[i]
        # The part's target is total * share / asked; in whole numbers, so that ties break alike on every machine.
        part = max(shares, key=lambda p: total * shares[p] - asked * have[p])
        found[name] = part
        have[part] += photos[name]
    return found


def _check_disjoint(index: Index, person: list[str], given: list[tuple[int, str]], config: FacesConfig) -> None:
    first: dict[str, tuple[int, str]] = {}
    for n, split in given:
        m, earlier = first.setdefault(person[n], (n, split))
        if earlier != split:
            raise UserError(
                f"faces ({config.source}, {config.path or 'packaged'}): {index.ids[m]} is in the split {earlier} and "
                f"{index.ids[n]} in {split}, but both show identity {person[n]}; give every person one split"
            )


def _decode(
    source: FaceSource, config: FacesConfig, order: dict[str, list[str]]
) -> tuple[dict[str, list[str]], dict[str, Pixels]]:
    """Decode the first photos of each order; the next ones replace those that turn out to be bad."""
    pixels: dict[str, Pixels] = {}
    bad: set[str] = set()
    while True:
        chosen: dict[str, list[str]] = {}
        for split, ids in order.items():
            count = int(getattr(config.counts, split))
            chosen[split] = [key for key in ids if key not in bad][:count]
            if len(chosen[split]) < count:
                usable = f"{len(chosen[split])} of {len(ids)} are usable, {len(ids) - len(chosen[split])} are bad"
                raise UserError(_too_few(config, split, usable))
        missing = [key for ids in chosen.values() for key in ids if key not in pixels]
        if not missing:
            return chosen, pixels
        pixels.update(source.pixels(missing, config.size, config.crop))
        bad.update(key for key in missing if key not in pixels)


def _too_few(config: FacesConfig, split: str, found: str, cut: bool = False) -> str:
    """`cut`: the people held out lack here."""
    asked, held = getattr(config.counts, split), config.held_out
    remedy = f"lower faces.counts.{split}"
    if held is not None and (cut or split == "evaluation"):
        way = "raise" if (held.use, split) == ("held", "evaluation") else "lower"
        found += f" with faces.held_out (share {held.share:g}, use {held.use})"
        remedy += f", or {way} faces.held_out.share (of a search: search.replay.held_out)"
    return f"faces ({config.source}): {asked} {split} photos asked for, {found}; {remedy}"


def _face_set(
    ids: list[str], pixels: dict[str, Pixels], index: Index, row: dict[str, int], skipped: tuple[str, ...]
) -> FaceSet:
    labels_BA = index.labels_NA[[row[key] for key in ids]]
    return FaceSet(np.stack([pixels[key] for key in ids]), labels_BA, index.attributes, tuple(ids), skipped)
