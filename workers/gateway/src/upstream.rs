//! Where the services are.

use std::{collections::BTreeMap, fmt, sync::Arc};

use axum::{
    Router,
    http::{Uri, uri::Authority},
};
use lakehouse_http::with_error_bodies;

use crate::{
    indexes::{INDEX, Indexes},
    path,
};

/// A service that owns paths below `/v1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// storaged
    Storage,
    /// catalogd
    Catalog,
    /// ingestd
    Ingest,
    /// queryd
    Sql,
    /// vectord
    Vectors,
    /// embedd, also for OpenAI's `/v1/embeddings` and Ollama's `/v1/ollama/api/embed`
    Embed,
    /// matrixd
    Matrix,
    /// pathwayd
    Pathway,
    /// chatd, also for OpenAI's `/v1/chat/completions` and `/v1/models`, Anthropic's `/v1/messages`, and `/v1/ollama`
    Chat,
}

impl Owner {
    /// First path segments and their owners.
    const SEGMENTS: [(&'static str, Self); 13] = [
        ("storage", Self::Storage),
        ("catalog", Self::Catalog),
        ("ingest", Self::Ingest),
        ("sql", Self::Sql),
        ("vectors", Self::Vectors),
        ("embed", Self::Embed),
        ("embeddings", Self::Embed),
        ("matrix", Self::Matrix),
        ("pathway", Self::Pathway),
        ("chat", Self::Chat),
        ("models", Self::Chat),
        ("messages", Self::Chat),
        ("ollama", Self::Chat),
    ];

    /// The owner of the paths below `/v1` that start with this segment.
    pub fn of(segment: &str) -> Option<Self> {
        Self::SEGMENTS.into_iter().find_map(|(name, owner)| (name == segment).then_some(owner))
    }

    /// Whether the service ends a call that stays silent by itself: a model may think for as long as its provider's limits say,
    /// and only chatd knows those.
    pub(crate) fn ends_silence(self) -> bool {
        self == Self::Chat
    }

    /// The owner of a path: of its first segment, but for Ollama's API, which is one at one address and not one service here.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        if path == "/ollama/api/embed" { Some(Self::Embed) } else { Self::of(path::first_segment(path)) }
    }

    /// The service's name.
    pub fn service(self) -> &'static str {
        match self {
            Self::Storage => "storaged",
            Self::Catalog => "catalogd",
            Self::Ingest => "ingestd",
            Self::Sql => "queryd",
            Self::Vectors => "vectord",
            Self::Embed => "embedd",
            Self::Matrix => "matrixd",
            Self::Pathway => "pathwayd",
            Self::Chat => "chatd",
        }
    }
}

/// A service in this process, or behind a URL.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub(crate) place: Place,
    /// The services that some vector indexes have for themselves.
    pub(crate) indexes: Option<Arc<Indexes>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Place {
    Local(Router),
    Http(BaseUrl),
}

/// The services that run. A known service that is not among them answers 404 and says so.
pub type Upstreams = BTreeMap<Owner, Upstream>;

impl Upstream {
    /// A service in this process, called without a socket.
    pub fn local(router: Router) -> Self {
        Self { place: Place::Local(with_error_bodies(router)), indexes: None }
    }

    /// A service behind `url`; `field` is the setting that it came from. Services speak plain HTTP among themselves: TLS ends
    /// at the edge.
    pub fn http(field: &str, url: &str) -> Result<Self, InvalidUpstream> {
        match BaseUrl::parse(url) {
            Ok(base) => Ok(Self { place: Place::Http(base), indexes: None }),
            Err(reason) => Err(InvalidUpstream { field: field.to_owned(), reason }),
        }
    }

