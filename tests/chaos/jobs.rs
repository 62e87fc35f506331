//! The plan of each job, drawn from the seed of the run and its number alone:
//! what it is made of, what it writes, and how it must end.

use fastrand::Rng;
use serde_json::{Value, json};

use super::output::{Piece, Written};
use crate::frontend::record::JobRef;
use crate::frontend::spec::{JobSpec, StepSpec};
use crate::support::stage::{REPOSITORY, STEP_IMAGE, Stage, TINY_IMAGE};

/// What a job clones, and what is in there.
const CLONE: &str = "repository";
const CLONED_FILE: (&str, &str) = ("repository/src/cart.txt", "apples\npears\n");
/// Modification time of stored files.
const MODIFIED: &str = "2024-04-30T16:01:02Z";
/// How long a step lives on after its last word. Container runtimes (seen with
/// containerd 1.6) drop what is still in the pipe when a container ends: of a
/// burst of 100 KB just before the end, up to 64 KiB, in every second container.
const DRAIN_SECONDS: &str = "0.5";

/// A job before it is run.
#[derive(Clone, Debug)]
pub(crate) struct JobPlan {
    /// Its number in the run.
    pub(crate) number: usize,
    /// The queue that it goes through.
    pub(crate) queue: &'static str,
    /// How it must end when nobody touches its pod.
    pub(crate) end: End,
    /// Its steps, also those after one that fails.
    pub(crate) steps: Vec<StepPlan>,
    /// What must never be seen, if anything.
    pub(crate) secret: Option<String>,
    /// Whether its workspace needs the server while its pod runs.
    pub(crate) fetches: bool,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    /// Steps, with or without a clone and files.
    Steps {
        clones: bool,
        inline: bool,
        stored: bool,
    },
    /// `src` command lines.
    Cli,
    /// What no executor understands.
    Malformed(Value),
}

/// How a job must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Complete.
    Complete,
    /// The step of this number ends with this exit code.
    ExitCode(usize, i32),
    /// Failed, with these words in the message.
    Refused(&'static str),
}

/// A step before it is run.
#[derive(Clone, Debug)]
pub(crate) struct StepPlan {
    /// Its key in the payload.
    pub(crate) key: String,
    image: &'static str,
    pieces: Vec<Piece>,
    exit_code: i32,
}

impl JobPlan {
    /// The plan of the job of this number.
    pub(crate) fn draw(seed: u64, number: usize) -> JobPlan {
        // Neighbours have nothing in common.
        let mut rng = Rng::with_seed(seed.wrapping_mul(1_000_003) ^ number as u64);
        rng = Rng::with_seed(rng.u64(..));
        let mut plan = JobPlan {
            number,
            queue: if rng.u32(..3) == 0 {
                "codeintel"
            } else {
                "batches"
            },
            end: End::Complete,
            steps: Vec::new(),
            secret: None,
            fetches: false,
            body: Body::Cli,
        };
        match rng.u32(..100) {
            0..5 => {
                let (payload, says) = malformed(&mut rng);
                plan.body = Body::Malformed(payload);
                plan.end = End::Refused(says);
            }
            5..8 => plan.end = End::Refused("need Docker"),
            8..11 => {
                plan.body = Body::Steps {
                    clones: rng.bool(),
                    inline: false,
                    stored: false,
                };
            }
            _ => plan.draw_steps(&mut rng),
        }
        plan
    }

    fn draw_steps(&mut self, rng: &mut Rng) {
        let clones = rng.u32(..5) < 2;
        let inline = rng.u32(..3) == 0;
        let stored = self.queue == "batches" && rng.u32(..5) == 0;
        self.body = Body::Steps {
            clones,
            inline,
            stored,
        };
        self.fetches = clones || stored;
        if rng.u32(..3) == 0 {
            let quoted = if rng.bool() { "\"of mine\" " } else { "" };
            self.secret = Some(format!("hush-{quoted}{:016x}", rng.u64(..)));
        }
        let count = [1, 1, 1, 2, 2, 2, 3, 3, 4][rng.usize(..9)];
        let has_results = self.queue == "batches" && rng.u32(..4) == 0;
        self.steps = (0..count)
            .map(|index| {
                let is_result = has_results && index + 1 == count;
                let suffix = if is_result { "post" } else { "run" };
                StepPlan {
                    key: format!("step.{index}.{suffix}"),
                    image: if rng.u32(..8) == 0 {
                        STEP_IMAGE
                    } else {
                        TINY_IMAGE
                    },
                    pieces: draw_pieces(rng, self.secret.is_some(), is_result),
                    exit_code: 0,
                }
            })
            .collect();
        let first = &mut self.steps[0].pieces;
        let known = [
            (clones, CLONED_FILE.0.to_owned(), CLONED_FILE.1.to_owned()),
            (inline, "inline.txt".to_owned(), text(self.number, "inline")),
            (stored, "stored.txt".to_owned(), text(self.number, "stored")),
        ];
        for (_, path, content) in known.into_iter().filter(|(is_there, ..)| *is_there) {
            first.insert(0, Piece::File(path, content));
        }
        if rng.u32(..5) == 0 {
            let (step, code) = (rng.usize(..count), rng.i32(1..126));
            self.steps[step].exit_code = code;
            self.end = End::ExitCode(step, code);
        }
    }

