//! Who may do what on the admin port. Pure: headers in, decision out.
//!
//! - `/metrics`, `/healthz`, `/readyz` and `/` are open: scrapers and probes carry no token, and they name nobody.
//! - Looking inside (the tree, rooms, members, events, settings) names users and rooms. Where the port is bound to
//!   loopback it is open to whoever is on this machine; where it is bound to anything else it needs the token. A page in
//!   a browser could reach loopback under a name of its own (DNS rebinding), so on loopback the request must have been
//!   sent to an IP address or to `localhost`.
//! - Changing always needs the token, on loopback too, and never comes from another site's page.

use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;

use super::{Shared, say};

/// Whether the request may look inside.
///
/// # Errors
/// The answer to a request that may not.
#[allow(clippy::result_large_err)] // the answer is on its way out, once a request
pub(super) fn may_look(shared: &Shared, headers: &HeaderMap) -> Result<(), Response> {
    let bound = shared.store.sockets.addresses.admin;
    let local = bound.is_some_and(|address| address.ip().is_loopback());
    if (local && asked_locally(headers)) || has_token(token(shared), headers) {
        return Ok(());
    }
    let message = if local {
        "this was sent to a name that is not localhost; send the admin token as `Authorization: Bearer …`"
    } else {
        "this port is reached from other machines: send the admin token as `Authorization: Bearer …`"
    };
    Err(say(StatusCode::UNAUTHORIZED, message))
}

/// Whether the request may change something.
///
/// # Errors
/// The answer to a request that may not.
#[allow(clippy::result_large_err)] // as above
pub(super) fn may_change(shared: &Shared, headers: &HeaderMap) -> Result<(), Response> {
    if !same_site(headers) {
        return Err(say(StatusCode::FORBIDDEN, "this came from another site's page"));
    }
    if !has_token(token(shared), headers) {
        return Err(say(StatusCode::UNAUTHORIZED, "send the admin token as `Authorization: Bearer …`"));
    }
    Ok(())
}

fn token(shared: &Shared) -> Option<&str> {
    shared.store.token.as_ref().map(|(token, _)| token.as_str())
}

fn has_token(token: Option<&str>, headers: &HeaderMap) -> bool {
    let Some(token) = token else { return false };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    // Compared without stopping at the first difference, so that the time taken tells nothing.
    given.len() == token.len() && given.bytes().zip(token.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// Whether `Host` is an address or `localhost`. HTTP/1.0 has none, and no browser speaks it.
fn asked_locally(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// A browser says which page a request comes from; it must be one of this server, which has none. Others say nothing.
fn same_site(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let origin = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
    origin.is_some() && origin == headers.get(header::HOST).and_then(|host| host.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn only_the_exact_token_opens() {
        let given = |value: &str| has_token(Some("0123456789abcdef"), &headers(header::AUTHORIZATION, value));
        assert!(given("Bearer 0123456789abcdef"));
        for wrong in
            ["", "0123456789abcdef", "Bearer ", "Bearer 0123456789abcdee", "Bearer 0123456789abcdef0", "bearer x"]
        {
            assert!(!given(wrong), "{wrong}");
        }
        assert!(!has_token(Some("x"), &HeaderMap::new()));
        assert!(!has_token(None, &headers(header::AUTHORIZATION, "Bearer ")));
    }

    #[test]
    fn a_foreign_name_is_not_local() {
        for host in ["localhost", "LOCALHOST:9090", "127.0.0.1:9090", "127.0.0.1", "[::1]:9090", "10.0.0.1:1"] {
            assert!(asked_locally(&headers(header::HOST, host)), "{host}");
        }
        for host in
            ["evil.example", "evil.example:9090", "localhost.evil.example:9090", "", "[::1", "127.0.0.1.evil.example"]
        {
            assert!(!asked_locally(&headers(header::HOST, host)), "{host}");
        }
        assert!(asked_locally(&HeaderMap::new()));
    }

    #[test]
    fn another_sites_page_is_refused() {
        let from = |origin: &str| {
            let mut headers = headers(header::HOST, "127.0.0.1:9090");
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            same_site(&headers)
        };
        assert!(from("http://127.0.0.1:9090"));
        for origin in ["http://evil.example", "null", "", "https://127.0.0.1:9090", "http://127.0.0.1:9091"] {
            assert!(!from(origin), "{origin}");
        }
        assert!(same_site(&HeaderMap::new()));
    }
}
