//! Watching that nobody mounts a claim between its final pass and its swap.
//!
//! A vigil begins with a quorum LIST of the namespace's pods and goes on with a watch from that list's
//! resourceVersion. Any gap, and any foreign pod that is not finished, breaks it for good: the final pass is then made
//! again. It lives in memory only, so a crash breaks it too. `status.replicas` is no evidence (obs P).

use super::guard::finished;
use super::{Cluster, known, text, wait, workload};
use crate::words::clock::Clock;
use crate::words::{Json, Kind, Problem, PvcRef, RunId};
use futures::TryStreamExt;
use kube::core::WatchEvent;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A watch that brought nothing, not even a bookmark, is opened again from where it was.
const IDLE: Duration = Duration::from_secs(90);
/// How long the watch may be away before the vigil is over.
const PATIENCE: u32 = 120;

/// The vigils of a run, by claim.
#[derive(Debug, Default)]
pub struct Vigils {
    by_claim: Mutex<BTreeMap<PvcRef, Vigil>>,
}

/// One watch over some claims of one namespace.
#[derive(Clone, Debug)]
pub struct Vigil {
    /// The fence's epoch that it began in: in another one this process was held up meanwhile.
    epoch: u64,
    state: Arc<Mutex<State>>,
    /// The version of the list that it began with.
    from: String,
    /// Name and uid of the first foreign pod that may have mounted the claim, if one was seen.
    user: watch::Receiver<Option<(String, String)>>,
    /// Dropping the last handle ends the watch.
    _guard: Arc<tokio_util::sync::DropGuard>,
}

#[derive(Debug, Default)]
struct State {
    broken: Option<String>,
    live: bool,
}

impl Vigils {
    /// `None`: nobody watches. `Err`: why the watch is worth nothing.
    pub fn state(&self, claim: &PvcRef, epoch: u64) -> Option<Result<(), String>> {
        let map = self.lock();
        let vigil = map.get(claim)?;
        let state = vigil.state.lock().unwrap_or_else(PoisonError::into_inner);
        Some(match &state.broken {
            Some(why) => Err(why.clone()),
            None if vigil.epoch != epoch => Err("this process was held up: nobody watched meanwhile".into()),
            None if !state.live => Err("the watch of the pods is interrupted".into()),
            None => Ok(()),
        })
    }

    /// The version of the pods from which on it is watched, as far as anybody watches.
    pub fn from(&self, claim: &PvcRef) -> String {
        self.lock().get(claim).map(|vigil| vigil.from.clone()).unwrap_or_default()
    }

    /// Name and uid of the first pod that may have mounted the claim, if one was seen.
    pub fn user(&self, claim: &PvcRef) -> Option<(String, String)> {
        self.lock().get(claim)?.user.borrow().clone()
    }

