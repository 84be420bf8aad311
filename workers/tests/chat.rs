//! What a laptop promises of language models, told as a user would live it: with a real Ollama, whose tiny model talks nonsense,
//! and with an upstream of the tests' own where it has to fail.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::header,
    routing::{get, post},
};
use common::{Lakehouse, client, eventually, file, run};
use lakehouse_parts::Ollama;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime, sync::Notify};

#[test]
fn a_provider_in_yaml_becomes_models_to_list_ask_and_embed_with() {
    let ollama = Ollama::start();
    let desk = tempfile::tempdir().unwrap();
    let tier =
        format!("tiers: {{fast: \"{}:latest\"}}, embeddings: {{models: [{}]}}", Ollama::CHAT, Ollama::EMBED);
    let yaml = resource("home", &ollama.url(), &tier);
    let lakehouse = up(desk.path(), &yaml);
    ready(&lakehouse, "home", "True");

    let (_, listed, _) = command(&lakehouse, &["get", "lhc", "-o", "wide"]);
    let columns: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(columns[..4], ["home", "True", "Ollama", "2"], "{listed}");
    assert!(listed.contains(&ollama.url()) && listed.contains("is asked for `ollama/…`, `fast`"), "{listed}");

    let (ended_well, models, stderr) = command(&lakehouse, &["models"]);
    assert!(ended_well && stderr.is_empty(), "{stderr}");
    assert!(models.contains("fast                       home       tiny-chat:latest    tier"), "{models}");
    assert_eq!(lakehouse.get("/v1/models/ollama/tiny-chat:latest").1["owned_by"], "home");

    // Its noise may have no letter in it, so only that there was an answer is told.
    let asked = ["chat", "fast", "say", "something", "--max-tokens", "8", "--stats"];
    let (ended_well, _, told) = command(&lakehouse, &asked);
    assert!(ended_well && told.starts_with("(tiny-chat:latest by home: "), "{told}");
    let (ended_well, whole, stderr) =
        command(&lakehouse, &["chat", "fast", "hi", "--max-tokens", "4", "--json"]);
    let whole: Value = serde_json::from_str(&whole).unwrap_or_else(|_| panic!("{whole}{stderr}"));
    assert!(ended_well && whole["provider"] == "home", "{whole}");

    let texts = json!({ "model": format!("home/{}", Ollama::EMBED), "input": ["a", "b"] });
    let (status, vectors) = lakehouse.post("/v1/embeddings", texts.to_string());
    assert_eq!((status, vectors["data"].as_array().map(Vec::len)), (200, Some(2)), "{vectors}");

    let (ended_well, _, stderr) = command(&lakehouse, &["chat", "kimi/k2", "hi"]);
    assert!(
        !ended_well && stderr.contains("no provider is set up for names that start with `kimi/`"),
        "{stderr}"
    );
    assert!(stderr.contains("`lakehouse models` lists the models"), "{stderr}");
}

#[test]
fn what_is_wrong_with_a_provider_stands_in_its_status_until_it_is_mended() {
    let upstream = Upstream::start();
    let desk = tempfile::tempdir().unwrap();
    let secret = |key: &str| {
        format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: k}}\nstringData: {{token: {key}}}\n")
    };
    let provider = format!(
        "apiVersion: lakehouse.dev/v1alpha1\nkind: ChatProvider\nmetadata: {{name: cloud}}\n\
         spec: {{type: OpenAI, url: \"{}\", apiKeySecretRef: {{name: k, key: token}}}}\n",
        upstream.url
    );
    let lakehouse = up(desk.path(), &provider);
    let told = ready(&lakehouse, "cloud", "False");
    assert_eq!(told["reason"], "SecretMissing", "{told}");
    file(desk.path(), "models.yaml", &format!("{provider}{}", secret("sk-wrong")));
    let told = condition(&lakehouse, "cloud", "Ready", |told| told["reason"] == "KeyRefused");
    assert!(!told["message"].as_str().unwrap().contains("sk-wrong"), "{told}");
    file(desk.path(), "models.yaml", &format!("{provider}{}", secret("sk-right")));
    ready(&lakehouse, "cloud", "True");
    let (status, resource) = lakehouse.get(&path("cloud"));
    assert_eq!((status, &resource["status"]["models"]), (200, &json!(["m"])));
    assert!(!resource.to_string().contains("sk-right"));
}

#[test]
fn pieces_come_as_they_are_made_and_a_client_that_leaves_ends_the_work() {
    let upstream = Upstream::start();
    let desk = tempfile::tempdir().unwrap();
    let lakehouse = up(desk.path(), &open(&upstream));
    ready(&lakehouse, "own", "True");
    let body = json!({ "model": "m", "stream": true, "messages": [{ "role": "user", "content": "slowly" }] });
    let url = format!("{}/v1/chat/completions", lakehouse.url);
    let mut answer = client().post(url).body(body.to_string()).send().unwrap();
    let mut first = [0; 6];
    std::io::Read::read_exact(&mut answer, &mut first).unwrap();
    assert_eq!(&first, b"data: ", "the first piece is here, and the upstream makes no more of them");
    let left = Instant::now();
    drop(answer);
    upstream.left.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(left.elapsed() < Duration::from_secs(5), "{:?}", left.elapsed());
}

