"""Anthropic's SDK as its users write it."""

import json

import anthropic
from common import BASE, EACH, LOCAL, PNG, SCHEMA, TOKEN, cancels, raises

client = anthropic.Anthropic(base_url=BASE, api_key=TOKEN, max_retries=0)
hi = [{"role": "user", "content": "hi"}]
weather = {"name": "weather", "description": "The weather of a city.", "input_schema": SCHEMA}


def create(model, messages=hi, **more):
    return client.messages.create(model=model, max_tokens=50, messages=messages, **more)


for prefix in EACH:
    answer = create(prefix + "talk", system="be brief", stop_sequences=["END"], extra_body={"temperature": 0.5})
    assert (answer.content[0].text, answer.stop_reason) == ("hello", "end_turn"), answer
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.role) == (7, 2, "assistant"), answer
    assert answer._request_id, "the id of the request is told"
    with client.messages.stream(model=prefix + "talk", max_tokens=50, messages=hi) as stream:
        assert "".join(stream.text_stream) == "hello"
        whole = stream.get_final_message()
    assert (whole.usage.output_tokens, whole.stop_reason, whole.content[0].text) == (2, "end_turn", "hello"), whole
    kinds = [event.type for event in create(prefix + "talk", stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"] and kinds[-2:] == ["message_delta", "message_stop"], kinds

    # A function is called, and its result told.
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = create(prefix + "tools", asked, tools=[weather], tool_choice={"type": "any"})
    call = answer.content[-1]
    assert (answer.stop_reason, call.type, call.name, call.input) == ("tool_use", "tool_use", "weather", {"city": "Paris"}), answer
    with client.messages.stream(model=prefix + "tools", max_tokens=50, messages=asked, tools=[weather]) as stream:
        whole = stream.get_final_message()
    assert (whole.stop_reason, whole.content[-1].input) == ("tool_use", {"city": "Paris"}), whole
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    asked += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    answer = create(prefix + "tools", asked, tools=[weather])
    assert answer.content[0].text == "It is sunny.", answer

    schema = {"format": {"type": "json_schema", "schema": SCHEMA}}
    answer = create(prefix + "json", output_config=schema)
    assert json.loads(answer.content[0].text) == {"city": "Paris"}, answer
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    looked = [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}]
    assert create(prefix + "image", looked).content[0].text == "1 image"

    error = raises(anthropic.RateLimitError, lambda: create(prefix + "limited"))
    assert error.response.headers["retry-after"] == "7" and error.body["error"]["type"] == "rate_limit_error", error
    error = raises(anthropic.InternalServerError, lambda: create(prefix + "denied"))
    assert error.status_code == 502 and error.body["error"]["upstream_status"] == 401, error
    error = raises(anthropic.APIStatusError, lambda: list(create(prefix + "broken", stream=True)))
    assert error.body["error"]["message"], error

    def leave():
        stream = create(prefix + "endless", stream=True)
        next(event for event in stream if event.type == "content_block_delta")
        stream.close()

    cancels(leave)

# The real Ollama: its text is noise.
answer = create(LOCAL, thinking={"type": "disabled"}, extra_body={"top_k": 5})
assert answer.stop_reason in ("max_tokens", "end_turn") and 1 <= answer.usage.output_tokens <= 50, answer
with client.messages.stream(model="ollama/" + LOCAL, max_tokens=5, messages=hi) as stream:
    whole = stream.get_final_message()
assert whole.stop_reason in ("max_tokens", "end_turn") and whole.usage.input_tokens > 0, whole
ids = [model.id for model in client.models.list()]
assert LOCAL in ids and client.models.retrieve("anthropic/talk").id == "anthropic/talk", ids

error = raises(anthropic.NotFoundError, lambda: create("kimi/x"))
assert error.body["error"]["type"] == "not_found_error", error
error = raises(anthropic.BadRequestError, lambda: create("openai/talk", extra_body={"container": "c"}))
assert "`container`" in str(error), error
raises(anthropic.NotFoundError, lambda: client.messages.count_tokens(model=LOCAL, messages=hi))
raises(anthropic.AuthenticationError, lambda: client.with_options(api_key="wrong").messages.create(model=LOCAL, max_tokens=5, messages=hi))
bearer = anthropic.Anthropic(base_url=BASE, auth_token=TOKEN, api_key=None, max_retries=0)
assert bearer.messages.create(model="anthropic/talk", max_tokens=5, messages=hi).content[0].text == "hello"
