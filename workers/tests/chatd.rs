//! chatd as pods run it: a process of its own behind the gateway's, with tokens of a mounted Secret, watched by Prometheus and by a
//! collector of traces.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, routing::post};
use common::{Lakehouse, client, eventually, file, lakehouse, upstream::Upstream};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::{ResourceSpans, Span},
};
use prost::Message;
use reqwest::blocking::Response;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};

/// What a client sends of its own trace.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[test]
fn the_gateway_passes_pieces_on_as_they_are_made_and_tells_chatd_when_a_client_leaves() {
    let (upstream, desk) = (Upstream::start(), tempfile::tempdir().unwrap());
    let (chatd, gateway) = pods(desk.path(), &upstream, &[]);
    let mut answer = ask(&gateway, "slowly", "team-a-token", &[]);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut first = [0; 6];
    answer.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"data: ", "the first piece is here, and the upstream makes no more of them");
    let left = Instant::now();
    drop(answer);
    upstream.left.recv_timeout(Duration::from_secs(20)).unwrap();
    // Within a second where nobody else wants the processor.
    assert!(left.elapsed() < Duration::from_secs(5), "{:?}", left.elapsed());
    eventually("the request is counted as one whose client left", || {
        let numbers = numbers(&chatd);
        let counted = numbers.contains("outcome=\"client_left\"")
            && numbers.contains("chat_in_flight{provider=\"own\"} 0");
        if counted { Ok(()) } else { Err(numbers) }
    });
    let model = get(&gateway, "/v1/models/own/m");
    assert_eq!((model.0, &model.1["owned_by"], &model.1["model"]), (200, &json!("own"), &json!("m")));
    assert_eq!(get(&gateway, "/v1/models").1["data"][0]["id"], "own/m");
    assert_eq!(get(&gateway, "/v1/models/own/n").0, 404);
}

#[test]
fn usage_is_counted_by_model_and_by_the_clients_key() {
    let (upstream, desk) = (Upstream::start(), tempfile::tempdir().unwrap());
    let (chatd, gateway) = pods(desk.path(), &upstream, &[]);
    assert_eq!(ask(&gateway, "hi", "wrong", &[]).status(), 401);
    for (token, said) in [("team-a-token", "hi"), ("team-b-token", "hi"), ("team-b-token", "fail")] {
        ask(&gateway, said, token, &[]).text().unwrap();
    }
    let told = eventually("all of it is counted", || {
        let numbers = numbers(&chatd);
        if numbers.contains("provider_refused") { Ok(numbers) } else { Err(numbers) }
    });
    for line in [
        "chat_tokens_total{provider=\"own\",model=\"m\",key=\"team-a\",direction=\"in\"} 7",
        "chat_tokens_total{provider=\"own\",model=\"m\",key=\"team-b\",direction=\"out\"} 2",
        "chat_requests_total{provider=\"own\",model=\"m\",key=\"team-a\",outcome=\"ok\"} 1",
        "chat_requests_total{provider=\"own\",model=\"m\",key=\"team-b\",outcome=\"provider_refused\"} 1",
        "chat_first_token_seconds_count{provider=\"own\",model=\"m\",key=\"team-a\"} 1",
    ] {
        assert!(told.contains(line), "`{line}` is missing in {told}");
    }
    assert!(!told.contains("-token\""), "{told}");
}

#[test]
fn each_question_to_a_provider_is_a_span_of_the_clients_trace_without_a_word_of_it() {
    let (upstream, desk, collector) = (Upstream::start(), tempfile::tempdir().unwrap(), Collector::start());
    let traced = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=lake"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let (chatd, gateway) = pods(desk.path(), &upstream, &traced);
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=1")];
    ask(&gateway, "hunter2", "team-a-token", &headers).text().unwrap();
    let spans = collector.spans(1);
    let Span { name, trace_id, parent_span_id, span_id, .. } = &spans[0].1;
    assert_eq!(
        (name.as_str(), hex(trace_id).as_str(), hex(parent_span_id).as_str()),
        ("chat m", TRACE, PARENT)
    );
    let sent = &upstream.seen()[0];
    assert_eq!(
        sent["traceparent"],
        format!("00-{TRACE}-{}-01", hex(span_id)),
        "the provider may go on with it"
    );
    assert_eq!(sent["tracestate"], "vendor=1");
    let (host, port) = upstream.url.rsplit_once(':').unwrap();
    let host = host.strip_prefix("http://").unwrap();
    let told = &spans[0].0;
    for (attribute, value) in [
        ("service.name", json!("lakehouse-chatd")),
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("openai")),
        ("gen_ai.request.model", json!("m")),
        ("gen_ai.request.temperature", json!(0.5)),
        ("gen_ai.request.max_tokens", json!(9)),
        ("gen_ai.response.model", json!("m-2026")),
        ("gen_ai.response.finish_reasons", json!(["stop"])),
        ("gen_ai.usage.input_tokens", json!(7)),
        ("gen_ai.usage.output_tokens", json!(2)),
        ("lakehouse.chat_provider", json!("own")),
        ("server.address", json!(host)),
        ("server.port", json!(port.parse::<i64>().unwrap())),
    ] {
        assert_eq!(told[attribute], value, "{attribute} in {told}");
    }

    ask(&gateway, "fail", "team-a-token", &[]).text().unwrap();
    let spans = collector.spans(2);
    let (told, span) = &spans[1];
    assert_eq!(
        (&told["error.type"], &told["http.response.status_code"]),
        (&json!("provider_refused"), &json!(400))
    );
    assert!(span.parent_span_id.is_empty() && hex(&span.trace_id) != TRACE, "nobody asked for one");
    assert_eq!(span.status.as_ref().unwrap().code, 2);

    // The last ones are not lost where the process ends.
    ask(&gateway, "hi", "team-b-token", &[]).text().unwrap();
    let (ended_well, stderr) = chatd.stop();
    assert!(ended_well, "{stderr}");
    let spans = collector.spans(3);
    let all = format!("{spans:?}");
    for secret in ["hunter2", "you said", "no good", "-token", "sk-right"] {
        assert!(!all.contains(secret), "`{secret}` in {all}");
    }
}

