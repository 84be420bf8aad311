//! Who may call a server of this process: the arguments that `up` and `serve` share.

use std::{env, path::PathBuf, time::Duration};

use clap::Args;
use lakehouse_http::{
    Auth, Settings,
    auth::{ALLOW, TOKEN, TOKEN_FILE},
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
}

impl Access {
    /// How to serve, by these arguments and the environment.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let mut auth = Auth::none();
        let fixed = env::var_os(TOKEN).map(|text| text.to_string_lossy().into_owned());
        if fixed.is_some() || self.token_file.is_some() {
            auth = auth.with_tokens(fixed.as_deref(), self.token_file.clone())?;
        }
        if let Some(networks) = &self.allow {
            auth = auth.with_networks(networks)?;
        }
        Ok(Settings { auth, drain_notice: Duration::from_secs(self.drain_notice), ..Settings::default() })
    }
}
