"""The user's own networks for the evaluation, from the files that the scenario names."""

from __future__ import annotations

from typing import TypedDict

from tsdf_ray.files import located
from tsdf_ray.judges import Embedding, load_embedding
from tsdf_ray.metrics.lpips import Lpips, load_lpips
from tsdf_ray.scenario.model import Evaluation


class Networks(TypedDict):
    """What `Evaluator` takes by these names; None where the scenario names no file."""

    features: Embedding | None
    identity: Embedding | None
    lpips: Lpips | None


def networks(evaluation: Evaluation) -> Networks:
    """Load them. Raises UserError naming the key: no such file, not such a network."""
    given = evaluation
    identity = lpips = None
    if given.identity is not None:
        identity = load_embedding(str(located(given.identity)), given.identity_side, "evaluation.identity")
    if given.lpips is not None:
        lpips = load_lpips(str(located(given.lpips)), "evaluation.lpips")
    return {"features": feature_network(given), "identity": identity, "lpips": lpips}


def feature_network(evaluation: Evaluation) -> Embedding | None:
    """The one of them that compares sets of forgeries; None: the judge does. Raises as `networks`."""
    if evaluation.feature_network is None:
        return None
    file = str(located(evaluation.feature_network))
    return load_embedding(file, evaluation.feature_side, "evaluation.feature_network")
