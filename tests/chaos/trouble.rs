//! The kinds of trouble, and the deck that they are dealt from: in each round
//! of the deck every kind comes as often as it has cards. Also what is known of
//! troubles that a job may suffer from.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// kill -9 of an executor, which is started again soon.
    Kill,
    /// The same, and once more while it starts.
    KillTwice,
    /// An executor leaves its jobs to the next process.
    Handover,
    /// The frontend is away for some seconds.
    FrontendOutage,
    /// The frontend does what it is asked to, and the answer is lost.
    LostAnswer,
    /// The same with the answer to a dequeue, which costs an attempt.
    LostDequeue,
    /// The frontend never gets a call, or refuses it.
    FrontendError,
    /// The API server cuts every connection and is away for some seconds.
    ApiRestart,
    /// Every connection to the API server is cut.
    ApiCut,
    /// Log streams end early.
    CutLog,
    /// The watch of pods ends early.
    CutWatch,
    /// The API server refuses calls.
    ApiError,
    /// The API server does what it is asked to, and the answer is lost.
    LostApiAnswer,
    /// Somebody deletes the pod of a job.
    DeletedPod,
    /// Somebody drains the node of a job.
    EvictedPod,
}

/// How many cards there are of each kind.
const CARDS: [(Trouble, usize); 15] = [
    (Trouble::Kill, 5),
    (Trouble::KillTwice, 2),
    (Trouble::Handover, 2),
    (Trouble::FrontendOutage, 2),
    (Trouble::LostAnswer, 4),
    (Trouble::LostDequeue, 1),
    (Trouble::FrontendError, 3),
    (Trouble::ApiRestart, 2),
    (Trouble::ApiCut, 2),
    (Trouble::CutLog, 4),
    (Trouble::CutWatch, 2),
    (Trouble::ApiError, 3),
    (Trouble::LostApiAnswer, 2),
    (Trouble::DeletedPod, 2),
    (Trouble::EvictedPod, 2),
];

/// All kinds, each once.
pub(crate) fn all() -> impl Iterator<Item = Trouble> {
    CARDS.into_iter().map(|(trouble, _)| trouble)
}

/// Cards that are dealt one by one.
#[derive(Default)]
pub(crate) struct Deck(Vec<Trouble>);

impl Deck {
    /// The next card; an empty deck is shuffled anew.
    pub(crate) fn deal(&mut self, rng: &mut Rng) -> Trouble {
        loop {
            if let Some(card) = self.0.pop() {
                return card;
            }
            let cards = CARDS.into_iter();
            self.0 = cards
                .flat_map(|(trouble, count)| std::iter::repeat_n(trouble, count))
                .collect();
            rng.shuffle(&mut self.0);
        }
    }

    /// Puts a card that could not be played under the others.
    pub(crate) fn put_back(&mut self, card: Trouble) {
        self.0.insert(0, card);
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trouble::Kill => "kill -9",
            Trouble::KillTwice => "kill -9, and again at start",
            Trouble::Handover => "handover",
            Trouble::FrontendOutage => "frontend outage",
            Trouble::LostAnswer => "lost answer",
            Trouble::LostDequeue => "lost answer to a dequeue",
            Trouble::FrontendError => "call refused",
            Trouble::ApiRestart => "restart of the API server",
            Trouble::ApiCut => "connections to the API server cut",
            Trouble::CutLog => "log streams cut",
            Trouble::CutWatch => "watch cut",
            Trouble::ApiError => "call of the API server refused",
            Trouble::LostApiAnswer => "lost answer of the API server",
            Trouble::DeletedPod => "pod deleted",
            Trouble::EvictedPod => "pod evicted",
        })
    }
}

/// What threatens a dequeue strikes this near to it.
const NEAR: Duration = Duration::from_secs(3);

/// When something struck that can cost the answer to a dequeue. Clones share
/// what they know.
#[derive(Clone, Default)]
pub(crate) struct Threats {
    struck: Arc<Mutex<Vec<Instant>>>,
}

impl Threats {
    /// Something strikes at that time.
    pub(crate) fn add(&self, time: Instant) {
        let mut struck = self.struck.lock().unwrap_or_else(PoisonError::into_inner);
        struck.push(time);
    }

    /// Whether something struck around that time.
    pub(crate) fn is_near(&self, time: Instant) -> bool {
        let struck = self.struck.lock().unwrap_or_else(PoisonError::into_inner);
        let distance = |threat: &Instant| time.max(*threat) - time.min(*threat);
        struck.iter().any(|threat| distance(threat) < NEAR)
    }
}
