"""The judge: an attribute classifier apart from every player, with its own architecture, seed and training photos.

Beside it the user's own networks from photos to vectors (`Embedding`). Only the evaluator and `doctor` load them; no
defender, attacker, generator or detector may (import-linter and a test).
"""

from __future__ import annotations

from tsdf_ray.judges.embedding import Embedding, load_embedding
from tsdf_ray.judges.judge import AttributeScores, Judge, attackers_judge, load_judge, save_judge
from tsdf_ray.judges.network import JUDGED, JudgeNet

__all__ = [
    "JUDGED",
    "AttributeScores",
    "Embedding",
    "Judge",
    "JudgeNet",
    "attackers_judge",
    "load_embedding",
    "load_judge",
    "save_judge",
]
