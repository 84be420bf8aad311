//! How `serve` answers for vectors and embeddings: its arguments, checked once.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use clap::Args;
use lakehouse_contract::{IndexName, Role, provider::Providers};
use lakehouse_embed::{Embedder, HttpEmbedder};
use lakehouse_vector::Settings;
use tokio::sync::watch;

use crate::access::Access;

#[derive(Debug, Args)]
#[command(next_help_heading = "Vectors")]
pub(crate) struct Vectors {
    /// An index that vectord opens before it is ready
    #[arg(long, env = "LAKEHOUSE_INDEX", value_name = "NAME", value_parser = |text: &str| IndexName::parse(text))]
    pub(crate) index: Option<IndexName>,
    /// Hold only this shard of each index, such as 0/3 for the first of three
    #[arg(long, env = "LAKEHOUSE_SHARD", value_name = "I/N", value_parser = shard, requires = "peer")]
    shard: Option<(u32, u32)>,
    /// Where the other shards are, with {shard} in place of the number
    #[arg(long, env = "LAKEHOUSE_PEER", value_name = "URL", requires = "shard")]
    peer: Option<String>,
    /// Where vectord has texts embedded; by itself where embedd is among the roles
    #[arg(long, env = "LAKEHOUSE_EMBEDD", value_name = "URL")]
    embedd: Option<String>,
    /// The providers of embedd's and chatd's models, as YAML or JSON; followed as it changes
    #[arg(long, env = "LAKEHOUSE_PROVIDERS", value_name = "FILE")]
    providers: Option<PathBuf>,
}

impl Vectors {
    /// Refuses what belongs to a role that does not run here.
    pub(crate) fn check(&self, roles: &[Role]) -> anyhow::Result<()> {
        let is_vectord = self.index.is_some() || self.shard.is_some() || self.embedd.is_some();
        if is_vectord && !roles.contains(&Role::Vectord) {
            bail!("--index, --shard, --peer and --embedd are for vectord, which is not among the roles");
        }
        let asks_providers = roles.contains(&Role::Embedd) || roles.contains(&Role::Chatd);
        if self.providers.is_some() && !asks_providers {
            bail!("--providers is for embedd and chatd, which are not among the roles");
        }
        if self.embedd.is_some() && roles.contains(&Role::Embedd) {
            bail!("--embedd names another process, but embedd is among the roles of this one");
        }
        Ok(())
    }

    /// vectord's.
    pub(crate) fn settings(&self) -> Settings {
        let peers = self.peer.as_ref().map(|url| url.replace("{shard}", "{part}"));
        Settings { shard: self.shard, peers, ..Settings::default() }
    }

    /// The embedd that runs elsewhere.
    pub(crate) fn embedder(&self, access: &Access) -> anyhow::Result<Option<Arc<dyn Embedder>>> {
        let Some(url) = &self.embedd else { return Ok(None) };
        let embedder = HttpEmbedder::new(url, access.authorization()).context("--embedd")?;
        Ok(Some(Arc::new(embedder)))
    }

    /// The providers, now and whenever they change.
    pub(crate) async fn providers(&self) -> anyhow::Result<watch::Receiver<Providers>> {
        match &self.providers {
            Some(file) => Ok(lakehouse_embed::follow(file.clone()).await.context("--providers")?),
            None => Ok(watch::channel(Providers::default()).1),
        }
    }
}

fn shard(text: &str) -> Result<(u32, u32), String> {
    let parts =
        text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    match parts {
        Some((part, parts)) if part < parts => Ok((part, parts)),
        _ => Err("it is written as 0/3 for the first of three, 2/3 for the last".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_count_from_zero() {
        assert_eq!(shard("0/3"), Ok((0, 3)));
        assert_eq!(shard("2/3"), Ok((2, 3)));
        for text in ["3/3", "1", "a/3", "-1/3", "0/0", "1/2/3"] {
            assert!(shard(text).is_err(), "{text}");
        }
    }
}
