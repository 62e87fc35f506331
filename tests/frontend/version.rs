//! Which encoding of a job an executor's version asks for.
//!
//! Pure: a version in, an encoding out.

/// How a job is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Before version 4.1: files are plain strings.
    V0,
    /// Files are objects, their content is plain text.
    V1,
    /// Content is base64, registry credentials are there.
    V2,
}

/// First release that understands the second encoding.
const V2_SINCE: (u64, u64, u64) = (4, 3, 0);

/// Build date since which nightly builds understand it.
const V2_SINCE_DATE: &str = "2022-11-24";

/// The encoding for a version as it stands in a dequeue request.
pub(crate) fn encoding(version: &str) -> Result<Encoding, String> {
    match version {
        "" => return Ok(Encoding::V1),
        "dev" | "0.0.0+dev" => return Ok(Encoding::V2),
        _ => {}
    }
    let modern = match (build_date(version), release(version)) {
        (Some(date), _) => date >= V2_SINCE_DATE,
        (None, Some(release)) => release >= V2_SINCE,
        (None, None) => {
            return Err(format!(
                "failed to check version \"{version}\": Invalid Semantic Version"
            ));
        }
    };
    Ok(if modern { Encoding::V2 } else { Encoding::V1 })
}

/// The date inside a build tag such as `193204_2023-01-31_5.0-8a3cf1f2f1`.
fn build_date(version: &str) -> Option<&str> {
    let mut parts = version.splitn(3, '_');
    let (number, date, hash) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let shaped = date.len() == 10 && date.is_ascii() && date.split('-').all(digits);
    (digits(number) && shaped && !hash.is_empty()).then_some(date)
}

/// Major, minor and patch; a pre-release counts as the release it leads to.
fn release(version: &str) -> Option<(u64, u64, u64)> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let core = version.split(['-', '+']).next()?;
    let mut numbers = [0; 3];
    let parts: Vec<&str> = core.split('.').collect();
    if parts.len() > numbers.len() {
        return None;
    }
    for (number, part) in numbers.iter_mut().zip(parts) {
        *number = part.parse().ok()?;
    }
    let [major, minor, patch] = numbers;
    Some((major, minor, patch))
}
