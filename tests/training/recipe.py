"""A recipe small enough for a test: the drawn shapes of conftest.py, four steps, a checkpoint every two."""

RECIPE = """
[encoder]
size = 64
features = 16
embedding = 8
grids = [2, 1]
dropout = 0.1
[loss]
learn_temperature = true
[pca]
batches = 2
[run]
steps = 4
every = 2
threads = 1
[data]
pairs = 4
[[data.sources]]
name = "shapes"
folder = "shapes"
by_category = true
"""
