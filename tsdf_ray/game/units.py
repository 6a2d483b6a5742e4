"""What one photo of 128 px costs each network, in GFLOP (a multiplication and an addition are two).

Counted with torch's operator counts on the packaged editor and on networks of the official sizes; a test counts them
again, and holds the official generators against the published 79.7 (StarGAN), 80.1 (AttentionGAN) and 21.8 (AttGAN) at
256 px. Networks of convolutions alone: the cost grows with the number of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

SIDE = 128
"""Side in pixels of the photos below."""


@dataclass(frozen=True)
class GeneratorUnit:
    """A generator with its discriminator, GFLOP per photo."""

    labels: int
    """Labels it is conditioned on."""
    edits: int
    """Edits that differ from a photo's own labels."""
    edit: float
    """One forgery."""
    features: float
    """The mid feature, without the decoder."""
    critic: float
    """A discriminator step, its forgery included."""
    step: float
    """A training step: the generator's and one of the discriminator."""


GENERATORS = {
    "attentiongan": GeneratorUnit(5, 4, edit=20.0, features=17.5, critic=36.4, step=138.0),
    "attgan": GeneratorUnit(13, 12, edit=5.45, features=1.10, critic=19.1, step=48.7),
    "editor": GeneratorUnit(4, 3, edit=0.257, features=0.142, critic=0.855, step=2.54),
    "hisd": GeneratorUnit(5, 4, edit=15.2, features=4.17, critic=69.7, step=223.0),
    "stargan": GeneratorUnit(5, 4, edit=19.9, features=17.5, critic=36.3, step=138.0),
    "attentiongan-128": GeneratorUnit(4, 3, edit=1.0, features=0.767, critic=1.33, step=7.05),
    "attgan-128": GeneratorUnit(4, 3, edit=0.734, features=0.147, critic=1.19, step=4.93),
    "hisd-128": GeneratorUnit(3, 2, edit=0.897, features=0.262, critic=5.12, step=15.6),
    "stargan-128": GeneratorUnit(4, 3, edit=0.978, features=0.767, critic=1.31, step=6.88),
}
DETECTORS = {"centerface": 0.197, "dsfd": 14.8, "mtcnn": 0.176, "retinaface": 0.0776, "s3fd": 10.3}
"""A pass without gradient. MTCNN's is that of its networks on the crops of one face."""
JUDGE = 0.113
"""A forgery of any size: the judge looks at 96 px."""
