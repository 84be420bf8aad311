//! Follows the files that the command line names.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};

use super::{
    inputs::{self, Inputs},
    screen::Screen,
};

/// Editors and copies make several changes at once; this long after the last one the files are read.
const QUIET: Duration = Duration::from_millis(250);

/// Tells of changed files as long as it lives.
pub(crate) struct Follower {
    paths: Vec<PathBuf>,
    events: mpsc::UnboundedReceiver<()>,
    _watcher: RecommendedWatcher,
}

impl Follower {
    /// Starts to watch the folders that hold `paths`. A file that an editor replaces is a new file of the same folder.
    pub(crate) fn new(paths: Vec<PathBuf>) -> anyhow::Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let reads_only = matches!(&event, Ok(event) if matches!(event.kind, EventKind::Access(_)));
            if !reads_only {
                // When nobody listens any more, the process is about to end.
                let _ = sender.send(());
            }
        })
        .context("files cannot be followed on this machine")?;
        let folders: BTreeSet<&Path> = paths.iter().map(|path| folder_of(path)).collect();
        for folder in folders {
            watcher
                .watch(folder, RecursiveMode::NonRecursive)
                .with_context(|| format!("{} cannot be followed", folder.display()))?;
        }
        Ok(Self { paths, events, _watcher: watcher })
    }

    /// Reads the files again after each change and hands on what they hold. Mistakes are told, and what was there before stays.
    pub(crate) async fn run(mut self, inputs: watch::Sender<Arc<Inputs>>, screen: Screen) {
        let mut told = None;
        while self.events.recv().await.is_some() {
            self.wait_for_quiet().await;
            let paths = self.paths.clone();
            let read = tokio::task::spawn_blocking(move || inputs::read(&paths)).await;
            match read {
                Ok(Ok(read)) => {
                    if told.take().is_some() {
                        screen.line("The files can be read again.");
                    }
                    inputs.send_replace(Arc::new(read));
                }
                Ok(Err(mistakes)) => {
                    let mistakes = mistakes.to_string();
                    if told.as_ref() != Some(&mistakes) {
                        screen.problem(&format!("{mistakes}\nThe resources stay as they were."));
                        told = Some(mistakes);
                    }
                }
                Err(error) => screen.problem(&format!("the files could not be read: {error}")),
            }
        }
    }

    async fn wait_for_quiet(&mut self) {
        while let Ok(Some(())) = tokio::time::timeout(QUIET, self.events.recv()).await {}
    }
}

fn folder_of(path: &Path) -> &Path {
    if path.is_dir() {
        return path;
    }
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
