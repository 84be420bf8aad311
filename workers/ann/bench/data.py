"""Makes the vectors that every contender reads, and what the true neighbours of the queries are.

    data.py FOLDER ROWS DIMENSION

Points lie around centres, in a few directions that differ from centre to centre, as embeddings of texts do: clustered, and of an
intrinsic dimension far below that of the space. Numbers are the same on every machine up to the last digits.
"""

import os
import sys

import numpy as np

QUERIES = 1000
LATENT = 96
DIRECTIONS = 48
K = 10


def main():
    folder, rows, dimension = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if os.path.exists(os.path.join(folder, "truth.i32")):
        return
    os.makedirs(folder, exist_ok=True)
    random = np.random.default_rng(20260807)
    vectors = points(random, rows + QUERIES, dimension)
    order = random.permutation(len(vectors))
    base, queries = vectors[order[:rows]], vectors[order[rows:]]
    base.tofile(os.path.join(folder, "base.f32"))
    queries.tofile(os.path.join(folder, "queries.f32"))
    nearest(base, queries).tofile(os.path.join(folder, "truth.i32"))


def points(random, count, dimension):
    clusters = max(20, count // 2000)
    centres = random.standard_normal((clusters, LATENT), dtype=np.float32)
    spread = random.uniform(0.4, 1.0, clusters).astype(np.float32)
    lift = random.standard_normal((LATENT, dimension), dtype=np.float32) / np.sqrt(LATENT)
    out = np.empty((count, dimension), dtype=np.float32)
    for cluster in range(clusters):
        at = np.arange(cluster, count, clusters)
        directions = random.standard_normal((DIRECTIONS, LATENT), dtype=np.float32) / np.sqrt(DIRECTIONS)
        near = random.standard_normal((len(at), DIRECTIONS), dtype=np.float32) @ directions
        noise = 0.1 * random.standard_normal((len(at), dimension), dtype=np.float32)
        out[at] = (centres[cluster] + spread[cluster] * near) @ lift + noise
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def nearest(base, queries):
    """The rows of the K largest inner products, in no order: only the farthest of them is asked for."""
    found = [np.argpartition(queries[at : at + 20] @ base.T, -K, axis=1)[:, -K:] for at in range(0, len(queries), 20)]
    return np.concatenate(found).astype(np.int32)


if __name__ == "__main__":
    main()