#[test]
fn a_text_from_a_pipe_is_answered_and_an_answer_that_breaks_off_is_an_error() {
    let upstream = Upstream::start();
    let desk = tempfile::tempdir().unwrap();
    let lakehouse = up(desk.path(), &open(&upstream));
    ready(&lakehouse, "own", "True");
    let mut asked = common::lakehouse();
    asked.args(["chat", "m", "--server", &lakehouse.url]);
    let mut child = asked.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "you said hello\n");

    let (ended_well, text, stderr) = command(&lakehouse, &["chat", "m", "break", "off"]);
    assert_eq!((ended_well, text.as_str()), (false, "half of\n"));
    assert!(stderr.contains("the answer of `own` broke off before its end"), "{stderr}");
}

#[test]
fn an_edit_of_the_yaml_moves_the_route() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let desk = tempfile::tempdir().unwrap();
    let lakehouse = up(desk.path(), &open(&first));
    ready(&lakehouse, "own", "True");
    let ask = || command(&lakehouse, &["chat", "m", "hi"]).0;
    assert!(ask() && *first.asked.lock().unwrap() == 1);
    file(desk.path(), "models.yaml", &open(&second));
    eventually("the other upstream is asked", || {
        assert!(ask(), "no request fails");
        if *second.asked.lock().unwrap() > 0 { Ok(()) } else { Err("not yet".to_owned()) }
    });
}

fn resource(name: &str, url: &str, more: &str) -> String {
    format!(
        "apiVersion: lakehouse.dev/v1alpha1\nkind: ChatProvider\nmetadata: {{name: {name}}}\n\
         spec: {{type: Ollama, url: \"{url}\", {more}}}\n"
    )
}

/// The default provider, with a key that its upstream takes.
fn open(upstream: &Upstream) -> String {
    format!(
        "apiVersion: lakehouse.dev/v1alpha1\nkind: ChatProvider\nmetadata: {{name: own}}\n\
         spec: {{type: OpenAI, url: \"{}\", apiKeySecretRef: {{name: k, key: token}}, route: {{default: true}}}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: k}}\nstringData: {{token: sk-right}}\n",
        upstream.url
    )
}

fn up(desk: &Path, yaml: &str) -> Lakehouse {
    let models = file(desk, "models.yaml", yaml);
    Lakehouse::up(&desk.join("data"), &[models.to_str().unwrap()])
}

fn command(lakehouse: &Lakehouse, args: &[&str]) -> (bool, String, String) {
    let mut command: Command = common::lakehouse();
    run(command.args(args).args(["--server", &lakehouse.url]).stdin(Stdio::null()))
}

fn path(name: &str) -> String {
    format!("/apis/lakehouse.dev/v1alpha1/namespaces/default/chatproviders/{name}")
}

fn ready(lakehouse: &Lakehouse, name: &str, status: &str) -> Value {
    condition(lakehouse, name, "Ready", |told| {
        // Before anybody has looked, it is not ready either.
        told["status"] == status && told["reason"] != "NotServed"
    })
}

fn condition(lakehouse: &Lakehouse, name: &str, kind: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("{kind} of {name}"), || {
        let (_, resource) = lakehouse.get(&path(name));
        let conditions = resource["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition["type"] == kind);
        found.filter(&is_so).ok_or_else(|| resource.to_string())
    })
}

/// An upstream with OpenAI's protocol that wants the key `sk-right`.
struct Upstream {
    url: String,
    asked: Arc<std::sync::Mutex<usize>>,
    /// Tells when a client leaves in the middle of an answer.
    left: mpsc::Receiver<()>,
    _runtime: Runtime,
}

impl Upstream {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<std::sync::Mutex<usize>> = Arc::default();
        let (gone, left) = mpsc::channel();
        let count = asked.clone();
        let models = get(async |headers: axum::http::HeaderMap| {
            if headers[header::AUTHORIZATION] == "Bearer sk-right" {
                (axum::http::StatusCode::OK, axum::Json(json!({ "data": [{ "id": "m" }] })))
            } else {
                let error = json!({ "error": { "message": "Incorrect API key provided" } });
                (axum::http::StatusCode::UNAUTHORIZED, axum::Json(error))
            }
        });
        let chat = post(async move |body: Bytes| {
            *count.lock().unwrap() += 1;
            let body: Value = serde_json::from_slice(&body).unwrap();
            let said = body["messages"][0]["content"].as_str().unwrap().to_owned();
            ([(header::CONTENT_TYPE, "text/event-stream")], said_to(&said, gone.clone()))
        });
        let routes = Router::new().route("/models", models).route("/chat/completions", chat);
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self { url, asked, left, _runtime: runtime }
    }
}

/// `slowly` gets a first piece and no other, `break off` half of an answer, everything else an echo.
fn said_to(said: &str, gone: mpsc::Sender<()>) -> Body {
    struct Guard(mpsc::Sender<()>);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let piece = |text: &str| {
        let choice = json!({ "index": 0, "delta": { "content": text }, "finish_reason": null });
        format!("data: {}\n\n", json!({ "id": "1", "object": "chat.completion.chunk", "choices": [choice] }))
    };
    let end = json!({ "id": "1", "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
    match said {
        "slowly" => {
            let first = piece("one");
            let never = Arc::new(Notify::new());
            let stream = futures::stream::unfold(
                (Some(first), never, Guard(gone)),
                |(first, never, guard)| async move {
                    if let Some(first) = first {
                        return Some((Ok::<_, std::io::Error>(first), (None, never, guard)));
                    }
                    never.notified().await;
                    None
                },
            );
            Body::from_stream(stream)
        }
        "break off" => Body::from(piece("half of")),
        said => Body::from(piece(&format!("you said {said}")) + &format!("data: {end}\n\ndata: [DONE]\n\n")),
    }
}
