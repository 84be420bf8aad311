//! Who may call a server of this process: the arguments that `up` and `serve` share.

use std::{env, path::PathBuf, time::Duration};

use axum::http::HeaderValue;
use clap::Args;
use lakehouse_http::{
    Auth, Settings,
    auth::{self, ALLOW, TOKEN, TOKEN_FILE},
};

/// Tokens never come as arguments: every process of the machine can read those.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access (LAKEHOUSE_TOKEN holds a bearer token, or several between commas)")]
pub(crate) struct Access {
    /// A file with a bearer token a line, or a folder of such files; followed as it changes
    #[arg(long, env = TOKEN_FILE, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Networks that may call, such as 10.0.0.0/8,192.168.7.9 [default: all]
    #[arg(long, env = ALLOW, value_name = "CIDR,…")]
    allow: Option<String>,
    /// Seconds that /readyz says "draining" before the listener closes
    #[arg(
        long,
        env = "LAKEHOUSE_DRAIN_NOTICE",
        default_value_t = 0,
        value_name = "SECONDS",
        help_heading = "Limits"
    )]
    drain_notice: u64,
    /// Seconds that requests may go on after that; queries may always end
    #[arg(
        long,
        env = "LAKEHOUSE_DRAIN_DEADLINE",
        default_value_t = 25,
        value_name = "SECONDS",
        help_heading = "Limits"
    )]
    drain_deadline: u64,
}

impl Access {
    /// How a shell says the token that clients must send; `None` where none is asked for.
    pub(crate) fn credential(&self) -> Option<String> {
        match &self.token_file {
            _ if env::var_os(TOKEN).is_some() => Some(format!("${TOKEN}")),
            Some(file) if file.is_dir() => Some("…".to_owned()),
            Some(file) => Some(format!("$(head -n 1 {})", file.display())),
            None => None,
        }
    }

    /// What this process says to others of its kind, read anew at each call: tokens are rotated.
    pub(crate) fn authorization(&self) -> impl Fn() -> Option<HeaderValue> + Send + Sync + use<> {
        let (fixed, file) = (fixed(), self.token_file.clone());
        move || auth::authorization(fixed.as_deref(), file.as_deref())
    }

    /// How to serve, by these arguments and the environment.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let mut auth = Auth::none();
        let fixed = fixed();
        if fixed.is_some() || self.token_file.is_some() {
            auth = auth.with_tokens(fixed.as_deref(), self.token_file.clone())?;
        }
        if let Some(networks) = &self.allow {
            auth = auth.with_networks(networks)?;
        }
        Ok(Settings {
            auth,
            drain_notice: Duration::from_secs(self.drain_notice),
            drain_deadline: Duration::from_secs(self.drain_deadline),
            ..Settings::default()
        })
    }
}

/// The tokens in the environment.
fn fixed() -> Option<String> {
    env::var_os(TOKEN).map(|text| text.to_string_lossy().into_owned())
}
