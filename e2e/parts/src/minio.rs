//! A MinIO server on a free port of this machine, with a folder and keys of its own.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// What a start may take on a busy machine.
const START: Duration = Duration::from_mins(1);
/// Another process may take the free port between its choice and its use.
const ATTEMPTS: usize = 5;

/// Runs `$1` until its own input ends or says something, then ends it. Only the end of the input, which is the end of
/// the test, removes the folder `$3`.
const KEEPER: &str = r#"
"$1" server --quiet --certs-dir "$3/certs" --address "$2" "$3/data" >"$3/log" 2>&1 </dev/null &
server=$!
word=$(head -c 1)
kill -9 "$server"
wait "$server" 2>/dev/null
[ -n "$word" ] || rm -rf -- "$3"
"#;

/// Makes an authority in the folder `$1`, and a server's key and certificate where MinIO looks for them.
const CERTIFICATES: &str = r#"
cd "$1"
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req -x509 $key -keyout authority.key -out authority.crt -days 2 -subj "/CN=Authority of the tests"
openssl req $key -keyout certs/private.key -out server.csr -subj "/CN=minio"
echo "subjectAltName=IP:127.0.0.1" >names
openssl x509 -req -in server.csr -CA authority.crt -CAkey authority.key -CAcreateserial -days 2 -extfile names -out certs/public.crt
"#;

/// A running MinIO. Ends when it is dropped.
#[derive(Debug)]
pub struct Minio {
    binary: PathBuf,
    folder: TempDir,
    port: u16,
    tls: bool,
    keeper: Option<Child>,
    buckets: AtomicUsize,
}

impl Minio {
    /// The access key.
    pub const ACCESS_KEY: &'static str = "lakehouse-test";
    /// The secret key.
    pub const SECRET_KEY: &'static str = "a-secret-of-the-tests-only";

    /// Starts a server, which is built first when this machine has none yet. Ready when this returns.
    ///
    /// Panics, with a sentence, when it cannot be built or does not start.
    pub fn start() -> Self {
        Self::start_in(new_folder(), false)
    }

    /// Starts a server that speaks TLS, with a certificate by an authority of its own: [`Minio::authority`].
    /// `None` when this machine has no `openssl` to make one.
    pub fn start_with_tls() -> Option<Self> {
        let folder = new_folder();
        let made = Command::new("sh").args(["-ec", CERTIFICATES, "sh"]).arg(folder.path()).output();
        let made = made.is_ok_and(|made| made.status.success());
        made.then(|| Self::start_in(folder, true))
    }

    fn start_in(folder: TempDir, tls: bool) -> Self {
        let binary = build();
        let mut minio = Self { binary, folder, port: 0, tls, keeper: None, buckets: AtomicUsize::new(0) };
        for _ in 0..ATTEMPTS {
            minio.port = free_port();
            if minio.spawn() {
                return minio;
            }
        }
        panic!("MinIO did not start: {}", minio.log());
    }

    /// `http://127.0.0.1:<port>`, or `https://`
    pub fn endpoint(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The certificate, in PEM, that who trusts this server must trust.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.crt")
    }

    /// A new, empty bucket.
    pub fn bucket(&self) -> String {
        let name = format!("bucket-{}", self.buckets.fetch_add(1, Ordering::Relaxed));
        // MinIO takes a folder at the top of its data for a bucket.
        std::fs::create_dir(self.folder.path().join("data").join(&name)).expect("a folder for the bucket");
        name
    }

    /// How many uploads in parts were begun and neither completed nor aborted.
    pub fn unfinished_uploads(&self) -> usize {
        let folders =
            |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        folders(self.folder.path().join("data/.minio.sys/multipart")).flat_map(folders).count()
    }

    /// Kills the server. Its data stays until it is dropped.
    pub fn stop(&mut self) {
        let Some(mut keeper) = self.keeper.take() else { return };
        if let Some(mut input) = keeper.stdin.take() {
            // Fails only when the keeper is gone already, and the server with it.
            let _ = input.write_all(b"k");
        }
        keeper.wait().expect("the keeper of MinIO ends");
    }

    /// Kills the server, if it still runs, and starts it on the same port and data.
    pub fn restart(&mut self) {
        self.stop();
        assert!(self.spawn(), "MinIO did not start again: {}", self.log());
    }

    fn spawn(&mut self) -> bool {
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&self.binary)
            .arg(format!("127.0.0.1:{}", self.port))
            .arg(self.folder.path())
            .env("MINIO_ROOT_USER", Self::ACCESS_KEY)
            .env("MINIO_ROOT_PASSWORD", Self::SECRET_KEY)
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        self.keeper = Some(keeper);
        let asked = Instant::now();
        while asked.elapsed() < START {
            if self.is_ready() {
                return true;
            }
            if self.log().contains("address already in use") {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.stop();
        false
    }

    fn is_ready(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut server = TcpStream::connect(("127.0.0.1", self.port))?;
            if self.tls {
                // It listens; asking it takes a client that speaks TLS.
                return Ok(true);
            }
            server.set_read_timeout(Some(Duration::from_secs(5)))?;
            server.write_all(b"GET /minio/health/ready HTTP/1.0\r\nHost: minio\r\n\r\n")?;
            let mut status = [0; 12];
            server.read_exact(&mut status)?;
            Ok(status.ends_with(b" 200"))
        };
        ask().unwrap_or(false)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        self.stop();
    }
}

fn new_folder() -> TempDir {
    let folder = TempDir::with_prefix("lakehouse-minio-").expect("a temporary folder for MinIO");
    for part in ["data", "certs"] {
        std::fs::create_dir(folder.path().join(part)).expect("a folder for MinIO");
    }
    folder
}

fn build() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("minio.sh");
    let built = Command::new(&script).stderr(Stdio::inherit()).output().expect("a shell starts");
    assert!(built.status.success(), "MinIO could not be built; {} says why", script.display());
    PathBuf::from(String::from_utf8_lossy(&built.stdout).trim())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}
