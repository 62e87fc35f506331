//! The calls of the executor API, over blocking HTTP.
//!
//! The only room that knows of methods, headers and status codes. Calls are
//! tried once and every one has a timeout; clones share one connection pool.

use std::io::{Cursor, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ureq::typestate::WithBody;
use ureq::{Agent, Body, RequestBuilder, SendBody};

use crate::config::{QueueSettings, Queues};
use crate::http::{self, Timeouts};
use crate::job::{JobKey, Outcome, Secret};
use crate::logs::output::OutputReader;
use crate::metrics::Metrics;
use crate::queue::answer::Answer;
use crate::queue::error::{QueueError, QueueErrorKind};
use crate::queue::token::{Silence, TokenAnswer};
use crate::queue::wire::heartbeat::{HeartbeatAnswer, HeartbeatJobs, HeartbeatRequest};
use crate::queue::wire::{
    API_VERSION, DequeueRequest, Dequeued, LogEntryHead, MarkRequest, Ticket, read_job,
};

const DEQUEUE: &str = "dequeue";
const HEARTBEAT: &str = "heartbeat";
/// A dequeue makes the server prepare a job, which takes it a moment.
const DEQUEUE_TIMEOUT: Duration = Duration::from_secs(30);
/// A heartbeat that takes longer has no worth: the next one is due, and the
/// server gives jobs away after 25 s without one.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(8);
/// The server compares two words.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Marks can make the server work: it reads the results out of the logs.
const MARK_TIMEOUT: Duration = Duration::from_secs(60);
/// A log update may be large; as long as bytes flow it may go on.
const LOG_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// For calls that set none of their own.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    response: LOG_IDLE_TIMEOUT,
    silence: LOG_IDLE_TIMEOUT,
    total: Duration::from_secs(3600),
};
/// No answer of the API but a job is larger than this.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A job carries its files inline; cached diffs can be tens of MiB. What is read
/// is held in memory, so that this is also what a server that goes mad can cost.
const JOB_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Metrics in a heartbeat. They are less than half of it; were they ever more, a
/// heartbeat in time is worth more than they are.
const METRICS_BYTES_MAX: usize = 64 * 1024;

/// Speaks with the queues of one Sourcegraph instance. Cheap to clone.
#[derive(Clone)]
pub struct QueueClient {
    agent: Agent,
    settings: Arc<QueueSettings>,
    executor_name: Arc<str>,
    /// Basic authentication until the server refuses it for the token scheme.
    basic: Arc<AtomicBool>,
    /// Whether heartbeats name no queue in their path, as with the oldest
    /// servers, which know user names only.
    is_oldest: Arc<AtomicBool>,
    metrics: Metrics,
}

/// What a dequeue brought.
pub struct Taken {
    /// The job.
    pub dequeued: Dequeued,
    /// The same as the server wrote it.
    pub payload: Vec<u8>,
}

/// A log entry as it is now.
pub struct LogEntry {
    /// Key that the server groups by.
    pub key: String,
    /// The command, already redacted.
    pub command: Option<Vec<String>>,
    /// When the container started.
    pub started: Timestamp,
    /// Exit code, once known.
    pub exit_code: Option<i32>,
    /// Run time, once known.
    pub duration: Option<Duration>,
    /// The whole output so far.
    pub output: OutputReader,
}

impl QueueClient {
    /// Prepares the calls; nothing is sent yet.
    pub fn new(settings: QueueSettings, executor_name: &str, metrics: &Metrics) -> QueueClient {
        QueueClient {
            agent: http::agent(TIMEOUTS),
            basic: Arc::new(AtomicBool::new(settings.username.is_some())),
            is_oldest: Arc::default(),
            settings: Arc::new(settings),
            executor_name: executor_name.into(),
            metrics: metrics.clone(),
        }
    }

    /// Base URL of the instance.
    pub fn url(&self) -> &str {
        &self.settings.frontend_url
    }

    /// The value of the Authorization header of calls for this job, for the
    /// container that clones and fetches files.
    pub fn authorization(&self, token: Option<&str>) -> String {
        match token {
            Some(token) => format!("Bearer {token}"),
            None => self.executor_authorization(),
        }
    }

