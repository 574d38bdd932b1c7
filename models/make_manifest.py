"""Write the sample digits and ``manifest.json``, measured on the ``.onnx`` files that lie here::

python models/lenet5_torch.py
python models/digits_cnn_keras.py
python models/make_manifest.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import digits
import numpy as np
from PIL import Image

from onnxviz.graph.files import atomic_path, atomic_write
from onnxviz.graph.io import open_model
from onnxviz.runtime.session import run_model

HERE = Path(__file__).parent
HARD = 2
MODELS: dict[str, dict[str, Any]] = {
    "lenet5.onnx": {"script": "lenet5_torch.py", "factory": "lenet5", "size": 32, "layout": "NCHW", "output": "logits"},
    "digits_cnn.onnx": {
        "script": "digits_cnn_keras.py",
        "factory": "digits_cnn",
        "size": 28,
        "layout": "NHWC",
        "output": "probabilities",
    },
}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def scores(file: str, pictures: digits.ByteArray) -> digits.FloatArray:
    """Run a bundled model on (N, 32, 32) pictures; return its (N, 10) scores."""
    facts = MODELS[file]
    images = digits.network_input(pictures, facts["size"])
    feed = images[:, None] if facts["layout"] == "NCHW" else images[..., None]
    model = open_model(HERE / file)
    return run_model(model, {str(model.graph.inputs[0].name): feed})[str(model.graph.outputs[0].name)]


def describe(file: str, test: digits.Split) -> dict[str, Any]:
    """Return a model's entry in the manifest; its accuracy is measured here, on the held-out digits."""
    facts = MODELS[file]
    model = open_model(HERE / file)
    image = model.graph.inputs[0]
    correct = int(np.sum(scores(file, test.pictures).argmax(1) == test.classes))
    return {
        "file": file,
        "sha256": sha256(HERE / file),
        "source": f"{facts['script']}:{facts['factory']}",
        "framework": model.metadata_props["onnxviz.framework"],
        "exporter": model.metadata_props["onnxviz.exporter"],
        "opset": model.opset_imports[""],
        "parameters": sum(
            v.const_value.size
            for v in model.graph.initializers.values()
            if v.const_value and v.dtype and v.dtype.is_floating_point()
        ),
        "accuracy": round(correct / len(test.classes), 4),
        "held_out": len(test.classes),
        "correct": correct,
        "input": {
            "name": image.name,
            "shape": [n if isinstance(n, int) else str(n) for n in image.shape or ()],
            "dtype": "float32",
            "layout": facts["layout"],
            "preprocessing": "greyscale, stretched to the input's size (Pillow, bilinear, uint8), divided by 255",
        },
        "output": {"name": model.graph.outputs[0].name, "meaning": facts["output"], "classes": list("0123456789")},
    }


def samples(test: digits.Split) -> list[dict[str, Any]]:
    """Write one clear held-out digit a class and a few hard ones, all of which both models get right."""
    margins = []
    for file in MODELS:
        ordered = np.sort(scores(file, test.pictures), axis=1)
        right = scores(file, test.pictures).argmax(1) == test.classes
        spread = ordered[:, -1] - ordered[:, -2]
        margins.append(np.where(right, spread / np.median(spread), -1))
    margin = np.min(margins, axis=0)
    clear = [(f"digit_{d}.png", np.argmax(np.where(test.classes == d, margin, -1))) for d in range(10)]
    hardest = [i for i in np.argsort(margin, kind="stable") if margin[i] > 0][:HARD]
    hard = [(f"hard_{test.classes[i]}_{test.indices[i]}.png", i) for i in hardest]
    entries = []
    for name, position in clear + hard:
        path = HERE / "samples" / name
        with atomic_path(path) as temporary:
            Image.fromarray(test.pictures[position], mode="L").save(temporary, optimize=True)
        entries.append(
            {
                "file": f"samples/{name}",
                "sha256": sha256(path),
                "class": int(test.classes[position]),
                "index": int(test.indices[position]),
            }
        )
    return entries


def main() -> None:
    """Measure the models, write samples and manifest."""
    test = digits.load().test
    (HERE / "samples").mkdir(exist_ok=True)
    manifest = {
        "data": "scikit-learn load_digits (UCI optical recognition of handwritten digits), 32×32 uint8 pictures",
        "split": {"held_out_share": digits.TEST_SHARE, "seed": digits.SEED, "stratified": True},
        "models": [describe(file, test) for file in MODELS],
        "samples": samples(test),
    }
    atomic_write(HERE / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    for model in manifest["models"]:
        print(f"{model['file']}: {model['accuracy']:.2%} of {model['held_out']} held-out digits")


if __name__ == "__main__":
    main()
