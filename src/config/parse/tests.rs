//! What each kind of value may look like.

use super::*;
use crate::corpus;

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
fn pairs_have_one_equals_sign() {
    let pairs = pairs("a=b, c.d/e=").unwrap();
    assert_eq!(pairs["a"], "b");
    assert_eq!(pairs["c.d/e"], "");
    for text in ["a", "a=b=c", "a=b,", "=b", "a=b,a=c"] {
        assert!(super::pairs(text).is_err(), "{text}");
    }
}

#[test]
fn queues_count_once_each() {
    let known = ["batches", "codeintel"];
    let names = queues("codeintel, batches,codeintel", &known).unwrap();
    assert_eq!(names, ["codeintel", "batches"]);
    for text in ["batch", "batches,", ","] {
        assert!(queues(text, &known).is_err(), "{text}");
    }
}

#[test]
fn addresses_are_those_of_go() {
    for text in [
        "off",
        ":6060",
        ":0",
        "127.0.0.1:6060",
        "localhost:6060",
        "[::1]:80",
        "[::]:6060",
    ] {
        assert_eq!(address(text).as_deref(), Ok(text));
    }
    for text in [
        "",
        "6060",
        ":",
        ":http",
        ":+80",
        ":65536",
        "::1:80",
        "[::1]",
        "[x]:80",
        "http://localhost:80",
        "local host:80",
        "OFF",
    ] {
        assert!(address(text).is_err(), "{text}");
    }
}

#[test]
fn lists_drop_empty_parts() {
    assert_eq!(names(" a, b.c,,").unwrap(), ["a", "b.c"]);
    for text in ["A", "a b", "a..b", "-a", "a_b"] {
        assert!(names(text).is_err(), "{text}");
    }
}

#[test]
fn whatever_is_set_as_duration_has_one_reading() {
    corpus::feed("duration", |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(time) = duration(text) {
            assert_eq!(duration(&go_duration(time)), Ok(time), "{text:?}");
            assert_eq!(
                duration(&format!("+{text}")).is_ok(),
                !text.starts_with('+')
            );
        }
    });
}

#[test]
fn whatever_is_set_as_quantity_has_one_reading() {
    corpus::feed("quantity", |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(billionths) = quantity(text) {
            assert!(billionths <= QUANTITY_MAX, "{text:?}");
            let (whole, rest) = (billionths / BILLION, billionths % BILLION);
            let plain = format!("{whole}.{rest:09}");
            assert_eq!(quantity(&plain), Ok(billionths), "{text:?} as {plain}");
        }
    });
}

#[test]
fn whatever_is_set_is_taken_or_refused() {
    corpus::feed("settings", |bytes| {
        let text = &*String::from_utf8_lossy(bytes);
        let _ = (
            boolean(text),
            integer(text),
            base_url(text),
            namespace(text),
        );
        let _ = (
            name(text),
            names(text),
            pairs(text),
            image(text),
            address(text),
        );
        for problem in [
            registries(text).err(),
            super::text(text).err().map(str::to_owned),
            secret(text).err().map(str::to_owned),
        ] {
            let problem = problem.unwrap_or_default();
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    });
}
