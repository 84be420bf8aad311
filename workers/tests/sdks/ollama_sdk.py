"""Ollama's SDK as its users write it."""

import json

import ollama
from common import BASE, EACH, LOCAL, PNG, SCHEMA, TOKEN, cancels, raises

host = BASE + "/v1/ollama"
client = ollama.Client(host=host, headers={"Authorization": "Bearer " + TOKEN})
hi = [{"role": "user", "content": "hi"}]


def weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: The city's name.
    """
    return "sunny" if city == "Paris" else "unknown"


for prefix in EACH:
    answer = client.chat(prefix + "talk", hi, options={"temperature": 0.5, "num_predict": 50})
    assert (answer.message.content, answer.done, answer.done_reason) == ("hello", True, "stop"), answer
    assert (answer.prompt_eval_count, answer.eval_count) == (7, 2), answer
    pieces = list(client.chat(prefix + "talk", hi, stream=True))
    assert "".join(piece.message.content for piece in pieces) == "hello" and len(pieces) > 2, pieces
    assert [piece.done for piece in pieces].index(True) == len(pieces) - 1 and pieces[-1].eval_count == 2, pieces

    # A function is called, and its result told.
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    for answer in [
        client.chat(prefix + "tools", asked, tools=[weather]),
        next(piece for piece in client.chat(prefix + "tools", asked, tools=[weather], stream=True) if piece.message.tool_calls),
    ]:
        (call,) = answer.message.tool_calls
        assert (call.function.name, call.function.arguments) == ("weather", {"city": "Paris"}), answer
    told = weather(**call.function.arguments)
    asked += [answer.message, {"role": "tool", "tool_name": call.function.name, "content": told}]
    assert client.chat(prefix + "tools", asked, tools=[weather]).message.content == "It is sunny."

    answer = client.chat(prefix + "json", hi, format=SCHEMA)
    assert json.loads(answer.message.content) == {"city": "Paris"}, answer
    looked = [{"role": "user", "content": "What is it?", "images": [PNG]}]
    assert client.chat(prefix + "image", looked).message.content == "1 image"

    error = raises(ollama.ResponseError, lambda: client.chat(prefix + "limited", hi))
    assert error.status_code == 429 and "exceeded your limit" in error.error, error
    error = raises(ollama.ResponseError, lambda: client.chat(prefix + "denied", hi))
    assert error.status_code == 502 and "invalid x-api-key" in error.error, error
    raises(ollama.ResponseError, lambda: list(client.chat(prefix + "broken", hi, stream=True)))

    def leave():
        stream = client.chat(prefix + "endless", hi, stream=True)
        next(stream)
        stream.close()

    cancels(leave)

# The real Ollama: its text is noise.
answer = client.chat(LOCAL, hi, think=False, options={"num_predict": 5})
assert answer.done_reason in ("length", "stop") and 1 <= answer.eval_count <= 5 and answer.total_duration > 0, answer
pieces = list(client.chat("ollama/" + LOCAL, hi, stream=True, format="json", options={"num_predict": 20}))
assert "".join(piece.message.content for piece in pieces).startswith("{") and pieces[-1].prompt_eval_count > 0, pieces
names = [model.model for model in client.list().models]
assert LOCAL in names and "openai/talk" in names, names
vectors = client.embed("home/tiny-embed", ["a seaplane base", "an airport"]).embeddings
assert [len(vector) for vector in vectors] == [64, 64], vectors

error = raises(ollama.ResponseError, lambda: client.chat("kimi/x", hi))
assert error.status_code == 404 and "kimi/" in error.error, error
error = raises(ollama.ResponseError, lambda: client.chat("openai/talk", hi, options={"num_ctx": 512}))
assert error.status_code == 400 and "`options.num_ctx`" in error.error, error
error = raises(ollama.ResponseError, lambda: client.show(LOCAL))
assert error.status_code == 404 and "/api/show" in error.error, error
stranger = ollama.Client(host=host, headers={"Authorization": "Bearer wrong"})
assert raises(ollama.ResponseError, lambda: stranger.chat(LOCAL, hi)).status_code == 401