    /// Puts the job into its queue.
    pub(crate) fn enqueue(&self, stage: &Stage) -> JobRef {
        let spec = match &self.body {
            Body::Malformed(payload) => {
                return stage.frontend.enqueue_raw(self.queue, payload.clone());
            }
            Body::Cli => JobSpec::new(self.queue).cli_step("batch-exec", &["src", "batch", "exec"]),
            Body::Steps {
                clones,
                inline,
                stored,
            } => {
                let mut spec = JobSpec::new(self.queue);
                if *clones {
                    let head = stage.repository.head();
                    spec = spec.repository(REPOSITORY, &head).directory(CLONE);
                    spec = spec.shallow(self.number.is_multiple_of(2));
                }
                if *inline {
                    spec = spec.file("inline.txt", text(self.number, "inline"));
                }
                if *stored {
                    let key = format!("spec/{}", self.number);
                    stage.frontend.put_file(&key, text(self.number, "stored"));
                    spec = spec.stored_file("stored.txt", &key, MODIFIED);
                }
                spec
            }
        };
        let spec = match &self.secret {
            Some(secret) => spec.redact(secret, &self.hidden()),
            None => spec,
        };
        let steps = (0..self.steps.len()).map(|index| self.step(index));
        stage.frontend.enqueue(steps.fold(spec, JobSpec::step))
    }

    fn step(&self, index: usize) -> StepSpec {
        let plan = &self.steps[index];
        let step = StepSpec::new(&plan.key, plan.image).command("{ set +x; } 2>/dev/null");
        let step = match &self.secret {
            Some(secret) => step.env("HUSH", secret),
            None => step,
        };
        let pieces = plan.pieces.iter().enumerate();
        let step = pieces.fold(step, |step, (place, piece)| {
            step.command(piece.command(&self.tag(index, place)))
        });
        let step = step.command(format!("sleep {DRAIN_SECONDS}"));
        step.command(format!("exit {}", plan.exit_code))
    }

    /// What a step writes, as it must arrive.
    pub(crate) fn written(&self, index: usize) -> Written {
        let mut written = Written::default();
        for (place, piece) in self.steps[index].pieces.iter().enumerate() {
            piece.write(&self.tag(index, place), &self.hidden(), &mut written);
        }
        written
    }

    /// The part of its secret that looks the same however it is written.
    pub(crate) fn secret_part(&self) -> Option<&str> {
        let secret = self.secret.as_deref()?;
        secret.get(secret.len() - 16..)
    }

    /// Number of steps that begin, if nobody touches the pod.
    pub(crate) fn steps_begun(&self) -> usize {
        match self.end {
            End::ExitCode(step, _) => step + 1,
            _ => self.steps.len(),
        }
    }

    /// The exit code of a step.
    pub(crate) fn exit_code(&self, index: usize) -> i64 {
        self.steps[index].exit_code.into()
    }

    fn tag(&self, index: usize, place: usize) -> String {
        format!("j{}s{index}p{place}", self.number)
    }

    fn hidden(&self) -> String {
        format!("REDACTED-{}", self.number)
    }
}

fn text(number: usize, kind: &str) -> String {
    format!("the {kind} file of job {number}\n")
}

/// Pieces that fit together: where there are two streams, their order is not
/// known, so no line may be long or go without its end.
fn draw_pieces(rng: &mut Rng, has_secret: bool, is_result: bool) -> Vec<Piece> {
    let has_two_streams = !is_result && rng.u32(..6) == 0;
    let count = [0, 1, 1, 2, 2, 3][rng.usize(..6)];
    let mut pieces: Vec<Piece> = (0..count)
        .map(|_| match has_two_streams {
            true => Piece::Both(rng.u32(1..80)),
            false => Piece::any(rng),
        })
        .collect();
    if has_secret && rng.bool() {
        pieces.insert(rng.usize(..=pieces.len()), Piece::Secret);
    }
    if is_result {
        pieces.push(Piece::Event);
    } else if !has_two_streams && rng.u32(..6) == 0 {
        pieces.push(Piece::Tail);
    }
    pieces
}

/// A payload that cannot be a job, and what is said of it.
fn malformed(rng: &mut Rng) -> (Value, &'static str) {
    match rng.u32(..4) {
        0 => (json!({"commit": 5}), "`commit` is wrong"),
        1 => (
            json!({"version": 2, "dockerSteps": [{"commands": ["true"]}]}),
            "missing field `image`",
        ),
        2 => (
            json!({"files": {"../x": {"content": ""}}}),
            "must stay in the workspace",
        ),
        _ => (
            json!({"repositoryName": "r", "repositoryDirectory": "/etc"}),
            "is absolute",
        ),
    }
}
