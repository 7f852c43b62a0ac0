"""Find everybody in an image with a file of `poseglass export --whole-image`, without poseglass and PyTorch.

python examples/run_onnx.py everybody.onnx IMAGE
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
stated = json.loads(session.get_modelmeta().custom_metadata_map["poseglass_graph"])
names = stated["skeleton"]["keypoints"]

image = np.asarray(Image.open(sys.argv[2]).convert("RGB"))
inputs = {"image": image}
if "boxes_xyxy" in stated["inputs"]:  # a file that takes boxes: here the whole image is one
    height, width = image.shape[:2]
    inputs["boxes_xyxy"] = np.array([[-0.5, -0.5, width - 0.5, height - 0.5]], np.float32)
xy, score, box_xyxy = session.run(["xy", "score", "box_xyxy"], inputs)

for person, points in enumerate(xy):
    print(f"person {person + 1} in the box {np.round(box_xyxy[person], 1).tolist()}")
    for name, (x, y), likely in zip(names, points, score[person], strict=True):
        print(f"  {name:<15} {x:7.1f} {y:7.1f}  {likely:.2f}")
