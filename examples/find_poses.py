"""Find the pose in an image and draw it: python examples/find_poses.py IMAGE OUT.png [x0 y0 x1 y1]."""

import sys

import poseglass as pg

estimate = pg.load()
image = pg.read_image(sys.argv[1])
boxes = [[float(v) for v in sys.argv[3:7]]] if len(sys.argv) == 7 else None
people = estimate(image, boxes=boxes)
pg.write_image(sys.argv[2], pg.draw(image, people))
for name, (x, y), score in zip(people.skeleton.keypoints, people.xy[0], people.score[0], strict=True):
    print(f"{name:<15} {x:7.1f} {y:7.1f}  {score:.2f}")
