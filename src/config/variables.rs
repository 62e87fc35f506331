//! What a variable is: its names, what it may be, what counts without it. The
//! variables themselves are in `table.rs`.

use std::time::Duration;

use super::parse::go_duration;

/// One setting, as the environment gives it.
#[derive(Debug)]
pub struct Variable {
    /// All names, the one to prefer first; they must not contradict each other.
    pub names: &'static [&'static str],
    /// What values are allowed.
    pub kind: Kind,
    /// What counts when no name is set.
    pub default: Fallback,
    /// What it is for, in one line.
    pub meaning: &'static str,
}

/// What counts when a variable is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing: the executor does not start.
    Required,
    /// Nothing, and that is fine.
    Unset,
    /// This value.
    Value(&'static str),
}

/// What values a variable may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Text that is never printed.
    Secret,
    /// Base URL of the Sourcegraph instance.
    Url,
    /// A path of the file system.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A Go boolean.
    Boolean,
    /// A decimal number in a range.
    Integer {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// A Go duration in a range.
    Duration {
        /// Shortest value.
        min: Duration,
        /// Longest value.
        max: Duration,
    },
    /// A Kubernetes quantity.
    Quantity,
    /// Name of a Kubernetes namespace.
    Namespace,
    /// Name of a Kubernetes object.
    Name,
    /// Names of Kubernetes objects, with commas between them.
    Names,
    /// Reference of a container image.
    Image,
    /// Queues of Sourcegraph, with commas between them.
    Queues(&'static [&'static str]),
    /// `key=value` pairs with commas between them.
    Pairs,
    /// JSON, described by what it is of.
    Json(&'static str),
    /// Docker's configuration file, with registry credentials.
    Registries,
    /// A TCP address to listen on, or `off`.
    Address,
}

impl Kind {
    /// Whether an error may show a value of this kind. Free text is kept back
    /// too: people put `name:password` where a name alone is asked for.
    pub(super) fn is_shown(&self) -> bool {
        !matches!(
            self,
            Kind::Text | Kind::Secret | Kind::Url | Kind::Json(_) | Kind::Registries
        )
    }

    /// Says what is allowed, to follow `must be`.
    pub fn allowed(&self) -> String {
        match self {
            Kind::Text | Kind::Path => "text without control characters".to_owned(),
            Kind::Secret => "one line of text".to_owned(),
            Kind::Url => "in the format scheme://host (and optionally :port)".to_owned(),
            Kind::Choice([word]) => format!("set to '{word}', the only one that is supported"),
            Kind::Choice(words) => format!("set to one of '{}'", words.join(", ")),
            Kind::Boolean => "true or false".to_owned(),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Duration { min, max } => format!(
                "a duration from {} to {}, such as 90s or 1h30m",
                go_duration(*min),
                go_duration(*max)
            ),
            Kind::Quantity => "a Kubernetes quantity, such as 500m or 12Gi".to_owned(),
            Kind::Namespace => {
                "a namespace name: up to 63 of a-z, 0-9 and -, with no - at either end".to_owned()
            }
            Kind::Name => "the name of a Kubernetes object".to_owned(),
            Kind::Names => "names of Kubernetes objects with commas between them".to_owned(),
            Kind::Image => "an image reference without spaces".to_owned(),
            Kind::Queues(names) => {
                format!("some of '{}' with commas between them", names.join(", "))
            }
            Kind::Pairs => "a comma separated list of key=value pairs".to_owned(),
            Kind::Json(what) => format!("JSON: {what}"),
            Kind::Registries => "a Docker configuration file: JSON with `auths`".to_owned(),
            Kind::Address => "host:port, :port or off".to_owned(),
        }
    }
}
