//! `lakehouse models`: which language models can be asked for, and under which names.

use std::io::{self, Write};

use serde_json::Value;

use crate::{
    client::Connection,
    terminal::{printable, table::plain},
};

/// List the language models
///
/// NAME is what a request says, PROVIDER the ChatProvider that has it, MODEL what that one calls it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakehouse models
  lakehouse models --json | jq -r '.data[].id'")]
pub(crate) struct Models {
    #[command(flatten)]
    connection: Connection,

    /// OpenAI's list, as programs read it
    #[arg(long)]
    json: bool,
}

impl Models {
    /// Asks and shows the list.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.connection.client()?;
        let (models, providers) = super::block_on(async {
            let models = client.models().await?;
            Ok((models, client.chat_providers().await?.providers))
        })?;
        let shown = if self.json { serde_json::to_string_pretty(&models)? + "\n" } else { table(&models) };
        // On standard error: a list that is short has its reasons.
        for provider in providers.iter().filter(|provider| provider.error.is_some()) {
            let error = provider.error.as_deref().unwrap_or_default();
            eprintln!("{}: {}", printable(&provider.name), printable(error));
        }
        if shown.is_empty() {
            eprintln!("No models found.");
        }
        super::unless_reader_left(io::stdout().lock().write_all(shown.as_bytes()))
    }
}

/// A line for each model; nothing where there is none.
fn table(list: &Value) -> String {
    let text = |model: &Value, name: &str| printable(model[name].as_str().unwrap_or_default()).into_owned();
    let rows: Vec<Vec<String>> = list["data"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|model| {
            let marks = [("tier", "tier"), ("weak", "weak")];
            let marks = marks.iter().filter(|(field, _)| model[*field] == true).map(|(_, mark)| *mark);
            let marks = marks.collect::<Vec<_>>().join(", ");
            vec![text(model, "id"), text(model, "owned_by"), text(model, "model"), marks]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    plain(&["NAME", "PROVIDER", "MODEL", "MARKS"].map(str::to_owned), &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_model_is_a_line_with_its_marks() {
        let list = json!({"data": [
            {"id": "local_fast", "owned_by": "home", "model": "qwen3.5:latest", "tier": true, "weak": true},
            {"id": "openrouter/a/b", "owned_by": "router", "model": "a/b", "tier": false, "weak": false},
        ]});
        let shown = table(&list);
        let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
        assert_eq!(lines[0], "NAME             PROVIDER   MODEL            MARKS");
        assert_eq!(lines[1], "local_fast       home       qwen3.5:latest   tier, weak");
        assert_eq!(lines[2], "openrouter/a/b   router     a/b");
        assert_eq!(table(&json!({"data": []})), "");
    }
}
