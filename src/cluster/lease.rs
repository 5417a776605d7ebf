//! Who executes a run: one Lease for each, held by one process at a time.
//!
//! It keeps two processes off one run; two runs are kept off one claim by the annotation on its volumes. Callers: the
//! journal, through [`Fence`]. What must stay true:
//!
//! * A Lease counts only while its last renewal was sent less than two thirds of its duration ago, by a clock that goes on
//!   while the process is stopped. Then it is renewed before anything else is done.
//! * Nobody's Lease is taken before it was seen unchanged for its whole duration, by the observer's own monotonic time:
//!   clocks are never compared. But whoever has the lock of the state directory that the holder had knows it to be dead.
//! * Every change of a Lease names the version that was read, so of two one loses and sees it.

use super::keep::{Bookkeeping, Kept};
use super::{Cluster, Error, RUN, text, uid, wait};
use crate::journal::{Answer, Fence};
use crate::words::clock::{Clock, human_seconds};
use crate::words::{Json, Kind, Problem, RunId, Voice};
use serde_json::json;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How many seconds a Lease may last.
pub const SECONDS: std::ops::RangeInclusive<u64> = 3..=300;
/// How long it lasts unless told.
pub const DEFAULT_SECONDS: u64 = 15;
/// The lock that dies with the holder.
const LOCK: &str = "pvmigrate.io/lock";
/// How long a server that does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a process claims.
pub struct Claim {
    pub run: RunId,
    /// The namespace of the run's own records.
    pub namespace: String,
    /// What a person recognises this process by.
    pub who: String,
    /// The name of a lock that this process has and that dies with it.
    pub lock: Option<String>,
    pub duration: Duration,
}

/// The Lease of one run, as this process has it or wants it.
pub struct Lease {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Cluster,
    claim: Claim,
    holder: String,
    voice: Arc<dyn Voice>,
    cancel: CancellationToken,
    door: Bookkeeping,
    /// One at a time asks the server.
    work: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

struct State {
    epoch: u64,
    /// Somebody sees to it that it is renewed.
    is_renewed: bool,
    standing: Standing,
}

enum Standing {
    /// Not taken yet, or let go.
    None,
    Held {
        record: Json,
        /// When the last successful renewal was sent, since the machine started; nothing if none was.
        sent: Option<Duration>,
    },
    /// Somebody else has it: this process never writes again.
    Lost(Problem),
}

/// Why the server did not give it.
enum Trouble {
    /// Asking again may help.
    Passing(Problem),
    Refused(Problem),
    Lost(Problem),
}

impl Lease {
    pub fn new(cluster: Cluster, claim: Claim, voice: Arc<dyn Voice>, cancel: CancellationToken) -> Self {
        let holder = format!("{}-{}", claim.who, &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let state = Mutex::new(State { epoch: 0, is_renewed: false, standing: Standing::None });
        let work = tokio::sync::Mutex::default();
        let door = Bookkeeping::default();
        Lease { inner: Arc::new(Inner { cluster, claim, holder, voice, cancel, door, work, state }) }
    }

    /// Removes what a dead process left.
    ///
    /// # Errors
    /// As [`Fence::hold`].
    pub async fn clear(&self) -> Result<(), Problem> {
        if self.inner.read().await.map_err(Trouble::problem)?.is_some() {
            self.hold().await?;
            self.release().await;
        }
        Ok(())
    }
}

impl Fence for Lease {
    fn hold(&self) -> Answer<'_, Result<u64, Problem>> {
        Box::pin(async {
            if let Some(epoch) = self.inner.valid() {
                return Ok(epoch);
            }
            let _work = self.inner.work.lock().await;
            self.inner.secure().await
        })
    }

    fn epoch(&self) -> u64 {
        self.inner.state().epoch
    }

    fn namespace(&self) -> &str {
        &self.inner.claim.namespace
    }

