"""Runs the two Jobs of the staffing sample over a folder, and prints what they took."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

TEXT = "{role} in {city}, {state}. {skills}. {resume_text}"
MODEL = "local/lexical"


def main(lakehouse, sample):
    with tempfile.TemporaryDirectory(prefix="lakehouse-bench-") as folder:
        store, cache = os.path.join(folder, "bucket"), os.path.join(folder, "cache")
        serve = [lakehouse, "serve", "--store", store, "--cache", cache, "--listen", "127.0.0.1:0"]
        with Server([*serve, "--role", "gateway,catalogd,ingestd,vectord,embedd", "--max-ingest", "16GiB"]) as server:
            model = server.ask("/v1/embed/identity", {"model": MODEL})
            started = time.monotonic()
            ingested = server.ask("/v1/ingest?name=workers", sample)
            ingest = time.monotonic() - started
            job = write_job(folder, model)
            built, log, took, peak = build(lakehouse, job, store, os.path.join(folder, "job"))
            report(ingested["rows"], ingest, built, log, took, peak)
            searches(server)


def write_job(folder, model):
    spec = {
        "name": "workers-search",
        "dataset": "workers",
        "id": {"prefix": "w-", "column": "worker_id"},
        "text": TEXT,
        "metadata": ["role", "state"],
        "model": model["model"],
        "quantization": "int8",
        "shards": 1,
    }
    path = os.path.join(folder, "build.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"spec": spec, "datasetVersion": 1, "model": model, "keepVersions": 2}, file)
    return path


def build(lakehouse, job, store, cache):
    """The Job's last words, its log line, its seconds and its largest resident memory in MiB."""
    summary = job + ".summary"
    command = [lakehouse, "--log-format", "json", "job", "build", "--job", job]
    command += ["--store", store, "--cache", cache, "--summary", summary]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    took = time.monotonic() - started
    if status != 0:
        sys.exit(log)
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    told = next(line for line in lines if "index_ms" in line)
    with open(summary, encoding="utf-8") as file:
        return json.load(file), told, took, usage.ru_maxrss / 1024


def report(rows, ingest, built, log, took, peak):
    print(f"CSV to Parquet          {rows:,} rows in {ingest:.1f} s: {rows / ingest:,.0f} rows/s")
    vectors = built["vectors"]
    print(f"Parquet to index        {vectors:,} vectors in {took:.1f} s: {vectors / took:,.0f} rows/s, {peak:,.0f} MiB at the peak")
    for name, what in [
        ("read_ms", "ids checked, rows read and rendered"),
        ("embed_ms", "embedded"),
        ("index_ms", "graph"),
        ("check_ms", "recall checked"),
        ("publish_ms", "written to the store"),
    ]:
        print(f"  {log[name] / 1000:6.1f} s  {what}")
    size = built["bytes"] / 2**20
    print(f"Index                   {size:,.0f} MiB, {built['bytes'] / vectors:,.0f} bytes a vector, recall {built['recall']:.3f}")


def searches(server):
    text = "night shift forklift operator with OSHA certificate"
    for name, more in [("no filter", {}), ("state = IL", {"filter": {"state": "IL"}})]:
        request = {"text": text, "k": 10, **more}
        path = "/v1/vectors/index/workers-search/search"
        server.ask(path, request)
        times = []
        for _ in range(50):
            started = time.monotonic()
            answer = server.ask(path, request)
            times.append(time.monotonic() - started)
        times.sort()
        matches = f", {answer['matches']:,} pass" if "matches" in answer else ""
        print(f"Search over HTTP        {times[25] * 1000:.1f} ms at the median ({name}{matches})")


class Server:
    def __init__(self, command):
        self.command = command

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        self.url = re.search(r"http://\S+", line).group()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def ask(self, path, body):
        """`body` is a JSON value, or the path of a file."""
        headers = {"Content-Type": "application/json"}
        if isinstance(body, str):
            headers = {"Content-Type": "text/csv", "Content-Length": str(os.path.getsize(body))}
            data = open(body, "rb")
        else:
            data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
