"""What the scripts of this folder share. The test tells them by the environment where everything is."""

import json
import os
import time
import urllib.request

BASE, TOKEN, CLOUDS = os.environ["BASE"], os.environ["TOKEN"], os.environ["CLOUDS"]
LOCAL = "tiny-chat:latest"
# A provider of each protocol; the model's name that follows says what happens.
EACH = ["openai/", "anthropic/", "ollama_cloud/"]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def raises(kind, ask):
    """The error of this kind that `ask` ends with."""
    try:
        ask()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


def left():
    """How many streams of the clouds were left by who read them."""
    with urllib.request.urlopen(CLOUDS + "/left") as answer:
        return json.load(answer)["left"]


def cancels(read):
    """`read` begins a stream without an end and leaves it; the cloud learns of it within a second."""
    before = left()
    read()
    gone = time.monotonic()
    while left() == before:
        assert time.monotonic() - gone < 1, "the cloud still answers"
        time.sleep(0.02)
