//! Many cases of one test, some or all of them, several at once; each failure with the one line that repeats it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// `ci`: what the gate runs. `all`: every case. Otherwise a sample.
const LEVEL: &str = "PVMIGRATE_MATRIX";

/// A case is done in a few seconds.
const SLOW: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Sample,
    Ci,
    All,
}

pub fn level() -> Level {
    match std::env::var(LEVEL).unwrap_or_default().as_str() {
        "all" => Level::All,
        "ci" => Level::Ci,
        "" => Level::Sample,
        other => panic!("{LEVEL}={other}: ci or all"),
    }
}

/// How a test goes through its cases.
pub struct Plan {
    /// Of the test, as cargo filters it.
    pub test: &'static str,
    /// The variable that names one case.
    pub one: &'static str,
    /// From this level on every case is run.
    pub whole: Level,
    /// Otherwise as many as fit into this time.
    pub sample: Duration,
    /// How many at once.
    pub at_once: usize,
}

/// What a case came to, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// As it should.
    Right,
    /// What should have happened had no occasion to.
    NotMet,
}

/// The one case that was asked for, if one was.
pub fn asked(variable: &str) -> Option<String> {
    std::env::var(variable).ok()
}

/// Another sample each time, and the seed in the failure.
pub fn seed() -> u64 {
    let given = std::env::var("PVMIGRATE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| u64::from(std::process::id()))
}

impl Plan {
    /// Runs the cases, each with the word that names it. Returns how many were met.
    pub fn run<T: Sync>(&self, cases: &[(String, T)], case: impl Fn(&T) -> Result<Came, String> + Sync) -> usize {
        let named: BTreeSet<&String> = cases.iter().map(|(word, _)| word).collect();
        assert_eq!(named.len(), cases.len(), "{}: two cases have one name", self.test);
        let mut cases: Vec<&(String, T)> = cases.iter().collect();
        let only = asked(self.one);
        if let Some(only) = &only {
            cases.retain(|(word, _)| word == only);
            assert_eq!(cases.len(), 1, "{}={only} is none of {} cases", self.one, named.len());
        }
        let whole = only.is_some() || level() >= self.whole;
        let seed = seed();
        shuffle(&mut cases, seed);
        let (next, failed, started) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Instant::now());
        let (ran, met) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let under_way = Mutex::new(BTreeMap::<String, (Instant, bool)>::new());
        let repeat = |word: &str| format!("{}='{word}' cargo test --test it {}", self.one, self.test);
        std::thread::scope(|scope| {
            // A case that waits for what does not come is named while it does, until the last worker is gone.
            let (works, over) = mpsc::channel::<()>();
            scope.spawn(|| {
                let over = over;
                while over.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                    for (word, (since, is_told)) in under_way.lock().unwrap().iter_mut() {
                        if Instant::elapsed(since) > SLOW && !std::mem::replace(is_told, true) {
                            eprintln!("under way for more than {SLOW:.0?}: {}", repeat(word));
                        }
                    }
                }
            });
            for _ in 0..self.at_once {
                let works = works.clone();
                scope.spawn(|| {
                    let _works = works;
                    while let Some((word, one)) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                        if !whole && started.elapsed() > self.sample {
                            return;
                        }
                        under_way.lock().unwrap().insert(word.clone(), (Instant::now(), false));
                        // Every case has a lab of its own: a panic leaves nothing half done for the others.
                        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(one)));
                        under_way.lock().unwrap().remove(word);
                        let done = ran.fetch_add(1, Ordering::SeqCst) + 1;
                        if done.is_multiple_of(50) {
                            eprintln!("{}: {done} of {}, {:.0?}", self.test, cases.len(), started.elapsed());
                        }
                        let why = match outcome {
                            Ok(Ok(came)) => {
                                met.fetch_add(usize::from(came == Came::Right), Ordering::SeqCst);
                                continue;
                            }
                            Ok(Err(why)) => why,
                            Err(panic) => panic
                                .downcast_ref::<String>()
                                .cloned()
                                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                                .unwrap_or_default(),
                        };
                        let repeat = repeat(word);
                        eprintln!("{repeat}\n{why}\n");
                        failed.lock().unwrap().push(format!("{repeat}\n{why}"));
                    }
                });
            }
            drop(works);
        });
        let (ran, met) = (ran.into_inner(), met.into_inner());
        let failed = failed.into_inner().unwrap();
        let right = ran - failed.len();
        eprintln!(
            "{}: {right} of {ran} as they should be ({met} with an occasion), of {} cases, seed {seed}, {:.0?}",
            self.test,
            named.len(),
            started.elapsed()
        );
        assert!(failed.is_empty(), "{} of {ran} cases (seed {seed}):\n{}", failed.len(), failed.join("\n\n"));
        assert!(!whole || ran == cases.len());
        met
    }
}

pub fn shuffle<T>(list: &mut [T], seed: u64) {
    let mut random = Random::new(seed);
    for at in (1..list.len()).rev() {
        list.swap(at, random.below(at + 1));
    }
}

/// xorshift: the same numbers for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
