//! A conversation at a terminal: questions with a line editor, answers that Ctrl-C stops, and commands.

use anyhow::Context;
use rustyline::{DefaultEditor, error::ReadlineError};

use super::{Conversation, answer::Shown};
use crate::client::Client;

const HELP: &str = "\
/model NAME   go on with another model
/system TEXT  begin anew, with this told before everything else; without a text, with nothing
/clear        forget what was said
/help         this
Ctrl-C stops an answer, Ctrl-D ends.";

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Nothing,
    Question(&'a str),
    Model(&'a str),
    System(&'a str),
    Clear,
    Help,
    End,
    Unknown(&'a str),
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            return if line.is_empty() { Self::Nothing } else { Self::Question(line) };
        };
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (word, rest.trim()) {
            ("model", name) if !name.is_empty() => Self::Model(name),
            ("system", text) => Self::System(text),
            ("clear", "") => Self::Clear,
            ("help" | "?", "") => Self::Help,
            ("bye" | "exit" | "quit", "") => Self::End,
            _ => Self::Unknown(line),
        }
    }
}

/// Talks until the user ends it.
pub(super) fn run(client: &Client, mut conversation: Conversation, stats: bool) -> anyhow::Result<()> {
    let mut editor = DefaultEditor::new().context("this terminal cannot be read line by line")?;
    println!("{} at your service; /help says what else there is.", conversation.request.model);
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("cannot read the terminal"),
        };
        if !line.trim().is_empty() {
            // A history that is full or forbids repetition is no reason to end.
            let _ = editor.add_history_entry(line.as_str());
        }
        match Line::parse(&line) {
            Line::Nothing => {}
            Line::Question(text) => {
                conversation.ask(text, &[]);
                if !answer(client, &mut conversation, stats)? {
                    return Ok(());
                }
            }
            Line::Model(name) => name.clone_into(&mut conversation.request.model),
            Line::System(text) => conversation.instruct(text),
            Line::Clear => {
                let system = conversation.system().unwrap_or_default().to_owned();
                conversation.instruct(&system);
            }
            Line::Help => println!("{HELP}"),
            Line::End => return Ok(()),
            Line::Unknown(line) => eprintln!("`{line}` is no command; /help lists them"),
        }
    }
}

/// Shows an answer. One that fails or is stopped is as if it had not been asked for. Whether anybody still reads.
fn answer(client: &Client, conversation: &mut Conversation, stats: bool) -> anyhow::Result<bool> {
    let shown = crate::commands::block_on(async {
        tokio::select! {
            shown = conversation.answer(client, stats) => Ok(Some(shown)),
            pressed = tokio::signal::ctrl_c() => {
                pressed.context("Ctrl-C cannot be listened for")?;
                Ok(None)
            }
        }
    })?;
    match shown {
        Some(Ok(Shown::Whole(_))) => return Ok(true),
        Some(Ok(Shown::ReaderLeft)) => return Ok(false),
        Some(Err(error)) => eprintln!("{error:#}"),
        None => println!("\n(stopped)"),
    }
    conversation.unask();
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_question_unless_it_begins_with_a_slash() {
        for (line, expected) in [
            ("  ", Line::Nothing),
            (" why? ", Line::Question("why?")),
            ("/model ollama/x", Line::Model("ollama/x")),
            ("/model", Line::Unknown("/model")),
            ("/system be brief", Line::System("be brief")),
            ("/system", Line::System("")),
            ("/clear", Line::Clear),
            ("/help", Line::Help),
            ("/exit", Line::End),
            ("/etc/passwd is a file", Line::Unknown("/etc/passwd is a file")),
        ] {
            assert_eq!(Line::parse(line), expected, "{line}");
        }
    }
}
