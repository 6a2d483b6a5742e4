"""Make photorealistic faces of people who do not exist, one file per number, the same on every machine up to rounding.

    pip install openvino==2026.4.1 && pip install --no-deps random-face==2021.7.21.1
    python scripts/synthesize_faces.py OUT 0:5000

The wheel `random-face` (Apache-2.0) holds MobileStyleGAN as two OpenVINO graphs: MappingNetwork (512 numbers -> style)
and SynthesisNetwork (style -> 1024 px picture). Its own Python code no longer imports, so the graphs are read as files.
Face k takes the style of `default_rng(k)`, truncated by 0.7 towards the mean of 300 styles (`default_rng(10**6 + i)`);
it is stored as JPEG of 192 px, resized by way of a JPEG of 256 px.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("numbers", nargs="+", help="face numbers as FIRST:END, or FIRST:END:STEP")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    numbers = sorted(n for text in args.numbers for n in range(*(int(part) for part in text.split(":"))))
    core = openvino.Core()
    mapping, synthesis = (graph(core, name, args.threads) for name in ("MappingNetwork", "SynthesisNetwork"))

    def style(seed: int) -> Array:
        return mapping(np.random.default_rng(seed).standard_normal((1, 512)).astype(np.float32))

    mean = np.mean([style(MEAN_SEED + i) for i in range(MEAN_OF)], axis=0, dtype=np.float32)
    args.out.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        path = args.out / f"{number:06d}.jpg"
        if path.exists():
            continue
        picture = synthesis(mean + np.float32(TRUNCATION) * (style(number) - mean))[0]
        pixels = np.clip((np.clip(picture, -1, 1) + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        whole = Image.open(io.BytesIO(jpeg(Image.fromarray(pixels), 256)))
        path.write_bytes(jpeg(whole, 192))


if __name__ == "__main__":
    main()
