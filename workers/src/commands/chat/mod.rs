//! `lakehouse chat`: one question to a language model, or a conversation with it.
//!
//! ```text
//! words, standard input, images ─► request ─► pieces as they come ─► standard output
//!                                    ▲                                    │
//!                                 session (history, /commands) ◄──────────┘
//! ```

mod answer;
mod images;
mod session;

use std::{
    io::{self, IsTerminal, Read, Write},
    path::PathBuf,
};

use anyhow::{Context, bail};
use lakehouse_contract::chat::ChatRequest;
use serde_json::{Value, json};

use crate::client::{Client, Connection, Error};
use answer::Shown;

/// Ask a language model, or talk with it
///
/// The answer is shown as it comes. Without a text, standard input is the question; on a terminal a conversation begins, with its history:
/// `/help` in it says what can be done there. `lakehouse models` lists the models.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakehouse chat ollama/qwen3.5:latest Why is the sky blue?
  lakehouse chat local_fast
  git diff | lakehouse chat cloud_judge 'What could break here?' -
  lakehouse chat ollama/llava 'What is this?' --image photo.png
  lakehouse chat local_fast 'Three capitals with their countries' --format json --json | jq .content")]
pub(crate) struct Chat {
    #[command(flatten)]
    connection: Connection,

    /// The model, or a tier
    #[arg(value_name = "MODEL")]
    model: String,

    /// What to ask; several words are one text, and a `-` stands for standard input
    #[arg(value_name = "TEXT")]
    text: Vec<String>,

    /// What the model is told before everything else
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// How freely it answers, from 0
    #[arg(long, value_name = "NUMBER")]
    temperature: Option<f64>,

    /// At most this many tokens of an answer
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    max_tokens: Option<u64>,

    /// `json`, or a file with the JSON schema that the answer has to keep
    #[arg(long, value_name = "FORM")]
    format: Option<String>,

    /// Let a model that can think do so first, or say how much: low, medium, high
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(value_parser = ["true", "low", "medium", "high"])]
    think: Option<String>,

    /// A PNG, JPEG, GIF or WebP to look at; may be given several times
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<PathBuf>,

    /// The whole answer as the service's JSON
    #[arg(long)]
    json: bool,

    /// Say on standard error who answered, with how many tokens, and how fast
    #[arg(long)]
    stats: bool,
}

impl Chat {
    /// Asks and shows the answer, or begins a conversation.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.connection.client()?;
        let conversation = Conversation::new(&self)?;
        let images = self.images.iter().map(images::read).collect::<anyhow::Result<Vec<_>>>()?;
        if self.text.is_empty() && io::stdin().is_terminal() {
            if self.json || !images.is_empty() {
                bail!("--json and --image need a text");
            }
            return session::run(&client, conversation, self.stats);
        }
        let text = question(&self.text, io::stdin().lock())?;
        let mut conversation = conversation;
        conversation.ask(&text, &images);
        if self.json {
            let request = ChatRequest { stream: false, ..conversation.request };
            let answer = super::block_on(async { client.chat(&request).await.map_err(unknown_model) })?;
            let shown = serde_json::to_string_pretty(&answer)? + "\n";
            return super::unless_reader_left(io::stdout().lock().write_all(shown.as_bytes()));
        }
        super::block_on(conversation.answer(&client, self.stats)).map(drop)
    }
}

/// The words as one text, with standard input where a `-` or nothing stands for it.
fn question(words: &[String], mut input: impl Read) -> anyhow::Result<String> {
    let mut read = || {
        let mut text = String::new();
        input.read_to_string(&mut text).context("cannot read standard input as a text")?;
        anyhow::Ok(text.trim_end().to_owned())
    };
    let text = match words {
        [] => read()?,
        [words @ .., last] if last == "-" => [words.join(" "), read()?].join("\n\n").trim_start().to_owned(),
        words => words.join(" "),
    };
    if text.trim().is_empty() {
        bail!("there is no text to answer");
    }
    Ok(text)
}

