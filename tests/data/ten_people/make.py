"""Make `ten_people.json` and `images/` from the COCO people in ../shared: `python tests/data/ten_people/make.py`.

All ten are in images of val2017 under CC BY 2.0, and in a file that no weights of this project were trained on. They
were chosen by eye for their poses and surroundings, before the network that ships was tried on them. Another version of
OpenCV may write other bytes into the JPEGs; then the results in `tests/estimators/test_shipped.py` are to be measured
anew.
"""

import json
from pathlib import Path

import cv2
import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.files import write_bytes
from poseglass.core.image import read_image
from poseglass.readers.coco import coco
from poseglass.readers.coco_write import write_coco
from poseglass.readers.labelled import LabelledImages

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[3] / "shared" / "data" / "coco_more" / "train.json"

CHOSEN = {
    # annotation: who
    57: "standing with the arms out, from behind",
    61: "sitting on a surfboard",
    126: "on a motor scooter, at the edge of the image",
    168: "batting, others close behind",
    183: "on a wave, small and blurred",
    199: "walking behind a railing, from the side",
    200: "walking, from the side",
    246: "in the air on skis, from behind",
    317: "sitting on a wall, grey image",
    369: "standing on skis",
}
AUTHORS = {81988: 'fotologic, "Learning to surf"'}
"""By COCO's number of the image. COCO's records name no author; the page of the photograph does."""
LICENSE = {"id": 4, "name": "CC BY 2.0", "url": "https://creativecommons.org/licenses/by/2.0/"}
SIDE = 1.6
"""Of the square around the box, in longer sides of it: the network sees 1.1, and the test shifts the box by 0.15."""
LONGEST_PX = 320
QUALITY = 90


def crop_to(image: np.ndarray, box_xyxy: np.ndarray) -> tuple[np.ndarray, Affine]:
    """Return the part of an image around a box, made smaller where it is too large, and the map into it."""
    center, side = (box_xyxy[:2] + box_xyxy[2:]) / 2, (box_xyxy[2:] - box_xyxy[:2]).max() * SIDE
    x0, y0 = np.maximum(np.floor(center - side / 2), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(center + side / 2), (image.shape[1], image.shape[0])).astype(int)
    part = image[y0:y1, x0:x1]
    scale = min(LONGEST_PX / max(part.shape[:2]), 1.0)
    size_wh = (round(part.shape[1] * scale), round(part.shape[0] * scale))
    if scale < 1:
        part = cv2.resize(part, size_wh, interpolation=cv2.INTER_AREA)
    return part, Affine.crop(np.array([x0, y0, x1, y1]) - 0.5, size_wh)


def photo_page(flickr_url: str) -> str:
    """Return the page that Flickr shows a photograph on, with its author: the file's name starts with its number."""
    return f"https://www.flickr.com/photo.gne?id={flickr_url.rsplit('/', 1)[1].split('_')[0]}"


def main() -> None:
    """Write the labels and the images anew."""
    records = {r["id"]: r for r in json.loads(SOURCE.read_text())["images"]}
    dataset = coco(SOURCE)
    (HERE / "images").mkdir(exist_ok=True)
    paths, labels, sizes_wh, credits = [], [], [], []
    for i, image_id in enumerate(dataset.image_ids):
        people = dataset.instances(i)
        for row, number in enumerate(people.extra["annotation_id"].tolist()):
            if number not in CHOSEN:
                continue
            record = records[image_id]
            assert (record["license_name"], record["split"]) == (LICENSE["name"], "val2017")
            image, to_crop = crop_to(read_image(dataset.source(i)), people.box_xyxy[row])
            ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            assert ok
            paths.append(HERE / "images" / f"{image_id:012d}_{number}.jpg")
            write_bytes(paths[-1], data.tobytes())
            labels.append(people[row].moved(to_crop))
            sizes_wh.append(image.shape[1::-1])
            credits.append(
                {
                    "license": LICENSE["id"],
                    "flickr_url": record["flickr_url"],
                    "page": photo_page(record["flickr_url"]),
                    **({"author": AUTHORS[image_id]} if image_id in AUTHORS else {}),
                    "coco_id": image_id,
                    "changes": "cropped" if to_crop.scale == 1 else f"cropped, and scaled by {to_crop.scale:.3f}",
                    "what": CHOSEN[number],
                }
            )
    assert len(labels) == len(CHOSEN)
    path = HERE / "ten_people.json"
    numbers = tuple(range(1, len(labels) + 1))
    write_coco(LabelledImages("ten people", dataset.skeleton, tuple(paths), labels, numbers, np.array(sizes_wh)), path)
    document = json.loads(path.read_text())
    document["info"] = {
        "description": "Ten people of COCO val2017, one labelled in each image; made by make.py",
        "annotations": "COCO Consortium, CC BY 4.0, moved into the crops",
    }
    document["licenses"] = [LICENSE]
    for record, credit in zip(document["images"], credits, strict=True):
        record |= credit
    for record in document["annotations"]:
        record |= {key: [round(v, 2) for v in record[key]] for key in ("keypoints", "bbox")}
        record["area"] = round(record["area"], 2)
    lines = [f' "{key}": {json.dumps(value)}' for key, value in document.items() if key in ("info", "licenses")]
    for key in ("images", "annotations", "categories"):
        lines.append(f' "{key}": [\n' + ",\n".join(f"  {json.dumps(r)}" for r in document[key]) + "\n ]")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