    fn release(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let _work = self.inner.work.lock().await;
            if tokio::time::timeout(Duration::from_secs(5), self.inner.let_go()).await.is_err() {
                tracing::debug!("the Lease could not be let go: it runs out");
            }
        })
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epoch, if the Lease surely is ours.
    fn valid(&self) -> Option<u64> {
        let state = self.state();
        match &state.standing {
            Standing::Held { sent: Some(sent), .. } if self.counts(*sent) => Some(state.epoch),
            _ => None,
        }
    }

    fn counts(&self, sent: Duration) -> bool {
        Clock.since_boot().saturating_sub(sent) < self.claim.duration * 2 / 3
    }

    fn record(&self) -> Option<Json> {
        match &self.state().standing {
            Standing::Held { record, .. } => Some(record.clone()),
            Standing::None | Standing::Lost(_) => None,
        }
    }

    /// Asks until the Lease is ours, or surely is not.
    async fn secure(self: &Arc<Self>) -> Result<u64, Problem> {
        let deadline = Clock.deadline(PATIENCE);
        let mut pause = Duration::from_millis(100);
        loop {
            if let Some(epoch) = self.valid() {
                return Ok(epoch);
            }
            match self.ask().await {
                // An answer that came too late counts for nothing.
                Ok(()) if !deadline.passed() => continue,
                Ok(()) => return Err(self.silent("the API server answers too slowly", None)),
                Err(Trouble::Passing(problem)) if deadline.left() <= pause => return Err(problem),
                Err(Trouble::Passing(problem)) => tracing::debug!("the Lease: {problem}"),
                Err(other) => return Err(other.problem()),
            }
            wait::sleep(pause, &self.cancel).await?;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// One step towards having it.
    async fn ask(self: &Arc<Self>) -> Result<(), Trouble> {
        if let Standing::Lost(problem) = &self.state().standing {
            return Err(Trouble::Lost(problem.clone()));
        }
        let asked = match self.record() {
            Some(record) => self.renew(record).await,
            None => self.take().await,
        };
        if let Err(Trouble::Lost(problem)) = &asked {
            let mut state = self.state();
            state.standing = Standing::Lost(problem.clone());
            state.is_renewed = false;
        }
        asked
    }

    async fn renew(self: &Arc<Self>, mut record: Json) -> Result<(), Trouble> {
        record["spec"]["renewTime"] = json!(Clock.stamp_micro());
        let sent = Clock.since_boot();
        match self.in_time(self.cluster.keep_anew(&self.door, Kept::Lease, &record)).await {
            Ok(record) => {
                self.have(record, sent);
                Ok(())
            }
            // Whatever the answer: it may be touched, gone (which servers tell in many ways) or renewed already.
            Err(e) if e.is_conflict() || e.says_not_found() => self.look().await,
            Err(e) if e.is_passing() => self.look().await.and(Err(self.trouble("update", &e))),
            Err(e) => Err(self.trouble("update", &e)),
        }
    }

    /// Somebody has touched it, or an answer was lost.
    async fn look(self: &Arc<Self>) -> Result<(), Trouble> {
        match self.read().await? {
            Some(record) if Seen::of(&record).holder == self.holder => {
                if let Standing::Held { record: ours, .. } = &mut self.state().standing {
                    *ours = record;
                }
                Ok(())
            }
            Some(record) => Err(Trouble::Lost(self.taken(&Seen::of(&record)))),
            // While it counted nobody could take it for his: it is made anew.
            None if self.valid().is_some() => {
                tracing::warn!("the Lease of run {} was deleted by somebody else: it is made anew", self.claim.run);
                self.state().standing = Standing::None;
                self.take().await
            }
            None => Err(Trouble::Lost(
                Problem::new(Kind::Conflict, format!("the Lease of run {} is gone", self.claim.run))
                    .quote("this process was held up: another one may have executed the run meanwhile")
                    .hint(format!("pvmigrate resume {}", self.claim.run)),
            )),
        }
    }

    async fn take(self: &Arc<Self>) -> Result<(), Trouble> {
        let mut first: Option<(Seen, Instant)> = None;
        let mut told = false;
        loop {
            let Some(mut record) = self.read().await? else {
                let sent = Clock.since_boot();
                match self.in_time(self.make()).await {
                    Ok(record) => {
                        self.have(record, sent);
                        return Ok(());
                    }
                    Err(e) if e.is_conflict() => continue,
                    Err(e) => return Err(self.trouble("create", &e)),
                }
            };
            let now = Seen::of(&record);
            let (before, since) = first.get_or_insert_with(|| (now.clone(), Clock.monotonic()));
            let waited = Clock.monotonic().saturating_duration_since(*since);
            match judge(before, &now, waited, &self.holder, self.claim.lock.as_deref()) {
                Verdict::Ours => {
                    self.state().standing = Standing::Held { record, sent: None };
                    return Ok(());
                }
                Verdict::Free => {
                    self.fill(&mut record, &now);
                    let sent = Clock.since_boot();
                    match self.in_time(self.cluster.keep_anew(&self.door, Kept::Lease, &record)).await {
                        Ok(record) => {
                            self.have(record, sent);
                            return Ok(());
                        }
                        Err(e) if e.is_conflict() || e.says_not_found() => first = None,
                        Err(e) => return Err(self.trouble("update", &e)),
                    }
                }
                Verdict::Alive => return Err(Trouble::Lost(self.taken(&now))),
                Verdict::Touched => first = Some((now, Clock.monotonic())),
                Verdict::Wait(left) => {
                    if !std::mem::replace(&mut told, true) {
                        self.voice.status(&format!(
                            "{} has run {}: waiting {} to see whether it is alive (Lease {})",
                            now.holder,
                            self.claim.run,
                            human_seconds(left.as_secs_f64()),
                            self.name(),
                        ));
                    }
                    let look = (now.duration() / 20).min(left).max(Duration::from_millis(10));
                    wait::sleep(look, &self.cancel).await.map_err(Trouble::Refused)?;
                }
            }
        }
    }

    async fn make(&self) -> Result<Json, Error> {
        let mut record = json!({"metadata": {"name": self.short_name(), "labels": {RUN: self.claim.run.as_str()}}});
        self.fill(&mut record, &Seen::default());
        self.cluster.keep(&self.door, Kept::Lease, &self.claim.namespace, &record).await
    }

    /// Writes ourselves into a Lease.
    fn fill(&self, record: &mut Json, before: &Seen) {
        let now = Clock.stamp_micro();
        let transitions = if before.holder.is_empty() { 0 } else { before.transitions + 1 };
        record["spec"] = json!({"holderIdentity": self.holder, "leaseDurationSeconds": self.claim.duration.as_secs(),
            "acquireTime": now, "renewTime": now, "leaseTransitions": transitions});
        if let Some(lock) = &self.claim.lock {
            record["metadata"]["annotations"][LOCK] = json!(lock);
        } else if let Some(annotations) = record["metadata"]["annotations"].as_object_mut() {
            annotations.remove(LOCK);
        }
    }

    /// It is ours as of when the request was sent.
    fn have(self: &Arc<Self>, record: Json, sent: Duration) {
        let mut state = self.state();
        let lapsed = match &state.standing {
            Standing::Held { sent: Some(before), .. } => !self.counts(*before),
            Standing::Held { sent: None, .. } | Standing::None | Standing::Lost(_) => true,
        };
        state.epoch += u64::from(lapsed);
        state.standing = Standing::Held { record, sent: Some(sent) };
        let is_renewed = std::mem::replace(&mut state.is_renewed, true);
        drop(state);
        if !is_renewed {
            tokio::spawn(keep_renewing(Arc::downgrade(self)));
        }
    }

    async fn let_go(self: &Arc<Self>) {
        self.state().is_renewed = false;
        for _ in 0..3 {
            let Some(record) = self.record() else { return };
            match self.cluster.keep_no_more(&self.door, Kept::Lease, &record).await {
                // Somebody edited it meanwhile.
                Err(e) if e.is_conflict() => {
                    if self.look().await.is_err() {
                        return;
                    }
                }
                Err(e) => return tracing::debug!("the Lease was not let go: {e}"),
                Ok(()) => self.state().standing = Standing::None,
            }
        }
    }

    /// The Lease as it is. One try: whoever asks has a patience of its own.
    async fn read(&self) -> Result<Option<Json>, Trouble> {
        let path = Kept::Lease.resource().path(&self.claim.namespace, &self.short_name());
        match self.in_time(self.cluster.once("GET", &path, &[], Vec::new(), None)).await {
            Ok(record) => Ok(Some(record)),
            Err(e) if e.says_not_found() => Ok(None),
            Err(e) => Err(self.trouble("get", &e)),
        }
    }

    /// An answer after the Lease has run out would say nothing any more.
    async fn in_time<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match tokio::time::timeout(self.claim.duration, request).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::unknown("no answer while the Lease lasts")),
        }
    }

    fn short_name(&self) -> String {
        format!("{}{}", super::keep::PREFIX, self.claim.run)
    }

    fn name(&self) -> String {
        format!("{}/{}", self.claim.namespace, self.short_name())
    }

    fn taken(&self, by: &Seen) -> Problem {
        let run = &self.claim.run;
        Problem::new(Kind::Conflict, format!("run {run} is being executed by {} since {}", by.holder, by.since))
            .object(format!("Lease:{}", self.name()))
            .hint("wait for it, or stop it first")
            .hint(format!(
                "if that process is dead: its Lease runs out within {}",
                human_seconds(by.duration().as_secs_f64())
            ))
    }

    fn silent(&self, what: &str, cause: Option<&Error>) -> Problem {
        let message = format!("whether run {} is still ours cannot be found out", self.claim.run);
        let problem = Problem::new(Kind::Unreachable, message).object(format!("Lease:{}", self.name())).quote(what);
        cause.map_or(problem.clone(), |cause| problem.because(cause))
    }

    fn trouble(&self, verb: &str, error: &Error) -> Trouble {
        let namespace = &self.claim.namespace;
        if error.is_passing() || error.is_conflict() {
            return Trouble::Passing(self.silent("the API server gives no answer about its Lease", Some(error)));
        }
        let elsewhere = "a new run keeps its own records where --run-namespace says";
        let mut problem = error.problem(&format!("{verb} the Lease `{}` of the run", self.name()), None);
        problem.hints.clear();
        Trouble::Refused(if problem.kind == Kind::Forbidden {
            problem.message = format!("we may not {verb} leases.coordination.k8s.io in namespace {namespace}");
            problem
                .hint(format!("kubectl auth can-i {verb} leases.coordination.k8s.io -n {namespace} must say yes"))
                .hint(elsewhere)
        } else {
            problem.hint(elsewhere)
        })
    }
}

