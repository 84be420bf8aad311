//! The official SDKs, unmodified, are clients of a real gateway, chatd and embedd; behind those are a real Ollama, and clouds that
//! speak as they are documented.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../chat/tests/common/mod.rs"]
mod chat;
mod common;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::{Lakehouse, lakehouse};
use lakehouse_parts::Ollama;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const TOKEN: &str = "sdk-token";

#[test]
fn openais_python_sdk_is_a_client() {
    Stage::start().run("venv/bin/python", "openai_sdk.py");
}

#[test]
fn openais_javascript_sdk_is_a_client() {
    Stage::start().run("node", "openai_sdk.cjs");
}

#[test]
fn anthropics_sdk_is_a_client() {
    Stage::start().run("venv/bin/python", "anthropic_sdk.py");
}

#[test]
fn ollamas_sdk_is_a_client() {
    Stage::start().run("venv/bin/python", "ollama_sdk.py");
}

/// Everything that a script asks.
struct Stage {
    sdks: PathBuf,
    lakehouse: Lakehouse,
    clouds: chat::Upstream,
    _ollama: Ollama,
    _runtime: Runtime,
    _folder: TempDir,
}

impl Stage {
    fn start() -> Self {
        let sdks = install();
        let runtime = Runtime::new().unwrap();
        let clouds = runtime.block_on(chat::clouds::start());
        let ollama = Ollama::start();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let providers = json!({"providers": [
            {"name": "home", "type": "Ollama", "url": ollama.url(), "route": {"default": true}, "embeddings": [Ollama::EMBED]},
            {"name": "openai", "type": "OpenAI", "url": format!("{}/openai", clouds.url)},
            {"name": "anthropic", "type": "Anthropic", "url": format!("{}/anthropic", clouds.url)},
            {"name": "cloud", "type": "OllamaCloud", "url": format!("{}/ollama", clouds.url)},
        ]});
        std::fs::write(at("providers.json"), providers.to_string()).unwrap();
        let mut serve = lakehouse();
        serve.args(["serve", "--role", "gateway,chatd,embedd", "--listen", "127.0.0.1:0", "--store"]);
        serve.arg(at("bucket")).arg("--cache").arg(at("cache"));
        serve.arg("--providers").arg(at("providers.json")).env("LAKEHOUSE_TOKEN", TOKEN);
        let lakehouse = Lakehouse::start(&mut serve).ready();
        Self { sdks, lakehouse, clouds, _ollama: ollama, _runtime: runtime, _folder: folder }
    }

    fn run(&self, program: &str, script: &str) {
        let own = self.sdks.join(program);
        let ran = Command::new(if own.exists() { own } else { program.into() })
            .arg(folder().join(script))
            .env("BASE", &self.lakehouse.url)
            .env("TOKEN", TOKEN)
            .env("CLOUDS", &self.clouds.url)
            .env("NODE_PATH", self.sdks.join("node_modules"))
            // The clone stays as it is.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(ran.status.success(), "{script}: {}\n{}", text(&ran.stdout), text(&ran.stderr));
    }
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdks"))
}

/// Where the SDKs are, which are fetched first when this machine has none yet.
fn install() -> PathBuf {
    let script = folder().join("install.sh");
    let installed = Command::new(&script).stderr(Stdio::inherit()).output().unwrap();
    assert!(installed.status.success(), "the SDKs could not be fetched; {} says why", script.display());
    PathBuf::from(String::from_utf8_lossy(&installed.stdout).trim())
}
