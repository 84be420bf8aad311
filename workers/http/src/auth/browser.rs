//! What protects a server without a token from the web pages that its user visits.
//!
//! A browser lets any page send a plain POST to `127.0.0.1`, and a page whose name is made to resolve to it may even read
//! the answers. Both show in headers that pages cannot forge: `Origin` and `Host`.

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri, header, uri::Authority};

/// Refuses a request that a page from elsewhere made a browser send.
pub(super) fn check(headers: &HeaderMap) -> Result<(), &'static str> {
    if let Some(host) = headers.get(header::HOST)
        && !host.to_str().is_ok_and(|host| host.parse::<Authority>().is_ok_and(|host| is_local(host.host())))
    {
        return Err(
            "without a token, this service answers only to `localhost` and loopback addresses as its `Host`",
        );
    }
    if let Some(origin) = headers.get(header::ORIGIN)
        && !origin
            .to_str()
            .is_ok_and(|origin| origin.parse::<Uri>().is_ok_and(|origin| origin.host().is_some_and(is_local)))
    {
        return Err("without a token, this service answers no pages of other origins");
    }
    Ok(())
}

fn is_local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => super::is_local(address),
        Err(_) => bare.eq_ignore_ascii_case("localhost") || bare.to_ascii_lowercase().ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_local_pages_are_served() {
        for (host, origin) in [
            (None, None),
            (Some("127.0.0.1:3110"), None),
            (Some("[::1]:3110"), None),
            (Some("localhost"), Some("http://localhost:5173")),
            (Some("LOCALHOST:1"), Some("https://127.0.0.1")),
            (Some("lake.localhost:3110"), None),
        ] {
            check(&headers(host, origin)).unwrap();
        }
    }

    #[test]
    fn pages_from_elsewhere_are_refused() {
        for (host, origin) in [
            (Some("evil.example:3110"), None),
            (Some("127.0.0.1.evil.example"), None),
            (Some("127.0.0.1:3110"), Some("https://evil.example")),
            (Some("127.0.0.1:3110"), Some("http://localhost.evil.example")),
            (Some("127.0.0.1:3110"), Some("null")),
        ] {
            check(&headers(host, origin)).unwrap_err();
        }
    }

    fn headers(host: Option<&str>, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }
}