    /// Asks for a job; `None` when there is nothing to do.
    pub fn dequeue(&self) -> Result<Option<Taken>, QueueError> {
        let body = json(&DequeueRequest {
            executor_name: &self.executor_name,
            version: API_VERSION,
            num_cpus: self.settings.num_cpus,
            memory: &self.settings.memory,
            disk_space: &self.settings.disk_space,
            queues: match &self.settings.queues {
                Queues::One(_) => &[],
                Queues::Several(names) => names,
            },
        });
        let answer = self.send_as_executor(DEQUEUE, DEQUEUE_TIMEOUT, &body)?;
        match answer.status {
            204 => Ok(None),
            200 => match self.read_job(&answer.body) {
                Ok(dequeued) => Ok(Some(Taken {
                    dequeued,
                    payload: answer.body,
                })),
                Err(problem) => Err(self.error(DEQUEUE, QueueErrorKind::Malformed(problem))),
            },
            _ => Err(self.refused(DEQUEUE, answer, None)),
        }
    }

    /// Reads what a dequeue brought, now or before a crash. An error if not
    /// even id and queue can be read.
    pub fn read_job(&self, payload: &[u8]) -> Result<Dequeued, String> {
        read_job(&self.settings.queues, payload)
    }

    /// Tells that the executor and these jobs are alive, and learns which of
    /// them are still ours and which were cancelled.
    pub fn heartbeat(&self, jobs: &[JobKey]) -> Result<HeartbeatAnswer, QueueError> {
        let body = json(&HeartbeatRequest {
            version: "V2",
            executor_name: &self.executor_name,
            jobs: HeartbeatJobs::new(&self.settings.queues, jobs),
            os: std::env::consts::OS,
            architecture: go_architecture(),
            docker_version: "",
            executor_version: env!("CARGO_PKG_VERSION"),
            git_version: "",
            ignite_version: "",
            src_cli_version: "",
            prometheus_metrics: &self.metrics.text_within(METRICS_BYTES_MAX),
        });
        let answer = self.send_as_executor(HEARTBEAT, HEARTBEAT_TIMEOUT, &body)?;
        match answer.status {
            200 => HeartbeatAnswer::parse(&self.settings.queues, &answer.body)
                .map_err(|problem| self.error(HEARTBEAT, QueueErrorKind::Malformed(problem))),
            _ => Err(self.refused(HEARTBEAT, answer, None)),
        }
    }

