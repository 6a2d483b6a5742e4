"""Make photorealistic faces of people who do not exist, one file per number, the same on every machine up to rounding.

    pip install openvino==2026.4.1 && pip install --no-deps random-face==2021.7.21.1
    python scripts/synthesize_faces.py OUT 0:5000

The wheel `random-face` (Apache-2.0) holds MobileStyleGAN as two OpenVINO graphs: MappingNetwork (512 numbers -> style)
and SynthesisNetwork (style -> 1024 px picture). Its own Python code no longer imports, so the graphs are read as files.
Face k takes the style of `default_rng(k)`, truncated by 0.7 towards the mean of 300 styles (`default_rng(10**6 + i)`);
it is stored as JPEG of 192 px, resized by way of a JPEG of 256 px.

With `--balance` every face is moved towards a hair colour, a sex and adulthood that its number alone decides: left to
chance few faces are blond, and next to no blond ones male. The directions are the effects in a linear regression of
the styles of known faces on their labels (the packaged sample, and the children in excluded_faces.txt). The move is an
aim, not a label: `curate_faces.py` labels what came out.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from importlib.metadata import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino
import pyarrow.parquet as pq
from face_lists import ATTRIBUTES, ROOT, excluded
from PIL import Image

Array = npt.NDArray[np.float32]
TRUNCATION, MEAN_OF, MEAN_SEED, QUALITY = 0.7, 300, 10**6, 92


def graph(core: openvino.Core, name: str, threads: int) -> Callable[[Array], Array]:
    """One network of the wheel as a function from its input to its output."""
    path = next(str(file.locate()) for file in files("random-face") or () if file.name == f"{name}.xml")
    model = core.compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"})
    return lambda value: np.array(model([value])[model.output(0)])


def jpeg(picture: Image.Image, size: int) -> bytes:
    """The picture at `size` px as JPEG bytes."""
    out = io.BytesIO()
    picture.resize((size, size), Image.Resampling.LANCZOS).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


class Balance:
    """Moves in style space: {black, blond, brown} x {female, male}, each as likely, and away from childhood."""

    def __init__(self, style: Callable[[int], Array]) -> None:
        sample = pq.read_table(
            ROOT / "tsdf_ray" / "assets" / "sample" / "faces-128.parquet", columns=["id", *ATTRIBUTES]
        )
        labels = {row["id"]: [*(row[name] for name in ATTRIBUTES), 0] for row in sample.to_pylist()}
        # A child's hair and sex are not known: even shares.
        labels |= {face: [1 / 3, 1 / 3, 1 / 3, 0.5, 1] for face in excluded("child")}
        styles = np.concatenate([style(int(face)) for face in labels])
        values = np.array(list(labels.values()), np.float32)
        # The hair columns sum to 1: they are the constant term too.
        effects = np.linalg.lstsq(values, styles, rcond=None)[0]
        self._hair = effects[:3] - effects[:3].mean(0)
        self._male, self._child = effects[3], effects[4]

    def move(self, number: int) -> Array:
        """The step [1, 512] that is added to the truncated style of a face."""
        rng = np.random.default_rng([number, 1])
        hair = self._hair[rng.integers(3)] * rng.uniform(0.6, 1.4)
        male = self._male * rng.choice([-0.5, 0.5]) * rng.uniform(0.6, 1.4)
        step: Array = (hair + male - self._child * rng.uniform(0.1, 0.5))[None].astype(np.float32)
        return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("numbers", nargs="+", help="face numbers as FIRST:END, or FIRST:END:STEP")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--balance", action="store_true", help="aim at each hair colour and sex alike")
    args = parser.parse_args()
    numbers = sorted(n for text in args.numbers for n in range(*(int(part) for part in text.split(":"))))
    core = openvino.Core()
    mapping, synthesis = (graph(core, name, args.threads) for name in ("MappingNetwork", "SynthesisNetwork"))

    def style(seed: int) -> Array:
        return mapping(np.random.default_rng(seed).standard_normal((1, 512)).astype(np.float32))

    mean = np.mean([style(MEAN_SEED + i) for i in range(MEAN_OF)], axis=0, dtype=np.float32)
    balance = Balance(style) if args.balance else None
    args.out.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        path = args.out / f"{number:06d}.jpg"
        if path.exists():
            continue
        latent = mean + np.float32(TRUNCATION) * (style(number) - mean)
        if balance is not None:
            latent = latent + balance.move(number)
        picture = synthesis(latent)[0]
        pixels = np.clip((np.clip(picture, -1, 1) + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        whole = Image.open(io.BytesIO(jpeg(Image.fromarray(pixels), 256)))
        path.write_bytes(jpeg(whole, 192))


if __name__ == "__main__":
    main()
