"""Asks an upstream directly, through something that only forwards bytes, through chatd and through LiteLLM, in turn, and prints
what each way adds. The forwarder shows what a process in between costs on this machine, whatever it does.

    compare.py LAKEHOUSE LOAD LITELLM RATE SECONDS

The ways are measured in turn, three times, and the best of each counts: a busy moment of the machine makes any of them
slower and none faster. LiteLLM is asked at the highest rate that it keeps up with; chatd then at that rate too.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROUNDS, STREAMS = 3, 5000
MODEL = "openai/fast"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Servers:
    """Processes that end with this one."""

    def __init__(self):
        self.running = []

    def start(self, command, port, path, log, **environment):
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **environment}
        )
        self.running.append(process)
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5)
                return process
            except urllib.error.HTTPError:
                return process
            except OSError:
                time.sleep(0.1)
        sys.exit(f"{command[0]} did not start; its log: {log.name}")

    def end(self):
        for process in self.running:
            try:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                process.kill()


def asked(load, *arguments):
    ran = subprocess.run([load, *map(str, arguments)], check=True, capture_output=True, text=True)
    return json.loads(ran.stdout)


def best(rounds):
    """The least of each quantile; nothing where requests failed every time."""
    good = [one for one in rounds if not one["failed"]]
    if not good:
        return None
    return {name: min(one[name] for one in good) for name in ("p50", "p99", "p999")}


def compare(load, what, ways, rate, seconds):
    told = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, url in ways.items():
            told[name].append(asked(load, what, url, "fast" if name in ("direct", "forward") else MODEL, rate, seconds))
    return {name: best(rounds) for name, rounds in told.items()}


def highest(load, url):
    """The highest of some rates at which nothing fails and half of the answers take less than a tenth of a second."""
    found = None
    for rate in (10, 25, 50, 100, 200, 400, 800):
        one = asked(load, "ask", url, MODEL, rate, 3)
        if one["failed"] or one["p50"] > 100_000:
            break
        found = rate
    return found


def show(title, told):
    direct = told["direct"]
    print(f"\n{title}\n{'':>10} {'p50':>9} {'p99':>9} {'p99.9':>9}   {'p50 added':>10} {'p99 added':>10}")
    for name, one in told.items():
        if one is None:
            print(f"{name:>10}  requests failed")
            continue
        row = "".join(f" {one[quantile] / 1000:>6.2f} ms" for quantile in ("p50", "p99", "p999"))
        added = "" if name == "direct" or direct is None else "  ".join(
            f"{(one[quantile] - direct[quantile]) / 1000:>7.2f} ms" for quantile in ("p50", "p99")
        )
        print(f"{name:>10} {row}   {added}")


def ratio(told, quantile):
    if any(told[name] is None for name in ("direct", "lakehouse", "litellm")):
        return "-"
    ours, theirs = (told[name][quantile] - told["direct"][quantile] for name in ("lakehouse", "litellm"))
    # Below the noise there is nothing to divide by.
    return f"{theirs / ours:,.0f}" if ours > 10 else "-"


def main():
    lakehouse, load, litellm, rate, seconds = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
    servers, folder = Servers(), Path(tempfile.mkdtemp(prefix="lakehouse-bench-chat-"))
    up, between, ours, theirs = free_port(), free_port(), free_port(), free_port()
    base = f"http://127.0.0.1:{up}/v1"
    log = lambda name: open(folder / name, "w")
    # Longer than the bench: its streams stay silent.
    limits = {"idleMs": 3_600_000, "totalMs": 3_600_000}
    providers = {"providers": [{"name": "up", "type": "OpenAI", "url": base, "limits": limits}]}
    (folder / "providers.json").write_text(json.dumps(providers))
    one = {"model_name": MODEL, "litellm_params": {"model": MODEL, "api_base": base, "api_key": "sk-bench"}}
    (folder / "litellm.yaml").write_text(json.dumps({"model_list": [one]}))
    try:
        servers.start([load, "upstream", str(up)], up, "/", log("upstream.log"))
        servers.start([load, "forward", str(between), str(up)], between, "/", log("forward.log"))
        chatd = servers.start(
            [lakehouse, "serve", "--role", "chatd", "--listen", f"127.0.0.1:{ours}", "--store", folder / "bucket",
             "--cache", folder / "cache", "--providers", folder / "providers.json"],
            ours, "/readyz", log("lakehouse.log"), LAKEHOUSE_LOG="warn",
        )
        servers.start(
            [litellm, "--config", folder / "litellm.yaml", "--host", "127.0.0.1", "--port", str(theirs),
             "--num_workers", str(len(os.sched_getaffinity(0))), "--telemetry", "False"],
            theirs, "/health/liveliness", log("litellm.log"), LITELLM_LOG="ERROR", LITELLM_MASTER_KEY="sk-bench-0123456789abcdef0123456789abcdef", LITELLM_LOCAL_MODEL_COST_MAP="True",
        )
        ways = {
            "direct": f"{base}/chat/completions",
            "forward": f"http://127.0.0.1:{between}/v1/chat/completions",
            "lakehouse": f"http://127.0.0.1:{ours}/chat/completions",
        }
        all_ways = {**ways, "litellm": f"http://127.0.0.1:{theirs}/v1/chat/completions"}
        # First, while no burst has left its memory behind.
        held = asked(load, "hold", ways["lakehouse"], "openai/endless", STREAMS, chatd.pid)
        cores = len(os.sched_getaffinity(0))
        print(f"{cores} cores for the clients, the upstream and what is between them; {ROUNDS} rounds of {seconds} s, best of each")
        fast = compare(load, "ask", ways, rate, seconds)
        show(f"whole answers, {rate:,} requests/s", fast)
        streamed = compare(load, "stream", ways, rate, seconds)
        show(f"first word of streams, {rate:,} streams/s", streamed)

        slow = highest(load, all_ways["litellm"])
        if slow is None:
            print("\nlitellm kept up with no rate")
        else:
            beside = compare(load, "ask", all_ways, slow, seconds)
            show(f"whole answers at {slow} requests/s, which litellm keeps up with", beside)
            first = compare(load, "stream", all_ways, slow // 2, seconds)
            show(f"first word of streams, {slow // 2} streams/s", first)
            print(f"\nadded by litellm for each that lakehouse adds: p50 {ratio(beside, 'p50')}, p99 {ratio(beside, 'p99')}, "
                  f"first word {ratio(first, 'p50')}; requests/s {rate / slow:,.0f} times as many")

        print(f"\n{held['streams']:,} open streams: {held['mib']:.0f} MiB resident (goal: under 200), {held['before']:.0f} without them")

        def added(told, quantile, name="lakehouse"):
            both = told[name], told["direct"]
            return "-" if None in both else f"{(both[0][quantile] - both[1][quantile]) / 1000:.2f} ms"

        print(f"added at {rate:,} requests/s: p50 {added(fast, 'p50')} (goal: 0.2), p99 {added(fast, 'p99')} (goal: 1); "
              f"first word {added(streamed, 'p50')} (goal: 0.2)")
        print(f"added by the forwarder: p50 {added(fast, 'p50', 'forward')}, p99 {added(fast, 'p99', 'forward')}; "
              f"first word {added(streamed, 'p50', 'forward')}")
    finally:
        servers.end()
    # Only after a failure are the logs of use.
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
