//! What users do with ChatProviders, and what happens to these when a key, a route or an upstream changes. Ollama is a real one with a
//! tiny model: what it says is noise.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::api::DeleteParams;
use lakehouse_crds::ChatProvider;
use lakehouse_e2e::{Door, Load, Ollama, Story, condition, message, reason};
use reqwest::StatusCode;
use serde_json::{Value, json};

#[tokio::test]
async fn a_provider_is_applied_and_asked_from_another_pod_through_both_doors() {
    Story::run("chats", async |story| {
        Ollama::start(&story).await?;
        story.apply(&ollama("home", "route: {prefixes: [home/], default: true}")).await?;
        let home = story.ready_of::<ChatProvider>("home").await?;
        for name in ["SecretResolved", "Reachable", "ModelsDiscovered"] {
            ensure!(condition(&home, name) == "True", "{name}: {}", message(&home, name));
        }
        let status = home.status.context("no status")?;
        ensure!(status.models.contains(&"tiny-chat:latest".to_owned()), "{status:?}");
        ensure!(status.model_count >= Some(1) && status.latency_ms.is_some(), "{status:?}");
        ensure!(status.endpoint.as_deref() == Some("http://ollama:11434"), "{status:?}");

        chat(&story, "home/tiny-chat").await?;
        // Out of a pod of the namespace, by the Service's name.
        let gateway = Door::new(&story, "gateway", "http://lakehouse:3110").await?;
        for model in ["home/tiny-chat", "tiny-chat"] {
            let native = ask(&story, &gateway, "/v1/chat", model).await?;
            ensure!(native["provider"] == "home" && native["completion_tokens"] == 4, "{native}");
            let openai = ask(&story, &gateway, "/v1/chat/completions", model).await?;
            ensure!(openai["object"] == "chat.completion", "{openai}");
            ensure!(openai["usage"]["completion_tokens"] == 4, "{openai}");
        }
        let url = format!("{}/v1/models", gateway.address());
        let models = reqwest::Client::new().get(url).bearer_auth(story.token().await?).send().await?;
        let models: Value = serde_json::from_str(&models.error_for_status()?.text().await?)?;
        let listed = models["data"].as_array().into_iter().flatten();
        ensure!(listed.map(|model| &model["id"]).any(|id| *id == "tiny-chat:latest"), "{models}");

        // With the last of them goes what it was for.
        story.api::<ChatProvider>().delete("home", &DeleteParams::default()).await?;
        story.gone::<Deployment>("lakehouse-chat").await?;
        story.gone::<Deployment>("lakehouse").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_key_is_waited_for_told_when_it_is_refused_and_rotated_without_a_new_pod() {
    Story::run("chat-keys", async |story| {
        Ollama::start(&story).await?;
        let door = Door::new(&story, "door", "http://ollama:11434").await?;
        door.lock("first").await?;
        story.apply(&openai("keyed", &door, "")).await?;
        story.fails_of::<ChatProvider>("keyed", "SecretMissing", &["`keyed`", "`token`"]).await?;
        story.secret("keyed", &[("another", "entry".to_owned())]).await?;
        story
            .fails_of::<ChatProvider>("keyed", "SecretMissing", &["is there, but no key has come", "`token`"])
            .await?;
        let pods = story.who("chat").await?;

        let wrong = "not-the-key-of-this-door";
        story.secret("keyed", &[("token", wrong.to_owned())]).await?;
        let refused = story.fails_of::<ChatProvider>("keyed", "KeyRefused", &["401"]).await?;
        ensure!(
            condition(&refused, "Reachable") == "True" && condition(&refused, "Stalled") == "True",
            "{refused:?}"
        );
        ensure!(!serde_json::to_string(&refused)?.contains(wrong), "a status must not hold a key");

        story.secret("keyed", &[("token", "first".to_owned())]).await?;
        let first = story.ready_of::<ChatProvider>("keyed").await?;
        ensure!(chat(&story, "keyed/tiny-chat").await?["provider"] == "keyed", "it is asked");

        door.lock("second").await?;
        story.secret("keyed", &[("token", "second".to_owned())]).await?;
        let rotated = Instant::now();
        story
            .eventually("an answer by the new key", async || Ok(chat(&story, "keyed/tiny-chat").await.ok()))
            .await?;
        println!("the new key was used after {:.1} s", rotated.elapsed().as_secs_f64());
        let hash =
            |provider: &ChatProvider| provider.status.as_ref().and_then(|status| status.secret_hash.clone());
        let changed = |provider: &ChatProvider| {
            condition(provider, "Ready") == "True" && hash(provider) != hash(&first)
        };
        story.until("keyed", "Ready with another hash", changed).await?;
        ensure!(story.who("chat").await? == pods, "no pod was started anew");

        story.api::<Secret>().delete("keyed", &DeleteParams::default()).await?;
        story
            .fails_of::<ChatProvider>("keyed", "SecretMissing", &["Create it with the entry `token`"])
            .await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_fallback_answers_while_an_upstream_is_down_and_the_way_back_is_found() {
    Story::run("chat-down", async |story| {
        let server = Ollama::start(&story).await?;
        let door = Door::new(&story, "door", "http://ollama:11434").await?;
        story.secret("keyed", &[("token", "any".to_owned())]).await?;
        story.apply(&openai("keyed", &door, "fallback: [home]")).await?;
        story.apply(&ollama("home", "")).await?;
        for name in ["keyed", "home"] {
            story.ready_of::<ChatProvider>(name).await?;
        }
        ensure!(chat(&story, "keyed/tiny-chat").await?["provider"] == "keyed", "it is asked first");

        let load = Load::chat(&story, 2, "keyed/tiny-chat").await?;
        door.shut(StatusCode::SERVICE_UNAVAILABLE, "closed for the night").await?;
        let down = story
            .fails_of::<ChatProvider>("keyed", "ProviderUnreachable", &["503", "closed for the night"])
            .await?;
        ensure!(condition(&down, "Reachable") == "False", "{down:?}");
        ensure!(chat(&story, "keyed/tiny-chat").await?["provider"] == "home", "the fallback answers");
        let home = story.ready_of::<ChatProvider>("home").await?;
        ensure!(condition(&home, "Reachable") == "True", "{home:?}");

        door.narrow(1 << 20).await?;
        story.ready_of::<ChatProvider>("keyed").await?;
        story
            .eventually("the first provider's answer", async || {
                Ok((chat(&story, "keyed/tiny-chat").await?["provider"] == "keyed").then_some(()))
            })
            .await?;
        load.stop_without_failures().await?;

        // Nobody is left: the one that was asked is named, and so is what was tried instead.
        server.stop(&story).await?;
        story.fails_of::<ChatProvider>("home", "ProviderUnreachable", &["home"]).await?;
        let failed = chat(&story, "keyed/tiny-chat").await.err().context("nobody answered")?.to_string();
        for part in ["keyed", "home"] {
            ensure!(failed.contains(part), "{part}: {failed}");
        }
        server.begin(&story).await?;
        for name in ["keyed", "home"] {
            story.ready_of::<ChatProvider>(name).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_older_provider_keeps_a_route_and_the_newer_has_it_once_that_goes() {
    Story::run("chat-routes", async |story| {
        Ollama::start(&story).await?;
        // Later in the alphabet, and older.
        story.apply(&ollama("zebra", "route: {prefixes: [ours/], default: true}")).await?;
        story.ready_of::<ChatProvider>("zebra").await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        story.apply(&ollama("ant", "route: {prefixes: [ours/, ant/], default: true}")).await?;
        let parts = ["the prefix `ours/` belongs to `zebra`", "the default is `zebra`"];
        let ant = story.fails_of::<ChatProvider>("ant", "RouteConflict", &parts).await?;
        ensure!(condition(&ant, "Stalled") == "True" && condition(&ant, "Reachable") == "True", "{ant:?}");
        let zebra = story.ready_of::<ChatProvider>("zebra").await?;
        ensure!(reason(&zebra, "Ready") == "Serving", "{zebra:?}");
        for (model, provider) in
            [("ours/tiny-chat", "zebra"), ("tiny-chat", "zebra"), ("ant/tiny-chat", "ant")]
        {
            let answer = chat(&story, model).await?;
            ensure!(answer["provider"] == provider, "{model}: {answer}");
        }
        story.api::<ChatProvider>().delete("zebra", &DeleteParams::default()).await?;
        story.ready_of::<ChatProvider>("ant").await?;
        let answer = chat(&story, "ours/tiny-chat").await?;
        ensure!(answer["provider"] == "ant", "{answer}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_routing_edit_takes_effect_within_seconds_without_a_new_pod_and_without_a_dropped_stream() {
    Story::run("chat-edits", async |story| {
        Ollama::start(&story).await?;
        let door = Door::new(&story, "door", "http://ollama:11434").await?;
        door.narrow(4000).await?;
        story.secret("keyed", &[("token", "any".to_owned())]).await?;
        story.apply(&openai("keyed", &door, "")).await?;
        story.apply(&ollama("home", "")).await?;
        for name in ["keyed", "home"] {
            story.ready_of::<ChatProvider>(name).await?;
        }
        let pods = story.who("chat").await?;
        let stream = begin_stream(&story, "keyed/tiny-chat").await?;
        let load = Load::chat(&story, 2, "home/tiny-chat").await?;

        ensure!(chat(&story, "new/tiny-chat").await.is_err(), "nobody has this route yet");
        let edited = Instant::now();
        story.apply(&ollama("home", "route: {prefixes: [home/, new/]}")).await?;
        story.apply(&openai("keyed", &door, "route: {prefixes: [other/]}")).await?;
        story
            .eventually("an answer by the new route", async || Ok(chat(&story, "new/tiny-chat").await.ok()))
            .await?;
        let took = edited.elapsed();
        println!("the edit took effect after {:.1} s", took.as_secs_f64());
        ensure!(took < Duration::from_secs(30), "{took:?}");
        for name in ["keyed", "home"] {
            story.ready_of::<ChatProvider>(name).await?;
        }
        let text = whole_stream(stream).await?;
        ensure!(text.trim_end().ends_with("data: [DONE]"), "the stream was dropped: {text}");
        load.stop_without_failures().await?;
        ensure!(story.who("chat").await? == pods, "no pod was started anew");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_provider_is_told_and_mended_by_an_edit() {
    Story::run("chat-wrong", async |story| {
        for (spec, sentence) in [
            ("{type: Kimi}", "this type needs a key"),
            ("{type: Ollama}", "set `url`"),
            ("{type: Ollama, url: 'ftp://h'}", "url"),
            ("{type: Ollama, url: 'http://h', limits: {timeouts: {total: '5'}}}", "total"),
            ("{type: Ollama, url: 'http://h', fallback: [wrong]}", "cannot be its own fallback"),
            ("{type: Llama}", "Llama"),
        ] {
            let refusal = story.refusal(&provider("wrong", spec)).await?;
            ensure!(refusal.contains(sentence), "{sentence}: {refusal}");
        }
        // What the schema cannot see is told by the operator.
        let spec = "{type: OpenAI, apiKeySecretRef: {name: k, key: a/b}}";
        story.apply(&provider("wrong", spec)).await?;
        let wrong =
            story.fails_of::<ChatProvider>("wrong", "InvalidSpec", &["spec.apiKeySecretRef.key"]).await?;
        ensure!(condition(&wrong, "Stalled") == "True", "{wrong:?}");

        Ollama::start(&story).await?;
        story.apply(&ollama("home", "fallback: [nobody]")).await?;
        let home = story.ready_of::<ChatProvider>("home").await?;
        ensure!(message(&home, "Ready").contains("`nobody`, which `spec.fallback` names"), "{home:?}");
        story.apply(&ollama("home", "suspend: true")).await?;
        story.fails_of::<ChatProvider>("home", "Suspended", &[]).await?;
        story
            .eventually("nobody to be asked", async || {
                Ok(chat(&story, "home/tiny-chat").await.err().map(drop))
            })
            .await?;
        story.apply(&ollama("home", "")).await?;
        story.ready_of::<ChatProvider>("home").await?;
        chat(&story, "home/tiny-chat").await?;

        // An address that nothing listens at.
        story
            .apply(&provider(
                "away",
                "{type: Ollama, url: 'http://nowhere:11434', route: {prefixes: [away/]}}",
            ))
            .await?;
        story.fails_of::<ChatProvider>("away", "ProviderUnreachable", &["away"]).await?;
        Ok(())
    })
    .await;
}

/// A ChatProvider for the story's Ollama, with the prefix of its own name unless `more` of its spec says otherwise.
fn ollama(name: &str, more: &str) -> String {
    provider(name, &format!("{{type: Ollama, url: 'http://ollama:11434', {}}}", routed(name, more)))
}

/// A ChatProvider for what is behind a door, with the key `token` of the Secret of its name.
fn openai(name: &str, door: &Door<'_>, more: &str) -> String {
    let url = format!("{}/v1", door.url());
    let key = format!("apiKeySecretRef: {{name: {name}, key: token}}");
    provider(name, &format!("{{type: OpenAI, url: '{url}', {key}, {}}}", routed(name, more)))
}

fn routed(name: &str, more: &str) -> String {
    if more.contains("route:") { more.to_owned() } else { format!("route: {{prefixes: [{name}/]}}, {more}") }
}

fn provider(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: lakehouse.dev/v1alpha1\nkind: ChatProvider\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

/// The native answer of a model.
async fn chat(story: &Story, model: &str) -> Result<Value> {
    story.post("/v1/chat", question(model).to_string().into_bytes()).await
}

fn question(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4})
}

/// A model's answer through a door to the gateway.
async fn ask(story: &Story, gateway: &Door<'_>, path: &str, model: &str) -> Result<Value> {
    let request = reqwest::Client::new().post(format!("{}{path}", gateway.address()));
    let request = request.bearer_auth(story.token().await?).body(question(model).to_string());
    let answer = request.send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{path}: {status}: {text}");
    Ok(serde_json::from_str(&text)?)
}

/// A long answer that has begun.
async fn begin_stream(story: &Story, model: &str) -> Result<reqwest::Response> {
    let mut body = question(model);
    body["stream"] = json!(true);
    body["max_tokens"] = json!(400);
    let mut answer = story.send("/v1/chat/completions", body.to_string().into_bytes()).await?;
    ensure!(answer.status().is_success(), "{}", answer.status());
    let Some(first) = answer.chunk().await? else { bail!("the stream is empty") };
    ensure!(!first.is_empty(), "the stream has begun");
    Ok(answer)
}

async fn whole_stream(answer: reqwest::Response) -> Result<String> {
    answer.text().await.context("the stream broke off")
}