    /// The same for all vector indexes but those that have a service of their own: `url` has `{index}` in its host.
    pub fn with_indexes(self, field: &str, url: &str) -> Result<Self, InvalidUpstream> {
        let invalid = |reason| InvalidUpstream { field: field.to_owned(), reason };
        let authority = url.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
        if !authority.is_some_and(|authority| authority.contains(INDEX)) {
            return Err(invalid("has no `{index}` in its host"));
        }
        BaseUrl::parse(&url.replace(INDEX, "index")).map_err(invalid)?;
        Ok(Self { indexes: Some(Arc::new(Indexes::new(url))), ..self })
    }
}

/// A URL that no service can be called under. The URL itself is not repeated: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {reason}; an upstream is written as `http://host:port/base`")]
pub struct InvalidUpstream {
    field: String,
    reason: &'static str,
}

/// The beginning of every URL of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    pub(crate) authority: Authority,
    /// Without a `/` at its end.
    pub(crate) path: String,
}

impl BaseUrl {
    pub(crate) fn parse(url: &str) -> Result<Self, &'static str> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err("has no scheme");
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => return Err("asks for https, which services do not speak among themselves"),
            _ => return Err("has a scheme other than `http`"),
        }
        if rest.is_empty() || rest.starts_with(['/', ':', '?', '#']) {
            return Err("has no host");
        }
        let uri: Uri = url.parse().map_err(|_| "is no URL")?;
        let authority = uri.authority().cloned().ok_or("has no host")?;
        if authority.as_str().contains('@') {
            return Err("has a user in it; services are called with the caller's token");
        }
        if uri.query().is_some() || url.contains('#') {
            return Err("has a query or a fragment");
        }
        Ok(Self { authority, path: uri.path().trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_read_with_and_without_its_last_slash() {
        for (url, shown) in [
            ("http://lakehouse-query:3214", "http://lakehouse-query:3214"),
            ("http://lakehouse-query:3214/", "http://lakehouse-query:3214"),
            ("HTTP://host/api/", "http://host/api"),
            ("http://[::1]:80/a/b", "http://[::1]:80/a/b"),
        ] {
            assert_eq!(BaseUrl::parse(url).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn ollamas_api_is_that_of_two_services() {
        for (path, owner) in [("/ollama/api/chat", Owner::Chat), ("/ollama/api/embed", Owner::Embed)] {
            assert_eq!(Owner::of_path(path), Some(owner), "{path}");
        }
    }

    #[test]
    fn an_upstream_without_scheme_or_host_is_refused_with_the_fields_name() {
        for (url, reason) in [
            ("lakehouse-query:3214", "has no scheme"),
            ("lakehouse-query", "has no scheme"),
            ("", "has no scheme"),
            ("http://", "has no host"),
            ("http:///api", "has no host"),
            ("http://:80", "has no host"),
            ("ftp://host", "other than `http`"),
            ("https://host", "asks for https"),
            ("http://host/?x=1", "has a query"),
            ("http://ho st", "is no URL"),
        ] {
            let sentence = Upstream::http("LAKEHOUSE_QUERYD_URL", url).unwrap_err().to_string();
            assert!(
                sentence.starts_with("`LAKEHOUSE_QUERYD_URL` ") && sentence.contains(reason),
                "{sentence}"
            );
        }
    }

    #[test]
    fn the_url_of_an_indexs_service_names_the_index_in_its_host() {
        let shared = || Upstream::http("--upstream", "http://lakehouse-vectors:3215").unwrap();
        assert!(shared().with_indexes("--index-upstream", "http://{index}-vectors:3215").is_ok());
        for url in ["http://vectors:3215", "http://vectors/{index}", "{index}", "https://{index}"] {
            let sentence = shared().with_indexes("--index-upstream", url).unwrap_err().to_string();
            assert!(
                sentence.starts_with("`--index-upstream` has") || sentence.contains("asks for https"),
                "{sentence}"
            );
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        let sentence = Upstream::http("URL", "http://me:hunter2@host").unwrap_err().to_string();
        assert!(!sentence.contains("hunter2"), "{sentence}");
    }
}
