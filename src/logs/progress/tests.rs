//! Streams that end, break and fall silent, by a clock of the test's own.

use super::*;

/// A clock, and the log that goes by it.
struct Scene {
    began: Instant,
    progress: Progress,
    known: Known,
    has_output: bool,
    seconds: f64,
}

impl Scene {
    /// A container that runs and whose log is open.
    fn new() -> Scene {
        let began = Instant::now();
        let mut scene = Scene {
            began,
            progress: Progress::new(began),
            known: Known::default(),
            has_output: false,
            seconds: 0.0,
        };
        assert_eq!(scene.next(), Next::Open);
        scene.open();
        scene
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_secs_f64(self.seconds)
    }

    /// The time by our clock, of which the node's is 100 s ahead.
    fn ours(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs_f64(self.seconds)
    }

    fn at(&mut self, seconds: f64) -> &mut Scene {
        self.seconds = seconds;
        self
    }

    fn open(&mut self) -> &mut Scene {
        self.progress.opened(self.now(), !self.has_output);
        self
    }

    /// New output that was written 0.1 s ago.
    fn bring(&mut self, bytes: usize) -> &mut Scene {
        self.has_output = true;
        self.progress.brought(self.now(), bytes, true);
        let written = self.ours() + SignedDuration::from_secs_f64(99.9);
        self.progress.compare_clocks(written, self.ours());
        self
    }

    fn repeat(&mut self, bytes: usize) -> &mut Scene {
        self.progress.brought(self.now(), bytes, false);
        self
    }

    fn end(&mut self) -> &mut Scene {
        self.progress.ended(self.now(), self.ours(), false);
        self
    }

    fn break_off(&mut self) -> &mut Scene {
        self.progress.broke(self.now(), Duration::ZERO, false);
        self
    }

    /// The container is seen to have ended in this second of our clock.
    fn see_end(&mut self, second: i64) -> &mut Scene {
        self.known.is_over = true;
        self.known.finished = Timestamp::from_second(100 + second).ok();
        self
    }

    fn next(&mut self) -> Next {
        let now = self.now();
        self.progress.next(now, &self.known)
    }

    /// Until when to wait, in seconds.
    fn wait(&mut self) -> f64 {
        match self.next() {
            Next::Wait(Some(until)) => (until - self.began).as_secs_f64(),
            other => panic!("at {} s: {other:?}", self.seconds),
        }
    }
}

#[test]
fn a_healthy_log_takes_one_request() {
    // The end is seen, then the stream ends.
    let mut scene = Scene::new();
    scene.at(3.0).bring(100_000).at(4.2).see_end(3);
    assert_eq!(scene.wait(), 19.2);
    assert_eq!(scene.at(4.5).end().next(), Next::Complete);
    // The other way round, and the node's clock tells that it had ended.
    let mut scene = Scene::new();
    scene.at(3.0).bring(100_000).at(4.3).end();
    assert_eq!(scene.wait(), 6.8);
    assert_eq!(scene.at(4.9).see_end(3).next(), Next::Complete);
}

#[test]
fn a_stream_that_ends_before_its_container_is_looked_at_again() {
    let mut scene = Scene::new();
    scene.at(3.0).bring(100).at(4.3).end();
    scene.next();
    // It may have written more in what was left of second 4.
    assert_eq!(scene.at(5.2).see_end(4).next(), Next::Open);
    assert!(scene.open().progress.is_double_check());
    scene.at(5.3).repeat(100).end();
    assert_eq!(scene.next(), Next::Complete);
}

#[test]
fn an_end_in_the_middle_of_much_output_proves_nothing() {
    let mut scene = Scene::new();
    scene.at(3.0).bring(100).see_end(3).next();
    scene.at(4.0).bring(1_000_000).at(4.1).end();
    assert_eq!(scene.next(), Next::Open);
    scene.open().at(4.2).bring(1_000_000).at(4.3).end();
    assert_eq!(scene.next(), Next::Open, "more came");
    scene.open().at(4.4).repeat(1_000_000).at(4.5).end();
    assert_eq!(scene.next(), Next::Complete, "nothing came");
}

/// The kubelet may have missed that it put the file away which it reads.
#[test]
fn the_end_of_a_large_file_proves_nothing() {
    let mut scene = Scene::new();
    scene.at(3.0).bring(11_000_000).at(8.2).see_end(7).next();
    assert_eq!(scene.at(8.5).end().next(), Next::Open);
    // Neither does that of a file of which only the end was read.
    let mut scene = Scene::new();
    scene.at(3.0).bring(100).break_off().next();
    scene.open().at(4.0).bring(100).at(8.2).see_end(7).next();
    assert_eq!(scene.at(8.5).end().next(), Next::Open);
}

#[test]
fn the_file_after_one_read_to_its_end_is_the_next() {
    let seconds = SignedDuration::from_secs;
    let mut scene = Scene::new();
    scene.at(3.0).bring(11_000_000).at(8.2).see_end(7).next();
    assert!(!scene.progress.is_next_file(seconds(1)), "it is the same");
    scene.at(8.5).end().next();
    scene.open();
    assert!(scene.progress.is_next_file(seconds(7)));
    assert!(
        !scene.progress.is_next_file(seconds(10)),
        "one can be between"
    );
    scene.bring(100);
    assert!(!scene.progress.is_next_file(seconds(1)), "it goes on in it");
    // One that was cut was not read to its end.
    let mut scene = Scene::new();
    scene
        .at(3.0)
        .bring(11_000_000)
        .see_end(7)
        .break_off()
        .next();
    scene.open();
    assert!(!scene.progress.is_next_file(seconds(1)));
}

