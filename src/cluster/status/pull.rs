//! What a failed pull means, by the words of the kubelet and of the container
//! runtimes (containerd, CRI-O, Docker), which pass on those of the registry.
//!
//! Only wordings that are known to be final end a job at once. Whatever may
//! pass, and whatever nobody has seen yet, gets its time.

use crate::cluster::status::failure::Cause;

/// The kubelet's reason while it waits for its next try.
pub(super) const BACK_OFF: &str = "ImagePullBackOff";

/// What is the matter with networks and busy registries. These words count
/// before the others, since a registry in trouble also refuses and denies.
const PASSING: &[&str] = &[
    "toomanyrequests",
    "too many requests",
    "timeout",
    "timed out",
    "deadline exceeded",
    "no such host",
    "server misbehaving",
    "name resolution",
    "dial tcp",
    "connection re",
    "network is unreachable",
    "no route to host",
    "broken pipe",
    ": eof",
    "unexpected eof",
    "500 internal server error",
    "502 bad gateway",
    "503 service unavailable",
    "504 gateway",
    "unavailable",
    "no space left",
];

/// The registry knows the client, or wants to, and says no.
const DENIED: &[&str] = &[
    "access denied",
    "denied:",
    "unauthorized",
    "authorization failed",
    "authentication required",
    "insufficient_scope",
    "no basic auth credentials",
    "403 forbidden",
    "403 (forbidden)",
];

/// The registry has no such repository, tag or platform.
const NOT_FOUND: &[&str] = &[
    "manifest unknown",
    "name unknown",
    "repository not found",
    "no match for platform in manifest",
    "no matching manifest",
    "no image found in image index",
];

/// The name is none.
const INVALID: &[&str] = &[
    "invalid reference",
    "couldn't parse image",
    "invalid image name",
];

/// The cause of a pull that failed with this message.
pub(super) fn cause(image: &str, message: &str) -> Cause {
    let words = without_names(image, message).to_lowercase();
    let has = |known: &[&str]| known.iter().any(|part| words.contains(part));
    let image = image.to_string();
    if has(PASSING) {
        Cause::ImagePull { image }
    } else if has(INVALID) {
        Cause::InvalidImage { image }
    } else if has(DENIED) {
        Cause::ImageDenied { image }
    } else if has(NOT_FOUND) || is_unresolved(&words) {
        Cause::ImageNotFound { image }
    } else {
        Cause::ImagePull { image }
    }
}

/// containerd's words for a reference that its registry does not have. Any
/// other part that is not found, such as a layer, may be there a moment later.
fn is_unresolved(words: &str) -> bool {
    words.contains("failed to resolve reference") && words.trim_end().ends_with("not found")
}

/// What the kubelet waits for, without the words that say that it waits.
pub(super) fn without_back_off(message: &str) -> &str {
    match message.split_once("ErrImagePull: ") {
        Some((before, cause)) if before.starts_with("Back-off") => cause,
        _ => message,
    }
}

/// Whether a message says that the kubelet waits and not what for.
pub(super) fn is_bare_back_off(message: &str) -> bool {
    message.starts_with("Back-off") && without_back_off(message) == message
}

/// Takes away what is quoted and every name of the image, which may hold any
/// of the words above.
fn without_names(image: &str, message: &str) -> String {
    let mut rest = message.to_string();
    let quoted: Vec<&str> = message.split('"').skip(1).step_by(2).collect();
    let mut names = quoted.clone();
    names.push(image);
    names.extend(names.clone().into_iter().map(repository));
    // A name may hold another one, so the longest go first.
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        rest = without_word(&rest, name);
    }
    rest
}

/// The text without a name, where that is not a part of longer words.
fn without_word(text: &str, name: &str) -> String {
    let mut rest = String::with_capacity(text.len());
    let mut end = 0;
    for (start, _) in text.match_indices(name) {
        let (before, after) = (&text[..start], &text[start + name.len()..]);
        if !before.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric) {
            rest.push_str(&text[end..start]);
            end = start + name.len();
        }
    }
    rest.push_str(&text[end..]);
    rest
}

