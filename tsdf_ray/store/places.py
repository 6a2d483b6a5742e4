"""Where a run is: a folder, or a URI that a local folder is copied to. Making one there, and taking one up."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from tsdf_ray.errors import UserError
from tsdf_ray.files import is_uri
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.copy import Copy
from tsdf_ray.store.mirror import Mirror
from tsdf_ray.store.rundir import RunDirectory, check_new


@dataclass(frozen=True)
class NewPlace:
    """A place for a new run, where nothing lies yet; nothing has been written."""

    root: Path
    copy: Copy | None

    @staticmethod
    def of(out: str | Path | None, game: Scenario) -> NewPlace:
        """A folder or a URI; None: runs/NAME-TIME. Raises UserError when no run can be made there."""
        if out == "":
            raise UserError("--out: is empty (a variable that is not set?); give a folder or a URI")
        if out is not None and is_uri(out):
            copy = Copy(Mirror(str(out)))
            copy.check_new()
            return NewPlace(copy.root, copy)
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        root = Path(out) if out is not None else Path("runs") / f"{Path(game.name).name}-{stamp}"
        check_new(root)
        return NewPlace(root, None)

    def create(self, game: Scenario) -> RunDirectory:
        """Make the run. Raises UserError when somebody else was quicker, or nothing can be written."""
        if self.copy is None:
            return RunDirectory.create(self.root, game)
        self.copy.hold()
        try:
            self.copy.check_new()
            self.copy.set_aside()
            return RunDirectory.create(self.root, game, copy=self.copy)
        except UserError:
            self.copy.close()
            raise


def take_up(place: str | Path) -> tuple[RunDirectory, Scenario]:
    """A run to go on with; one at a URI is brought into a local folder. Raises UserError as `RunDirectory.open`."""
    if not is_uri(place):
        return RunDirectory.open(Path(place))
    copy = Copy(Mirror(str(place)))
    copy.told()
    copy.hold()
    try:
        copy.take_up()
        return RunDirectory.open(copy.root, copy)
    except UserError:
        copy.close()
        raise