impl Trouble {
    fn problem(self) -> Problem {
        match self {
            Trouble::Passing(problem) | Trouble::Refused(problem) | Trouble::Lost(problem) => problem,
        }
    }
}

/// Renews until the Lease is let go or lost, three times while it lasts.
async fn keep_renewing(of: Weak<Inner>) {
    let Some(mut every) = of.upgrade().map(|inner| inner.claim.duration / 3) else { return };
    let calm = every;
    loop {
        wait::pause(every).await;
        let Some(inner) = of.upgrade() else { return };
        let _work = inner.work.lock().await;
        if !inner.state().is_renewed {
            return;
        }
        every = match inner.ask().await {
            Ok(()) => calm,
            Err(Trouble::Lost(problem)) => {
                return inner.voice.warn(&format!("{problem}: nothing more is changed here"));
            }
            Err(Trouble::Passing(problem) | Trouble::Refused(problem)) => {
                tracing::debug!("the Lease: {problem}");
                calm / 5
            }
        };
    }
}

/// A Lease as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub holder: String,
    pub since: String,
    pub renewed: String,
    pub version: String,
    pub uid: String,
    pub seconds: u64,
    pub transitions: i64,
    pub lock: String,
}

impl Seen {
    pub fn of(record: &Json) -> Self {
        let spec = &record["spec"];
        Seen {
            holder: text(spec, "/holderIdentity").to_owned(),
            since: text(spec, "/acquireTime").to_owned(),
            renewed: text(spec, "/renewTime").to_owned(),
            version: text(record, "/metadata/resourceVersion").to_owned(),
            uid: uid(record).to_owned(),
            seconds: spec["leaseDurationSeconds"].as_u64().unwrap_or(DEFAULT_SECONDS),
            transitions: spec["leaseTransitions"].as_i64().unwrap_or(0),
            lock: text(record, "/metadata/annotations/pvmigrate.io~1lock").to_owned(),
        }
    }

