//! An Ollama server on a free port of this machine, with two tiny models.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::gguf;

/// What a start may take on a busy machine.
const START: Duration = Duration::from_mins(1);
/// Another process may take the free port between its choice and its use.
const ATTEMPTS: usize = 5;

/// Where the server keeps its models, within its folder.
const MODELS: &str = "models";

/// Runs `$1` until its own input ends, then asks it to end, which ends the processes of its models too, and removes the
/// folder `$2`.
const KEEPER: &str = r#"
"$1" serve >"$2/log" 2>&1 </dev/null &
server=$!
cat >/dev/null
kill "$server"
( sleep 10; kill -9 "$server" ) >/dev/null 2>&1 &
wait "$server" 2>/dev/null
kill $! 2>/dev/null
rm -rf -- "$2"
"#;

/// A running Ollama. Ends when it is dropped.
#[derive(Debug)]
pub struct Ollama {
    binary: PathBuf,
    folder: PathBuf,
    port: u16,
    keeper: Child,
}

impl Ollama {
    /// A model that embeds.
    pub const EMBED: &'static str = "tiny-embed";
    /// How many numbers its vectors have.
    pub const DIMENSION: usize = gguf::WIDTH;
    /// How many tokens it takes; each character is one.
    pub const CONTEXT: usize = gguf::CONTEXT;
    /// A model that talks nonsense.
    pub const CHAT: &'static str = "tiny-chat";

    /// Starts a server, which is built first when this machine has none yet. Ready when this returns, with both models.
    ///
    /// Panics, with a sentence, when it cannot be built or does not start.
    pub fn start() -> Self {
        let binary = build();
        for _ in 0..ATTEMPTS {
            let ollama = Self::spawn(&binary);
            if ollama.becomes_ready() {
                ollama.create(Self::EMBED, gguf::write_embed);
                ollama.create(Self::CHAT, gguf::write_chat);
                return ollama;
            }
        }
        panic!("Ollama did not start: every port that was free was taken a moment later");
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `ollama`, told to ask this server.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("OLLAMA_HOST", self.url()).env("HOME", &self.folder);
        command
    }

    /// The folder in which it keeps its models.
    pub fn models(&self) -> PathBuf {
        self.folder.join(MODELS)
    }

    /// What the server has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn spawn(binary: &Path) -> Self {
        // The keeper removes it, so that it goes even when the test is killed.
        let folder = TempDir::with_prefix("lakehouse-ollama-").expect("a temporary folder for Ollama").keep();
        let port = free_port();
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(binary)
            .arg(&folder)
            .env("HOME", &folder)
            .env("OLLAMA_HOST", format!("127.0.0.1:{port}"))
            .env("OLLAMA_MODELS", folder.join(MODELS))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        Self { binary: binary.to_owned(), folder, port, keeper }
    }

    /// Not where another process took its port.
    fn becomes_ready(&self) -> bool {
        let asked = Instant::now();
        while !self.is_ready() {
            let log = self.log();
            if log.contains("address already in use") {
                return false;
            }
            assert!(
                asked.elapsed() < START,
                "Ollama did not start: {}",
                log.get(log.len().saturating_sub(2_000)..).unwrap_or(&log)
            );
            thread::sleep(Duration::from_millis(50));
        }
        true
    }

    fn is_ready(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut server = TcpStream::connect(("127.0.0.1", self.port))?;
            server.set_read_timeout(Some(Duration::from_secs(5)))?;
            server.write_all(b"GET /api/version HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
            let mut status = [0; 12];
            server.read_exact(&mut status)?;
            Ok(status.ends_with(b" 200"))
        };
        ask().unwrap_or(false)
    }

    fn create(&self, name: &str, write: impl FnOnce(&Path) -> std::io::Result<()>) {
        write(&self.folder.join(format!("{name}.gguf"))).expect("a model's file");
        let recipe = self.folder.join(format!("{name}.Modelfile"));
        // Its threads wait for each other without sleep, which takes for ever on a busy machine; one waits for nobody.
        let words = format!("FROM ./{name}.gguf\nPARAMETER num_thread 1\n");
        fs::write(&recipe, words).expect("a model's recipe");
        let created = self.command().args(["create", name, "-f"]).arg(&recipe).output();
        let created = created.expect("Ollama's own client starts");
        assert!(
            created.status.success(),
            "Ollama did not take {name}: {}",
            String::from_utf8_lossy(&created.stderr)
        );
    }
}

impl Drop for Ollama {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It ends with its input; there is nothing to do about one that does not.
        let _ = self.keeper.wait();
    }
}

fn build() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ollama.sh");
    let built = Command::new(&script).stderr(Stdio::inherit()).output().expect("a shell starts");
    assert!(built.status.success(), "Ollama could not be built; {} says why", script.display());
    PathBuf::from(String::from_utf8_lossy(&built.stdout).trim())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}
