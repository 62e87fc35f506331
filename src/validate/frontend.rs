//! The Sourcegraph side: whether the server is there, is one, and takes our
//! credentials.

use crate::config::QueueSettings;
use crate::queue::token::{Silence, TokenAnswer};
use crate::validate::finding::Finding;

const SUBJECT: &str = "frontend";

/// What the server's answer means.
pub(super) fn judge(answer: &TokenAnswer, settings: &QueueSettings) -> Finding {
    let url = &settings.frontend_url;
    match answer {
        TokenAnswer::Accepted => {
            Finding::ok(SUBJECT, format!("{url} accepts the executor's credentials"))
        }
        TokenAnswer::Silence { kind, cause } => silence(*kind, cause, url),
        TokenAnswer::Other {
            status,
            location,
            text,
        } => other(*status, location.as_deref(), text, settings),
    }
}

fn silence(kind: Silence, cause: &str, url: &str) -> Finding {
    let advice = match kind {
        Silence::NobodyListens => {
            "Check that Sourcegraph is up, and host and port in EXECUTOR_FRONTEND_URL"
        }
        Silence::Tls => {
            "Set SSL_CERT_FILE to a file with the certificate authority of the server, or correct \
             EXECUTOR_FRONTEND_URL: the name must be in the certificate, and a server without TLS \
             has http://"
        }
        Silence::TimedOut => {
            "Check host and port in EXECUTOR_FRONTEND_URL, and that no firewall or NetworkPolicy \
             is in the way"
        }
        Silence::Other => {
            "Check the host name in EXECUTOR_FRONTEND_URL, the name service, and the proxy in \
             HTTPS_PROXY if there is one"
        }
    };
    Finding::failed(SUBJECT, format!("no answer from {url}: {cause}"), advice)
}

fn other(status: u16, location: Option<&str>, text: &str, settings: &QueueSettings) -> Finding {
    let url = &settings.frontend_url;
    let said = match text {
        "" => format!("{url} answers with status {status}"),
        text => format!("{url} answers with status {status}: {text}"),
    };
    let advice = match (status, location) {
        (300..=399, Some(location)) => {
            return Finding::failed(
                SUBJECT,
                format!("{url} redirects to {location}, and credentials are not sent elsewhere"),
                "Set EXECUTOR_FRONTEND_URL to the scheme and host of that address; if it is a \
                 login page, let the proxy pass /.executors without one",
            );
        }
        (401 | 403, _) => return refused(url, settings.username.is_some()),
        (404, _) => {
            "Check EXECUTOR_FRONTEND_URL: there is no Sourcegraph at this address, its path is \
             another, or it is too old for this check"
        }
        (500, _) if text.contains("not configured") => {
            "Set `executors.accessToken` in Sourcegraph's site configuration, to the value of \
             EXECUTOR_FRONTEND_PASSWORD"
        }
        (500..=599, _) => "Look at the state of Sourcegraph and of the proxy before it",
        _ => "Check EXECUTOR_FRONTEND_URL: this is not what Sourcegraph answers",
    };
    Finding::failed(SUBJECT, said, advice)
}

fn refused(url: &str, has_username: bool) -> Finding {
    let advice = "Set EXECUTOR_FRONTEND_PASSWORD to the value of `executors.accessToken` in \
                  Sourcegraph's site configuration";
    match has_username {
        false => Finding::failed(
            SUBJECT,
            format!("{url} does not accept the executor token"),
            advice,
        ),
        true => Finding::failed(
            SUBJECT,
            format!("{url} accepts neither user name and password nor the password as a token"),
            format!("{advice}; EXECUTOR_FRONTEND_USERNAME is only for very old servers"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::validate::finding::State;

    fn settings(username: &str) -> QueueSettings {
        let config = Config::from_lookup(|name| {
            let value = match name {
                "EXECUTOR_QUEUE_NAME" => "batches",
                "EXECUTOR_FRONTEND_URL" => "http://sourcegraph.example.org",
                "EXECUTOR_FRONTEND_PASSWORD" => "hunter2",
                "EXECUTOR_FRONTEND_USERNAME" => username,
                _ => return None,
            };
            Some(value.to_string())
        });
        config.unwrap().queue
    }

    fn answer(status: u16, location: Option<&str>, text: &str) -> TokenAnswer {
        TokenAnswer::Other {
            status,
            location: location.map(str::to_string),
            text: text.to_string(),
        }
    }

    #[test]
    fn every_answer_has_its_advice() {
        let moved = "https://sourcegraph.example.org/.executors/test/auth";
        for (answer, expected) in [
            (answer(401, None, ""), "EXECUTOR_FRONTEND_PASSWORD"),
            (answer(403, None, ""), "EXECUTOR_FRONTEND_PASSWORD"),
            (
                answer(500, None, "Executors are not configured on this instance"),
                "Set `executors.accessToken`",
            ),
            (
                answer(500, None, "database is down"),
                "the state of Sourcegraph",
            ),
            (answer(404, None, "404 page not found"), "no Sourcegraph"),
            (answer(200, None, "<html>"), "not what Sourcegraph answers"),
            (answer(301, Some(moved), ""), "scheme and host"),
            (answer(502, None, "bad gateway"), "the proxy before it"),
        ] {
            let finding = judge(&answer, &settings(""));
            assert_eq!(finding.state, State::Failed, "{finding}");
            assert!(finding.advice.contains(expected), "{finding}");
        }
        let finding = judge(&TokenAnswer::Accepted, &settings(""));
        assert_eq!(finding.state, State::Ok);
    }

    #[test]
    fn a_refused_user_name_is_told_of() {
        let finding = judge(&answer(403, None, ""), &settings("executor"));
        assert!(
            finding.advice.contains("EXECUTOR_FRONTEND_USERNAME"),
            "{finding}"
        );
    }

    #[test]
    fn every_silence_has_its_advice() {
        for (kind, expected) in [
            (Silence::NobodyListens, "is up"),
            (Silence::Tls, "SSL_CERT_FILE"),
            (Silence::TimedOut, "firewall"),
            (Silence::Other, "name service"),
        ] {
            let cause = "the cause".to_string();
            let finding = judge(&TokenAnswer::Silence { kind, cause }, &settings(""));
            assert_eq!(finding.state, State::Failed);
            assert!(finding.advice.contains(expected), "{finding}");
            assert!(finding.result.contains("the cause"), "{finding}");
        }
    }
}
