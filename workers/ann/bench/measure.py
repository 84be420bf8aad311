"""Measures our engine and its peers in turns, on the same vectors, and prints tables with ratios.

    measure.py PATH/TO/engine FOLDER DIMENSION [PEER …]      hnswlib, and those named of faiss, usearch, hnsw_rs; all by default

Only ratios mean something: other work on the machine changes all figures. Contenders therefore take turns, search by search, and of several
turns the fastest counts. Times are those of the processor, so that waiting for other processes is nobody's; a build's wall time is printed beside.
Searches are compared at equal recall@10, on lines between measured values of ef: a hit counts if it is as near as the true tenth.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

K = 10
M = 16
OURS_EF, THEIRS_EF = 128, 200
THREADS = 2
TURNS = 5
SWEEP = [10, 12, 16, 20, 28, 40, 56, 80, 112, 160, 240]
RECALLS = [0.90, 0.95, 0.99]
SHARES = [0.001, 0.01, 0.1, 0.5]
STREAMED = 3500


class Process:
    """An engine in a process of its own."""

    def __init__(self, engine, name, folder, dimension, ef):
        arguments = [engine, name, folder, str(dimension), str(M), str(ef)]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.out = tempfile.NamedTemporaryFile()

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def build(self, _):
        before = self.cpu()
        wall = self.ask(f"build {THREADS}")["seconds"]
        return wall, self.cpu() - before

    def search(self, _, ef, rows=None):
        before = self.cpu_of_searches()
        self.ask(f"filter {rows} {ef} {self.out.name}" if rows else f"search {ef} {self.out.name}")
        seconds = self.cpu_of_searches() - before
        return np.fromfile(self.out.name, dtype=np.int32).reshape(-1, K), seconds

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def cpu_of_searches(self):
        with open(f"/proc/{self.process.pid}/schedstat") as file:
            return int(file.read().split()[0]) / 1e9

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Peer:
    """A library in this process: `make(vectors)` builds, `find(queries, ef)` searches on one thread."""

    def build(self, base):
        wall, cpu = time.time(), time.process_time()
        self.make(base)
        return time.time() - wall, time.process_time() - cpu

    def search(self, queries, ef):
        before = time.process_time()
        found = self.find(queries, ef)
        return found.astype(np.int64), time.process_time() - before

    def end(self):
        pass


class Hnswlib(Peer):
    def make(self, base):
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=base.shape[1])
        self.index.init_index(len(base), M=M, ef_construction=THEIRS_EF, random_seed=1)
        self.index.set_num_threads(THREADS)
        self.index.add_items(base)
        self.index.set_num_threads(1)

    def find(self, queries, ef):
        self.index.set_ef(ef)
        return self.index.knn_query(queries, k=K)[0]


class Faiss(Peer):
    def make(self, base):
        import faiss

        faiss.omp_set_num_threads(THREADS)
        self.index = faiss.IndexHNSWFlat(base.shape[1], M, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = THEIRS_EF
        self.index.add(base)
        faiss.omp_set_num_threads(1)

    def find(self, queries, ef):
        self.index.hnsw.efSearch = ef
        return self.index.search(queries, K)[1]


class Usearch(Peer):
    def make(self, base):
        from usearch.index import Index

        self.index = Index(ndim=base.shape[1], metric="ip", dtype="f32", connectivity=M, expansion_add=THEIRS_EF)
        self.index.add(np.arange(len(base)), base, threads=THREADS)

    def find(self, queries, ef):
        self.index.expansion_search = ef
        return self.index.search(queries, K, threads=1).keys


class Data:
    def __init__(self, folder, dimension):
        def read(name, kind, width):
            return np.fromfile(os.path.join(folder, name), dtype=kind).reshape(-1, width)

        self.base, self.queries = read("base.f32", np.float32, dimension), read("queries.f32", np.float32, dimension)
        self.tenth = self.nearness(read("truth.i32", np.int32, K)).min(axis=1)

    def nearness(self, rows):
        return np.einsum("ij,ikj->ik", self.queries, self.base[np.maximum(rows, 0)])

    def recall(self, rows, tenth=None):
        tenth = self.tenth if tenth is None else tenth
        return float(np.mean((self.nearness(rows) >= tenth[:, None] - 1e-6) & (rows >= 0)))

    def tenth_among(self, rows):
        among = self.base[rows]
        parts = [self.queries[at : at + 50] @ among.T for at in range(0, len(self.queries), 50)]
        return np.concatenate([np.partition(part, -K, axis=1)[:, -K] for part in parts])


def main():
    engine, folder, dimension = sys.argv[1], sys.argv[2], int(sys.argv[3])
    peers = ["hnswlib", *(sys.argv[4:] or ["faiss", "usearch", "hnsw_rs"])]
    data = Data(folder, dimension)
    ours = Process(engine, "lakehouse", folder, dimension, OURS_EF)
    kinds = {"hnswlib": Hnswlib, "faiss": Faiss, "usearch": Usearch}
    contenders = {"lakehouse": ours} | {name: kind() for name, kind in kinds.items() if name in peers}
    if "hnsw_rs" in peers:
        contenders["hnsw_rs"] = Process(engine, "hnsw_rs", folder, dimension, THEIRS_EF)
    print(f"\n{len(data.base):,} x {dimension}, cosine, M {M}, efConstruction {OURS_EF} for lakehouse and {THEIRS_EF} for the others\n")
    built(contenders, data)
    searched(contenders, data)
    filtered(ours, data)
    kept(ours, len(data.base))
    streamed(ours)
    for contender in contenders.values():
        contender.end()


def built(contenders, data):
    base = contenders["hnswlib"]
    times = {name: contender.build(data.base) for name, contender in contenders.items()}
    print(f"| build on {THREADS} threads | vectors/s | wall | of hnswlib |\n|---|---|---|---|")
    for name, (wall, cpu) in times.items():
        rate, rate_wall = THREADS * len(data.base) / cpu, len(data.base) / wall
        print(f"| {name} | {rate:,.0f} | {rate_wall:,.0f} | {times['hnswlib'][1] / cpu:.2f} |", flush=True)


def searched(contenders, data):
    curves = {name: [] for name in contenders}
    for ef in SWEEP:
        best = {}
        for _ in range(TURNS):
            for name, contender in contenders.items():
                rows, seconds = contender.search(data.queries, ef)
                _, least = best.get(name, (None, float("inf")))
                best[name] = (rows, min(seconds, least))
        for name, (rows, seconds) in best.items():
            curves[name].append((data.recall(rows), len(data.queries) / seconds))
    head = " | ".join(f"QPS at {recall} | of hnswlib" for recall in RECALLS)
    print(f"\n| search on one thread | {head} |\n|---|" + "---|---|" * len(RECALLS))
    for name, curve in curves.items():
        cells = []
        for recall in RECALLS:
            mine, theirs = at_recall(curve, recall), at_recall(curves["hnswlib"], recall)
            cells.append(f"{mine:,.0f} | {mine / theirs:.2f}" if mine and theirs else "not reached |")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def at_recall(curve, recall):
    """Queries a second on the line between the two measurements around this recall."""
    for (low, fast), (high, slow) in zip(curve, curve[1:]):
        if low <= recall <= high:
            return fast + (slow - fast) * (recall - low) / max(high - low, 1e-9)
    return curve[0][1] if curve[0][0] >= recall else None


def filtered(ours, data):
    random = np.random.default_rng(7)
    print("\n| lakehouse among | recall@10 at ef 64 | QPS |\n|---|---|---|")
    with tempfile.NamedTemporaryFile() as file:
        for share in SHARES:
            rows = np.flatnonzero(random.random(len(data.base)) < share).astype(np.uint32)
            rows.tofile(file.name)
            turns = [ours.search(data.queries, 64, file.name) for _ in range(TURNS)]
            recall, seconds = data.recall(turns[0][0], data.tenth_among(rows)), min(turn[1] for turn in turns)
            print(f"| {share:.1%} | {recall:.3f} | {len(data.queries) / seconds:,.0f} |", flush=True)


def kept(ours, rows):
    lost, hot = ours.ask("self 64")["lost"], ours.ask("size")["hot"]
    print(f"\nOf {rows:,} stored vectors, {lost} are not found by a search for themselves. A search touches {hot / rows:,.0f} bytes a vector.")


def streamed(ours):
    seen = ours.ask(f"stream {STREAMED}")
    print(
        f"Streaming, {STREAMED:,} a second offered: {seen['acknowledged']:,.0f}/s acknowledged, {seen['indexed']:,.0f}/s indexed,"
        f" with {seen['searches']:,.0f} searches/s going on, the slowest in {seen['slowest_ms']:.0f} ms."
    )


if __name__ == "__main__":
    main()
