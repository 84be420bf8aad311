//! A CSV file, or a door to another server, behind a URL that asks for a header: on a small web server in the story's namespace.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use reqwest::{Method, StatusCode};

use crate::{Story, cluster};

/// The server; `files/main.go` beside it says what it can do.
const SERVER: &str = include_str!("../../cluster/files.yaml");

/// A file that a story can change, break and remove.
pub struct Source<'a> {
    story: &'a Story,
    name: String,
    address: String,
}

impl<'a> Source<'a> {
    /// A file that is not there yet.
    pub async fn new(story: &'a Story, name: &str) -> Result<Self> {
        story.secret("files", &[("Authorization", "Bearer the-story".to_owned())]).await?;
        let address = server(story).await?;
        Ok(Self { story, name: name.to_owned(), address })
    }

    /// Gives it this content.
    pub async fn put(&self, csv: impl Into<String>) -> Result<()> {
        self.request(Method::PUT, "?require=Authorization:Bearer%20the-story", csv.into()).await
    }

    /// Lets the server answer this instead of the file.
    pub async fn fail_with(&self, status: StatusCode, text: &str) -> Result<()> {
        self.request(Method::PUT, &format!("?status={}", status.as_u16()), text.to_owned()).await
    }

    /// Takes it away.
    pub async fn remove(&self) -> Result<()> {
        self.request(Method::DELETE, "", String::new()).await
    }

    async fn request(&self, method: Method, query: &str, body: String) -> Result<()> {
        ask(self.story, method, &format!("{}/{}{query}", self.address, self.name), body).await
    }

    /// Its address in the namespace.
    pub fn url(&self) -> String {
        format!("http://files:8000/{}", self.name)
    }

    /// Applies a Dataset that reads it; `more` are further fields of its spec, such as `schedule: '@daily'`.
    pub async fn declare(&self, dataset: &str, more: &str) -> Result<()> {
        self.declare_with(dataset, "files", more).await
    }

    /// The same, with the headers of this Secret.
    pub async fn declare_with(&self, dataset: &str, secret: &str, more: &str) -> Result<()> {
        let source = format!("{{http: {{url: '{}', headersSecretRef: {{name: {secret}}}}}}}", self.url());
        self.story
            .apply(&format!(
                "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: {dataset}}}\n\
                 spec: {{source: {source}, {more}}}\n"
            ))
            .await
    }
}

/// A way to another server that a story can narrow, lock and shut. Requests come out of a pod of the story's namespace.
pub struct Door<'a> {
    story: &'a Story,
    name: String,
    to: String,
    address: String,
}

impl<'a> Door<'a> {
    /// A door that stands open.
    pub async fn new(story: &'a Story, name: &str, to: &str) -> Result<Self> {
        let address = server(story).await?;
        let door = Self { story, name: name.to_owned(), to: to.to_owned(), address };
        door.open("").await?;
        Ok(door)
    }

    /// Lets pass who shows this bearer token.
    pub async fn lock(&self, key: &str) -> Result<()> {
        self.open(&format!("&require=Authorization:Bearer%20{key}")).await
    }

    /// Lets so many bytes of an answer pass in a second.
    pub async fn narrow(&self, rate: u32) -> Result<()> {
        self.open(&format!("&rate={rate}")).await
    }

    /// Lets nobody pass: the answer is this.
    pub async fn shut(&self, status: StatusCode, text: &str) -> Result<()> {
        let query = format!("?to={}&status={}", self.to, status.as_u16());
        ask(self.story, Method::PUT, &format!("{}/{}{query}", self.address, self.name), text.to_owned()).await
    }

    async fn open(&self, more: &str) -> Result<()> {
        let url = format!("{}/{}?to={}{more}", self.address, self.name, self.to);
        ask(self.story, Method::PUT, &url, String::new()).await
    }

    /// Its address in the namespace.
    pub fn url(&self) -> String {
        format!("http://files:8000/{}", self.name)
    }

    /// Its address for this process.
    pub fn address(&self) -> String {
        format!("{}/{}", self.address, self.name)
    }
}

/// Starts the server where none runs. Its address for this process.
async fn server(story: &Story) -> Result<String> {
    story.apply(&SERVER.replace("localhost/files:1", &cluster::files_image())).await?;
    let is_ready = |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        status.conditions.iter().flatten().any(|ready| ready.type_ == "Ready" && ready.status == "True")
    };
    story.until_of("files", "the web server", is_ready).await?;
    cluster::service_url(&story.client, &story.namespace, "files").await
}

async fn ask(story: &Story, method: Method, url: &str, body: String) -> Result<()> {
    // The way to a Service is known a moment after its pod is ready.
    let answer = story.eventually("the web server's answer", async || {
        Ok(reqwest::Client::new().request(method.clone(), url).body(body.clone()).send().await.ok())
    });
    let answer = answer.await?;
    ensure!(answer.status().is_success(), "files: {}", answer.status());
    Ok(())
}
