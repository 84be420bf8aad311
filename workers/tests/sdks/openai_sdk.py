"""OpenAI's SDK as its users write it."""

import json

import openai
from common import BASE, EACH, LOCAL, PNG, SCHEMA, TOKEN, cancels, raises

client = openai.OpenAI(base_url=BASE + "/v1", api_key=TOKEN, max_retries=0)
hi = [{"role": "user", "content": "hi"}]
weather = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}


def streamed(**asked):
    """Text, calls, and the tokens that come last."""
    text, calls, usage, finish = "", {}, None, None
    for chunk in client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **asked):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                known = calls.setdefault(call.index, {"id": call.id, "name": call.function.name, "arguments": ""})
                known["arguments"] += call.function.arguments or ""
    return text, list(calls.values()), usage, finish


for prefix in EACH:
    answer = client.chat.completions.create(model=prefix + "talk", messages=hi, max_tokens=50)
    assert answer.choices[0].message.content == "hello" and answer.choices[0].finish_reason == "stop", answer
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 2), answer
    text, _, usage, finish = streamed(model=prefix + "talk", messages=hi)
    assert (text, finish, usage.total_tokens) == ("hello", "stop", 9), (prefix, text, finish, usage)

    # A function is called, and its result told.
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = client.chat.completions.create(model=prefix + "tools", messages=asked, tools=[weather])
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls", answer
    (call,) = message.tool_calls
    assert call.function.name == "weather" and json.loads(call.function.arguments) == {"city": "Paris"}, call
    text, calls, _, finish = streamed(model=prefix + "tools", messages=asked, tools=[weather], tool_choice="required")
    assert (text, finish) == ("", "tool_calls") and json.loads(calls[0]["arguments"]) == {"city": "Paris"}, calls
    asked += [message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    answer = client.chat.completions.create(model=prefix + "tools", messages=asked, tools=[weather])
    assert answer.choices[0].message.content == "It is sunny.", answer

    schema = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
    answer = client.chat.completions.create(model=prefix + "json", messages=hi, response_format=schema)
    assert json.loads(answer.choices[0].message.content) == {"city": "Paris"}, answer
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PNG}}
    looked = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
    answer = client.chat.completions.create(model=prefix + "image", messages=looked)
    assert answer.choices[0].message.content == "1 image", answer

    error = raises(openai.RateLimitError, lambda: client.chat.completions.create(model=prefix + "limited", messages=hi))
    assert error.response.headers["retry-after"] == "7" and "exceeded your limit" in error.message, error
    error = raises(openai.InternalServerError, lambda: client.chat.completions.create(model=prefix + "denied", messages=hi))
    assert error.status_code == 502 and error.body["upstream_status"] == 401, error
    raises(openai.InternalServerError, lambda: client.chat.completions.create(model=prefix + "down", messages=hi))
    error = raises(openai.APIError, lambda: streamed(model=prefix + "broken", messages=hi))
    assert "failed" in error.message or "error" in error.message, error

    def leave():
        stream = client.chat.completions.create(model=prefix + "endless", messages=hi, stream=True)
        next(iter(stream))
        stream.close()

    cancels(leave)

# The real Ollama: its text is noise.
answer = client.chat.completions.create(model=LOCAL, messages=hi, max_tokens=5)
assert answer.choices[0].finish_reason in ("length", "stop") and 1 <= answer.usage.completion_tokens <= 5, answer
text, _, usage, finish = streamed(model="ollama/" + LOCAL, messages=hi, max_tokens=20, response_format={"type": "json_object"})
assert text.startswith("{") and finish in ("length", "stop") and usage.prompt_tokens > 0, (text, finish, usage)
ids = [model.id for model in client.models.list()]
assert LOCAL in ids and "openai/talk" in ids, ids
assert client.models.retrieve("openai/talk").owned_by == "openai"

vectors = client.embeddings.create(model="home/tiny-embed", input=["a seaplane base", "an airport"]).data
assert [len(vector.embedding) for vector in vectors] == [64, 64] and vectors[1].index == 1, vectors

raises(openai.NotFoundError, lambda: client.models.retrieve("nothing"))
error = raises(openai.NotFoundError, lambda: client.chat.completions.create(model="kimi/x", messages=hi))
assert error.code == "model_not_found" and error.param == "model", error
error = raises(openai.BadRequestError, lambda: client.chat.completions.create(model=LOCAL, messages=[]))
assert error.param == "messages", error
stranger = client.with_options(api_key="wrong")
raises(openai.AuthenticationError, lambda: stranger.chat.completions.create(model=LOCAL, messages=hi))
