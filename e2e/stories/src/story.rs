//! One story: its namespace, and what a user does in it.

use std::{future::Future, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use futures::FutureExt;
use k8s_openapi::{
    api::core::v1::{Container, Namespace, Pod, PodSpec, Secret},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams},
    core::{GroupVersionKind, NamespaceResourceScope},
    discovery::{self, Scope},
};
use lakehouse_crds::{ChatProvider, Dataset, VectorIndex};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{cluster, tell};

/// Long enough for a pod to start on a busy machine; a story that works needs a fraction of it.
const PATIENCE: Duration = Duration::from_mins(5);
const GLANCE: Duration = Duration::from_millis(250);

/// A namespace, and hands to work in it.
pub struct Story {
    /// The API server's client.
    pub client: Client,
    /// The story's namespace.
    pub namespace: String,
    http: reqwest::Client,
}

/// A resource of Lakehouse, whose status tells how it is.
pub trait Told:
    Resource<Scope = NamespaceResourceScope, DynamicType: Default> + Clone + DeserializeOwned + std::fmt::Debug
{
    /// Its status's conditions.
    fn conditions(&self) -> &[Condition];
    /// The generation of the spec that its status speaks of.
    fn observed_generation(&self) -> Option<i64>;
}

impl Told for Dataset {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }
    fn observed_generation(&self) -> Option<i64> {
        self.status.as_ref()?.observed_generation
    }
}

impl Told for VectorIndex {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }
    fn observed_generation(&self) -> Option<i64> {
        self.status.as_ref()?.observed_generation
    }
}

impl Told for ChatProvider {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }
    fn observed_generation(&self) -> Option<i64> {
        self.status.as_ref()?.observed_generation
    }
}

/// The status of a condition, such as `True`; empty where there is none.
pub fn condition<'a, K: Told>(resource: &'a K, name: &str) -> &'a str {
    find(resource, name).map_or("", |condition| condition.status.as_str())
}

/// The reason of a condition; empty where there is none.
pub fn reason<'a, K: Told>(resource: &'a K, name: &str) -> &'a str {
    find(resource, name).map_or("", |condition| condition.reason.as_str())
}

/// The message of a condition; empty where there is none.
pub fn message<'a, K: Told>(resource: &'a K, name: &str) -> &'a str {
    find(resource, name).map_or("", |condition| condition.message.as_str())
}

fn find<'a, K: Told>(resource: &'a K, name: &str) -> Option<&'a Condition> {
    resource.conditions().iter().find(|condition| condition.type_ == name)
}

impl Story {
    /// Runs `story` in a namespace of its own, with the Secret that reaches the bucket.
    pub async fn run<F>(name: &str, story: impl FnOnce(std::sync::Arc<Self>) -> F)
    where
        F: Future<Output = Result<()>>,
    {
        Self::run_bare(name, async |hands| {
            hands.secret("lakehouse-store", &cluster::store_credentials()).await?;
            story(hands).await
        })
        .await;
    }

    /// Runs `story` in an empty namespace.
    pub async fn run_bare<F>(name: &str, story: impl FnOnce(std::sync::Arc<Self>) -> F)
    where
        F: Future<Output = Result<()>>,
    {
        let hands =
            std::sync::Arc::new(Self::begin(name).await.expect("a story needs a cluster and a namespace"));
        let told = std::panic::AssertUnwindSafe(story(hands.clone())).catch_unwind().await;
        let failed = match told {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(panic) => Some(said(panic.as_ref())),
        };
        if let Some(failed) = &failed {
            tell::everything(&hands.client, &hands.namespace, name, failed).await;
        }
        if failed.is_none() || !cluster::keep_failed() {
            hands.end().await;
        }
        assert!(failed.is_none(), "{name}: {}", failed.unwrap_or_default());
    }

    async fn begin(name: &str) -> Result<Self> {
        let client = cluster::client().await?;
        let namespace = format!("{name}-{}", cluster::run_id());
        let object: Namespace = serde_json::from_value(json!({
            "metadata": {"name": namespace, "labels": {
                // Every pod of ours must pass the strictest of the Pod Security Standards.
                "pod-security.kubernetes.io/enforce": "restricted",
                "lakehouse.dev/story": "true",
            }}
        }))?;
        Api::all(client.clone()).create(&PostParams::default(), &object).await?;
        Ok(Self { client, namespace, http: reqwest::Client::new() })
    }

