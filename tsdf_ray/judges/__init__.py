"""The judge: an attribute classifier apart from every player, with its own architecture, seed and training photos.

Only the evaluator and `doctor` load it; no defender, attacker, generator or detector may (import-linter and a test).
"""

from __future__ import annotations

from tsdf_ray.judges.judge import AttributeScores, Judge, load_judge, save_judge
from tsdf_ray.judges.network import JUDGED, JudgeNet

__all__ = ["JUDGED", "AttributeScores", "Judge", "JudgeNet", "load_judge", "save_judge"]
