//! Headers on their way through (RFC 9110, section 7.6).

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers that speak about one connection and end with it.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Drops what ends with this connection, and what `Connection` names.
pub(crate) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Says where the request came from. The host that the client named goes on as `X-Forwarded-Host`; the service gets its own.
pub(crate) fn add_forwarded(headers: &mut HeaderMap, remote: Option<IpAddr>) {
    if let Some(remote) = remote {
        let earlier = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let chain: Vec<String> =
            earlier.map(str::to_owned).chain([remote.to_canonical().to_string()]).collect();
        if let Ok(chain) = HeaderValue::try_from(chain.join(", ")) {
            headers.insert(FORWARDED_FOR, chain);
        }
    }
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if let Some(host) = headers.remove(header::HOST)
        && !headers.contains_key(FORWARDED_HOST)
    {
        headers.insert(FORWARDED_HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_connection_end_with_it() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Mine"),
            ("keep-alive", "timeout=5"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer t"),
            ("accept", "text/csv"),
        ]);
        drop_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("authorization", "Bearer t"), ("accept", "text/csv")]));
    }

    #[test]
    fn the_chain_of_callers_grows_by_one() {
        let mut headers = map(&[("host", "lake.example"), ("x-forwarded-for", "203.0.113.7")]);
        add_forwarded(&mut headers, Some("::ffff:10.0.0.1".parse().unwrap()));
        let expected = [
            ("x-forwarded-for", "203.0.113.7, 10.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "lake.example"),
        ];
        assert_eq!(headers, map(&expected));
    }

    #[test]
    fn what_the_ingress_said_of_the_scheme_is_kept() {
        let mut headers = map(&[("x-forwarded-proto", "https")]);
        add_forwarded(&mut headers, None);
        assert_eq!(headers, map(&[("x-forwarded-proto", "https")]));
    }

    fn map(entries: &[(&'static str, &'static str)]) -> HeaderMap {
        let entry = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        entries.iter().map(entry).collect()
    }
}
