//! A real `lakehouse` process under test: started, asked over HTTP, ended as a user would end it.
#![allow(dead_code, reason = "each test file uses the helpers that its stories need")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

pub(crate) mod ollama;
pub(crate) mod upstream;
pub(crate) mod web;

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// How long anything that a test waits for may take. Generous: a loaded machine is slow, not wrong.
const PATIENCE: Duration = Duration::from_mins(2);

/// A running process and the address that it printed.
pub(crate) struct Lakehouse {
    child: Child,
    pub(crate) url: String,
    stderr: Option<thread::JoinHandle<String>>,
}

impl Lakehouse {
    /// `lakehouse up ARGS --data DATA` on a free port.
    pub(crate) fn up(data: &Path, args: &[&str]) -> Self {
        Self::start(up(data).args(args))
    }

    /// Starts a command that prints its address on a line of its standard output.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut all = Vec::new();
            stderr.read_to_end(&mut all).unwrap();
            String::from_utf8_lossy(&all).into_owned()
        });
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, addresses) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Once nobody waits for an address, the rest is only drained.
                let _ = address(&line).map(|found| sender.send(found));
            }
        });
        // Dropped, and so ended, when there is no address.
        let mut started = Self { child, url: String::new(), stderr: Some(stderr) };
        if let Ok(url) = addresses.recv_timeout(PATIENCE) {
            started.url = url;
            return started;
        }
        let stderr = started.stderr.take().unwrap();
        drop(started);
        panic!("no address was printed; standard error: {}", stderr.join().unwrap());
    }

    /// Waits until it says that it is ready.
    pub(crate) fn ready(self) -> Self {
        eventually("it is ready", || match self.get("/readyz") {
            (200, _) => Ok(()),
            answer => Err(format!("{answer:?}")),
        });
        self
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Status and JSON body of a GET.
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        answer(client().get(format!("{}{path}", self.url)))
    }

    /// Status and JSON body of a POST.
    pub(crate) fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
        answer(client().post(format!("{}{path}", self.url)).body(body.into()))
    }

    /// The rows of a query; panics with the answer when it fails.
    pub(crate) fn sql(&self, sql: &str) -> Value {
        let (status, answer) = self.try_sql(sql);
        assert_eq!(status, 200, "{sql}: {answer}");
        answer["rows"].clone()
    }

    pub(crate) fn try_sql(&self, sql: &str) -> (u16, Value) {
        self.post("/v1/sql", json!({ "sql": sql }).to_string())
    }

    /// A dataset as `lakehouse get -o json` would show it.
    pub(crate) fn dataset(&self, name: &str) -> Value {
        let (status, answer) =
            self.get(&format!("/apis/lakehouse.dev/v1alpha1/namespaces/default/datasets/{name}"));
        assert_eq!(status, 200, "{name}: {answer}");
        answer
    }

    /// Waits until these are the datasets, by name.
    pub(crate) fn wait_for_list(&self, wanted: &[&str]) {
        eventually(&format!("the datasets {wanted:?}"), || {
            let (status, answer) = self.get("/apis/lakehouse.dev/v1alpha1/datasets");
            let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            let names: Vec<_> = items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect();
            if names == wanted { Ok(()) } else { Err(format!("{status}: {names:?}")) }
        });
    }

    /// Waits until the dataset's condition has this status, and gives the condition.
    pub(crate) fn wait_for(&self, name: &str, condition: &str, status: &str) -> Value {
        eventually(&format!("dataset {name}: {condition}={status}"), || {
            let dataset = self.dataset(name);
            let conditions = dataset["status"]["conditions"].as_array().cloned().unwrap_or_default();
            match conditions.into_iter().find(|found| found["type"] == condition) {
                Some(found) if found["status"] == status => Ok(found),
                found => Err(format!("{found:?}")),
            }
        })
    }

    /// Waits until the dataset serves this version.
    pub(crate) fn wait_for_version(&self, name: &str, version: u64) {
        eventually(&format!("dataset {name} at version {version}"), || {
            let status = self.dataset(name)["status"].clone();
            if status["version"] == version { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// Ends it as Ctrl-C does, and gives whether it ended well and what it wrote to standard error.
    pub(crate) fn stop(self) -> (bool, String) {
        signal(self.id(), "INT");
        self.wait()
    }

    /// Waits for its end, and gives whether it ended well and what it wrote to standard error.
    pub(crate) fn wait(mut self) -> (bool, String) {
        let status = eventually("the process ends", || {
            self.child.try_wait().unwrap().ok_or_else(|| "it still runs".to_owned())
        });
        (status.success(), self.stderr.take().unwrap().join().unwrap())
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Lakehouse {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in a line that a process prints when it is there.
fn address(line: &str) -> Option<String> {
    let at = line.find("http://127.0.0.1:")?;
    line[at..].split_whitespace().next().map(str::to_owned)
}

/// `lakehouse` with an environment of its own.
pub(crate) fn lakehouse() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lakehouse"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["LAKEHOUSE_", "AWS_", "OTEL_", "RUST_LOG"].iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&*name);
        }
    }
    command
}

/// `lakehouse up` on a free port.
pub(crate) fn up(data: &Path) -> Command {
    let mut command = lakehouse();
    command.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(data);
    command
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> (bool, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.success(), text(stdout), text(stderr))
}

/// Asks until the answer is good; panics with the last bad one.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(found) => return found,
            Err(last) if Instant::now() > deadline => panic!("{what}: not within {PATIENCE:?}; last: {last}"),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Writes a file below `folder` and gives its path.
pub(crate) fn file(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

pub(crate) fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap().success());
}

pub(crate) fn client() -> reqwest::blocking::Client {
    // Only the first test of a process can install it; the others find it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::blocking::Client::builder().timeout(PATIENCE).build().unwrap()
}

fn answer(request: reqwest::blocking::RequestBuilder) -> (u16, Value) {
    let response = request.send().unwrap();
    let status = response.status().as_u16();
    let text = response.text().unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
