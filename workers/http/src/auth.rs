//! Who may call: bearer tokens, a list of networks, and what holds where neither is set.
//!
//! A caller from outside the allowed networks gets 403 before its token is looked at. The address is that of the connection;
//! `X-Forwarded-For` is not believed. `/health`, `/livez` and `/readyz` stay open to all; `/metrics` is open to callers on
//! this machine and asks others for a token.
//!
//! A token comes as `Authorization: Bearer …`, or as `X-Api-Key`, where the SDKs of Anthropic put what they have. It is compared
//! in the same way, and only looked for where there is no `Authorization`, so no request has two tokens.
//!
//! Behind the guard a request carries a [`Caller`]: which of the tokens it showed, by a name that may be seen.

mod browser;
mod networks;
mod tokens;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, Request},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
};

use crate::{Problem, probes};

pub use networks::Networks;
use tokens::Tokens;

/// The variable with tokens, separated by commas or white space.
pub const TOKEN: &str = "LAKEHOUSE_TOKEN";
/// The variable with the path of a file with a token a line, or of a folder of such files, as a mounted Secret is one.
pub const TOKEN_FILE: &str = "LAKEHOUSE_TOKEN_FILE";
/// The variable with networks that may call, such as `10.0.0.0/8,192.168.7.9`.
pub const ALLOW: &str = "LAKEHOUSE_ALLOW";

/// Where Anthropic's clients put a token.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Who may call a server. Cheap to clone; clones share the tokens.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    tokens: Option<Tokens>,
    networks: Option<Networks>,
    /// Nothing is served that needs to be kept from anybody.
    open: bool,
}

/// Which token a request showed. Only valid tokens have a name, so a client can invent none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(Arc<str>);

impl Caller {
    /// That of the token's file, where the tokens are a folder of files, as the keys of a mounted Secret are. Of any other token the first
    /// digits of its digest.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// Why a server does not start. No message holds a token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The environment holds something that is no list of tokens.
    #[error("{TOKEN}: {0}")]
    Token(tokens::Invalid),
    /// The file of tokens cannot be used.
    #[error("{TOKEN_FILE}: {0}")]
    TokenFile(tokens::FileError),
    /// The list of networks does not parse.
    #[error("{ALLOW}: {0}")]
    Allow(networks::Invalid),
    /// A listener that others reach, and nothing to tell friend from foe.
    #[error(
        "listening on {0} would open this service to the network without a token; \
         set {TOKEN} or {TOKEN_FILE}, or listen on 127.0.0.1"
    )]
    Open(SocketAddr),
}

impl Auth {
    /// Anybody on this machine. A server with this listens on loopback only.
    pub fn none() -> Self {
        Self::default()
    }

    /// Anybody, from anywhere: for a server that has nothing but probes and metrics.
    pub fn open() -> Self {
        Self { open: true, ..Self::default() }
    }

    /// Asks callers for one of the tokens in `text` (separated by commas or white space) or in `file`. The file is read again
    /// whenever it changes; while it is unreadable or holds no token, the last good ones stay valid.
    pub fn with_tokens(self, text: Option<&str>, file: Option<PathBuf>) -> Result<Self, Error> {
        Ok(Self { tokens: Some(Tokens::open(text, file)?), ..self })
    }

    /// Lets only callers from these networks in.
    pub fn with_networks(self, list: &str) -> Result<Self, Error> {
        Ok(Self { networks: Some(list.parse().map_err(Error::Allow)?), ..self })
    }

    /// Refuses an address that others reach while there is no token.
    pub fn check_listen(&self, address: SocketAddr) -> Result<(), Error> {
        if self.tokens.is_none() && !self.open && !is_local(address.ip()) {
            return Err(Error::Open(address));
        }
        Ok(())
    }

    /// Follows the file of tokens for ever.
    pub(crate) async fn follow(&self) {
        match &self.tokens {
            Some(tokens) => tokens.follow().await,
            None => std::future::pending().await,
        }
    }

    /// The request as it goes on, or why it does not.
    pub(crate) fn guard(&self, mut request: Request) -> Result<Request, Problem> {
        let remote = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        if let Some(caller) = self.admit(remote, request.uri().path(), request.headers())? {
            request.extensions_mut().insert(caller);
        }
        Ok(request)
    }

    /// Who it is, where a token was asked for.
    fn admit(
        &self,
        remote: Option<IpAddr>,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Option<Caller>, Problem> {
        if self.open || probes::OPEN.contains(&path) {
            return Ok(None);
        }
        if let Some(networks) = &self.networks
            && !remote.is_some_and(|remote| networks.contain(remote))
        {
            return Err(forbidden("callers from this address are not allowed here"));
        }
        let Some(tokens) = &self.tokens else {
            return browser::check(headers).map(|()| None).map_err(forbidden);
        };
        if path == probes::METRICS && remote.is_some_and(is_local) {
            return Ok(None);
        }
        match token(headers).map(|token| tokens.accept(token)) {
            Some(Some(name)) => Ok(Some(Caller(name))),
            Some(None) => Err(unauthorized("the token is not valid here", "Bearer error=\"invalid_token\"")),
            None => Err(unauthorized("a token is needed: `Authorization: Bearer …`", "Bearer")),
        }
    }
}

/// What this process says to others of its kind: the first token of `text`, or else of `file` as it is now. `None` without one.
pub fn authorization(text: Option<&str>, file: Option<&Path>) -> Option<HeaderValue> {
    let token = tokens::first(text, file)?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Loopback, also where an IPv6 socket shows an IPv4 caller.
fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The token of `Authorization: Bearer …`; the scheme's case does not matter.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// What the caller shows.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    if headers.contains_key(header::AUTHORIZATION) {
        return bearer(headers);
    }
    headers.get(API_KEY).map(|value| value.as_bytes().trim_ascii())
}

