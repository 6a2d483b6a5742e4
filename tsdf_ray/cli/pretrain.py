"""`tsdf-ray pretrain`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from tsdf_ray.game.control import StopFlag
    from tsdf_ray.generators.pretrain import Progress

Config = TypeVar("Config", bound="BaseModel")


def pretrain(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the training: new, or with --resume its own.")],
    family: Annotated[
        str, typer.Option("--family", help="Generator family: editor, stargan, attentiongan, attgan or hisd.")
    ] = "editor",
    source: Annotated[str, typer.Option("--source", help="Photos: sample, celeba, folder or parquet.")] = "sample",
    data: Annotated[Path | None, typer.Option("--data", help="Folder or file of the source.")] = None,
    photos: Annotated[int, typer.Option("--photos", min=1, help="How many photos to train on.")] = 1000,
    size: Annotated[int, typer.Option("--size", min=32, max=1024, help="Side of the photos in pixels.")] = 128,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Generator steps.")] = 7_000,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Photos per step.")] = 16,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of every draw.")] = 0,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other key, for example train.learning_rate=0.0002."),
    ] = None,
    on_bad: Annotated[str, typer.Option("--on-bad", help="A bad photo: stop, or skip and list it.")] = "stop",
    device: Annotated[str, typer.Option("--device", help="What to train on: cpu, or cuda where torch has it.")] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in OUT.")] = False,
) -> None:
    """Train a generator from photos.

    Checkpoints and picture grids on the way, weights at the end.
    """
    from tsdf_ray.cli.stopping import stoppable
    from tsdf_ray.faces import FacesConfig, load_splits
    from tsdf_ray.game.control import StopFlag
    from tsdf_ray.generators.pretrain import PretrainConfig
    from tsdf_ray.generators.pretrain import pretrain as train

    counts = {"defender": 1, "attacker": photos, "evaluation": 8}
    faces = _checked(FacesConfig, {"source": source, "path": data, "size": size, "counts": counts, "on_bad": on_bad})
    config = _checked(
        PretrainConfig, {"family": family, "seed": seed, "train": {"steps": steps, "batch": batch}}, changes or []
    )
    flag = StopFlag("stopped as asked; the training is saved, --resume goes on")
    with stoppable(flag.ask):
        splits = load_splits(faces, seed, config.fresh().attributes)
        for item in splits.skipped:
            typer.echo(f"skipped: {item}", err=True)
        path = train(config, splits.attacker, out, Lines(flag), splits.evaluation, resume=resume, device=device)
    typer.echo(f"weights: {path}")


def _checked(kind: type[Config], content: dict[str, Any], changes: Sequence[str] = ()) -> Config:
    """A config from options. Raises UserError naming the key."""
    from pydantic import ValidationError

    from tsdf_ray.errors import UserError
    from tsdf_ray.scenario.load import apply_change
    from tsdf_ray.scenario.yamlfile import YamlDocument

    document = YamlDocument("pretrain", "", content)
    for change in changes:
        apply_change(document, change)
    try:
        return kind.model_validate(document.content)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(first["loc"])
        key = ".".join(str(part) for part in path)
        message = str(first["msg"]).replace("Input should be", "must be")
        raise UserError(f"{document.where(path)}: {key}: {message} (given: {first['input']!r})") from error


class Lines:
    """The callback of a training: where it stands, every few seconds, and the wish to stop."""

    def __init__(self, flag: StopFlag, seconds: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._flag, self._seconds, self._clock = flag, seconds, clock
        self._last = clock() - seconds

    def __call__(self, at: Progress) -> None:
        """Print a line when it is time. Raises Stopped when the user asked."""
        from tsdf_ray.cli.progress import short

        now = self._clock()
        if now - self._last >= self._seconds or at.step == at.steps:
            self._last = now
            losses = " ".join(f"{name} {value:.3f}" for name, value in at.losses.items())
            typer.echo(f"{at.phase}: step {at.step}/{at.steps}, left {short(at.seconds_left)}: {losses}", err=True)
        self._flag.check()