/// An image's name without tag and digest.
fn repository(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or_default();
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Image, words that runtimes say, and the cause in a word.
    const MESSAGES: &[(&str, &str, &str)] = &[
        // containerd.
        (
            "nope:1",
            "rpc error: code = NotFound desc = failed to pull and unpack image \
             \"example.org/library/nope:1\": failed to resolve reference \
             \"example.org/library/nope:1\": example.org/library/nope:1: not found",
            "not found",
        ),
        (
            "example.org/nope:1",
            "failed to pull and unpack image \"example.org/nope:1\": failed to resolve reference \
             \"example.org/nope:1\": pull access denied, repository does not exist or may require \
             authorization: server message: insufficient_scope: authorization failed",
            "denied",
        ),
        (
            "example.org/nope:1",
            "failed to pull and unpack image \"example.org/nope:1\": failed to resolve reference \
             \"example.org/nope:1\": unexpected status from HEAD request to \
             https://example.org/v2/nope/manifests/1: 403 Forbidden",
            "denied",
        ),
        (
            "example.org/nope:1",
            "failed to pull and unpack image \"example.org/nope:1\": failed to resolve reference \
             \"example.org/nope:1\": failed to authorize: failed to fetch anonymous token: \
             unexpected status from GET request to https://example.org/token: 401 Unauthorized",
            "denied",
        ),
        (
            "example.org/nope:1",
            "failed to pull and unpack image \"example.org/nope:1\": failed to resolve reference \
             \"example.org/nope:1\": failed to authorize: failed to fetch anonymous token: Get \
             \"https://example.org/token?scope=repository%3Anope%3Apull\": EOF",
            "passing",
        ),
        (
            "example.org/a:1",
            "failed to pull and unpack image \"example.org/a:1\": no match for platform in \
             manifest: not found",
            "not found",
        ),
        (
            "example.org/a:1",
            "failed to pull and unpack image \"example.org/a:1\": failed to copy: \
             httpReadSeeker: failed open: could not fetch content descriptor sha256:0f1e \
             (application/vnd.oci.image.layer.v1.tar+gzip) from remote: not found",
            "passing",
        ),
        (
            "example.org/a:1",
            "rpc error: code = Unknown desc = failed to pull and unpack image \
             \"example.org/a:1\": failed to copy: httpReadSeeker: failed open: unexpected status \
             code https://example.org/v2/a/manifests/sha256:0f1e: 429 Too Many Requests - Server \
             message: toomanyrequests: You have reached your pull rate limit.",
            "passing",
        ),
        (
            "registry.example.org/nope:1",
            "failed to pull and unpack image \"registry.example.org/nope:1\": failed to resolve \
             reference \"registry.example.org/nope:1\": failed to do request: Head \
             \"https://registry.example.org/v2/nope/manifests/1\": dial tcp: lookup \
             registry.example.org on [::1]:53: read udp [::1]:33352->[::1]:53: read: connection \
             refused",
            "passing",
        ),
        (
            "example.org/a:1",
            "failed to pull and unpack image \"example.org/a:1\": failed to resolve reference \
             \"example.org/a:1\": unexpected status from HEAD request to \
             https://example.org/v2/a/manifests/1: 503 Service Unavailable",
            "passing",
        ),
        (
            "Example:1",
            "Failed to apply default image tag \"Example:1\": couldn't parse image name \
             \"Example:1\": invalid reference format: repository name (library/Example) must be \
             lowercase",
            "invalid",
        ),
        // CRI-O.
        (
            "example.org/nope:1",
            "rpc error: code = Unknown desc = reading manifest 1 in example.org/nope: manifest \
             unknown: manifest unknown",
            "not found",
        ),
        (
            "example.org/nope:1",
            "initializing source docker://example.org/nope:1: reading manifest 1 in \
             example.org/nope: errors: denied: requested access to the resource is denied \
             unauthorized: authentication required",
            "denied",
        ),
        (
            "example.org/nope:1",
            "initializing source docker://example.org/nope:1: Requesting bearer token: invalid \
             status code from registry 403 (Forbidden)",
            "denied",
        ),
        (
            "example.org/nope:1",
            "initializing source docker://example.org/nope:1: pinging container registry \
             example.org: Get \"https://example.org/v2/\": net/http: TLS handshake timeout",
            "passing",
        ),
        // Docker.
        (
            "nope:1",
            "rpc error: code = Unknown desc = Error response from daemon: manifest for nope:1 \
             not found: manifest unknown: manifest unknown",
            "not found",
        ),
        (
            "nope",
            "rpc error: code = Unknown desc = Error response from daemon: pull access denied for \
             nope, repository does not exist or may require 'docker login': denied: requested \
             access to the resource is denied",
            "denied",
        ),
        // Names that hold words of errors.
        (
            "example.org/manifest-unknown/denied:unauthorized",
            "failed to pull and unpack image \
             \"example.org/manifest-unknown/denied:unauthorized\": failed to resolve reference \
             \"example.org/manifest-unknown/denied:unauthorized\": something new",
            "passing",
        ),
        (
            "example.org/tools/timeout:429",
            "reading manifest 429 in example.org/tools/timeout: manifest unknown: manifest unknown",
            "not found",
        ),
        ("a", "", "passing"),
        (
            "fest:1",
            "reading manifest 1 in fest: manifest unknown",
            "not found",
        ),
    ];

    #[test]
    fn pulls_that_can_never_work_are_told_apart() {
        for (image, message, expected) in MESSAGES {
            let found = match cause(image, message) {
                Cause::ImageNotFound { .. } => "not found",
                Cause::ImageDenied { .. } => "denied",
                Cause::InvalidImage { .. } => "invalid",
                Cause::ImagePull { .. } => "passing",
                other => panic!("{other:?} is no cause of a pull: {message}"),
            };
            assert_eq!(found, *expected, "{image}: {message}");
        }
    }

    #[test]
    fn the_cause_of_a_back_off_is_kept() {
        let with = "Back-off pulling image \"a\": ErrImagePull: a: not found";
        assert_eq!(without_back_off(with), "a: not found");
        assert!(!is_bare_back_off(with));
        assert!(is_bare_back_off("Back-off pulling image \"a\""));
        assert!(!is_bare_back_off("a: not found"));
    }
}
