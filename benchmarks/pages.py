"""F1 of reading rendered pages of handwritten Japanese, in one stage and in two, by how frequent a character is.

The pages are 512 px in size and have a seed that no training uses. "training fonts" are those that the pages of the
recipes are written with; "another font" was never seen. Intervals are 95 % of 1,000 draws of pages with replacement.

    python -m poseglass train recipes/pages/places.toml --run runs/places
    python -m poseglass train recipes/pages/classifier.toml --run runs/classifier
    python benchmarks/pages.py --detector runs/places --weights runs/classifier --name "two stages"
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, write_rows

import poseglass as pg
from poseglass.metrics import CenterF1
from poseglass.synthetic.pages import Pages, pages

DRAWS = 1000
OTHER_FONT = "KleeOne-Regular.ttf"
LEAST_SCORE = 0.25  # chosen on the validation pages of the recipes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", required=True, help="Weights that read characters, of a page or of a box.")
    parser.add_argument("--detector", help="Weights that find characters, if the others read single ones.")
    parser.add_argument("--name", required=True, help="Name of the rows, and of their file.")
    parser.add_argument("--count", type=int, default=60, help="Number of pages.")
    parser.add_argument("--fonts", nargs="+", default=["training fonts", "another font"], help="Only these rows.")
    parser.add_argument("--num-kana", type=int, default=189)
    parser.add_argument("--num-kanji", type=int, default=200)
    parser.add_argument("--other-font", default=OTHER_FONT)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    estimator = pg.load(
        arguments.weights, **({"detector": arguments.detector, "min_box_score": 0.05} if arguments.detector else {})
    )
    kinds = {"num_kana": arguments.num_kana, "num_kanji": arguments.num_kanji, "seed": 7}
    rows: list[dict[str, object]] = []
    for fonts, dataset in {
        "training fonts": pages(arguments.count, **kinds),
        "another font": pages(arguments.count, fonts=[arguments.other_font], **kinds),
    }.items():
        if fonts not in arguments.fonts:
            continue
        rows.append({"way": arguments.name, "fonts": fonts} | measured(estimator, dataset))
        print(*(f"{key} {value}" for key, value in rows[-1].items()), sep="; ", flush=True)
        write_rows(arguments.output or RESULTS / "pages" / f"{arguments.name.replace(' ', '-')}.csv", rows)


def measured(estimator, dataset: Pages) -> dict[str, object]:
    """Return F1 of a set of pages, its interval, and F1 of the characters by their frequency."""
    whole, each, seconds = CenterF1(LEAST_SCORE), [], 0.0
    for i in range(len(dataset)):
        image, begun = dataset.image(i), time.perf_counter()
        found = estimator(image)
        seconds += time.perf_counter() - begun
        one = CenterF1(LEAST_SCORE)
        one.update(found, dataset.instances(i))
        whole.merge(one)
        each.append(one)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        drawn = CenterF1(LEAST_SCORE)
        for place in rng.integers(0, len(each), len(each)):
            drawn.merge(each[place])
        draws.append(drawn.compute()["f1"])
    low, high = np.quantile(draws, [0.025, 0.975])
    results, classes = whole.compute(), len(dataset.classes)
    row: dict[str, object] = {
        "classes": classes, "pages": len(dataset),
        "characters": sum(len(dataset.instances(i)) for i in range(len(each))),
        "F1": f"{results['f1']:.4f}", "interval": f"{low:.4f} to {high:.4f}",
        "F1 of places": f"{results['place_f1']:.4f}",
    }  # fmt: skip
    table = whole.table()
    for first, last in ((0, 50), (50, 100), (100, 200), (200, classes)):  # classes are sorted by frequency
        those = [table[str(number)] for number in range(first, min(last, classes)) if str(number) in table]
        labels = sum(one["labels"] for one in those)
        right = sum(one["recall"] * one["labels"] for one in those if one["labels"])
        row[f"recall, {first + 1} to {last}" if last < classes else f"recall, {first + 1} on"] = (
            f"{right / labels:.4f}" if labels else ""
        )
    row["seconds a page"] = f"{seconds / len(dataset):.2f}"
    return row


if __name__ == "__main__":
    main()
