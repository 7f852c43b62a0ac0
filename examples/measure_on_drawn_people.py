"""Measure the network that ships on drawn people: python examples/measure_on_drawn_people.py [COUNT]."""

import sys

import poseglass as pg
from poseglass.datasets import synthetic_people
from poseglass.engine.evaluate import evaluate
from poseglass.metrics import Pck

people = synthetic_people(int(sys.argv[1]) if len(sys.argv) > 1 else 50, seed=1, size_wh=(200, 200))
result = evaluate(pg.load(flip_test=True), people, [Pck(normaliser="torso", limits=(0.2,))])
print(f"PCK@0.2 on {len(people)} drawn people: {result.figures['pck@0.2']:.3f}")
