"""Asks a running lakehouse over HTTP and DuckDB in this process the same queries, in turn, and prints both times.

    compare.py PATH/TO/lakehouse SAMPLE.csv

Both read the Parquet file that the lakehouse made of the sample, with one version of DuckDB, as many threads and as much
memory. Both end with the same thing in this process: Python rows, an Arrow table, or the bytes of a CSV file. A query's
runs alternate, so that a busy moment of the machine meets both.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import duckdb
import pyarrow.ipc

ARROW, CSV, JSON = "application/vnd.apache.arrow.stream", "text/csv", "application/json"
THREADS, MEMORY = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(), "2GiB"

# The name, what is wanted, the SQL.
QUERIES = [
    ("constant", JSON, "SELECT 42"),
    ("count", JSON, "SELECT count(*) FROM staffing"),
    ("one row by id", JSON, "SELECT * FROM staffing WHERE worker_id = '00012345'"),
    ("group by", JSON, "SELECT state, role, count(*), avg(hourly_rate) FROM staffing GROUP BY ALL ORDER BY ALL"),
    ("top 10", JSON, "SELECT worker_id, name, hourly_rate FROM staffing ORDER BY hourly_rate DESC, worker_id LIMIT 10"),
    ("text search", JSON, "SELECT count(*) FROM staffing WHERE resume_text LIKE '%backflow%'"),
    ("join", JSON, """
        SELECT role, count(*) FROM staffing
        JOIN (SELECT city, state, avg(hourly_rate) AS usual FROM staffing GROUP BY ALL) USING (city, state)
        WHERE hourly_rate > usual GROUP BY ALL ORDER BY ALL"""),
    ("window", JSON, """
        SELECT max(place) FROM (SELECT rank() OVER (PARTITION BY city ORDER BY hourly_rate) AS place FROM staffing)"""),
    ("10,000 rows, JSON", JSON, "SELECT * FROM staffing LIMIT 10000"),
    ("100,000 rows, CSV", CSV, "SELECT * FROM staffing LIMIT 100000"),
    ("6 columns, Arrow", ARROW, "SELECT worker_id, name, city, hourly_rate, hired, last_active FROM staffing"),
    ("all, Arrow", ARROW, "SELECT * FROM staffing"),
]


def main(lakehouse, sample):
    with tempfile.TemporaryDirectory(dir=os.path.dirname(sample)) as folder:
        os.symlink(sample, f"{folder}/staffing.csv")  # A file's name is the dataset's.
        command = [lakehouse, "up", f"{folder}/staffing.csv", "--data", f"{folder}/data", "--listen", "127.0.0.1:0"]
        command += ["--query-threads", str(THREADS), "--query-memory", MEMORY]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            port = wait_for(process.stdout)
            compare(port, folder)
        finally:
            process.terminate()
            process.wait()


def wait_for(lines):
    """The server's port, once the dataset is there."""
    first = lines.readline()
    for line in lines:
        if line.startswith("✓ staffing:"):
            print(line.strip()[2:])
            return int(first.split("http://127.0.0.1:")[1].split()[0])
    sys.exit("the lakehouse did not start")


def compare(port, folder):
    there = Client(port)
    manifest = json.loads(there.ask("GET", "/v1/catalog/manifest/staffing"))
    files = [f"{folder}/data/bucket/{item['key']}" for item in manifest["objects"]]
    here = duckdb.connect(config={"threads": THREADS, "memory_limit": MEMORY})
    here.execute(f"CREATE VIEW staffing AS FROM read_parquet({files})")
    version = there.rows("SELECT version()")[0][0]
    assert version == f"v{duckdb.__version__}", f"{version} is not the peer's {duckdb.__version__}"
    print(f"DuckDB {version}, {THREADS} threads, {MEMORY}; load {os.getloadavg()[0]:.1f}; times in ms\n")
    print(f"{'':20}{'DuckDB':>9}{'p95':>9}{'HTTP':>9}{'p95':>9}{'ratio':>8}{'more':>8}   within 5 % and 1 ms")
    out = f"{folder}/answer.csv"
    for name, wanted, sql in QUERIES:
        if wanted == JSON:
            ways = lambda: here.execute(sql).fetchall(), lambda: there.rows(sql)
        elif wanted == ARROW:
            ways = lambda: here.execute(sql).to_arrow_table(), lambda: there.table(sql)
        else:
            ways = lambda: csv_file(here, sql, out), lambda: there.sql(sql, CSV)
        report(name, *in_turn(*ways))
    for name, _, sql in QUERIES[0], QUERIES[2]:
        print(f"\n{name}, 8 at once for 3 s: {together(lambda: here.cursor().execute, sql):.0f} a second from DuckDB, "
              f"{together(lambda: Client(port).sql, sql):.0f} over HTTP", end="")
    print()


