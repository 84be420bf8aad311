// OpenAI's SDK as its users write it.
const assert = require("node:assert/strict");
const OpenAI = require("openai").default;

const { BASE, TOKEN, CLOUDS } = process.env;
const client = new OpenAI({ baseURL: `${BASE}/v1`, apiKey: TOKEN, maxRetries: 0 });
const local = "tiny-chat:latest";
const hi = [{ role: "user", content: "hi" }];
const schema = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "weather", parameters: schema } }];
const create = (model, more = {}) => client.chat.completions.create({ model, messages: hi, ...more });
const left = async () => (await (await fetch(`${CLOUDS}/left`)).json()).left;

async function streamed(model, more = {}) {
  let text = "", args = "", usage = null;
  for await (const chunk of await create(model, { stream: true, stream_options: { include_usage: true }, ...more })) {
    text += chunk.choices[0]?.delta?.content ?? "";
    args += chunk.choices[0]?.delta?.tool_calls?.[0]?.function?.arguments ?? "";
    usage = chunk.usage ?? usage;
  }
  return { text, args, usage };
}

async function each(prefix) {
  const answer = await create(`${prefix}talk`);
  assert.equal(answer.choices[0].message.content, "hello");
  assert.equal(answer.usage.total_tokens, 9);
  const told = await streamed(`${prefix}talk`);
  assert.deepEqual([told.text, told.usage.total_tokens], ["hello", 9]);

  // A function is called, and its result told.
  const asked = [{ role: "user", content: "What is the weather in Paris?" }];
  const { message } = (await create(`${prefix}tools`, { messages: asked, tools })).choices[0];
  const [call] = message.tool_calls;
  assert.deepEqual(JSON.parse(call.function.arguments), { city: "Paris" });
  assert.deepEqual(JSON.parse((await streamed(`${prefix}tools`, { messages: asked, tools })).args), { city: "Paris" });
  asked.push(message, { role: "tool", tool_call_id: call.id, content: "sunny" });
  const result = await create(`${prefix}tools`, { messages: asked, tools });
  assert.equal(result.choices[0].message.content, "It is sunny.");

  const format = { type: "json_schema", json_schema: { name: "place", schema, strict: true } };
  const json = await create(`${prefix}json`, { response_format: format });
  assert.deepEqual(JSON.parse(json.choices[0].message.content), { city: "Paris" });

  await assert.rejects(create(`${prefix}limited`), (error) => {
    assert(error instanceof OpenAI.RateLimitError, error);
    assert.equal(error.headers.get("retry-after"), "7");
    return true;
  });
  await assert.rejects(create(`${prefix}denied`), OpenAI.InternalServerError);
  await assert.rejects(streamed(`${prefix}broken`), OpenAI.APIError);

  const before = await left();
  const stream = await create(`${prefix}endless`, { stream: true });
  for await (const _ of stream) break;
  stream.controller.abort();
  const gone = Date.now();
  while ((await left()) === before) {
    assert(Date.now() - gone < 1000, "the cloud still answers");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function main() {
  for (const prefix of ["openai/", "anthropic/", "ollama_cloud/"]) await each(prefix);

  // The real Ollama: its text is noise.
  const { usage } = await create(local, { max_tokens: 5 });
  assert(usage.completion_tokens >= 1 && usage.completion_tokens <= 5, usage);
  const json = await streamed(local, { max_tokens: 20, response_format: { type: "json_object" } });
  assert(json.text.startsWith("{"), json);
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert(ids.includes(local), ids);
  const { data } = await client.embeddings.create({ model: "home/tiny-embed", input: "a seaplane base" });
  assert.equal(data[0].embedding.length, 64);
  await assert.rejects(create("kimi/x"), OpenAI.NotFoundError);
  const stranger = new OpenAI({ baseURL: `${BASE}/v1`, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
