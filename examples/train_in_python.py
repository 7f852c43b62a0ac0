"""Train a tiny hourglass without a recipe file: python examples/train_in_python.py RUN_FOLDER [EPOCHS]."""

import sys
from pathlib import Path

from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe

synthetic = {"name": "synthetic", "size_wh": [80, 80]}
recipe = Recipe.from_dict(
    {
        "name": "example",
        "network": {"name": "stacked_hourglass", "num_stacks": 1, "width": 32, "depth": 2},
        "codec": {"name": "heatmap", "activation": "softmax"},
        "loss": [{"name": "softmax_cross_entropy"}],
        "input": {"size_wh": [64, 64]},
        "augment": [{"name": "random_affine"}],
        "data": {"train": synthetic | {"count": 64}, "val": synthetic | {"count": 16, "seed": 1}},
        "train": {"epochs": int(sys.argv[2]) if len(sys.argv) > 2 else 3, "batch_size": 16, "workers": 0},
        "evaluate": {"metrics": [{"name": "pck"}]},
    }
)
run = prepare(recipe, Path(sys.argv[1]))
run.train()
for row in run.loop.progress.rows:
    print(f"epoch {row['epoch']:.0f}: loss {row['loss']:.3f}, PCK@0.2 {row['val/pck@0.2']:.3f}")