    /// How long it must be seen unchanged: the holder's figure, within what a holder may say.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.clamp(*SECONDS.start(), *SECONDS.end()))
    }
}

/// What an observer makes of somebody's Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be taken.
    Free,
    /// We hold it: an answer was lost.
    Ours,
    /// Its holder renews it.
    Alive,
    /// Somebody changed it, but its holder gave no sign of life: the waiting begins anew.
    Touched,
    /// Not known before so long.
    Wait(Duration),
}

/// Judges a Lease by how it was when it was first seen, how it is now, and the time in between.
pub fn judge(first: &Seen, now: &Seen, waited: Duration, us: &str, lock: Option<&str>) -> Verdict {
    if now.holder.is_empty() {
        Verdict::Free
    } else if now.holder == us {
        Verdict::Ours
    } else if lock.is_some_and(|lock| lock == now.lock) {
        // The holder had the lock that we have: it is dead.
        Verdict::Free
    } else if (&first.holder, &first.renewed, &first.uid) != (&now.holder, &now.renewed, &now.uid) {
        Verdict::Alive
    } else if first != now {
        Verdict::Touched
    } else if waited >= now.duration() {
        Verdict::Free
    } else {
        Verdict::Wait(now.duration() - waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            holder: "node1-7-aa".into(),
            since: "t0".into(),
            renewed: "t1".into(),
            version: "5".into(),
            uid: "u1".into(),
            seconds: 15,
            transitions: 0,
            lock: "boot:1:2".into(),
        }
    }

    #[test]
    fn a_lease_is_judged_by_what_changes_and_by_our_own_time() {
        let s = Duration::from_secs;
        let with = |change: &dyn Fn(&mut Seen)| {
            let mut seen = seen();
            change(&mut seen);
            seen
        };
        let renewed = |seen: &mut Seen| (seen.renewed, seen.version) = ("t2".into(), "6".into());
        for (what, now, waited, lock, verdict) in [
            ("just seen", seen(), s(0), None, Verdict::Wait(s(15))),
            ("unchanged for a while", seen(), s(14), None, Verdict::Wait(s(1))),
            ("unchanged for its duration", seen(), s(15), None, Verdict::Free),
            ("renewed", with(&renewed), s(3), None, Verdict::Alive),
            ("renewed at the last moment", with(&renewed), s(60), None, Verdict::Alive),
            ("another holder", with(&|seen| seen.holder = "node2-1-bb".into()), s(3), None, Verdict::Alive),
            ("made anew", with(&|seen| seen.uid = "u2".into()), s(3), None, Verdict::Alive),
            ("a stranger's label", with(&|seen| seen.version = "6".into()), s(15), None, Verdict::Touched),
            ("let go", with(&|seen| seen.holder.clear()), s(0), None, Verdict::Free),
            ("ours", with(&|seen| seen.holder = "me".into()), s(0), None, Verdict::Ours),
            ("of a process whose lock we have", seen(), s(0), Some("boot:1:2"), Verdict::Free),
            ("of another lock", seen(), s(0), Some("boot:1:3"), Verdict::Wait(s(15))),
            ("of no lock", with(&|seen| seen.lock.clear()), s(0), Some("boot:1:2"), Verdict::Touched),
        ] {
            assert_eq!(judge(&seen(), &now, waited, "me", lock), verdict, "{what}");
        }
    }

    #[test]
    fn the_holder_says_how_long_it_lasts_within_reason() {
        for (written, seconds) in
            [(json!(15), 15), (json!(5), 5), (json!(null), 15), (json!(0), 3), (json!(999_999), 300)]
        {
            let record = json!({"spec": {"holderIdentity": "x", "leaseDurationSeconds": written}});
            assert_eq!(Seen::of(&record).duration(), Duration::from_secs(seconds), "{written}");
        }
    }
}
