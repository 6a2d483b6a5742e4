"""The players of a scenario: what stands under `defenders.NAME` and `attackers.NAME`, by its `kind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from tsdf_ray.attackers import ATTACKERS, Attacker, AttackerConfig
from tsdf_ray.defenders import DEFENDERS
from tsdf_ray.defenders.base import DefenderConfig
from tsdf_ray.errors import UserError
from tsdf_ray.registry import known, look_up
from tsdf_ray.scenario.strict import Strict


class DefenderEntry(Strict):
    """One defender of a scenario: `kind` and the keys of that kind's config, flat."""

    kind: str = Field(description="which defence; `tsdf-ray scenarios show quickstart` has two")
    knowledge: Literal["last_round", "initial", "surrogate"] = Field(
        "last_round",
        description="which generator it may learn against: the attacker's of the round before, the one all attackers "
        "start from, or a `surrogate`",
    )
    surrogate: str | None = Field(
        None, description="with knowledge surrogate: packaged weights or a file, of any family; not the `generator`"
    )
    generators: tuple[str, ...] = Field(
        (), description="further generators it knows (white box): packaged weights or files; nobody retrains these"
    )
    config: SerializeAsAny[DefenderConfig]

    @model_validator(mode="before")
    @classmethod
    def _by_kind(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or isinstance(data.get("config"), DefenderConfig):
            return data
        if "kind" not in data:
            raise PydanticCustomError(
                "missing", "needs `kind`: one of {valid}", {"valid": known("defenders", DEFENDERS)}
            )
        own = {key: data[key] for key in cls.model_fields if key in data and key != "config"}
        rest = {key: value for key, value in data.items() if key not in own}
        try:
            config = look_up("defenders", str(data["kind"]), DEFENDERS).config_class.model_validate(rest)
        except UserError as error:
            raise PydanticCustomError("nested", "{message}", {"message": str(error), "path": ["kind"]}) from error
        # A ValidationError passes through: its errors keep their own keys below this section.
        return own | {"config": config}

    @model_validator(mode="after")
    def _surrogate_where_it_counts(self) -> DefenderEntry:
        if (self.knowledge == "surrogate") == (self.surrogate is None):
            message = (
                "knowledge surrogate needs `surrogate`: the weights to learn against"
                if self.surrogate is None
                else "counts with knowledge surrogate alone; remove it, or set `knowledge: surrogate`"
            )
            raise PydanticCustomError("surrogate", "{message}", {"message": message, "path": ["surrogate"]})
        return self

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        given = {"surrogate": self.surrogate, "generators": list(self.generators)}
        own = {name: value for name, value in given.items() if value}
        return {"kind": self.kind, "knowledge": self.knowledge, **own, **self.config.model_dump(mode="json")}


def _attacker_by_kind(data: Any) -> Any:
    if not isinstance(data, Mapping):
        return data
    try:
        kind = look_up("attackers", str(data.get("kind", Attacker.name)), ATTACKERS)
    except UserError as error:
        raise PydanticCustomError("nested", "{message}", {"message": str(error), "path": ["kind"]}) from error
    return kind.config_class.model_validate(data)


AttackerEntry = Annotated[SerializeAsAny[AttackerConfig], BeforeValidator(_attacker_by_kind)]
"""One attacker of a scenario: the keys of its `kind`'s config."""
