//! An answer on the terminal, piece by piece.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use anyhow::bail;
use console::Style;
use lakehouse_contract::chat::{ChatAnswer, ChatPiece, ChatRequest};
use lakehouse_plan::human;

use crate::{client::Client, terminal::flowing};

/// What became of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// The whole text was shown.
    Whole(String),
    /// Nobody reads standard output any more.
    ReaderLeft,
}

/// Asks, and shows what comes. What came before a failure stays.
pub(super) async fn show(client: &Client, request: &ChatRequest, stats: bool) -> anyhow::Result<Shown> {
    let asked = Instant::now();
    let mut response = client.chat_stream(request).await.map_err(super::unknown_model)?;
    let mut screen = Screen::stdout();
    let (mut lines, mut first, mut done) = (Lines::default(), None, None);
    let failed = loop {
        match client.piece(&mut response).await {
            Ok(Some(bytes)) => lines.add(bytes.as_ref()),
            Ok(None) => break None,
            Err(error) => break Some(anyhow::Error::from(error)),
        }
        let taken = take(&mut lines, &mut screen, &mut done);
        first = first.or_else(|| screen.has_begun().then(|| asked.elapsed()));
        match taken {
            Err(Stop::ReaderLeft) => return Ok(Shown::ReaderLeft),
            Err(Stop::Failed(error)) => break Some(error),
            Ok(()) if done.is_some() => break None,
            Ok(()) => {}
        }
    };
    if screen.end().is_err() {
        return Ok(Shown::ReaderLeft);
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let Some(answer) = done else { bail!("the answer broke off before its end") };
    if stats {
        eprintln!("{}", told(&answer, first.unwrap_or_default(), asked.elapsed()));
    }
    Ok(Shown::Whole(screen.content))
}

/// Why nothing more is shown.
enum Stop {
    ReaderLeft,
    Failed(anyhow::Error),
}

fn take(lines: &mut Lines, screen: &mut Screen, done: &mut Option<ChatAnswer>) -> Result<(), Stop> {
    while let Some(line) = lines.next() {
        let piece: ChatPiece = serde_json::from_slice(&line)
            .map_err(|error| Stop::Failed(anyhow::anyhow!("the answer cannot be read: {error}")))?;
        let written = match piece {
            ChatPiece::Content(text) => screen.content(&text),
            ChatPiece::Thinking(text) => screen.thinking(&text),
            ChatPiece::ToolCalls(_) => Ok(()), // no tools were offered
            ChatPiece::Done(answer) => {
                *done = Some(answer);
                Ok(())
            }
            ChatPiece::Error(error) => return Err(Stop::Failed(anyhow::anyhow!(error.message))),
        };
        written.map_err(|_| Stop::ReaderLeft)?;
    }
    Ok(())
}

fn told(answer: &ChatAnswer, first: Duration, took: Duration) -> String {
    let ms = |span: Duration| human::duration(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    format!(
        "({} by {}: {} + {} tokens, the first after {}, all in {}; {})",
        answer.model,
        answer.provider,
        human::count(answer.prompt_tokens),
        human::count(answer.completion_tokens),
        ms(first),
        ms(took),
        answer.finish_reason
    )
}

/// Bytes as they come, cut into lines.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
}

impl Lines {
    fn add(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line that is not empty.
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = line.trim_ascii();
            if !line.is_empty() {
                return Some(line.to_vec());
            }
        }
    }
}

/// Standard output: a terminal shows thoughts dimly and obeys nothing that a model says; a pipe gets the text as it is.
struct Screen {
    is_terminal: bool,
    content: String,
    thoughts: bool,
}

impl Screen {
    fn stdout() -> Self {
        Self { is_terminal: io::stdout().is_terminal(), content: String::new(), thoughts: false }
    }

    fn has_begun(&self) -> bool {
        self.thoughts || !self.content.is_empty()
    }

    fn content(&mut self, text: &str) -> io::Result<()> {
        if self.thoughts && self.content.is_empty() && self.is_terminal {
            write("\n\n")?;
        }
        self.content.push_str(text);
        if self.is_terminal { write(&flowing(text)) } else { write(text) }
    }

    fn thinking(&mut self, text: &str) -> io::Result<()> {
        self.thoughts = true;
        if !self.is_terminal {
            return Ok(());
        }
        let dim = Style::new().dim().force_styling(console::colors_enabled());
        write(&dim.apply_to(flowing(text)).to_string())
    }

    fn end(&self) -> io::Result<()> {
        if self.has_begun() && !self.content.ends_with('\n') { write("\n") } else { Ok(()) }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_come() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\r\n{\"c\"";
        for size in 1..text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for bytes in text.chunks(size) {
                lines.add(bytes);
                found.extend(std::iter::from_fn(|| lines.next()));
            }
            assert_eq!(found, [b"{\"a\":1}".to_vec(), b"{\"b\":2}".to_vec()]);
        }
    }

    #[test]
    fn the_numbers_of_an_answer_are_one_line() {
        let answer = ChatAnswer {
            model: "m".to_owned(),
            provider: "home".to_owned(),
            prompt_tokens: 1200,
            completion_tokens: 5,
            finish_reason: "length".to_owned(),
            ..ChatAnswer::default()
        };
        let line = told(&answer, Duration::from_millis(40), Duration::from_millis(900));
        assert_eq!(line, "(m by home: 1,200 + 5 tokens, the first after 40ms, all in 900ms; length)");
    }
}