fn forbidden(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", message)
}

fn unauthorized(message: &str, challenge: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_and_the_address_are_both_asked_for_when_both_are_set() {
        let auth = Auth::none().with_tokens(Some("right"), None).unwrap();
        let auth = auth.with_networks("10.0.0.0/8").unwrap();
        assert_eq!(status(&auth, "10.1.1.1", "/sql", Some("Bearer right")), 200);
        assert_eq!(status(&auth, "10.1.1.1", "/sql", Some("Bearer wrong")), 401);
        assert_eq!(status(&auth, "10.1.1.1", "/sql", None), 401);
        assert_eq!(status(&auth, "11.1.1.1", "/sql", Some("Bearer right")), 403);
        assert_eq!(status(&auth, "11.1.1.1", "/sql", None), 403);
    }

    #[test]
    fn each_layer_works_alone() {
        let tokens = Auth::none().with_tokens(Some("right"), None).unwrap();
        assert_eq!(status(&tokens, "11.1.1.1", "/sql", Some("bearer right")), 200);
        assert_eq!(status(&tokens, "11.1.1.1", "/sql", Some("Basic right")), 401);
        let networks = Auth::none().with_networks("10.0.0.0/8").unwrap();
        assert_eq!(status(&networks, "10.1.1.1", "/sql", None), 200);
        assert_eq!(status(&networks, "11.1.1.1", "/sql", None), 403);
    }

    #[test]
    fn probes_are_open_to_all_and_metrics_to_this_machine() {
        let auth = Auth::none().with_tokens(Some("right"), None).unwrap();
        let auth = auth.with_networks("10.0.0.0/8,127.0.0.1").unwrap();
        for path in ["/health", "/livez", "/readyz"] {
            assert_eq!(status(&auth, "11.1.1.1", path, None), 200, "{path}");
        }
        assert_eq!(status(&auth, "127.0.0.1", "/metrics", None), 200);
        assert_eq!(status(&auth, "10.1.1.1", "/metrics", None), 401);
        assert_eq!(status(&auth, "10.1.1.1", "/metrics", Some("Bearer right")), 200);
        assert_eq!(status(&auth, "127.0.0.1", "/sql", None), 401);
    }

    #[test]
    fn a_server_that_keeps_nothing_is_open_to_all() {
        let auth = Auth::open();
        auth.check_listen("0.0.0.0:8080".parse().unwrap()).unwrap();
        assert_eq!(status(&auth, "11.1.1.1", "/metrics", None), 200);
    }

    #[test]
    fn the_first_token_is_the_one_that_is_said_to_others() {
        let folder = tempfile::tempdir().unwrap();
        for (name, token) in [("primary", "one\n"), ("secondary", "two")] {
            std::fs::write(folder.path().join(name), token).unwrap();
        }
        let said = |text| authorization(text, Some(folder.path())).unwrap();
        assert_eq!(
            (said(None), said(Some("fixed,other"))),
            ("Bearer one".parse().unwrap(), "Bearer fixed".parse().unwrap())
        );
        assert!(!format!("{:?}", said(None)).contains("one"));
        assert_eq!(authorization(None, None), None);
    }

    #[test]
    fn a_key_is_a_token_where_there_is_no_other() {
        let auth = Auth::none().with_tokens(Some("right"), None).unwrap();
        let admitted = |key: &str, authorization: Option<&str>| {
            let mut headers = HeaderMap::from_iter([(API_KEY, key.parse().unwrap())]);
            headers.extend(authorization.map(|value| (header::AUTHORIZATION, value.parse().unwrap())));
            auth.admit(Some("11.1.1.1".parse().unwrap()), "/messages", &headers).is_ok()
        };
        assert!(admitted("right", None) && !admitted("wrong", None));
        assert!(admitted("sk-ant-1", Some("Bearer right")));
        assert!(!admitted("right", Some("Bearer wrong")) && !admitted("right", Some("Basic right")));
    }

    #[test]
    fn an_unknown_address_is_no_friend() {
        let auth = Auth::none().with_networks("0.0.0.0/0").unwrap();
        assert_eq!(auth.admit(None, "/sql", &HeaderMap::new()).unwrap_err().status, 403);
    }

    #[test]
    fn nothing_listens_beyond_loopback_without_a_token() {
        let open = Auth::none().with_networks("10.0.0.0/8").unwrap();
        let closed = Auth::none().with_tokens(Some("t"), None).unwrap();
        for address in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            open.check_listen(address.parse().unwrap()).unwrap();
        }
        for address in ["0.0.0.0:3110", "[::]:1", "192.168.1.7:1"] {
            let refusal = open.check_listen(address.parse().unwrap()).unwrap_err().to_string();
            assert!(refusal.contains(address) && refusal.contains("LAKEHOUSE_TOKEN"), "{refusal}");
            closed.check_listen(address.parse().unwrap()).unwrap();
        }
    }

    fn status(auth: &Auth, remote: &str, path: &str, authorization: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        match auth.admit(Some(remote.parse().unwrap()), path, &headers) {
            Ok(_) => 200,
            Err(problem) => problem.status.as_u16(),
        }
    }
}
