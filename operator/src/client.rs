//! The way to the API server, with every request counted.

use http::{Method, Request};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tower::util::MapRequestLayer;

use crate::metrics::Metrics;

/// A client whose requests appear in the metrics.
pub fn counted(config: Config, metrics: Metrics) -> kube::Result<Client> {
    let count = move |request: Request<Body>| {
        metrics.requested(verb(&request));
        request
    };
    Ok(ClientBuilder::try_from(config)?.with_layer(&MapRequestLayer::new(count)).build())
}

fn verb<B>(request: &Request<B>) -> &'static str {
    let watches =
        || request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
    match *request.method() {
        Method::GET if watches() => "watch",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::VERBS;

    #[test]
    fn a_watch_is_told_from_a_list() {
        let verb =
            |method: &str, uri: &str| verb(&Request::builder().method(method).uri(uri).body(()).unwrap());
        assert_eq!(verb("GET", "/api/v1/pods?&limit=500"), "get");
        assert_eq!(verb("GET", "/api/v1/pods?&watch=true&timeoutSeconds=290"), "watch");
        assert_eq!(verb("PATCH", "/api/v1/pods/a?watch=true"), "patch");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            assert!(VERBS.contains(&verb(method, "/")));
        }
    }
}
