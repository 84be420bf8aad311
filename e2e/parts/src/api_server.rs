//! A Kubernetes API server on free ports of this machine, with etcd behind it: everything that admits, stores and watches
//! objects, and nothing that acts on them. Needs no root.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// What a start may take on a busy machine.
const START: Duration = Duration::from_mins(2);
/// Another process may take a free port between its choice and its use.
const ATTEMPTS: usize = 5;

/// Runs etcd and the API server of `$KUBE` in this folder until its own input ends, then ends them and removes the folder.
/// The certificate that the API server makes for itself serves as its authority; its key signs the tokens of
/// service accounts, which no controller makes here: what is created in their name is admitted without them.
const KEEPER: &str = r#"
"$KUBE" etcd --data-dir data --unsafe-no-fsync --log-level error \
    --listen-client-urls "http://127.0.0.1:$ETCD" --advertise-client-urls "http://127.0.0.1:$ETCD" \
    --listen-peer-urls "http://127.0.0.1:$PEER" --initial-advertise-peer-urls "http://127.0.0.1:$PEER" \
    --initial-cluster "default=http://127.0.0.1:$PEER" >log 2>&1 </dev/null &
etcd=$!
"$KUBE" kube-apiserver --etcd-servers "http://127.0.0.1:$ETCD" --cert-dir . --bind-address 127.0.0.1 \
    --advertise-address 127.0.0.1 --secure-port "$PORT" --service-cluster-ip-range 10.96.0.0/16 \
    --token-auth-file users.csv --authorization-mode RBAC --service-account-issuer https://kubernetes.default.svc \
    --service-account-key-file apiserver.key --service-account-signing-key-file apiserver.key \
    --disable-admission-plugins ServiceAccount --endpoint-reconciler-type none >>log 2>&1 </dev/null &
server=$!
cat >/dev/null
kill -9 "$server" "$etcd"
wait 2>/dev/null
folder=$PWD
cd / && rm -rf -- "$folder"
"#;

/// A running API server. Ends when it is dropped.
#[derive(Debug)]
pub struct ApiServer {
    kubernetes: PathBuf,
    folder: PathBuf,
    keeper: Child,
}

impl ApiServer {
    /// Starts a server, which is built first when this machine has none yet. Ready when this returns.
    ///
    /// Panics, with a sentence, when it cannot be built or does not start.
    pub fn start() -> Self {
        let kubernetes = build();
        let mut last_words = String::new();
        for _ in 0..ATTEMPTS {
            let mut server = Self::spawn(&kubernetes);
            if server.becomes_ready() {
                return server;
            }
            last_words = server.log();
        }
        panic!("the API server did not start: {last_words}");
    }

    /// A kubeconfig of a user who may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// `kubectl`, told to ask this server as a user who may do everything.
    pub fn kubectl(&self) -> Command {
        let mut kubectl = Command::new(self.kubernetes.join("kubectl"));
        kubectl.env("KUBECONFIG", self.kubeconfig());
        kubectl
    }

    /// What the servers have said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn spawn(kubernetes: &Path) -> Self {
        // The keeper removes it, so that it goes even when the test is killed.
        let folder =
            TempDir::with_prefix("lakehouse-api-").expect("a temporary folder for the API server").keep();
        let [etcd, peer, port] = free_ports();
        fs::write(folder.join("users.csv"), "admin-token,admin,admin,system:masters\n")
            .expect("a file of users");
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority: apiserver.crt}}}}]\n\
             users: [{{name: admin, user: {{token: admin-token}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]\n"
        );
        fs::write(folder.join("kubeconfig"), kubeconfig).expect("a kubeconfig");
        let keeper = Command::new("sh")
            .args(["-c", KEEPER])
            .current_dir(&folder)
            .env("KUBE", kubernetes.join("kube"))
            .env("ETCD", etcd.to_string())
            .env("PEER", peer.to_string())
            .env("PORT", port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        Self { kubernetes: kubernetes.to_owned(), folder, keeper }
    }

    fn becomes_ready(&mut self) -> bool {
        let asked = Instant::now();
        while asked.elapsed() < START {
            // Before it has made its certificate, nobody can ask it.
            let ask = || self.kubectl().args(["get", "--raw", "/readyz"]).stderr(Stdio::null()).output();
            if self.folder.join("apiserver.crt").exists() && ask().is_ok_and(|answer| answer.status.success())
            {
                return true;
            }
            if self.log().contains("address already in use") {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        false
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It ends with its input; there is nothing to do about one that does not.
        let _ = self.keeper.wait();
    }
}

/// `helm`, which needs no server to render a chart. Built first when this machine has none yet.
pub fn helm() -> Command {
    Command::new(build().join("helm"))
}

/// Free ports, each another one, since all are held until the last is chosen.
fn free_ports() -> [u16; 3] {
    let held: [_; 3] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("a bound listener has an address").port())
}

/// The folder of `kube`, `kubectl` and `helm`.
fn build() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster/cluster.sh");
    let built = Command::new(&script).arg("build").stderr(Stdio::inherit()).output().expect("a shell starts");
    assert!(built.status.success(), "Kubernetes could not be built; {} says why", script.display());
    PathBuf::from(String::from_utf8_lossy(&built.stdout).trim())
}
