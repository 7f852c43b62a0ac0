"""Convert labelme files to COCO keypoint JSON: python examples/labelme_to_coco.py FOLDER OUT.json nose left_eye ...

In labelme every keypoint is a shape of type "point" whose label is the name of the keypoint, or that name followed by
"-occluded". The points of one person share a group id, as does a rectangle around the person if there is one. An image
without group ids holds one person.
"""

import json
import sys
from pathlib import Path

folder, out, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
images, annotations, unknown = [], [], set()
for image_id, file in enumerate(sorted(folder.glob("*.json")), 1):
    page = json.loads(file.read_text(encoding="utf-8"))
    size = {"width": page["imageWidth"], "height": page["imageHeight"]}
    images.append({"id": image_id, "file_name": page["imagePath"].replace("\\", "/"), **size})
    people: dict = {}
    for shape in page["shapes"]:
        person = people.setdefault(shape.get("group_id"), {"keypoints": [0.0] * (3 * len(names))})
        if shape["shape_type"] == "rectangle":
            (x0, y0), (x1, y1) = shape["points"]
            person["bbox"] = [min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)]
            continue
        name = shape["label"].removesuffix("-occluded")
        if shape["shape_type"] != "point" or name not in names:
            unknown.add(f"{shape['shape_type']} {shape['label']!r}")
            continue
        x, y = shape["points"][0]
        at = 3 * names.index(name)
        person["keypoints"][at : at + 3] = [x, y, 1 if shape["label"].endswith("-occluded") else 2]
    for person in people.values():
        annotations.append({"id": len(annotations) + 1, "image_id": image_id, "category_id": 1, "iscrowd": 0, **person})
category = {"id": 1, "name": "person", "keypoints": names, "skeleton": []}
out.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}), encoding="utf-8")
print(f"{len(images)} images, {len(annotations)} people; ignored: {', '.join(sorted(unknown)) or 'nothing'}")
