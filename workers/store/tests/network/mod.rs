//! A way to a server that breaks when a test says so.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    task::JoinHandle,
};

/// Passes connections on to a server.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    cuts: Arc<Cuts>,
    accepting: JoinHandle<()>,
}

/// The cuts that are still to be made.
#[derive(Default)]
struct Cuts {
    left: AtomicUsize,
    after: AtomicUsize,
    /// Which request's answer is cut; any when unset.
    answer: Mutex<Option<(&'static str, &'static str)>>,
}

impl Cuts {
    /// Whether the answer to this request is one to be cut.
    fn concern(&self, request: &[u8]) -> bool {
        let Some((method, part)) = *self.answer.lock().unwrap() else { return true };
        let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        line.starts_with(method) && line.contains(part)
    }
}

impl Proxy {
    pub(crate) async fn to(server: &str) -> Self {
        let server = server.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = Arc::new(Cuts::default());
        let accepting = tokio::spawn({
            let cuts = Arc::clone(&cuts);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(pass(client, server.clone(), Arc::clone(&cuts)));
                }
            }
        });
        Self { address, cuts, accepting }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks the connection once the server has answered this many bytes, and again as often as said.
    pub(crate) fn cut_after(&self, bytes: usize, times: usize) {
        self.cuts.after.store(bytes, Ordering::SeqCst);
        self.cuts.left.store(times, Ordering::SeqCst);
    }

    /// Breaks the connection instead of answering the next request whose first line starts with `method` and holds
    /// `part`. The server has done by then what it was asked for.
    pub(crate) fn lose_answer_to(&self, method: &'static str, part: &'static str) {
        *self.cuts.answer.lock().unwrap() = Some((method, part));
        self.cut_after(0, 1);
    }

    /// How many of the cuts are still to come.
    pub(crate) fn cuts_left(&self) -> usize {
        self.cuts.left.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(client: TcpStream, server: String, cuts: Arc<Cuts>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let concerned = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn(questions(from_client, to_server, Arc::clone(&cuts), Arc::clone(&concerned)));
    answers(from_server, to_client, &cuts, &concerned).await;
    // Ends both halves of both connections.
    asking.abort();
}

async fn questions(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    cuts: Arc<Cuts>,
    concerned: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = client.read(&mut buffer).await {
        let starts = [&b"PUT "[..], b"POST ", b"GET ", b"HEAD ", b"DELETE "];
        if starts.iter().any(|start| buffer[..count].starts_with(start)) {
            concerned.store(cuts.concern(&buffer[..count]), Ordering::SeqCst);
        }
        if server.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn answers(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, cuts: &Cuts, concerned: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    while let Ok(count @ 1..) = server.read(&mut buffer).await {
        passed += count;
        let armed = cuts.left.load(Ordering::SeqCst) > 0 && concerned.load(Ordering::SeqCst);
        if armed && passed > cuts.after.load(Ordering::SeqCst) {
            cuts.left.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        if client.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
