//! What the services of a process may use: the arguments that `up` and `serve` share.
//!
//! Where an argument is missing, the crate that owns the limit has the say.

use std::{path::Path, time::Duration};

use bytesize::ByteSize;
use clap::Args;
use lakehouse_catalog::Catalog;
use lakehouse_ingest::{Options, service as ingestd};
use lakehouse_store::Store;

/// Sizes are written as 64MiB or 2GiB.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Memory that all queries share [default: 2GiB]
    #[arg(long, env = "LAKEHOUSE_QUERY_MEMORY", value_name = "SIZE")]
    query_memory: Option<ByteSize>,
    /// Threads that all queries share [default: one a core]
    #[arg(long, env = "LAKEHOUSE_QUERY_THREADS", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    query_threads: Option<u16>,
    /// Seconds that one query may work [default: 60]
    #[arg(long, env = "LAKEHOUSE_QUERY_TIMEOUT", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    query_timeout: Option<u32>,
    /// Queries that work at once; 64 more may wait [default: two a core]
    #[arg(long, env = "LAKEHOUSE_QUERY_CONCURRENCY", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    query_concurrency: Option<u16>,
    /// The largest JSON answer; Arrow and CSV are streamed and have no such limit [default: 64MiB]
    #[arg(long, env = "LAKEHOUSE_QUERY_MAX_RESULT", value_name = "SIZE")]
    query_max_result: Option<ByteSize>,
    /// Seconds that queries may be behind what other processes publish [default: 30]
    #[arg(long, env = "LAKEHOUSE_QUERY_REFRESH", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    query_refresh: Option<u32>,
    /// Disk for copies of what queries read from a bucket; what runs stays even beyond it [default: 20GiB]
    #[arg(long, env = "LAKEHOUSE_QUERY_CACHE", value_name = "SIZE")]
    query_cache: Option<ByteSize>,
    /// Disk for what sorts and joins of all queries spill [default: 10GiB]
    #[arg(long, env = "LAKEHOUSE_QUERY_SPILL", value_name = "SIZE")]
    query_spill: Option<ByteSize>,
    /// Seconds that rows which no kept version names stay in the store; the same for all who share it, and longer than any
    /// ingest takes, or its rows go before they are published [default: 86400]
    #[arg(long, env = "LAKEHOUSE_COLLECT_GRACE", value_name = "SECONDS")]
    collect_grace: Option<u64>,
    /// The largest file that is taken over HTTP [default: 256MiB]
    #[arg(long, env = "LAKEHOUSE_MAX_INGEST", value_name = "SIZE")]
    max_ingest: Option<ByteSize>,
    /// The largest object that is taken over HTTP [default: 256MiB]
    #[arg(long, env = "LAKEHOUSE_MAX_PUT", value_name = "SIZE")]
    max_put: Option<ByteSize>,
}

impl Limits {
    /// queryd's, with its copies in `cache`.
    pub(crate) fn query(&self, cache: &Path) -> anyhow::Result<lakehouse_query::Settings> {
        let mut settings = lakehouse_query::Settings::new(cache);
        let seconds = |count: u32| Duration::from_secs(count.into());
        set(&mut settings.memory_limit, self.query_memory.map(|size| size.as_u64()));
        set(&mut settings.threads, self.query_threads.map(usize::from));
        set(&mut settings.timeout, self.query_timeout.map(seconds));
        set(&mut settings.max_concurrent, self.query_concurrency.map(usize::from));
        set(
            &mut settings.max_result_bytes,
            self.query_max_result.map(|size| size.as_u64().try_into()).transpose()?,
        );
        set(&mut settings.cache_limit, self.query_cache.map(|size| size.as_u64()));
        set(&mut settings.temp_limit, self.query_spill.map(|size| size.as_u64()));
        set(&mut settings.refresh_interval, self.query_refresh.map(seconds));
        Ok(settings)
    }

    /// How long a server that ends lets its requests go on: no query is cut that may still work.
    pub(crate) fn drain_deadline(&self) -> Duration {
        let timeout = self
            .query_timeout
            .map_or(lakehouse_query::DEFAULT_TIMEOUT, |seconds| Duration::from_secs(seconds.into()));
        timeout + Duration::from_secs(5)
    }

    /// The catalogue of a store.
    pub(crate) fn catalog(&self, store: Store) -> Catalog {
        let grace = self.collect_grace.map_or(lakehouse_catalog::GRACE, Duration::from_secs);
        Catalog::new(store).with_grace(grace)
    }

    /// ingestd's.
    pub(crate) fn ingest(&self, options: Options) -> ingestd::Settings {
        let mut settings = ingestd::Settings::new(options);
        set(&mut settings.max_ingest_bytes, self.max_ingest.map(|size| size.as_u64()));
        settings
    }

    /// storaged's.
    pub(crate) fn storage(&self) -> lakehouse_storaged::Settings {
        let mut settings = lakehouse_storaged::Settings::default();
        set(&mut settings.max_put_bytes, self.max_put.map(|size| size.as_u64()));
        settings
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}
