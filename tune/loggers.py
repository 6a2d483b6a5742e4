"""Who else hears of results: TensorBoard always (in DIR/tune), MLflow and Weights & Biases on demand; all Ray's own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from ray.tune.logger import TBXLoggerCallback

from tsdf_ray.errors import UserError
from tsdf_ray.scenario import Scenario

EXTRAS = {"mlflow": "mlflow", "wandb": "wandb"}
"""Logger -> module, and our extra of the same name."""


def check_loggers(loggers: Sequence[str]) -> None:
    """Raises UserError for a logger that is unknown (`NAME=WHERE`: mlflow=URI, wandb=PROJECT) or not installed."""
    for logger in loggers:
        name, _, where = logger.partition("=")
        if name not in EXTRAS or not where:
            raise UserError(f"--log {logger}: write mlflow=TRACKING_URI or wandb=PROJECT")
        if find_spec(EXTRAS[name]) is None:
            raise UserError(f"--log {logger}: {name} is not installed; pip install 'tsdf-ray[{name}]'")


def make_loggers(loggers: Sequence[str], game: Scenario) -> list[Any]:
    """Ray's callbacks, TensorBoard's first."""
    made: list[Any] = [TBXLoggerCallback()]
    for logger in loggers:
        name, _, where = logger.partition("=")
        if name == "mlflow":
            from ray.air.integrations.mlflow import MLflowLoggerCallback

            made.append(MLflowLoggerCallback(tracking_uri=where, experiment_name=game.name))
        else:
            from ray.air.integrations.wandb import WandbLoggerCallback

            made.append(WandbLoggerCallback(project=where, group=game.name))
    return made
