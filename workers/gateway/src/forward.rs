//! From a path below `/v1` to the service that owns it.

use axum::{
    extract::{OriginalUri, Request},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use lakehouse_http::{Problem, Template};
use tower::ServiceExt;

use crate::{
    path,
    remote::Remote,
    upstream::{Owner, Place, Upstream, Upstreams},
};

#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) upstreams: Upstreams,
    pub(crate) remote: Remote,
}

impl Gateway {
    /// Answers a request whose path no longer has its `/v1`.
    pub(crate) async fn forward(&self, request: Request) -> Result<Response, Problem> {
        let path = request.uri().path();
        if path::has_dot_segment(path) {
            return Err(Problem::bad_request("the path has a `.` or `..` segment"));
        }
        let segment = path::first_segment(path);
        let Some(owner) = Owner::of_path(path) else {
            return Err(unknown(&request));
        };
        let Some(Upstream { place, indexes }) = self.upstreams.get(&owner) else {
            return Err(not_running(segment, owner));
        };
        let own = match indexes {
            Some(indexes) => indexes.of(path).await.map(Place::Http),
            None => None,
        };
        match own.as_ref().unwrap_or(place) {
            Place::Local(router) => {
                Ok(router.clone().oneshot(request).await.unwrap_or_else(|never| match never {}))
            }
            Place::Http(base) => {
                let template = Template(format!("/v1/{segment}/{{*rest}}"));
                let mut response = self.remote.call(owner, base, request).await.into_response();
                response.extensions_mut().insert(template);
                Ok(response)
            }
        }
    }
}

fn unknown(request: &Request) -> Problem {
    let uri = request.extensions().get::<OriginalUri>().map_or(request.uri(), |original| &original.0);
    Problem::not_found(format!("there is no route `{}` here", uri.path()))
}

/// 404 and not 503: no retry helps until somebody sets the service up.
fn not_running(segment: &str, owner: Owner) -> Problem {
    let message = format!("`/v1/{segment}` belongs to {}, which does not run here", owner.service());
    Problem::new(StatusCode::NOT_FOUND, "not_running", message)
}
