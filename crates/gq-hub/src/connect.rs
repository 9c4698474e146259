//! The HTTP client, and which failures mean that there is no way to a host at all.

use crate::{HubConfig, HubError};
use std::io::ErrorKind;
use std::time::Duration;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// A client that leaves statuses and redirects to its caller.
///
/// # Errors
/// [`HubError::BadAnswer`] when the endpoint is not an http address or the proxy not an address.
pub(crate) fn agent(config: &HubConfig) -> Result<Agent, HubError> {
    let bad = |field: &str| HubError::BadAnswer { url: config.endpoint.clone(), field: field.to_owned() };
    let endpoint: Uri = config.endpoint.parse().map_err(|_| bad("the endpoint is not an address"))?;
    if !matches!(endpoint.scheme_str(), Some("http" | "https")) || endpoint.host().is_none() {
        return Err(bad("the endpoint is not an http address"));
    }
    let proxy = match &config.proxy {
        Some(proxy) => Some(ureq::Proxy::new(proxy).map_err(|_| bad("the proxy is not an address"))?),
        None => None,
    };
    let settings = Agent::config_builder()
        .proxy(proxy)
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_resolve(Some(CONNECT_TIMEOUT))
        .max_idle_connections(64)
        .max_idle_connections_per_host(32)
        .user_agent(concat!("gq/", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(Agent::with_parts(settings, DefaultConnector::new(), Names::default()))
}

/// The system's resolver, whose refusals are told from those of connections.
#[derive(Debug, Default)]
struct Names(DefaultResolver);

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        self.0.resolve(uri, config, timeout).map_err(|error| match error {
            // The system's error says in words, and in no code, that a name is not known.
            Error::Io(_) => Error::HostNotFound,
            other => other,
        })
    }
}

/// Whether a failure means that the host cannot be reached: trying again at once changes nothing.
pub(crate) fn no_way(error: &Error) -> bool {
    match error {
        Error::HostNotFound
        | Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect)
        | Error::ConnectionFailed
        | Error::ConnectProxyFailed(_)
        | Error::InvalidProxyUrl
        | Error::BadUri(_)
        | Error::Tls(_)
        | Error::Rustls(_) => true,
        Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::NetworkDown
                | ErrorKind::AddrNotAvailable
                | ErrorKind::PermissionDenied
                // What rustls calls a certificate or a handshake that it does not accept.
                | ErrorKind::InvalidData
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_may_pass_and_a_refusal_does_not() {
        for kind in [ErrorKind::ConnectionRefused, ErrorKind::NetworkUnreachable] {
            assert!(no_way(&Error::Io(kind.into())), "{kind}");
        }
        for kind in [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe] {
            assert!(!no_way(&Error::Io(kind.into())), "{kind}");
        }
        assert!(no_way(&Error::HostNotFound) && !no_way(&Error::Timeout(ureq::Timeout::RecvResponse)));
    }
}
