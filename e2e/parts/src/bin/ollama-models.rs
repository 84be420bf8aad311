//! Writes the tiny models of the tests as an Ollama server keeps them: into a folder that is not there yet.

use std::{env, process::Command};

use lakehouse_parts::Ollama;

fn main() {
    let folder = env::args_os().nth(1).expect("usage: ollama-models FOLDER");
    let ollama = Ollama::start();
    let copied = Command::new("cp").arg("-R").arg(ollama.models()).arg(folder).status();
    assert!(copied.expect("a copy of the models").success(), "the models could not be copied");
}
