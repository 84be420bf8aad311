//! Traces for a collector, where OpenTelemetry's variables name one: `OTEL_EXPORTER_OTLP_ENDPOINT`, or that for traces alone. Its
//! other variables (headers, sampler, batches, resource) mean what its specification says.
//!
//! ```text
//! chatd ─► tracer ─► batches ─► OTLP over HTTP ─► collector
//! ```

use std::{env, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::{KeyValue, global::BoxedTracer, trace::TracerProvider};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::runtime::Handle;

/// Any of these turns traces on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const PROTOCOL: &str = "http/protobuf";

/// How long a collector may take for a batch.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Hands spans on for as long as it lives, and the last of them when it is dropped.
pub(crate) struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Traces of `service`; none where no collector is named. Needs a tokio runtime, and a crypto provider of rustls.
    pub(crate) fn start(service: &str) -> anyhow::Result<Self> {
        let Some(endpoint) = ENDPOINTS.into_iter().find_map(set).filter(|_| !is_off()) else {
            return Ok(Self(None));
        };
        if let Some(protocol) = PROTOCOLS.into_iter().find_map(set).filter(|protocol| protocol != PROTOCOL) {
            bail!(
                "traces are sent by `{PROTOCOL}` alone, and OTEL_EXPORTER_OTLP_PROTOCOL asks for `{protocol}`"
            );
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(Sender::new(&endpoint)?)
            .build()
            .context("the variables OTEL_EXPORTER_OTLP_* cannot be used")?;
        let mut resource =
            Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let named = |variable: &str| set(variable).is_some_and(|text| text.contains("service.name="));
        if set("OTEL_SERVICE_NAME").is_none() && !named("OTEL_RESOURCE_ATTRIBUTES") {
            resource = resource.with_service_name(format!("lakehouse-{service}"));
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build());
        Ok(Self(Some(provider.build())))
    }

    pub(crate) fn tracer(&self) -> Option<Arc<BoxedTracer>> {
        let tracer = self.0.as_ref()?.tracer("lakehouse-chat");
        Some(Arc::new(BoxedTracer::new(Box::new(tracer))))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_ref().map(SdkTracerProvider::shutdown) {
            tracing::warn!(%error, "The last spans did not reach the collector");
        }
    }
}

/// Whether the variables that turn everything off do so.
fn is_off() -> bool {
    set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none")
}

/// A variable's value; an empty one is as good as none.
fn set(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.trim().is_empty())
}

/// Sends batches by the runtime of the servers. They are made by a thread that has none.
#[derive(Debug)]
struct Sender {
    client: reqwest::Client,
    runtime: Handle,
}

impl Sender {
    fn new(endpoint: &str) -> anyhow::Result<Self> {
        let mut client = reqwest::Client::builder()
            .timeout(SEND_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("lakehouse/", env!("CARGO_PKG_VERSION")));
        if endpoint.starts_with("http://") {
            // Without TLS there is no need of the system's certificates, which a bare container does not have.
            client = client.tls_certs_only([]);
        }
        let client = client.build().context("no client can be made for the collector of traces")?;
        Ok(Self { client, runtime: Handle::current() })
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(request.try_into()?).await?;
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            *response.body_mut() = answer.bytes().await?;
            Ok::<_, reqwest::Error>(response)
        });
        Ok(sent.await??)
    }
}
