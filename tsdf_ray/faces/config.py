"""Which photos a scenario is played on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from tsdf_ray.faces.faceset import HAIR
from tsdf_ray.faces.source import OnBad


class Counts(BaseModel):
    """How many photos each role gets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    defender: int = Field(default=128, ge=1, le=1_000_000, description="photos the defender learns on")
    attacker: int = Field(
        default=384, ge=1, le=1_000_000, description="photos of the people the attacker collects from, all rounds"
    )
    evaluation: int = Field(
        default=96, ge=1, le=1_000_000, description="photos on which both are judged; no role trains on them"
    )


class HeldOut(BaseModel):
    """People kept apart, the same ones with every seed: a search plays with `rest`, its winners again with `held`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(
        0.5, gt=0, lt=1, description="of the people who can be judged on: split evaluation, or no split given"
    )
    use: Literal["rest", "held"] = Field(
        "rest",
        description="rest: no set has photos of theirs; held: all evaluation photos are theirs, and no others",
    )


class FacesConfig(BaseModel):
    """The section `faces` of a scenario."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["sample", "celeba", "folder", "parquet"] = Field(
        "sample", description="packaged synthetic faces, CelebA's own layout, a folder of photos, or Parquet"
    )
    path: Path | None = Field(None, description="folder or file of the source; the sample needs none")
    size: int = Field(default=128, ge=32, le=1024, description="side of the square photos in pixels")
    crop: int | None = Field(
        None, ge=16, le=8000, description="side of the centre crop in the original; default: the largest square"
    )
    counts: Counts = Field(Counts(), description="photos of each role")
    held_out: HeldOut | None = Field(
        None, description="people kept apart from the others, whatever the seed; a search sets it (search.replay)"
    )
    on_bad: OnBad = Field("stop", description="a bad photo or row stops the run, or is skipped, counted and listed")
    attributes: tuple[str, ...] = Field(
        (*HAIR, "Male"), description="labels to read; a generator's own take precedence"
    )

    @model_serializer(mode="wrap")
    def _nobody_held_out(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A scenario that holds nobody out keeps the digest it had before it could.
        content: dict[str, Any] = plain(self)
        if self.held_out is None:
            content.pop("held_out", None)
        return content

    @model_validator(mode="after")
    def _check(self) -> FacesConfig:
        if (self.path is None) != (self.source == "sample"):
            wanted = "takes no path" if self.path is not None else "needs `path`"
            raise PydanticCustomError("path", "source {source} {wanted}", {"source": self.source, "wanted": wanted})
        if len(set(self.attributes)) != len(self.attributes):
            raise PydanticCustomError("attributes", "an attribute is named twice", {})
        return self
