//! Reads single values: pure functions from text to value or complaint.
//!
//! A complaint is what follows the quoted value in an error line, such as `is
//! not a number`. It never repeats the value itself, which may be a secret.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use http::Uri;
use serde_json::{Map, Value};

use crate::cluster::names::is_dns_label;

/// The units of Go durations, in nanoseconds; `µ` exists twice in Unicode.
const DURATION_UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration as Go's `time.ParseDuration` does, but none below zero.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    const BAD: &str = "is not a duration";
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.starts_with('-') {
        return Err("is a duration below zero");
    }
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(BAD);
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (number, after) = decimal(rest).ok_or(BAD)?;
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, unit) = DURATION_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or("has a number without one of the units ns, us, ms, s, m and h")?;
        nanos = number
            .times(*unit)
            .and_then(|part| nanos.checked_add(part))
            .ok_or("is too long")?;
        rest = after;
    }
    // Go counts in signed 64 bits, and so do those who set such variables.
    match i64::try_from(nanos) {
        Ok(nanos) => Ok(Duration::from_nanos(nanos.unsigned_abs())),
        Err(_) => Err("is too long"),
    }
}

/// Writes a duration the short way: in its largest unit that leaves no rest.
pub(super) fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (unit, size) = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, size)| nanos.is_multiple_of(*size) && nanos >= *size)
        .unwrap_or(&("s", 1_000_000_000));
    format!("{}{unit}", nanos / size)
}

/// A decimal number as it was written: digits, and how many follow the point.
struct Decimal {
    digits: u128,
    scale: u32,
}

impl Decimal {
    /// The number times a factor, cut to a whole number; none if too large.
    fn times(&self, factor: u128) -> Option<u128> {
        let divisor = 10_u128.checked_pow(self.scale)?;
        Some(self.digits.checked_mul(factor)? / divisor)
    }
}

/// Splits a decimal number from the start: `12`, `1.5`, `.5` or `5.`.
fn decimal(text: &str) -> Option<(Decimal, &str)> {
    let digits_end = |text: &str| {
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len())
    };
    let (whole, rest) = text.split_at(digits_end(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits_end(rest)),
        None => ("", rest),
    };
    let digits = format!("{whole}{fraction}").parse().ok()?;
    let scale = u32::try_from(fraction.len()).ok()?;
    Some((Decimal { digits, scale }, rest))
}

/// Reads a boolean as Go's `strconv.ParseBool` does.
pub(super) fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("is neither"),
    }
}

/// Reads a decimal number.
pub(super) fn integer(text: &str) -> Result<i64, &'static str> {
    text.parse().map_err(|_| "is not a whole number")
}

/// Value of a Kubernetes quantity, in billionths, as Kubernetes itself counts.
pub(crate) fn quantity(text: &str) -> Result<u128, &'static str> {
    const BAD: &str = "is not a quantity";
    const RANGE: &str = "is out of range";
    if text.starts_with('-') {
        return Err("is a quantity below zero");
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let (mut number, suffix) = decimal(unsigned).ok_or(BAD)?;
    let factor = match suffix.strip_prefix(['e', 'E']) {
        Some(exponent) if !exponent.is_empty() && exponent != "i" => {
            let exponent: i32 = exponent.parse().map_err(|_| BAD)?;
            if exponent < 0 {
                number.scale = number.scale.saturating_add(exponent.unsigned_abs());
            }
            let power = exponent.max(0).unsigned_abs();
            10_u128
                .checked_pow(power)
                .and_then(|factor| factor.checked_mul(BILLION))
                .ok_or(RANGE)?
        }
        _ => suffix_factor(suffix).ok_or(BAD)?,
    };
    match number.times(factor) {
        Some(billionths) if billionths <= QUANTITY_MAX => Ok(billionths),
        _ => Err(RANGE),
    }
}

const BILLION: u128 = 1_000_000_000;

/// Kubernetes cuts quantities to signed 64 bits.
const QUANTITY_MAX: u128 = (i64::MAX as u128) * BILLION;

/// What the suffix of a quantity multiplies by, in billionths.
fn suffix_factor(suffix: &str) -> Option<u128> {
    Some(match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => BILLION,
        "k" => BILLION * 1_000,
        "M" => BILLION * 1_000_000,
        "G" => BILLION * 1_000_000_000,
        "T" => BILLION * 1_000_000_000_000,
        "P" => BILLION * 1_000_000_000_000_000,
        "E" => BILLION * 1_000_000_000_000_000_000,
        "Ki" => BILLION << 10,
        "Mi" => BILLION << 20,
        "Gi" => BILLION << 30,
        "Ti" => BILLION << 40,
        "Pi" => BILLION << 50,
        "Ei" => BILLION << 60,
        _ => return None,
    })
}