/// What was said so far, and how the next answer is wanted.
struct Conversation {
    request: ChatRequest,
}

impl Conversation {
    fn new(asked: &Chat) -> anyhow::Result<Self> {
        let format = asked.format.as_deref().map(format).transpose()?;
        let think =
            asked.think.as_deref().map(|level| if level == "true" { json!(true) } else { json!(level) });
        let request = ChatRequest {
            model: asked.model.clone(),
            temperature: asked.temperature,
            max_tokens: asked.max_tokens,
            format,
            think,
            stream: true,
            ..ChatRequest::default()
        };
        let mut conversation = Self { request };
        conversation.instruct(asked.system.as_deref().unwrap_or_default());
        Ok(conversation)
    }

    /// Forgets everything that was said but this, where it is something.
    fn instruct(&mut self, system: &str) {
        self.request.messages.clear();
        if !system.is_empty() {
            self.request.messages.push(json!({ "role": "system", "content": system }));
        }
    }

    fn system(&self) -> Option<&str> {
        let first = self.request.messages.first().filter(|message| message["role"] == "system")?;
        first["content"].as_str()
    }

    fn ask(&mut self, text: &str, images: &[String]) {
        let mut message = json!({ "role": "user", "content": text });
        if !images.is_empty() {
            message["images"] = json!(images);
        }
        self.request.messages.push(message);
    }

    /// Shows the answer as it comes, and keeps it for the next question.
    async fn answer(&mut self, client: &Client, stats: bool) -> anyhow::Result<Shown> {
        let shown = Box::pin(answer::show(client, &self.request, stats)).await?;
        if let Shown::Whole(content) = &shown {
            self.request.messages.push(json!({ "role": "assistant", "content": content }));
        }
        Ok(shown)
    }

    /// Takes the last question back.
    fn unask(&mut self) {
        if self.request.messages.last().is_some_and(|message| message["role"] == "user") {
            self.request.messages.pop();
        }
    }
}

/// `json`, or the schema in a file.
fn format(format: &str) -> anyhow::Result<Value> {
    if format == "json" {
        return Ok(json!("json"));
    }
    let text = std::fs::read_to_string(format)
        .with_context(|| format!("--format is `json` or the file of a JSON schema; `{format}`"))?;
    serde_json::from_str(&text).with_context(|| format!("--format: `{format}` holds no JSON"))
}

/// Who asks for a model that nobody has wants to know which there are.
fn unknown_model(error: Error) -> anyhow::Error {
    match error {
        Error::Refused { status, message } if status.as_u16() == 404 => {
            anyhow::anyhow!("{message}; `lakehouse models` lists the models")
        }
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_one_text_and_a_dash_is_standard_input() {
        let asked = |words: &[&str], input: &str| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            question(&words, input.as_bytes()).map_err(|error| error.to_string())
        };
        assert_eq!(asked(&["why", "not?"], "unread"), Ok("why not?".to_owned()));
        assert_eq!(asked(&[], "from a pipe\n"), Ok("from a pipe".to_owned()));
        assert_eq!(asked(&["what", "is", "-"], "this\n"), Ok("what is\n\nthis".to_owned()));
        assert_eq!(asked(&["-"], "this\n"), Ok("this".to_owned()));
        assert!(asked(&[], " \n").unwrap_err().contains("no text"));
    }

    #[test]
    fn a_conversation_keeps_what_was_said_until_it_is_told_otherwise() {
        let mut conversation = Conversation { request: ChatRequest::default() };
        conversation.instruct("be brief");
        conversation.ask("hi", &["aGk=".to_owned()]);
        let question = json!({ "role": "user", "content": "hi", "images": ["aGk="] });
        assert_eq!(conversation.request.messages[1], question);
        assert_eq!(conversation.system(), Some("be brief"));
        conversation.unask();
        conversation.unask();
        assert_eq!(conversation.request.messages.len(), 1);
        conversation.instruct("");
        assert!(conversation.request.messages.is_empty() && conversation.system().is_none());
    }
}
