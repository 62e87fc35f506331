//! What every HTTP call to Sourcegraph has in common: certificates, limits of
//! time, and how a name becomes part of an address.
//!
//! Requests themselves, their headers and what their answers mean belong to
//! the rooms that make them.

use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

/// How long the parts of one call may take; every part has its limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// Name look-up, and then connection with TLS and proxy, each.
    pub(crate) connect: Duration,
    /// From the end of the request to the end of the answer's headers.
    pub(crate) response: Duration,
    /// Silence on the line while a body is sent or received.
    pub(crate) silence: Duration,
    /// The whole call, body included.
    pub(crate) total: Duration,
}

/// Room for what a connection receives: the head of an answer must fit in.
const INPUT_BUFFER_BYTES: usize = 16 * 1024;
/// Room for what it sends, for which a hundred jobs may have one each.
const OUTPUT_BUFFER_BYTES: usize = 8 * 1024;

/// Makes a client; its clones share one pool of connections.
///
/// It blocks, tries once, gives every status back as an answer, and follows no
/// redirect: credentials are sent to the address that was configured and to no
/// other, so for its callers a 3xx is a fault like any other.
pub(crate) fn agent(timeouts: Timeouts) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .input_buffer_size(INPUT_BUFFER_BYTES)
        .output_buffer_size(OUTPUT_BUFFER_BYTES)
        .user_agent(concat!("executor/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(timeouts.connect))
        .timeout_connect(Some(timeouts.connect))
        .timeout_send_request(Some(timeouts.response))
        .timeout_recv_response(Some(timeouts.response))
        .timeout_per_read(Some(timeouts.silence))
        .timeout_per_write(Some(timeouts.silence))
        .timeout_global(Some(timeouts.total))
        .build()
        .into()
}

/// Writes a name with slashes so that it can stand in the path of an address.
///
/// The slashes stay: they separate segments on the server too.
pub(crate) fn encoded_path(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~@:+,=!$&'()*;".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_repository_names_stay_as_they_are() {
        let name = "git.example.org:8443/shop/cart-2_x~y";
        assert_eq!(encoded_path(name), name);
    }

    #[test]
    fn characters_with_a_meaning_are_encoded() {
        assert_eq!(encoded_path("a b?c#d%e/é"), "a%20b%3Fc%23d%25e/%C3%A9");
    }
}
