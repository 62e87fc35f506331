//! Reads single values: pure functions from text to value or complaint.
//!
//! A complaint is what follows the quoted value in an error line, such as `is
//! not a number`. It never repeats the value itself, which may be a secret.

use std::time::Duration;

use http::Uri;

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
    if text.len() <= 63 && is_dns_label(text) {
        return Ok(text.to_owned());
    }
    Err("is none")
}

/// Reads names with commas between them; spaces around them do not count.
pub(super) fn names(text: &str) -> Result<Vec<String>, &'static str> {
    let names: Vec<_> = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    let good = |name: &&str| name.len() <= 253 && name.split('.').all(is_dns_label);
    if !names.iter().all(good) {
        return Err("has a part that cannot be the name of a Kubernetes object");
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

fn is_dns_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

/// Checks an image reference; only the container runtime knows all its rules.
pub(super) fn image(text: &str) -> Result<String, &'static str> {
    if text.contains(char::is_whitespace) {
        return Err("contains a space");
    }
    Ok(text.to_owned())
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
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("300ms", 300_000_000),
            ("1s", 1_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("+.5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1m1m", 120_000_000_000),
            ("3us2µs1μs4ns", 6_004),
            ("0.9ns", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
        for text in [
            "",
            "+",
            "1",
            "s",
            ".s",
            "1d",
            "1 s",
            " 1s",
            "1s ",
            "-1s",
            "--1s",
            "1h30",
            "1e3s",
            "9999999h",
            "99999999999999999999999999999999999999999999s",
            "1H",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_written_in_one_unit() {
        for (seconds, text) in [
            (0.0, "0s"),
            (0.001, "1ms"),
            (90.0, "90s"),
            (2_592_000.0, "720h"),
        ] {
            assert_eq!(go_duration(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn quantities_follow_the_kubernetes_grammar() {
        for (text, billionths) in [
            ("0", 0),
            ("1", BILLION),
            ("+1.5", BILLION * 3 / 2),
            (".5", BILLION / 2),
            ("5.", BILLION * 5),
            ("100m", BILLION / 10),
            ("0.1", BILLION / 10),
            ("7n", 7),
            ("7u", 7_000),
            ("12Gi", BILLION * 12 * 1024 * 1024 * 1024),
            ("12G", BILLION * 12_000_000_000),
            ("1E", BILLION * 1_000_000_000_000_000_000),
            ("1Ei", BILLION << 60),
            ("1e3", BILLION * 1_000),
            ("1E3", BILLION * 1_000),
            ("1e+3", BILLION * 1_000),
            ("15e-1", BILLION * 3 / 2),
        ] {
            assert_eq!(quantity(text), Ok(billionths), "{text}");
        }
        for text in [
            "",
            "Gi",
            ".",
            "1 Gi",
            "1gi",
            "1K",
            "1g",
            "12GB",
            "-1",
            "1e",
            "1ei",
            "1e1.5",
            "1.2.3",
            "1e20",
            "100Ei",
            "1e99999999999",
            "1e-99999",
            "lots",
            "1Gi ",
        ] {
            assert!(quantity(text).is_err(), "{text}");
        }
    }

    #[test]
    fn base_urls_keep_their_path() {
        for (text, url) in [
            ("https://sg.example.org", "https://sg.example.org"),
            ("https://sg.example.org/", "https://sg.example.org"),
            (
                "http://sg.example.org:3080/a/b//",
                "http://sg.example.org:3080/a/b",
            ),
            ("http://[::1]:3080", "http://[::1]:3080"),
        ] {
            assert_eq!(base_url(text).as_deref(), Ok(url));
        }
        for text in [
            "",
            "sg.example.org",
            "/path",
            "https://",
            "https:///x",
            "ftp://sg.example.org",
            "https://u:p@sg.example.org",
            "https://sg.example.org?x",
            "https://sg.example.org/#x",
            "https://sg example.org",
            "https://sg.example.org:99999",
            "https://:80",
            "https://sg.example.org:x",
        ] {
            assert!(base_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_drop_empty_parts() {
        assert_eq!(names(" a, b.c,,").unwrap(), ["a", "b.c"]);
        for text in ["A", "a b", "a..b", "-a", "a_b"] {
            assert!(names(text).is_err(), "{text}");
        }
    }
}
