//! How long an executor takes from its start to its first dequeue.

use std::time::{Duration, Instant};

use crate::LIMIT;
use crate::support::stage::Stage;
use crate::table::{Table, quantile};

const STARTS: usize = 20;
const REACH: Duration = Duration::from_millis(150);

/// Starts one after the other.
pub(crate) fn measure(table: &mut Table) {
    let stage = Stage::new();
    let start = |_| {
        let spawned = Instant::now();
        let executor = stage.executor().spawn();
        let dequeues = stage.frontend.wait_for_requests(1, LIMIT, |request| {
            request.endpoint() == "dequeue" && request.at > spawned
        });
        let time = dequeues[0].at.duration_since(spawned);
        drop(executor);
        time.as_secs_f64() * 1000.0
    };
    let times: Vec<f64> = (0..STARTS).map(start).collect();
    let (median, most) = (quantile(&times, 0.5), quantile(&times, 1.0));
    table.add(
        format!("start of the process to first dequeue, {STARTS} starts"),
        format!("median {median:.0} ms, most {most:.0} ms"),
        format!("< {} ms", REACH.as_millis()),
        median < REACH.as_secs_f64() * 1000.0,
    );
}
