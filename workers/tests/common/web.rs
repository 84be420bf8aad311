//! A web server of a test's own.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_hours(1);

/// A web server with at most one file. Its threads end with the test's process.
pub(crate) struct Web {
    address: String,
    file: Arc<Mutex<Option<Served>>>,
}

#[derive(Clone)]
struct Served {
    path: String,
    /// A line of the head without which the file is denied.
    wanted: String,
    content: String,
    /// Whether the last byte never comes.
    hangs: bool,
}

impl Web {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let file = Arc::<Mutex<Option<Served>>>::default();
        let served = Arc::clone(&file);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let file = served.lock().unwrap().clone();
                // A client that left is no matter.
                thread::spawn(move || drop(answer(&stream, file.as_ref())));
            }
        });
        Self { address, file }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Gives `content` to those whose request has the line `wanted`; to all when that is empty.
    pub(crate) fn serve(&self, path: &str, wanted: &str, content: &str) {
        let (path, wanted, content) = (path.into(), wanted.into(), content.into());
        *self.file.lock().unwrap() = Some(Served { path, wanted, content, hangs: false });
    }

    /// Gives `content` and never an end of it.
    pub(crate) fn hang(&self, path: &str, content: &str) {
        let (path, wanted, content) = (path.into(), String::new(), content.into());
        *self.file.lock().unwrap() = Some(Served { path, wanted, content, hangs: true });
    }
}

fn answer(mut stream: &TcpStream, file: Option<&Served>) -> std::io::Result<()> {
    let mut head = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let asked = head.first().map(String::as_str).unwrap_or_default();
    let denied = |file: &Served| !file.wanted.is_empty() && !head.contains(&file.wanted);
    let (status, content, hangs) = match file {
        Some(file) if !asked.contains(&file.path) => ("404 Not Found", "", false),
        Some(file) if denied(file) => ("401 Unauthorized", "", false),
        Some(file) => ("200 OK", file.content.as_str(), file.hangs),
        None => ("404 Not Found", "", false),
    };
    let length = content.len() + usize::from(hangs);
    write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{content}")?;
    if hangs {
        thread::sleep(FOR_EVER);
    }
    Ok(())
}
