//! What a run has shown: a table, and what it says of growth and of speed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::process::{Holding, Processor};

/// Rows of the table, at equal numbers of jobs.
pub(crate) const ROWS: usize = 10;

/// A smaller share is no growth but noise: which pages the allocator keeps, and
/// how many streams happen to be open.
const NOISE: f64 = 0.05;

/// With a larger share left over, processors are not what jobs wait for.
const FREE: f64 = 0.1;

/// What was seen on the way to so many jobs.
pub(crate) struct Row {
    /// Jobs that have ended.
    pub(crate) jobs: usize,
    /// Medians over the second half of the way from the row before.
    pub(crate) holding: Holding,
    /// Since the row before.
    pub(crate) jobs_a_minute: f64,
    /// Requests of the executor to the API server, since the row before.
    pub(crate) requests_a_job: f64,
}

/// Where the time of a job has gone, in seconds, on average.
pub(crate) struct Times {
    /// From the dequeue to its pod at the node.
    pub(crate) to_node: f64,
    /// From there to the end of the pod, known to the API server.
    pub(crate) on_node: f64,
    /// From there to the mark.
    pub(crate) to_mark: f64,
}

/// All of a run.
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) window: Duration,
    /// Jobs that have ended in it.
    pub(crate) jobs: usize,
    /// Processor time in it.
    pub(crate) processor: Processor,
    /// Requests of the executor to the API server in it, by what was asked.
    pub(crate) requests: BTreeMap<String, f64>,
    pub(crate) times: Times,
    /// Containers of each pod, and how long one runs.
    pub(crate) containers: usize,
    pub(crate) container_life: Duration,
}

impl Report {
    /// Whether the executor held ever more of anything.
    pub(crate) fn has_grown(&self) -> bool {
        self.growths().iter().any(|growth| growth.has_grown())
    }

    fn growths(&self) -> [Growth; 4] {
        let [first, middle, last] = [0, ROWS / 2 - 1, ROWS - 1].map(|row| self.rows[row].holding);
        let growth = |what, of: fn(&Holding) -> f64| Growth {
            what,
            first: of(&first),
            middle: of(&middle),
            last: of(&last),
        };
        [
            growth("resident memory, MiB", |holding| holding.memory),
            growth("threads", |holding| holding.threads),
            growth("file descriptors", |holding| holding.descriptors),
            growth("connections", |holding| holding.connections),
        ]
    }
}

/// One thing in the first row, in the middle, and in the last row.
struct Growth {
    what: &'static str,
    first: f64,
    middle: f64,
    last: f64,
}

impl Growth {
    /// Pages of a stack or a heap that were used once are kept, and the highest
    /// use of all is not met in the first minute: so that alone is growth what
    /// also goes on in the second half.
    fn has_grown(&self) -> bool {
        is_more(self.first, self.last) && is_more(self.middle, self.last)
    }

    fn verdict(&self) -> &'static str {
        match is_more(self.first, self.last) {
            true if self.has_grown() => "HAS GROWN",
            true => "has levelled off",
            false => "no growth",
        }
    }
}

fn is_more(before: f64, after: f64) -> bool {
    after > before * (1.0 + NOISE)
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holding {
            memory,
            threads,
            descriptors,
            connections,
        } = self.holding;
        write!(
            f,
            "| {} | {memory:.1} MiB | {threads} | {descriptors} | {connections} | {:.0} | {:.2} |",
            self.jobs, self.jobs_a_minute, self.requests_a_job
        )
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |before: f64| (self.last / before - 1.0) * 100.0;
        write!(
            f,
            "{}: {:.1}, then {:.1}, then {:.1} ({:+.1} %; in the second half {:+.1} %): {}",
            self.what,
            self.first,
            self.middle,
            self.last,
            share(self.first),
            share(self.middle),
            self.verdict()
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| jobs | memory | threads | descriptors | connections | jobs a minute | requests a job |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        let [first, middle, last] = [0, ROWS / 2 - 1, ROWS - 1].map(|row| self.rows[row].jobs);
        writeln!(f, "\nAt job {first}, job {middle} and job {last}:")?;
        for growth in self.growths() {
            writeln!(f, "- {growth}")?;
        }
        let Times {
            to_node,
            on_node,
            to_mark,
        } = self.times;
        writeln!(
            f,
            "\nA job took {:.1} s: {to_node:.2} s from the dequeue to its pod at the node, \
             {on_node:.2} s on it ({} containers of {:?}), {to_mark:.2} s from there to the mark.",
            to_node + on_node + to_mark,
            self.containers,
            self.container_life
        )?;
        writeln!(f, "Its requests to the API server:")?;
        for (what, count) in self.requests.iter().filter(|(_, count)| **count > 0.0) {
            writeln!(f, "- {what}: {:.3}", count / self.jobs as f64)?;
        }
        self.tell_processor(f)
    }
}

impl Report {
    /// Who had the processors, a job and in all.
    fn tell_processor(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            processor, jobs, ..
        } = self;
        let seconds = self.window.as_secs_f64();
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let all = seconds * cores as f64;
        writeln!(
            f,
            "Processor time of {jobs} jobs in {seconds:.0} s on {cores} cores:"
        )?;
        let mut tell = |who: &str, time: f64| {
            let (share, each) = (time / all * 100.0, time / *jobs as f64 * 1000.0);
            writeln!(f, "- {who}: {time:.1} s, {share:.1} %, {each:.1} ms a job")
        };
        for (name, time) in &processor.servers {
            tell(name, *time)?;
        }
        let servers = processor.of_servers();
        let known = servers + processor.executor + processor.stand_ins + processor.idle;
        tell("executor", processor.executor)?;
        tell("stand-ins for frontend and kubelet", processor.stand_ins)?;
        tell("others on the machine", all - known)?;
        tell("nobody", processor.idle)?;
        let times = servers / processor.executor;
        let bound = match processor.idle / all < FREE {
            true if times > 1.0 => "the servers of Kubernetes",
            true => "the executor",
            false => "the time on the node and what the servers wait for by themselves",
        };
        write!(
            f,
            "The servers took {times:.1} times what the executor took: the makespan is bound by \
             {bound}."
        )
    }
}
