//! An Ollama server with tiny models, in the story's namespace: `http://ollama:11434`.

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::{Story, cluster};

const SERVER: &str = include_str!("../../cluster/ollama.yaml");

/// A server that a story can stop and start.
pub struct Ollama;

impl Ollama {
    /// A server that answers.
    pub async fn start(story: &Story) -> Result<Self> {
        story.apply(&SERVER.replace("ollama:e2e", &cluster::ollama_image())).await?;
        let server = Self;
        server.scale(story, 1).await?;
        Ok(server)
    }

    /// Ends it; its Service stays.
    pub async fn stop(&self, story: &Story) -> Result<()> {
        self.scale(story, 0).await
    }

    /// Starts it again.
    pub async fn begin(&self, story: &Story) -> Result<()> {
        self.scale(story, 1).await
    }

    async fn scale(&self, story: &Story, replicas: i32) -> Result<()> {
        let change = json!({"spec": {"replicas": replicas}});
        story.api::<Deployment>().patch("ollama", &PatchParams::default(), &Patch::Merge(change)).await?;
        let has_scaled = |deployment: &Deployment| {
            deployment.status.as_ref().is_some_and(|status| {
                status.observed_generation == deployment.metadata.generation
                    && status.replicas.unwrap_or(0) == replicas
                    && status.ready_replicas.unwrap_or(0) == replicas
            })
        };
        story.until_of("ollama", &format!("{replicas} servers"), has_scaled).await?;
        Ok(())
    }
}
