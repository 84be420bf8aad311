//! A CSV file behind a URL that asks for a header: an object of the namespace's own storage service.

use anyhow::Result;
use reqwest::Method;

use crate::Story;

/// A file that a story can change, break and remove.
pub struct Source<'a> {
    story: &'a Story,
    name: String,
}

impl<'a> Source<'a> {
    /// A file that is not there yet. The namespace's services must run.
    pub async fn new(story: &'a Story, name: &str) -> Result<Self> {
        let token = story.token().await?;
        story.secret("files", &[("Authorization", format!("Bearer {token}"))]).await?;
        Ok(Self { story, name: name.to_owned() })
    }

    /// Gives it this content.
    pub async fn put(&self, csv: impl Into<String>) -> Result<()> {
        self.request(Method::PUT, "put", csv.into()).await
    }

    /// Takes it away.
    pub async fn remove(&self) -> Result<()> {
        self.request(Method::DELETE, "delete", String::new()).await
    }

    async fn request(&self, method: Method, verb: &str, body: String) -> Result<()> {
        let url = format!("{}/v1/storage/{verb}/files/{}", self.story.url().await?, self.name);
        let request =
            reqwest::Client::new().request(method, url).bearer_auth(self.story.token().await?).body(body);
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// Applies a Dataset that reads it; `more` are further fields of its spec, such as `schedule: '@daily'`.
    pub async fn declare(&self, dataset: &str, more: &str) -> Result<()> {
        let url = format!("http://lakehouse:3110/v1/storage/get/files/{}", self.name);
        let source = format!("{{http: {{url: '{url}', headersSecretRef: {{name: files}}}}}}");
        self.story
            .apply(&format!(
                "apiVersion: lakehouse.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: {dataset}}}\n\
                 spec: {{source: {source}, {more}}}\n"
            ))
            .await
    }
}