#[test]
fn a_span_tells_of_each_retry_and_is_linked_to_from_its_fallback_and_ends_when_the_client_leaves() {
    let (upstream, desk, collector) = (Upstream::start(), tempfile::tempdir().unwrap(), Collector::start());
    let traced = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=lake"),
        ("OTEL_SERVICE_NAME", "our-chat"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=lake"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let (_chatd, gateway) = pods(desk.path(), &upstream, &traced);
    assert_eq!(ask(&gateway, "down", "team-a-token", &[]).status(), 502);
    let spans = collector.spans(2);
    let [(own, first), (spare, second)] = spans.as_slice() else { unreachable!() };
    assert_eq!(
        (&own["lakehouse.chat_provider"], &spare["lakehouse.chat_provider"]),
        (&json!("own"), &json!("spare"))
    );
    assert_eq!((&own["service.name"], &own["team"]), (&json!("our-chat"), &json!("lake")));
    for (told, span) in &spans {
        assert_eq!(
            (&told["error.type"], &told["http.response.status_code"]),
            (&json!("provider_unavailable"), &json!(503))
        );
        let retries: Vec<_> =
            span.events.iter().map(|event| (event.name.as_str(), plain_all(&event.attributes))).collect();
        let retry = json!({ "error.type": "provider_unavailable", "http.response.status_code": 503 });
        assert_eq!(retries, [("retry", retry.clone()), ("retry", retry)]);
    }
    assert!(first.parent_span_id.is_empty() && first.links.is_empty());
    assert_eq!(second.trace_id, first.trace_id, "a request is one trace, also where the client has none");
    assert_eq!((&second.parent_span_id, &second.links[0].span_id), (&first.span_id, &first.span_id));

    let mut answer = ask(&gateway, "slowly", "team-a-token", &[]);
    answer.read_exact(&mut [0; 6]).unwrap();
    drop(answer);
    let (told, span) = &collector.spans(3)[2];
    assert_eq!(told["error.type"], "client_left");
    assert!(span.status.as_ref().is_none_or(|status| status.code == 0), "nobody failed");
    assert_eq!(span.events[0].name, "first_token");
}

#[test]
fn a_collector_that_is_not_there_is_said_in_the_log_and_costs_no_request() {
    let (upstream, desk) = (Upstream::start(), tempfile::tempdir().unwrap());
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = format!("http://{gone}");
    let (chatd, gateway) = pods(
        desk.path(),
        &upstream,
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &gone), ("OTEL_BSP_SCHEDULE_DELAY", "50")],
    );
    for _ in 0..5 {
        let answer = ask(&gateway, "hi", "team-a-token", &[]);
        assert_eq!(answer.status(), 200);
        assert!(answer.text().unwrap().contains("you said hi"));
    }
    let (ended_well, stderr) = chatd.stop();
    assert!(ended_well && stderr.contains("opentelemetry"), "{stderr}");
}

#[test]
fn a_token_has_its_name_also_where_gateway_and_chatd_are_one_process_and_in_anthropics_header() {
    let (upstream, desk) = (Upstream::start(), tempfile::tempdir().unwrap());
    let (tokens, providers) = mounted(desk.path(), &upstream);
    let mut command = serve(desk.path(), "gateway,chatd");
    command.arg("--token-file").arg(&tokens).arg("--providers").arg(providers);
    let both = Lakehouse::start(&mut command);
    ask(&both, "hi", "team-a-token", &[]).text().unwrap();
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let body = json!({ "model": "own/m", "stream": true, "max_tokens": 9, "messages": messages });
    let request = client().post(format!("{}/v1/messages", both.url)).header("x-api-key", "team-b-token");
    assert!(request.body(body.to_string()).send().unwrap().text().unwrap().contains("you said hi"));
    let told = numbers(&both);
    for team in ["team-a", "team-b"] {
        let line =
            format!("chat_requests_total{{provider=\"own\",model=\"m\",key=\"{team}\",outcome=\"ok\"}} 1");
        assert!(told.contains(&line), "`{line}` is missing in {told}");
    }
}

