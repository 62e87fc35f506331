//! Answers that ask us to come back later. The client reads the body of a
//! refusal alone, but how long to stay away stands in a header.

use std::fmt;
use std::time::Duration;

use http::Response;
use http::header::RETRY_AFTER;
use tower::BoxError;
use tower::util::MapResultLayer;

/// An answer that asks us to come back later.
#[derive(Debug)]
pub(super) struct Busy {
    pub(super) status: u16,
    pub(super) stay_away: Duration,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "status {}, retry after {:?}",
            self.status, self.stay_away
        )
    }
}

impl std::error::Error for Busy {}

/// Turns such answers into errors.
pub(super) fn layer<B>() -> MapResultLayer<fn(Answer<B>) -> Answer<B>> {
    MapResultLayer::new(refuse_busy)
}

type Answer<B> = Result<Response<B>, BoxError>;

fn refuse_busy<B>(answer: Answer<B>) -> Answer<B> {
    let answer = answer?;
    let status = answer.status();
    let seconds = answer
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    match seconds {
        Some(seconds) if status.is_client_error() || status.is_server_error() => {
            Err(Box::new(Busy {
                status: status.as_u16(),
                stay_away: Duration::from_secs(seconds),
            }))
        }
        _ => Ok(answer),
    }
}

/// What an error says of it.
pub(super) fn find(error: &kube_client::Error) -> Option<&Busy> {
    match error {
        kube_client::Error::Service(error) => error.downcast_ref(),
        _ => None,
    }
}