    /// Asks whether the server accepts our credentials, and changes nothing.
    pub fn check_token(&self) -> TokenAnswer {
        let url = format!("{}/.executors/test/auth", self.settings.frontend_url);
        let password = self.settings.password.reveal();
        loop {
            let basic = self.basic.load(Ordering::Relaxed);
            let authorization = self.executor_authorization();
            let request = self.agent.get(&url).header("Authorization", &authorization);
            let request = request.config().timeout_global(Some(TOKEN_TIMEOUT)).build();
            let answer = request.call().and_then(|mut answer| {
                let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX);
                body.read_to_vec().map(|body| (answer, body))
            });
            let (answer, body) = match answer {
                Ok(answer) => answer,
                Err(error) => return silence(&error),
            };
            let status = answer.status().as_u16();
            if status == 401 && basic {
                self.basic.store(false, Ordering::Relaxed);
                continue;
            }
            let text = Answer { status, body }.text_without(&[&authorization, password]);
            if status == 200 && text == "ok" {
                return TokenAnswer::Accepted;
            }
            let location = answer.headers().get("location");
            return TokenAnswer::Other {
                status,
                location: location.map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned()),
                text,
            };
        }
    }

    /// Adds a log entry and returns its id. Not safe to repeat blindly: a
    /// lost answer may mean that the entry was made.
    pub fn add_log_entry(&self, job: &Ticket, entry: LogEntry) -> Result<Option<i64>, QueueError> {
        const CALL: &str = "addExecutionLogEntry";
        let answer = self.send_log(CALL, job, None, entry)?;
        // Servers of the first generation answer nothing: they cannot update.
        Ok(std::str::from_utf8(&answer.body)
            .ok()
            .and_then(|id| id.trim().parse().ok()))
    }

    /// Replaces a log entry as a whole. Safe to repeat.
    pub fn update_log_entry(
        &self,
        job: &Ticket,
        entry_id: i64,
        entry: LogEntry,
    ) -> Result<(), QueueError> {
        self.send_log("updateExecutionLogEntry", job, Some(entry_id), entry)
            .map(drop)
    }

    /// Reports the end of a job. Safe to repeat: after a lost answer the
    /// server says that the job is not ours any more.
    pub fn mark(&self, job: &Ticket, outcome: &Outcome) -> Result<(), QueueError> {
        let (call, message) = match outcome {
            Outcome::Complete => ("markComplete", None),
            Outcome::Errored(message) => ("markErrored", Some(message.as_str())),
            Outcome::Failed(message) => ("markFailed", Some(message.as_str())),
            Outcome::Lost | Outcome::HandedOver => return Ok(()),
        };
        let body = json(&MarkRequest {
            executor_name: &self.executor_name,
            job_id: job.id,
            error_message: message,
        });
        let request = self
            .job_request(call, job)
            .config()
            .timeout_global(Some(MARK_TIMEOUT))
            .build();
        let answer = self.answer(call, || request.send(&body[..]))?;
        self.check_job_answer(call, job, answer).map(drop)
    }

    fn send_log(
        &self,
        call: &'static str,
        job: &Ticket,
        entry_id: Option<i64>,
        entry: LogEntry,
    ) -> Result<Answer, QueueError> {
        let mut head = json(&LogEntryHead {
            executor_name: &self.executor_name,
            job_id: job.id,
            entry_id,
            key: &entry.key,
            command: entry.command.as_deref(),
            start_time: entry.started.to_string(),
            exit_code: entry.exit_code,
            duration_ms: entry.duration.map(|time| time.as_millis() as u64),
        });
        // The output is JSON already and goes in as the last field.
        head.pop();
        head.extend_from_slice(br#","out":""#);
        let length = head.len() as u64 + entry.output.remaining() + 2;
        let body = Cursor::new(head).chain(entry.output).chain(&b"\"}"[..]);
        let request = self
            .job_request(call, job)
            .header("Content-Length", length)
            .config()
            .timeout_per_write(Some(LOG_IDLE_TIMEOUT))
            .timeout_recv_response(Some(LOG_IDLE_TIMEOUT))
            .timeout_recv_body(Some(LOG_IDLE_TIMEOUT))
            .build();
        let send = || request.send(SendBody::from_owned_reader(body));
        let answer = self.answer(call, send)?;
        self.metrics.queue.log_sent(length);
        self.check_job_answer(call, job, answer)
    }

    fn send_as_executor(
        &self,
        call: &'static str,
        timeout: Duration,
        body: &[u8],
    ) -> Result<Answer, QueueError> {
        loop {
            let basic = self.basic.load(Ordering::Relaxed);
            let is_oldest = self.is_oldest.load(Ordering::Relaxed);
            let queue = match &self.settings.queues {
                Queues::One(name) if !(is_oldest && call == HEARTBEAT) => Some(name.as_str()),
                _ => None,
            };
            let request = self
                .request(call, queue)
                .header("Authorization", self.executor_authorization())
                .config()
                .timeout_global(Some(timeout))
                .build();
            let answer = self.answer(call, || request.send(body))?;
            // Servers that know no user names refuse them with 401: from then
            // on the password is used as the executor token.
            if answer.status == 401 && basic {
                self.basic.store(false, Ordering::Relaxed);
                continue;
            }
            if answer.status == 404 && basic && call == HEARTBEAT && queue.is_some() {
                self.is_oldest.store(true, Ordering::Relaxed);
                continue;
            }
            return match answer.status {
                401 | 403 => Err(self.error(call, QueueErrorKind::Unauthorized)),
                404 if is_oldest => {
                    self.is_oldest.store(false, Ordering::Relaxed);
                    Ok(answer)
                }
                404 if queue.is_none() => Err(self.error(call, QueueErrorKind::OneQueueOnly)),
                _ => Ok(answer),
            };
        }
    }

    fn executor_authorization(&self) -> String {
        let password = self.settings.password.reveal();
        match &self.settings.username {
            Some(user) if self.basic.load(Ordering::Relaxed) => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
            _ => format!("token-executor {password}"),
        }
    }

    fn request(&self, call: &str, queue: Option<&str>) -> RequestBuilder<WithBody> {
        let base = &self.settings.frontend_url;
        let url = match queue {
            Some(queue) => format!("{base}/.executors/queue/{queue}/{call}"),
            None => format!("{base}/.executors/queue/{call}"),
        };
        self.agent
            .post(url)
            .header("Content-Type", "application/json")
    }

    fn job_request(&self, call: &str, job: &Ticket) -> RequestBuilder<WithBody> {
        let token = job.token.as_ref().map(|token| token.reveal());
        self.request(call, Some(&job.queue))
            .header("Authorization", self.authorization(token))
            .header("X-Sourcegraph-Job-ID", job.id)
            .header("X-Sourcegraph-Executor-Name", &*self.executor_name)
    }

    /// Makes a call and reads its answer. Every call comes through here, so
    /// here it is counted.
    fn answer(
        &self,
        call: &'static str,
        send: impl FnOnce() -> Result<ureq::http::Response<Body>, ureq::Error>,
    ) -> Result<Answer, QueueError> {
        let began = Instant::now();
        let answer = self.read(call, send());
        let status = answer.as_ref().ok().map(|answer| answer.status);
        self.metrics.queue.called(call, began.elapsed(), status);
        answer
    }

    fn read(
        &self,
        call: &'static str,
        answer: Result<ureq::http::Response<Body>, ureq::Error>,
    ) -> Result<Answer, QueueError> {
        let kind = |error: ureq::Error| QueueErrorKind::Unreachable(error.to_string());
        let unreachable = |error| self.error(call, kind(error));
        let is_job = call == DEQUEUE;
        let bytes_max = if is_job {
            JOB_BYTES_MAX
        } else {
            ANSWER_BYTES_MAX
        };
        let mut answer = answer.map_err(unreachable)?;
        let status = answer.status().as_u16();
        let body = answer
            .body_mut()
            .with_config()
            .limit(bytes_max)
            .read_to_vec();
        Ok(Answer {
            status,
            body: body.map_err(unreachable)?,
        })
    }

    /// Tells apart what a refusal of a call about a job means: whoever holds
    /// a job token that is refused does not hold the job any more.
    fn check_job_answer(
        &self,
        call: &'static str,
        job: &Ticket,
        answer: Answer,
    ) -> Result<Answer, QueueError> {
        let kind = match (answer.status, &job.token) {
            _ if answer.is_good() => return Ok(answer),
            (401 | 403, Some(_)) | (404, _) => QueueErrorKind::NotOurs,
            (401 | 403, None) => QueueErrorKind::Unauthorized,
            (500, _) if answer.text().contains("unknown job") => QueueErrorKind::NotOurs,
            _ => return Err(self.refused(call, answer, job.token.as_ref())),
        };
        Err(self.error(call, kind))
    }

    fn refused(&self, call: &'static str, answer: Answer, token: Option<&Secret>) -> QueueError {
        let status = answer.status;
        let own = self.executor_authorization();
        let secrets = [Some(&self.settings.password), token].into_iter().flatten();
        let mut hidden = vec![own.as_str()];
        hidden.extend(secrets.map(Secret::reveal));
        let text = answer.text_without(&hidden);
        self.error(call, QueueErrorKind::Refused { status, text })
    }

    fn error(&self, call: &'static str, kind: QueueErrorKind) -> QueueError {
        QueueError {
            call,
            url: self.settings.frontend_url.clone(),
            kind,
        }
    }
}

/// Why a call has no answer.
fn silence(error: &ureq::Error) -> TokenAnswer {
    let kind = match error {
        ureq::Error::Timeout(_) => Silence::TimedOut,
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => Silence::Tls,
        ureq::Error::Io(error) if error.get_ref().is_some_and(|it| it.is::<rustls::Error>()) => {
            Silence::Tls
        }
        ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
            Silence::NobodyListens
        }
        _ => Silence::Other,
    };
    let cause = match kind {
        Silence::TimedOut => format!("nothing came in {TOKEN_TIMEOUT:?}"),
        _ => error.to_string(),
    };
    TokenAnswer::Silence { kind, cause }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("requests are plain data")
}

/// The server's pages show the names that Go gives to architectures.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
