//! What `e2e/run.sh` says of the cluster, by environment variables.

use std::{env, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client, Config};
use tokio::process::Command;

/// The workers' image, as the cluster knows it.
pub fn image() -> String {
    variable("LAKEHOUSE_E2E_IMAGE")
}

/// The image of the web server that sources are read from.
pub(crate) fn files_image() -> String {
    variable("LAKEHOUSE_E2E_FILES_IMAGE")
}

/// The image of the Ollama server.
pub(crate) fn ollama_image() -> String {
    variable("LAKEHOUSE_E2E_OLLAMA_IMAGE")
}

/// The tag of the workers' image.
pub fn image_tag() -> String {
    image_parts().1
}

fn image_parts() -> (String, String) {
    let image = image();
    let (repository, tag) = image.rsplit_once(':').expect("the image is written as NAME:TAG");
    (repository.to_owned(), tag.to_owned())
}

/// The credentials of the cluster's MinIO, as a namespace's Secret holds them.
pub fn store_credentials() -> [(&'static str, String); 2] {
    [
        ("AWS_ACCESS_KEY_ID", variable("LAKEHOUSE_E2E_ACCESS_KEY")),
        ("AWS_SECRET_ACCESS_KEY", variable("LAKEHOUSE_E2E_SECRET_KEY")),
    ]
}

/// Whether the namespace of a failed story stays, for whoever wants to look.
pub(crate) fn keep_failed() -> bool {
    env::var_os("LAKEHOUSE_E2E_KEEP").is_some()
}

/// Tells this run's names from those of other runs and of other calls.
pub(crate) fn run_id() -> String {
    let random: u32 = rand::random();
    format!("{random:08x}")
}

pub(crate) async fn client() -> Result<Client> {
    // Only the first story can install it; the others find it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::infer().await.context("KUBECONFIG")?;
    config.read_timeout = Some(Duration::from_mins(6));
    Ok(Client::try_from(config)?)
}

/// The address of a Service's first port, by its cluster IP.
pub(crate) async fn service_url(client: &Client, namespace: &str, name: &str) -> Result<String> {
    let service = Api::<Service>::namespaced(client.clone(), namespace).get(name).await?;
    let spec = service.spec.unwrap_or_default();
    let address = spec.cluster_ip.context("the Service has no address")?;
    let port = spec.ports.unwrap_or_default().first().context("the Service has no port")?.port;
    Ok(format!("http://{address}:{port}"))
}

/// Helm, and the project's charts.
pub struct Helm {
    namespace: String,
}

impl Helm {
    /// Releases in this namespace.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self { namespace: namespace.into() }
    }

    /// `helm upgrade --install` of the operator's chart with the stories' settings and these.
    pub async fn install(&self, release: &str, values: &[String]) -> Result<String> {
        let chart = format!("{}/lakehouse", variable("LAKEHOUSE_E2E_CHARTS"));
        let common = variable("LAKEHOUSE_E2E_VALUES");
        let (repository, tag) = image_parts();
        let image = format!("image.repository={repository},image.tag={tag}");
        let mut arguments = vec!["upgrade", "--install", "--create-namespace", release, &chart];
        arguments.extend(["--values", &common, "--wait", "--timeout=5m", "--set", &image]);
        arguments.extend(values.iter().flat_map(|value| ["--set", value.as_str()]));
        self.run(&arguments).await
    }

    /// `helm uninstall`; what it prints.
    pub async fn uninstall(&self, release: &str) -> Result<String> {
        self.run(&["uninstall", release, "--wait"]).await
    }

    /// Any other command; what it prints.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("helm");
        command.args(["--namespace", &self.namespace]).args(arguments).stdin(Stdio::null());
        let output = command.output().await.context("helm")?;
        let text =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        ensure!(output.status.success(), "helm {}: {text}", arguments.join(" "));
        Ok(text)
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set; the stories are started by `make e2e`"))
}
