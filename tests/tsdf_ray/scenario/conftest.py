"""A scenario with a search, in a file of one's own."""

from __future__ import annotations

import pytest

SEARCHED = """\
name: mine
rounds: 3
seeds: [0, 1]
faces:
  counts: {defender: 8, attacker: 16, evaluation: 8}
defenders:
  found: {kind: found, epsilon: 0.05}
  tsdf.v2:
    kind: tsdf
    detectors: [retinaface]
attackers:
  plain: {prepare: {detectors: [mtcnn]}}
  other: {prepare: {detectors: [retinaface]}}
evaluation: {detectors: [retinaface]}
search:
  parameters:
    defenders.tsdf.v2.epsilon: {kind: uniform, low: 0.02, high: 0.1}
    defenders.tsdf.v2.epochs: {kind: int, low: 1, high: 4}
    defenders.tsdf.v2.share.choice: {kind: choice, values: [random, weakest]}
    defenders.tsdf.v2.share.fraction:
      kind: uniform
      low: 0
      high: 1
      step: 0.25
      when: {defenders.tsdf.v2.share.choice: random}
    defenders.tsdf.v2.poison:
      kind: choice
      named: {gentle: {steps: 4}, rough: {steps: 50, rule: adam}}
  objectives:
    protection: {metric: protection, over: worst}
    seen: {metric: psnr}
  constraints:
    quality: {metric: ssim, at_least: 0.9}
  sampler: {kind: tpe}
  scheduler: {kind: asha}
  start:
    points:
      paper:
        defenders.tsdf.v2.epsilon: 0.05
        defenders.tsdf.v2.share.choice: random
        defenders.tsdf.v2.share.fraction: 0.5
      other:
        defenders.tsdf.v2.epochs: 2
        defenders.tsdf.v2.poison: rough
  replay: {held_out: 0.25}
"""


@pytest.fixture(scope="session")
def searched() -> str:
    """Its YAML."""
    return SEARCHED
