"""Runs the same queries over HTTP and in process, in turn, and prints the medians side by side."""

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import duckdb

QUERIES = [
    ("constant", "SELECT 42"),
    ("count", "SELECT count(*) FROM workers"),
    ("one row by id", "SELECT * FROM workers WHERE id = 123456"),
    ("group by", "SELECT state, role, count(*), avg(rate) FROM workers GROUP BY ALL ORDER BY ALL LIMIT 20"),
    ("text search", "SELECT count(*) FROM workers WHERE notes LIKE '%seven 7%'"),
    ("top 10", "SELECT id, name, rate FROM workers ORDER BY rate DESC, id LIMIT 10"),
    ("window", "SELECT max(r) FROM (SELECT rank() OVER (PARTITION BY city ORDER BY rate) AS r FROM workers)"),
]
STREAM = "SELECT id, name, city, rate, hired FROM workers"

ROWS = """
SELECT i AS id, 'Worker ' || i AS name, ['welder', 'nurse', 'driver', 'clerk'][1 + i % 4] AS role,
       'City ' || (hash(i) % 500) AS city, 'S' || (hash(i) % 50) AS state, (hash(i * 7) % 10000) / 100.0::DOUBLE AS rate,
       DATE '2010-01-01' + (hash(i * 3) % 5000)::INTEGER AS hired, i % 3 = 0 AS active,
       repeat('note ' || (hash(i) % 1000) || ' seven ' || (i % 1000) || ', ', 12) AS notes
FROM range({rows}) t(i)
"""


def main(server, rows):
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/workers.parquet"
        columns = [c[0] for c in duckdb.sql(ROWS.format(rows=1)).description]
        ids = ", ".join(f"{name}: {place}" for place, name in enumerate(columns, 1))
        duckdb.execute(f"COPY ({ROWS.format(rows=rows)}) TO '{file}' (FORMAT parquet, FIELD_IDS {{{ids}}})")
        process = subprocess.Popen([server, file, "workers"], stdout=subprocess.PIPE, text=True)
        try:
            compare(process.stdout.readline().strip(), file, rows)
        finally:
            process.terminate()
            process.wait()


def compare(address, file, rows):
    here = duckdb.connect()
    here.execute(f"CREATE VIEW workers AS FROM read_parquet('{file}')")
    there = http.client.HTTPConnection(address)
    print(f"\n{rows:,} rows; medians in ms\n")
    print(f"{'query':<16}{'HTTP':>10}{'DuckDB':>10}{'more':>10}{'ratio':>8}")
    for name, sql in QUERIES:
        remote, local = in_turn(lambda: post(there, sql), lambda: here.execute(sql).fetchall())
        print(f"{name:<16}{remote:>10.2f}{local:>10.2f}{remote - local:>10.2f}{remote / local:>8.2f}")
    arrow = "application/vnd.apache.arrow.stream"
    remote, local = in_turn(lambda: post(there, STREAM, arrow), lambda: here.execute(STREAM).to_arrow_table(), times=5)
    print(f"{'all as Arrow':<16}{remote:>10.2f}{local:>10.2f}{remote - local:>10.2f}{remote / local:>8.2f}")
    print(f"\n{throughput(address, 'SELECT 42'):.0f} and {throughput(address, QUERIES[2][1]):.0f} queries a second "
          "from 8 connections (constant, one row by id)")


def post(connection, sql, accept="application/json"):
    connection.request("POST", "/sql", json.dumps({"sql": sql}), {"Accept": accept})
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, body
    return body


def in_turn(*works, times=40, warmup=3):
    """Medians in ms of works that are run in turn, so that a slow moment hits all of them."""
    taken = [[] for _ in works]
    for turn in range(warmup + times):
        for work, mine in zip(works, taken):
            start = time.perf_counter()
            work()
            if turn >= warmup:
                mine.append(1000 * (time.perf_counter() - start))
    return [statistics.median(mine) for mine in taken]


def throughput(address, sql, seconds=3):
    counts = [0] * 8
    end = time.monotonic() + seconds

    def run(number):
        connection = http.client.HTTPConnection(address)
        while time.monotonic() < end:
            post(connection, sql)
            counts[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


main(sys.argv[1], int(sys.argv[2]))