/// Reads the base URL of a server; slashes at its end are dropped.
pub(super) fn base_url(text: &str) -> Result<String, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "is not a URL")?;
    let scheme = uri.scheme_str().ok_or("has no scheme")?;
    if !matches!(scheme, "http" | "https") {
        return Err("has a scheme that is neither http nor https");
    }
    let authority = uri.authority().ok_or("has no host")?;
    if authority.as_str().contains('@') {
        return Err(
            "carries a user name or a password; EXECUTOR_FRONTEND_USERNAME and \
             EXECUTOR_FRONTEND_PASSWORD are for those",
        );
    }
    if authority.host().is_empty() {
        return Err("has no host");
    }
    let port = authority.as_str().strip_prefix(authority.host());
    if port.is_some_and(|port| !port.is_empty()) && authority.port_u16().is_none() {
        return Err("has a port that is not a number up to 65535");
    }
    if text.contains(['?', '#']) {
        return Err("has a query or a fragment, which a base address cannot have");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Checks the name of a namespace, which is one DNS label.
pub(super) fn namespace(text: &str) -> Result<String, &'static str> {
    match is_dns_label(text) {
        true => Ok(text.to_owned()),
        false => Err("is none"),
    }
}

/// Checks the name of an object, which is a DNS name.
pub(super) fn name(text: &str) -> Result<String, &'static str> {
    match is_object_name(text) {
        true => Ok(text.to_owned()),
        false => Err("is none: it has other characters than a-z, 0-9, - and ."),
    }
}

fn is_object_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// Reads names with commas between them; spaces around them do not count.
pub(super) fn names(text: &str) -> Result<Vec<String>, &'static str> {
    let names: Vec<_> = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    if !names.iter().all(|name| is_object_name(name)) {
        return Err("has a part that cannot be the name of a Kubernetes object");
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// Reads queues with commas between them; each counts once.
pub(super) fn queues(text: &str, known: &[&str]) -> Result<Vec<String>, String> {
    let mut queues: Vec<String> = Vec::new();
    for name in text.split(',').map(str::trim) {
        if !known.contains(&name) {
            return Err(format!("has the part {name:?}, which is no queue"));
        }
        if !queues.iter().any(|queue| queue == name) {
            queues.push(name.to_owned());
        }
    }
    Ok(queues)
}

/// Reads `key=value` pairs; each must split into exactly two parts.
pub(super) fn pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    for pair in text.split(',') {
        let bad = |problem: &str| Err(format!("has the part {pair:?}, which {problem}"));
        let parts: Vec<&str> = pair.split('=').map(str::trim).collect();
        let [key, value] = parts[..] else {
            return bad("is no pair");
        };
        if key.is_empty() {
            return bad("has no key");
        }
        if pairs.insert(key.to_owned(), value.to_owned()).is_some() {
            return bad("has the key of another one");
        }
    }
    Ok(pairs)
}

/// Reads a Docker configuration file: registries and their credentials.
pub(super) fn registries(text: &str) -> Result<Map<String, Value>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        format!(
            "is not JSON: line {}, column {}",
            error.line(),
            error.column()
        )
    })?;
    let auths = value.get("auths").and_then(Value::as_object);
    let auths = auths.ok_or("has no object at `auths`")?;
    match auths.iter().find(|(_, auth)| !auth.is_object()) {
        Some((registry, _)) => Err(format!("is wrong at `auths[{registry:?}]`: not an object")),
        None => Ok(auths.clone()),
    }
}

/// Checks an image reference; only the container runtime knows all its rules.
pub(super) fn image(text: &str) -> Result<String, &'static str> {
    if text.contains(char::is_whitespace) {
        return Err("contains a space");
    }
    Ok(text.to_owned())
}

/// The address that is none.
pub(super) const OFF: &str = "off";

/// Checks an address to listen on, in the form of Go's `net.Listen`.
pub(super) fn address(text: &str) -> Result<String, &'static str> {
    if text == OFF {
        return Ok(text.to_owned());
    }
    let (host, port) = text.rsplit_once(':').ok_or("has no port")?;
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || port.parse::<u16>().is_err() {
        return Err("has a port that is not a number up to 65535");
    }
    let bracketed = host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    match bracketed {
        Some(ip) if ip.parse::<Ipv6Addr>().is_err() => Err("has no IPv6 address in its brackets"),
        None if host.contains(':') => Err("has an IPv6 address without brackets"),
        None if !host.bytes().all(in_name) => Err("has a host that cannot be one"),
        _ => Ok(text.to_owned()),
    }
}

/// Checks plain text.
pub(super) fn text(text: &str) -> Result<String, &'static str> {
    if text.contains(char::is_control) {
        return Err("contains a control character");
    }
    Ok(text.to_owned())
}

/// Checks a secret: what a header can carry.
pub(super) fn secret(text: &str) -> Result<String, &'static str> {
    // Most often it is the line break that `echo` puts at the end of a file.
    if text.contains(['\n', '\r']) {
        return Err("contains a line break, perhaps at its end");
    }
    self::text(text)
}

#[cfg(test)]
mod tests;