    async fn end(&self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        if let Err(error) = namespaces.delete(&self.namespace, &DeleteParams::background()).await {
            eprintln!("the namespace {} stays: {error}", self.namespace);
        }
    }

    /// The objects of a kind in the story's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType: Default>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// `kubectl apply --server-side` of all documents in `yaml`.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        for document in documents(yaml)? {
            self.apply_document(&document, &PatchParams::apply("stories").force()).await?;
        }
        Ok(())
    }

    /// The sentence with which the API server refuses `yaml`.
    pub async fn refusal(&self, yaml: &str) -> Result<String> {
        for document in documents(yaml)? {
            let refused = self.apply_document(&document, &PatchParams::apply("stories").force()).await;
            match refused.map_err(anyhow::Error::downcast::<kube::Error>) {
                Err(Ok(kube::Error::Api(status))) => return Ok(status.message.clone()),
                Err(Ok(error)) => return Err(error.into()),
                Err(Err(error)) => return Err(error),
                Ok(_) => {}
            }
        }
        bail!("the API server accepted what it should refuse")
    }

    /// What a server-side dry run of `yaml` by `manager` would change, as (before, after) of each object that differs.
    pub async fn dry_run(&self, yaml: &str, manager: &str) -> Result<Vec<(Value, Value)>> {
        let mut differences = Vec::new();
        for document in documents(yaml)? {
            let parameters = PatchParams { dry_run: true, ..PatchParams::apply(manager).force() };
            let (api, name) = self.api_of(&document).await?;
            // The operator writes statuses meanwhile: only of an object that nobody wrote is it the dry run that differs.
            let run = async || {
                let before = api.get(&name).await?;
                let after = self.apply_document(&document, &parameters).await?;
                let is_still = api.get(&name).await?.resource_version() == before.resource_version();
                Ok(is_still.then_some((before, after)))
            };
            let (before, after) = eventually("a dry run of an object at rest", run).await?;
            let (mut before, mut after) = (serde_json::to_value(before)?, serde_json::to_value(after)?);
            for value in [&mut before, &mut after] {
                if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.remove("managedFields");
                }
            }
            if before != after {
                differences.push((before, after));
            }
        }
        Ok(differences)
    }

    async fn apply_document(&self, document: &Value, parameters: &PatchParams) -> Result<DynamicObject> {
        let (api, name) = self.api_of(document).await?;
        Ok(api.patch(&name, parameters, &Patch::Apply(document)).await?)
    }

    async fn api_of(&self, document: &Value) -> Result<(Api<DynamicObject>, String)> {
        let text = |pointer: &str| {
            document.pointer(pointer).and_then(Value::as_str).with_context(|| format!("{pointer} is missing"))
        };
        let (group, version) = text("/apiVersion")?.rsplit_once('/').unwrap_or(("", text("/apiVersion")?));
        let kind = GroupVersionKind::gvk(group, version, text("/kind")?);
        let (resource, capabilities) = discovery::pinned_kind(&self.client, &kind).await?;
        let api = match capabilities.scope {
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
        };
        Ok((api, text("/metadata/name")?.to_owned()))
    }

    /// A Dataset whose rows stand in a ConfigMap beside it.
    pub async fn dataset_of_text(&self, name: &str, csv: &str) -> Result<()> {
        self.text(name, csv).await?;
        self.apply(&format!(
            "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: {name}}}\n\
             spec: {{source: {{configMap: {{name: {name}, key: rows.csv}}}}}}\n"
        ))
        .await
    }

    /// The ConfigMap of such a Dataset.
    pub async fn text(&self, name: &str, csv: &str) -> Result<()> {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"rows.csv": csv}});
        self.apply(&map.to_string()).await
    }

    /// A Secret with these entries.
    pub async fn secret(&self, name: &str, entries: &[(&str, String)]) -> Result<()> {
        let entries: serde_json::Map<_, _> =
            entries.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": entries});
        self.apply(&secret.to_string()).await
    }

    /// `kubectl patch --type merge` of a Dataset.
    pub async fn edit(&self, name: &str, change: Value) -> Result<Dataset> {
        self.edit_of(name, change).await
    }

    /// `kubectl patch --type merge`.
    pub async fn edit_of<K: Told>(&self, name: &str, change: Value) -> Result<K> {
        Ok(self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(change)).await?)
    }

    /// A Dataset as it is now.
    pub async fn dataset(&self, name: &str) -> Result<Dataset> {
        Ok(self.api::<Dataset>().get(name).await?)
    }

    /// Waits until a resource's status speaks of its newest spec and `holds`.
    pub async fn until<K: Told>(&self, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> Result<K> {
        let is_current = |resource: &K| resource.observed_generation() == resource.meta().generation;
        self.until_of(name, what, |resource: &K| is_current(resource) && holds(resource)).await
    }

    /// Waits until an object `holds`.
    pub async fn until_of<K>(&self, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType: Default>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api = self.api::<K>();
        eventually(what, async || Ok(api.get_opt(name).await?.filter(|object| holds(object))))
            .await
            .with_context(|| format!("waiting for {name}"))
    }

    /// Asks again and again until there is an answer.
    pub async fn eventually<T>(&self, what: &str, ask: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
        eventually(what, ask).await
    }

    /// Waits until a Dataset is Ready.
    pub async fn ready(&self, name: &str) -> Result<Dataset> {
        self.ready_of(name).await
    }

    /// Waits until a resource is Ready.
    pub async fn ready_of<K: Told>(&self, name: &str) -> Result<K> {
        self.until(name, "Ready", |resource: &K| condition(resource, "Ready") == "True").await
    }

    /// Waits until a Dataset is Ready and every query pod answers from this version or a later one.
    pub async fn ready_with(&self, name: &str, version: u64) -> Result<Dataset> {
        let what = format!("Ready with version {version}");
        let serves = |dataset: &Dataset| {
            ["Ready", "Served"].iter().all(|name| condition(dataset, name) == "True")
                && dataset
                    .status
                    .as_ref()
                    .and_then(|status| status.version)
                    .is_some_and(|served| served >= version)
        };
        self.until(name, &what, serves).await
    }

    /// Waits until Ready is False for this reason with a message that holds all `parts`.
    pub async fn fails(&self, name: &str, reason: &str, parts: &[&str]) -> Result<Dataset> {
        self.fails_of(name, reason, parts).await
    }

    /// The same of any resource.
    pub async fn fails_of<K: Told>(&self, name: &str, reason: &str, parts: &[&str]) -> Result<K> {
        let what = format!("Ready False with {reason} and a message with {parts:?}");
        self.until(name, &what, |resource: &K| {
            find(resource, "Ready").is_some_and(|ready| {
                ready.status == "False"
                    && ready.reason == reason
                    && parts.iter().all(|part| ready.message.contains(part))
            })
        })
        .await
    }

    /// Waits until there is no such object any more.
    pub async fn gone<K>(&self, name: &str) -> Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType: Default>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api = self.api::<K>();
        let what = format!("{name} to be gone");
        eventually(&what, async || Ok(api.get_opt(name).await?.is_none().then_some(()))).await
    }

    /// The rows of `sql`, asked through the namespace's Service.
    pub async fn sql(&self, sql: &str) -> Result<Vec<Vec<Value>>> {
        let answer = self.post("/v1/sql", json!({"sql": sql}).to_string().into_bytes()).await?;
        Ok(serde_json::from_value(answer["rows"].clone())?)
    }

    /// Uploads `csv` into a dataset through the namespace's Service.
    pub async fn upload(&self, name: &str, csv: Vec<u8>) -> Result<Value> {
        self.post(&format!("/v1/ingest?name={name}"), csv).await
    }

    /// Puts an object into the namespace's part of the bucket.
    pub async fn put_object(&self, key: &str, content: &str) -> Result<()> {
        let url = format!("{}/v1/storage/put/{key}", self.url().await?);
        let request = self.http.put(url).bearer_auth(self.token().await?).body(content.to_owned());
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// The keys below `prefix` in the namespace's part of the bucket.
    pub async fn list_objects(&self, prefix: &str) -> Result<Vec<String>> {
        let url = format!("{}/v1/storage/list?prefix={prefix}", self.url().await?);
        let request = self.http.get(url).bearer_auth(self.token().await?);
        let answer: Value = serde_json::from_str(&request.send().await?.error_for_status()?.text().await?)?;
        let objects = answer["objects"].as_array().context("the answer has no list of objects")?;
        Ok(objects.iter().filter_map(|object| object["key"].as_str()).map(str::to_owned).collect())
    }

    /// A POST through the namespace's Service with its token; anything but success is an error with the answer's body.
    pub async fn post(&self, path: &str, body: Vec<u8>) -> Result<Value> {
        let answer = self.send(path, body).await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "POST {path}: {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// The same, as soon as the answer begins, whatever its status.
    pub async fn send(&self, path: &str, body: Vec<u8>) -> Result<reqwest::Response> {
        let (url, token) = (format!("{}{path}", self.url().await?), self.token().await?);
        let call = || self.http.post(&url).bearer_auth(&token).timeout(PATIENCE).body(body.clone()).send();
        // The way to a new pod is known on each node a moment after the pod is ready.
        eventually("a connection to the Service", async || match call().await {
            Err(error) if error.is_connect() => Ok(None),
            answer => Ok(Some(answer?)),
        })
        .await
    }

    /// The Service's address, as this process reaches it.
    pub async fn url(&self) -> Result<String> {
        cluster::service_url(&self.client, &self.namespace, "lakehouse").await
    }

    /// The namespace's bearer token.
    pub async fn token(&self) -> Result<String> {
        let secret = self.api::<Secret>().get("lakehouse-token").await?;
        let token =
            secret.data.unwrap_or_default().into_values().next().context("the token Secret is empty")?;
        Ok(String::from_utf8(token.0)?.trim().to_owned())
    }

    /// What `lakehouse sql` prints in a pod of its own, as CSV.
    pub async fn sql_from_a_pod(&self, sql: &str) -> Result<String> {
        let name = format!("client-{}", cluster::run_id());
        let pod = client_pod(&name, &["sql", "--csv", "--server", "http://lakehouse:3110", sql])?;
        let pods = self.api::<Pod>();
        pods.create(&PostParams::default(), &pod).await?;
        let phase =
            |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        let ended = self
            .until_of(&name, "its end", |pod: &Pod| matches!(phase(pod).as_str(), "Succeeded" | "Failed"));
        let ended = ended.await?;
        let log = pods.logs(&name, &LogParams::default()).await?;
        ensure!(phase(&ended) == "Succeeded", "the client failed: {log}");
        Ok(log)
    }

    /// The namespace's pods of one component, such as `query`.
    pub async fn pods(&self, component: &str) -> Result<Vec<Pod>> {
        let selector = ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
        Ok(self.api::<Pod>().list(&selector).await?.items)
    }

    /// Names and uids of the namespace's pods of one component: who is the same pod as before.
    pub async fn who(&self, component: &str) -> Result<Vec<(String, String)>> {
        let pods = self.pods(component).await?;
        let mut who: Vec<_> =
            pods.iter().map(|pod| (pod.name_any(), pod.uid().unwrap_or_default())).collect();
        who.sort();
        Ok(who)
    }
}

/// Asks again and again until there is an answer.
async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let asked = async {
        loop {
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            tokio::time::sleep(GLANCE).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer,
        Err(_) => bail!("{what}: not within {} seconds", PATIENCE.as_secs()),
    }
}

/// The documents of a YAML text that hold something.
fn documents(yaml: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}

/// A pod that runs one command of `lakehouse` with the namespace's token.
fn client_pod(name: &str, arguments: &[&str]) -> Result<Pod> {
    let container: Container = serde_json::from_value(json!({
        "name": "client", "image": crate::image(), "imagePullPolicy": "IfNotPresent",
        "command": ["/lakehouse"], "args": arguments,
        "env": [{"name": "LAKEHOUSE_TOKEN", "valueFrom": {"secretKeyRef": {"name": "lakehouse-token", "key": "token"}}}],
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
    }))?;
    let spec = PodSpec {
        containers: vec![container],
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: Some(false),
        security_context: Some(serde_json::from_value(
            json!({"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}),
        )?),
        ..PodSpec::default()
    };
    let mut pod = Pod { spec: Some(spec), ..Pod::default() };
    pod.metadata.name = Some(name.to_owned());
    Ok(pod)
}
