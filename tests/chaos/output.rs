//! What steps write: the shell lines for it, and the bytes that must arrive.

use fastrand::Rng;

/// A part of what a step does.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// Numbered lines at full speed.
    Lines(u32),
    /// Numbered lines, a tenth of a second apart.
    Slow(u32),
    /// Numbers from the first to the last, one a line, at full speed.
    Burst(u32, u32),
    /// One line of all numbers up to this one.
    Long(u32),
    /// Bytes that are hardly text.
    Binary(Vec<u8>),
    /// A line that begins like a record of the log API.
    LikeATime,
    /// Numbered lines to both streams in turns.
    Both(u32),
    /// The value of `HUSH`, twice in a line.
    Secret,
    /// The file of this name in the workspace.
    File(String, String),
    /// What the server reads results from.
    Event,
    /// Nothing, for so many tenths of a second.
    Pause(u32),
    /// A last line without its end.
    Tail,
}

/// What the two streams of a step carry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    /// Standard output.
    pub(crate) out: Vec<u8>,
    /// Standard error.
    pub(crate) err: Vec<u8>,
}

impl Piece {
    /// One that may stand anywhere in a step of one stream.
    pub(crate) fn any(rng: &mut Rng) -> Piece {
        match rng.u32(..20) {
            0..5 => Piece::Lines(rng.u32(1..60)),
            5 => Piece::Lines(rng.u32(1000..4000)),
            6..9 => Piece::Slow(rng.u32(2..20)),
            9 | 10 => {
                let first = rng.u32(..1000);
                Piece::Burst(first, first + rng.u32(2_000..20_000))
            }
            11 | 12 => Piece::Long(rng.u32(3_000..21_000)),
            13 | 14 => {
                let mut bytes: Vec<u8> = (0..rng.usize(1..300)).map(|_| rng.u8(..)).collect();
                // Container runtimes take CR LF for one end of a line.
                bytes.retain(|byte| *byte != b'\r');
                Piece::Binary(bytes)
            }
            15 => Piece::LikeATime,
            _ => Piece::Pause(rng.u32(1..20)),
        }
    }

    /// The shell line that does it; `tag` is in every line of words.
    pub(crate) fn command(&self, tag: &str) -> String {
        let count = |count: &u32, body: &str| {
            format!("i=0; while [ $i -lt {count} ]; do {body}; i=$((i+1)); done")
        };
        match self {
            Piece::Lines(lines) => count(lines, &format!("echo \"{tag} line $i\"")),
            Piece::Slow(lines) => count(lines, &format!("echo \"{tag} slow $i\"; sleep 0.1")),
            Piece::Burst(first, last) => format!("seq {first} {last}"),
            Piece::Long(last) => format!("echo \"{tag} $(seq -s , 1 {last})\""),
            Piece::Binary(bytes) => {
                let bytes: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
                format!("printf '{bytes}\\n'")
            }
            Piece::LikeATime => format!("echo '2026-11-23T17:08:10.5Z {tag} is no time'"),
            Piece::Both(lines) => count(
                lines,
                &format!("echo \"{tag} line $i\"; echo \"err {tag} line $i\" >&2"),
            ),
            Piece::Secret => format!("echo \"{tag} $HUSH and $HUSH.\""),
            Piece::File(path, _) => format!("cat {path}"),
            Piece::Event => format!("echo '{}'", event(tag)),
            Piece::Pause(tenths) => format!("sleep {}.{}", tenths / 10, tenths % 10),
            Piece::Tail => format!("printf '{tag} is not ended'"),
        }
    }

    /// Adds what must arrive of it, with `hidden` in the place of the secret.
    pub(crate) fn write(&self, tag: &str, hidden: &str, written: &mut Written) {
        let out = &mut written.out;
        let mut line = |text: String| out.extend_from_slice(format!("{text}\n").as_bytes());
        match self {
            Piece::Lines(lines) => (0..*lines).for_each(|i| line(format!("{tag} line {i}"))),
            Piece::Slow(lines) => (0..*lines).for_each(|i| line(format!("{tag} slow {i}"))),
            Piece::Burst(first, last) => (*first..=*last).for_each(|i| line(i.to_string())),
            Piece::Long(last) => {
                let numbers: Vec<String> = (1..=*last).map(|i| i.to_string()).collect();
                line(format!("{tag} {}", numbers.join(",")));
            }
            Piece::Binary(bytes) => {
                out.extend_from_slice(bytes);
                out.push(b'\n');
            }
            Piece::LikeATime => line(format!("2026-11-23T17:08:10.5Z {tag} is no time")),
            Piece::Both(lines) => {
                for i in 0..*lines {
                    line(format!("{tag} line {i}"));
                    let error = format!("err {tag} line {i}\n");
                    written.err.extend_from_slice(error.as_bytes());
                }
            }
            Piece::Secret => line(format!("{tag} {hidden} and {hidden}.")),
            Piece::File(_, content) => out.extend_from_slice(content.as_bytes()),
            Piece::Event => line(event(tag)),
            Piece::Pause(_) => {}
            Piece::Tail => out.extend_from_slice(format!("{tag} is not ended").as_bytes()),
        }
    }
}

fn event(tag: &str) -> String {
    format!("{{\"operation\":\"CACHE_AFTER_STEP_RESULT\",\"metadata\":{{\"key\":\"{tag}\"}}}}")
}

impl Written {
    /// Standard output as its log entry shows it.
    pub(crate) fn out_text(&self) -> String {
        as_entry(&self.out)
    }

    /// Standard error as its log entry shows it.
    pub(crate) fn err_text(&self) -> String {
        as_entry(&self.err)
    }
}

/// Every line is marked and has an end; what is no text is U+FFFD.
fn as_entry(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}");
    text.split_inclusive('\n')
        .map(|line| format!("stdout: {}\n", line.trim_end_matches('\n')))
        .collect()
}
