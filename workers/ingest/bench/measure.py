"""Runs each converter as a process of its own, in turns, and prints wall time and peak memory.

    measure.py SAMPLE.csv RUNS PATH/TO/csv_to_parquet

The peers get what is best for them: polars streams and guesses the types from 100 rows, DuckDB from a sample of 20,480.
An ingest types by every value. DuckDB is run with a full scan too; polars' own takes minutes and is left out.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

POLARS = """
import sys, polars
source, folder = sys.argv[1:]
polars.scan_csv(source, infer_schema_length={rows}, try_parse_dates=True).sink_parquet(folder + "/out.parquet")
"""

DUCKDB = """
import sys, duckdb
source, folder = sys.argv[1:]
duckdb.sql(f"COPY (FROM read_csv('{{source}}', sample_size={rows})) TO '{{folder}}/out.parquet' (FORMAT parquet)")
"""


def main():
    sample, runs, lakehouse = os.path.abspath(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    python = sys.executable
    contenders = {
        "lakehouse": [lakehouse],
        "polars, types from 100 rows": [python, "-c", POLARS.format(rows=100)],
        "DuckDB, types from a sample": [python, "-c", DUCKDB.format(rows=20480)],
        "DuckDB, types from all rows": [python, "-c", DUCKDB.format(rows=-1)],
        "python, imports only": [python, "-c", "import polars, duckdb"],
    }
    results = {name: [] for name in contenders}
    with open(sample, "rb") as file:
        while file.read(1 << 24):  # So that everyone finds the file in the page cache.
            pass
    # In turns, so that a busy moment of the machine meets everyone.
    for _ in range(runs):
        for name, command in contenders.items():
            results[name].append(measure(command, sample))
    report(sample, runs, results)


def measure(command, sample):
    """Seconds, CPU seconds, peak memory in MiB and bytes of output of one run."""
    folder = tempfile.mkdtemp(prefix="bench-", dir=os.path.dirname(sample))
    try:
        start = time.perf_counter()
        process = subprocess.Popen([*command, sample, folder], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{command[0]} ended with status {process.returncode}")
        size = sum(entry.stat().st_size for entry in os.scandir(folder))
        scale = 1 if sys.platform == "darwin" else 1024
        return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * scale / 2**20, size / 2**20
    finally:
        shutil.rmtree(folder)


def report(sample, runs, results):
    source = os.path.getsize(sample) / 2**20
    ours = statistics.median(run[0] for run in results["lakehouse"])
    print(f"{os.path.basename(sample)}: {source:.0f} MiB, {os.cpu_count()} cores, {runs} runs each")
    print(f"{'':30}{'median s':>10}{'min s':>8}{'CPU s':>8}{'MiB/s':>8}{'peak MiB':>10}{'output MiB':>12}{'ratio':>8}")
    for name, measured in results.items():
        median = statistics.median(run[0] for run in measured)
        print(
            f"{name:30}{median:10.2f}{min(run[0] for run in measured):8.2f}"
            f"{statistics.median(run[1] for run in measured):8.2f}{source / median:8.0f}"
            f"{max(run[2] for run in measured):10.0f}{measured[0][3]:12.1f}{median / ours:8.2f}"
        )
    print("ratio: median time over that of lakehouse; above 1 is slower. Peers' times include Python's start.")


main()