#[test]
fn an_end_inside_of_a_record_is_looked_at_again() {
    let mut scene = Scene::new();
    scene.at(3.0).bring(100).see_end(3).next();
    let (now, ours) = (scene.at(5.0).now(), scene.ours());
    scene.progress.ended(now, ours, true);
    assert_eq!(scene.next(), Next::Open);
    assert!(!scene.progress.is_double_check());
    scene.open().at(5.1).repeat(100);
    let (now, ours) = (scene.now(), scene.ours());
    scene.progress.ended(now, ours, true);
    assert_eq!(scene.next(), Next::Complete, "it had no last newline");
}

#[test]
fn a_stream_that_ended_alone_is_opened_ever_more_rarely() {
    let mut scene = Scene::new();
    scene.bring(100).end();
    assert!(scene.progress.has_ended_alone());
    let mut waits = Vec::new();
    for _ in 0..6 {
        let wait = scene.wait();
        waits.push(wait - scene.seconds);
        assert_eq!(scene.at(wait).next(), Next::Open);
        scene.open().repeat(100).end();
    }
    assert_eq!(waits, [2.5, 5.0, 10.0, 20.0, 40.0, 40.0]);
    scene.open().bring(100).end();
    assert_eq!(scene.wait() - scene.seconds, 2.5);
}

#[test]
fn a_first_break_is_mended_at_once() {
    let mut scene = Scene::new();
    assert_eq!(scene.bring(100).break_off().next(), Next::Open);
    scene.open().break_off();
    let first = scene.wait();
    assert!(first <= 0.5, "{first}");
    for _ in 0..20 {
        scene.break_off();
    }
    let last = scene.wait();
    assert!((5.0..=10.0).contains(&last), "{last}");
    let (now, stay_away) = (scene.now(), Duration::from_secs(25));
    scene.progress.broke(now, stay_away, false);
    assert_eq!(scene.wait(), 25.0);
}

#[test]
fn silence_is_doubted_ever_more_rarely() {
    let mut scene = Scene::new();
    let mut probes = Vec::new();
    while scene.seconds < 3600.0 {
        let wait = scene.wait();
        assert_eq!(scene.at(wait).next(), Next::Probe);
        scene.progress.probed(scene.now());
        probes.push(wait);
    }
    assert_eq!(probes[..5], [30.0, 90.0, 210.0, 450.0, 930.0]);
    assert!(probes.len() <= 11, "{probes:?}");
    let start = scene.seconds;
    assert_eq!(scene.bring(1).wait() - start, 30.0);
}

#[test]
fn a_doubt_can_wait_for_others() {
    let mut scene = Scene::new();
    scene.at(30.0);
    let until = scene.now() + Duration::from_secs(12);
    scene.progress.put_off_probe(until);
    assert_eq!(scene.wait(), 42.0);
    assert_eq!(scene.at(42.0).next(), Next::Probe);
}

#[test]
fn a_stream_that_outlives_its_container_is_opened_again() {
    let mut scene = Scene::new();
    scene.bring(100).see_end(0);
    for until in [15.0, 30.0] {
        assert_eq!(scene.wait(), until);
        assert_eq!(scene.at(until).next(), Next::Open);
        scene.open();
    }
    while scene.seconds < 180.0 {
        let wait = scene.wait();
        scene.at(wait).next();
        scene.open();
    }
    let wait = scene.wait();
    assert!(matches!(scene.at(wait).next(), Next::Lost(_)));
}

#[test]
fn a_log_that_is_not_there_is_given_up_soon() {
    let mut scene = Scene::new();
    for _ in 0..20 {
        let now = scene.now();
        scene.progress.broke(now, Duration::ZERO, true);
    }
    scene.see_end(0).next();
    let mut tries = 0;
    loop {
        match scene.next() {
            Next::Wait(Some(_)) => {
                let wait = scene.wait();
                scene.at(wait);
            }
            Next::Open => {
                let now = scene.open().now();
                scene.progress.broke(now, Duration::ZERO, true);
                tries += 1;
            }
            other => {
                assert!(matches!(other, Next::Lost(_)), "{other:?}");
                break;
            }
        }
        assert!(tries < 10);
    }
    assert!(tries >= 3, "the end gives it new chances");
}

#[test]
fn an_outage_after_the_end_is_outlived() {
    let mut scene = Scene::new();
    scene.bring(100).see_end(0).next();
    while scene.seconds < 120.0 {
        scene.break_off();
        if let Next::Wait(Some(_)) = scene.next() {
            let wait = scene.wait();
            scene.at(wait);
        }
        assert_eq!(scene.next(), Next::Open, "at {}", scene.seconds);
        scene.open();
    }
}

#[test]
fn a_deleted_pod_has_no_more_log() {
    let mut scene = Scene::new();
    scene.bring(100).break_off();
    scene.known.is_gone = true;
    assert!(matches!(scene.next(), Next::Lost(_)));
    let mut scene = Scene::new();
    scene.bring(100).see_end(0).next();
    scene.at(5.0).end();
    scene.known.is_gone = true;
    assert_eq!(
        scene.next(),
        Next::Complete,
        "it was read to its end before"
    );
}