#[test]
fn what_a_collector_cannot_be_asked_for_ends_the_process_with_a_sentence() {
    let desk = tempfile::tempdir().unwrap();
    let mut chatd = serve(desk.path(), "chatd");
    chatd
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let (ended_well, _, stderr) = common::run(&mut chatd);
    assert!(!ended_well && stderr.contains("`http/protobuf` alone"), "{stderr}");
}

/// chatd and a gateway, each a process of its own, with the tokens of two teams.
fn pods(desk: &Path, upstream: &Upstream, chatds: &[(&str, &str)]) -> (Lakehouse, Lakehouse) {
    let (tokens, providers) = mounted(desk, upstream);
    let mut command = serve(desk, "chatd");
    command.arg("--token-file").arg(&tokens).arg("--providers").arg(providers).envs(chatds.iter().copied());
    let chatd = Lakehouse::start(&mut command);
    let mut command = serve(desk, "gateway");
    command.arg("--token-file").arg(&tokens).args(["--upstream", &format!("chatd={}", chatd.url)]);
    (chatd, Lakehouse::start(&mut command))
}

/// The folder of tokens, and the list of providers: one, and one that is asked when it is down.
fn mounted(desk: &Path, upstream: &Upstream) -> (PathBuf, PathBuf) {
    let (tokens, key) = (desk.join("tokens"), file(desk, "key", "sk-right"));
    std::fs::create_dir(&tokens).unwrap();
    for team in ["team-a", "team-b"] {
        file(&tokens, team, &format!("{team}-token"));
    }
    let own = json!({
        "name": "own", "type": "OpenAI", "url": upstream.url, "keyFile": key, "route": {"prefixes": ["own/"]}, "fallback": ["spare"],
    });
    let spare = json!({ "name": "spare", "type": "OpenAI", "url": upstream.url, "keyFile": key, "route": {"prefixes": ["spare/"]} });
    (tokens, file(desk, "providers.yaml", &json!({ "providers": [own, spare] }).to_string()))
}

fn serve(desk: &Path, role: &str) -> Command {
    let mut command = lakehouse();
    command.args(["serve", "--role", role, "--store"]).arg(desk.join("bucket"));
    command.arg("--cache").arg(desk.join(role)).env("LAKEHOUSE_LISTEN", "127.0.0.1:0");
    command
}

fn ask(gateway: &Lakehouse, said: &str, token: &str, headers: &[(&str, &str)]) -> Response {
    let body = json!({
        "model": "own/m", "stream": true, "temperature": 0.5, "max_tokens": 9,
        "messages": [{ "role": "user", "content": said }],
    });
    let request = client().post(format!("{}/v1/chat/completions", gateway.url)).bearer_auth(token);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(body.to_string()).send().unwrap()
}

fn get(gateway: &Lakehouse, path: &str) -> (u16, Value) {
    let answer = client().get(format!("{}{path}", gateway.url)).bearer_auth("team-a-token").send().unwrap();
    (answer.status().as_u16(), answer.json().unwrap())
}

fn numbers(chatd: &Lakehouse) -> String {
    client().get(format!("{}/metrics", chatd.url)).send().unwrap().text().unwrap()
}

/// A collector of traces, by OTLP over HTTP. Ends with its owner.
struct Collector {
    url: String,
    received: Arc<Mutex<Vec<ResourceSpans>>>,
    _runtime: Runtime,
}

impl Collector {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<ResourceSpans>>> = Arc::default();
        let kept = received.clone();
        let take = post(async move |headers: axum::http::HeaderMap, body: Bytes| {
            assert_eq!(headers["x-tenant"], "lake");
            let batch = ExportTraceServiceRequest::decode(body).unwrap();
            kept.lock().unwrap().extend(batch.resource_spans);
        });
        let routes = Router::new().route("/v1/traces", take);
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self { url, received, _runtime: runtime }
    }

    /// Every span so far with its attributes and those of its process, once there are so many.
    fn spans(&self, count: usize) -> Vec<(Value, Span)> {
        eventually(&format!("{count} spans"), || {
            let mut found = Vec::new();
            for batch in self.received.lock().unwrap().iter() {
                let process = batch.resource.iter().flat_map(|resource| &resource.attributes);
                for span in batch.scope_spans.iter().flat_map(|scope| &scope.spans) {
                    found.push((plain_all(process.clone().chain(&span.attributes)), span.clone()));
                }
            }
            if found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
        })
    }
}

fn plain_all<'a>(attributes: impl IntoIterator<Item = &'a KeyValue>) -> Value {
    let told = attributes.into_iter().map(|told| {
        let value = told.value.as_ref().and_then(|value| value.value.as_ref());
        (told.key.clone(), value.map(plain).unwrap_or_default())
    });
    Value::Object(told.collect())
}

fn plain(value: &Any) -> Value {
    match value {
        Any::StringValue(text) => json!(text),
        Any::IntValue(number) => json!(number),
        Any::DoubleValue(number) => json!(number),
        Any::BoolValue(is) => json!(is),
        Any::ArrayValue(list) => {
            list.values.iter().filter_map(|value| value.value.as_ref()).map(plain).collect()
        }
        other => panic!("nobody sends {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}