def csv_file(connection, sql, out):
    connection.execute(f"COPY ({sql}) TO '{out}' (FORMAT csv)")
    with open(out, "rb") as file:
        return file.read()


def in_turn(peer, ours, seconds=6):
    """The times in ms of both, in turn, for some seconds; the first runs do not count."""
    taken = ([], [])
    first = [len(work()) for work in (peer, ours) for _ in range(3)]
    assert max(first) <= 1.01 * min(first), f"the answers differ in length: {first}"
    end = time.perf_counter() + seconds
    while len(taken[0]) < 7 or (time.perf_counter() < end and len(taken[0]) < 300):
        for work, mine in zip((peer, ours), taken):
            start = time.perf_counter()
            work()
            mine.append(1000 * (time.perf_counter() - start))
    return taken


def report(name, peer, ours):
    def p95(times):
        return sorted(times)[int(0.95 * (len(times) - 1))]

    local, remote = statistics.median(peer), statistics.median(ours)
    verdict = "yes" if remote <= 1.05 * local + 1 else "no"
    print(f"{name:20}{local:9.2f}{p95(peer):9.2f}{remote:9.2f}{p95(ours):9.2f}{remote / local:8.2f}{remote - local:8.2f}   {verdict}")


class Client:
    """HTTP over one connection that stays open, with next to no cost of its own."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = self.socket.makefile("rb", buffering=1 << 20)

    def rows(self, sql):
        return json.loads(self.sql(sql, JSON))["rows"]

    def table(self, sql):
        body = self.start("POST", "/v1/sql", json.dumps({"sql": sql}), ARROW)
        table = pyarrow.ipc.open_stream(body).read_all()
        assert body.read() == b"", "bytes after the end of the stream"
        return table

    def sql(self, sql, accept=JSON):
        return self.ask("POST", "/v1/sql", json.dumps({"sql": sql}), accept)

    def ask(self, method, path, body="", accept=JSON):
        return self.start(method, path, body, accept).read()

    def start(self, method, path, body, accept):
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: {accept}\r\ncontent-length: {len(body)}\r\n\r\n"
        self.socket.sendall((head + body).encode())
        status = self.reader.readline()
        length = None
        while (line := self.reader.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
        answer = Body(self.reader, length)
        assert b" 200 " in status, answer.read()
        return answer


class Body:
    """What an answer holds, with its length given before it or before each of its chunks. A file to pyarrow."""

    closed = False

    def __init__(self, reader, length):
        self.reader, self.chunked, self.left = reader, length is None, length or 0

    def more(self):
        """Whether a byte is left. Goes on to the next chunk where one has ended."""
        if self.left == 0 and self.chunked:
            self.left = int(self.reader.readline(), 16)
            self.chunked = self.left > 0
            if not self.chunked:
                self.reader.readline()
        return self.left > 0

    def took(self, count):
        self.left -= count
        if self.left == 0 and self.chunked:
            self.reader.readline()

    def read(self, size=None):
        if size is None:
            pieces = []
            while self.more():
                pieces.append(self.reader.read(self.left))
                self.took(len(pieces[-1]))
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        whole, place = memoryview(bytearray(size)), 0
        while place < size and self.more():
            count = self.reader.readinto(whole[place : place + self.left])
            self.took(count)
            place += count
        return whole[:place]


def together(make, sql, clients=8, seconds=3):
    """How often a second the query is answered when several clients ask it again and again."""
    counts = [0] * clients
    end = time.monotonic() + seconds

    def run(number):
        ask = make()
        while time.monotonic() < end:
            answer = ask(sql)
            if hasattr(answer, "fetchall"):
                answer.fetchall()
            counts[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


# Whoever ends this ends the server too.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
main(sys.argv[1], os.path.abspath(sys.argv[2]))
