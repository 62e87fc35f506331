//! Whether a process runs, by words of its command line: `pgrep -f TEXT`.
//!
//! The probes of the released manifests call `/usr/bin/pgrep`, which in our image
//! is a link to this program: the one of Linux would bring four megabytes of
//! libraries along, and nothing else in the image needs them.

use std::fs;
use std::io;
use std::path::Path;

/// The processes below `proc` whose command line contains the text, without the
/// one that asks. An error if there is no such directory.
pub fn find(proc: &Path, text: &str, asking: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(proc)? {
        let entry = entry?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|number| *number != asking) else {
            continue;
        };
        // A process may end while it is looked at.
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains(text) {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_found_by_their_words() {
        let dir = tempfile::tempdir().unwrap();
        for (name, words) in [
            ("1", "/usr/local/bin/executor\0run\0"),
            ("7", "/bin/other\0"),
            ("12", "/usr/bin/pgrep\0-f\0/usr/local/bin/executor run\0"),
            ("30", "sh\0-c\0/usr/local/bin/executor run\0"),
            ("sys", "/usr/local/bin/executor run\0"),
        ] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("cmdline"), words).unwrap();
        }
        fs::create_dir(dir.path().join("5")).unwrap();
        let found = find(dir.path(), "/usr/local/bin/executor run", 12).unwrap();
        assert_eq!(found, [1, 30]);
        assert!(find(dir.path(), "nobody", 12).unwrap().is_empty());
    }
}