    /// Ends when such a pod is seen; never if none is, or nobody watches.
    pub async fn user_comes(&self, claim: &PvcRef) {
        let user = self.lock().get(claim).map(|vigil| vigil.user.clone());
        if let Some(mut user) = user
            && user.wait_for(Option::is_some).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// Ends the watch over a claim.
    pub fn end(&self, claim: &PvcRef) {
        self.lock().remove(claim);
    }

    /// Begins a watch; an older one over the same claim ends.
    ///
    /// # Errors
    /// `Voided` if a foreign pod uses the claim right now; a read that failed.
    pub async fn begin(&self, cluster: &Cluster, run: &RunId, claim: &PvcRef, epoch: u64) -> Result<(), Problem> {
        self.end(claim);
        let (pods, version) = cluster
            .list(&known("Pod"), &claim.namespace, &[])
            .await
            .map_err(|e| e.problem("see that nobody uses the claim", None))?;
        if let Some(pod) = pods.iter().find(|pod| is_writer(pod, claim, run)) {
            return Err(Problem::new(
                Kind::Voided,
                format!("claim `{claim}` is in use by pod `{}`", text(pod, "/metadata/name")),
            )
            .object(format!("Pod:{}/{}", claim.namespace, text(pod, "/metadata/name")))
            .retryable());
        }
        let state = Arc::new(Mutex::new(State { broken: None, live: true }));
        let (comes, user) = watch::channel(None);
        let ended = tokio_util::sync::CancellationToken::new();
        let vigil = Vigil {
            epoch,
            state: state.clone(),
            from: version.clone(),
            user,
            _guard: Arc::new(ended.clone().drop_guard()),
        };
        let (cluster, run, claim_) = (cluster.clone(), run.clone(), claim.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                why = keep(&cluster, &run, &claim_, version, &state, &comes) => {
                    state.lock().unwrap_or_else(PoisonError::into_inner).broken = Some(why);
                }
            }
        });
        self.lock().insert(claim.clone(), vigil);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PvcRef, Vigil>> {
        self.by_claim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True if a pod is or may become a writer of the claim. A pod that is being deleted still is one.
fn is_writer(pod: &Json, claim: &PvcRef, run: &RunId) -> bool {
    workload::claims_of_spec(&pod["spec"]).contains(&claim.name.as_str())
        && !finished(pod)
        && text(pod, "/metadata/labels/pvmigrate.io~1run") != run.as_str()
}

/// A foreign pod on a node that may have mounted the claim, if there is one now.
///
/// # Errors
/// A read that failed.
pub async fn user_now(cluster: &Cluster, run: &RunId, claim: &PvcRef) -> Result<Option<Json>, Problem> {
    let (pods, _) = cluster
        .list(&known("Pod"), &claim.namespace, &[])
        .await
        .map_err(|e| e.problem("see who uses the claim", None))?;
    Ok(pods.into_iter().find(|pod| is_writer(pod, claim, run) && !text(pod, "/spec/nodeName").is_empty()))
}

/// Watches until the vigil is broken and says why.
async fn keep(
    cluster: &Cluster,
    run: &RunId,
    claim: &PvcRef,
    mut version: String,
    state: &Mutex<State>,
    comes: &watch::Sender<Option<(String, String)>>,
) -> String {
    let live = |yes: bool| state.lock().unwrap_or_else(PoisonError::into_inner).live = yes;
    let mut failures = 0;
    loop {
        let mut stream = match cluster.watch(&known("Pod"), &claim.namespace, &[], &version).await {
            Ok(stream) => stream,
            Err(e) if e.is_passing() && failures < PATIENCE => {
                failures += 1;
                live(false);
                wait::pause(Duration::from_secs(1)).await;
                continue;
            }
            Err(e) => return format!("the watch of the pods cannot go on: {e}"),
        };
        live(true);
        failures = 0;
        let opened = Clock.deadline(Duration::from_secs(1));
        loop {
            let event = match tokio::time::timeout(IDLE, stream.try_next()).await {
                // Silence: the same stretch is asked for again, so nothing is missed.
                Err(_) | Ok(Ok(None)) => break,
                Ok(Err(e)) if e.is_passing() => break,
                Ok(Err(e)) => return format!("the watch of the pods has a gap: {e}"),
                Ok(Ok(Some(event))) => event,
            };
            let pod = match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod) => pod,
                WatchEvent::Bookmark(mark) => {
                    version = mark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => return format!("the watch of the pods has a gap: {}", status.message),
            };
            if is_writer(&pod, claim, run) {
                let name = text(&pod, "/metadata/name");
                let why = format!("pod `{name}` used the claim");
                state.lock().unwrap_or_else(PoisonError::into_inner).broken.get_or_insert_with(|| why.clone());
                // Without a node it has mounted nothing yet, and cannot while the claim is missing or going.
                if !text(&pod, "/spec/nodeName").is_empty() {
                    comes.send_replace(Some((name.to_owned(), super::uid(&pod).to_owned())));
                    return why;
                }
            }
            text(&pod, "/metadata/resourceVersion").clone_into(&mut version);
        }
        if !opened.passed() {
            // Whatever ended it so soon may end the next one at once. Nobody goes by it meanwhile.
            live(false);
            wait::pause(wait::BREATH).await;
        }
    }
}
