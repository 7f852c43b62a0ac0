"""Evaluate the built-in weights on synthetic people: python examples/measure_on_synthetic_people.py [COUNT]."""

import sys

import poseglass as pg
from poseglass.evaluation.evaluate import evaluate
from poseglass.metrics import Pck
from poseglass.synthetic import synthetic_people

people = synthetic_people(int(sys.argv[1]) if len(sys.argv) > 1 else 50, seed=1, size_wh=(200, 200))
result = evaluate(pg.load_top_down(flip_test=True), people, [Pck(normaliser="torso", thresholds=(0.2,))])
print(f"PCK@0.2 on {len(people)} synthetic people: {result.results['pck@0.2']:.3f}")
