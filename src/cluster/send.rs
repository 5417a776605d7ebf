//! The only place that issues POST, PATCH and DELETE on the user's objects.
//!
//! A write goes: journal (permit) → fresh read → precondition → guards → stamp → one request → what it came to. If the
//! answer leaves open what happened, only a fresh read decides, and only the journal gives a new permit. What must stay
//! true: no request without a permit, no permit used twice, no guard left out, no blind retry.

use super::connect::Cluster;
use super::guard::{self, Fresh};
use super::pv::Pv;
use super::pvc::Pvc;
use super::{Error, Ledger, RUN, STEP, Vigils, known, text, uid, wait};
use crate::journal::{Class, Journal, Permit, Phase, Precondition, StepId, Verb, Write};
use crate::words::{Json, Kind, Problem, PvcRef};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often one write is tried, each time with a permit of its own.
const TRIES: u32 = 8;

/// Everything that a write passes.
#[derive(Clone)]
pub struct Door {
    pub cluster: Cluster,
    pub journal: Arc<Journal>,
    pub ledger: Arc<Ledger>,
    pub vigils: Arc<Vigils>,
    pub cancel: CancellationToken,
}

/// What became of one sending.
enum Sent {
    Ok(Json),
    /// Certainly not carried out.
    Rejected(Problem, Again),
    /// Perhaps carried out.
    Unknown(Problem),
}

/// Whether a rejected write may be planned and sent anew.
#[derive(PartialEq)]
enum Again {
    No,
    /// The object changed in between, or the server is busy: not before this time is over.
    After(Duration),
}

/// What a fresh read says about a write that may have been carried out.
enum Settled {
    Applied(Json),
    NotApplied,
    Foreign(Problem),
}

impl Door {
    /// Carries a write out, once, whatever happens in between, and returns the object as it then was (for deletions
    /// what there was). Safe to call again after a crash with the same id.
    ///
    /// # Errors
    /// What a guard, a precondition or the server refused; `Unreachable` if it stays unknown what happened.
    pub async fn perform(&self, id: &StepId, op: &str, plan: Write) -> Result<Json, Problem> {
        self.perform_on(id, op, plan, None).await
    }

    /// The same with the object as it was just read to plan the write. The guards decide on it, and the request carries
    /// its version: if it is not the present one the server says so, and everything is read again.
    ///
    /// # Errors
    /// As [`Door::perform`].
    pub async fn perform_on(
        &self,
        id: &StepId,
        op: &str,
        plan: Write,
        mut seen: Option<Json>,
    ) -> Result<Json, Problem> {
        let mut write = plan;
        let epoch = self.journal.epoch();
        let sent_before = self.journal.recorded(id).is_some_and(|step| step.sent > 0);
        if let Some(step) = self.journal.recorded(id) {
            match (step.phase, step.write) {
                (Phase::Done { out, blob }, _) => return self.journal.output(&out, blob.as_deref()),
                (Phase::Started, Some(recorded)) => match self.settle(id, &recorded).await? {
                    Settled::Applied(object) => return self.conclude(id, op, &object),
                    // The recorded plan is kept: its inverse was made before anything changed.
                    Settled::NotApplied => write = recorded,
                    Settled::Foreign(problem) => return self.reject(id, op, problem),
                },
                (Phase::Started, None) | (Phase::Failed(_), _) => {}
            }
        }
        for attempt in 1..=TRIES {
            if self.cancel.is_cancelled() {
                return Err(wait::interrupted());
            }
            let permit = self.journal.permit(id, op, &write).await?;
            // It may be from before a pause in which another process did something.
            seen = seen.filter(|_| self.journal.epoch() == epoch);
            match self.send(permit, &write, seen.take()).await {
                Sent::Ok(object) => return self.conclude(id, op, &object),
                Sent::Rejected(problem, again) => {
                    // A conflict may be our own sending that arrived late, or twice.
                    let is_answer = problem.code == Some(409) && write.verb != Verb::Delete;
                    if problem.kind == Kind::Conflict && (attempt > 1 || sent_before || is_answer) {
                        match self.settle(id, &write).await? {
                            Settled::Applied(object) => return self.conclude(id, op, &object),
                            Settled::NotApplied => {}
                            Settled::Foreign(problem) => return self.reject(id, op, problem),
                        }
                    }
                    if again == Again::No || attempt == TRIES {
                        return self.reject(id, op, problem);
                    }
                    let Again::After(least) = again else { continue };
                    wait::pause(least.max(Duration::from_millis(200) * attempt)).await;
                }
                Sent::Unknown(problem) => {
                    tracing::debug!("{write}: {problem}: reading what happened");
                    match self.settle(id, &write).await? {
                        Settled::Applied(object) => return self.conclude(id, op, &object),
                        Settled::NotApplied if attempt == TRIES => return self.reject(id, op, problem),
                        Settled::NotApplied => wait::pause(Duration::from_millis(500) * attempt).await,
                        Settled::Foreign(problem) => return self.reject(id, op, problem),
                    }
                }
            }
        }
        Err(Problem::bug(format!("{write} was neither done nor refused")))
    }

    /// Begins to watch that nobody uses a claim; an older watch over it ends.
    ///
    /// # Errors
    /// `Voided` if a foreign pod uses it right now; a read that failed.
    pub async fn watch_over(&self, claim: &PvcRef) -> Result<(), Problem> {
        let epoch = self.journal.hold().await?;
        self.vigils.begin(&self.cluster, self.journal.run(), claim, epoch).await
    }

    /// What the watch over a claim is worth. `None`: nobody watches. `Err`: why it is worth nothing.
    pub fn vigil(&self, claim: &PvcRef) -> Option<Result<(), String>> {
        self.vigils.state(claim, self.journal.epoch())
    }

    fn conclude(&self, id: &StepId, op: &str, object: &Json) -> Result<Json, Problem> {
        self.journal.done(id, op, object.clone())?;
        Ok(object.clone())
    }

    fn reject(&self, id: &StepId, op: &str, problem: Problem) -> Result<Json, Problem> {
        self.journal.fail(id, op, "", "", &problem)?;
        Err(problem)
    }

    /// Sends one write once. Consumes the permit.
    async fn send(&self, permit: Permit, write: &Write, seen: Option<Json>) -> Sent {
        if !permit.covers(write) {
            return Sent::Rejected(
                Problem::bug(format!("the permit of {} is for another write", permit.step())),
                Again::No,
            );
        }
        let resource = match self.cluster.resource(&kind_text(write)).await {
            Ok(resource) => resource,
            Err(problem) => return Sent::Rejected(problem, Again::No),
        };
        let doing = write.to_string();
        let mut seen = seen;
        let fresh = loop {
            let epoch = match self.journal.hold().await {
                Ok(epoch) => epoch,
                Err(problem) => return Sent::Rejected(problem, Again::No),
            };
            let fresh = match self.gather(write, seen.take()).await {
                Ok(fresh) => fresh,
                Err(problem) => return Sent::Rejected(problem, Again::No),
            };
            // What is gone needs no deletion; and no guard has seen what a request would meet.
            let is_gone = write.verb == Verb::Delete && fresh.target.is_none();
            let admitted = if is_gone { Ok(()) } else { self.admit(&permit, write, &fresh) };
            // Right before it goes out: the run is still ours, and what the guards went by was read since that is known. What
            // they refuse because another process has the run is told as that.
            match self.journal.hold().await {
                Ok(now) if now != epoch => {}
                Ok(_) => match admitted {
                    Ok(()) if is_gone => return Sent::Ok(Json::Null),
                    Ok(()) => break fresh,
                    Err(problem) => return Sent::Rejected(problem, Again::No),
                },
                Err(problem) => return Sent::Rejected(problem, Again::No),
            }
        };
        let version = fresh.target.as_ref().map(|target| text(target, "/metadata/resourceVersion")).unwrap_or_default();
        let (method, path, body, content_type) = request(&permit, write, version);
        let path = if write.verb == Verb::Create {
            resource.path(&write.namespace, "")
        } else {
            resource.path(&write.namespace, &path)
        };
        self.cluster.requests().writes.fetch_add(1, Ordering::Relaxed);
        let query: &[(&str, &str)] = if write.verb == Verb::Delete { &[] } else { &[("fieldManager", "pvmigrate")] };
        match self.cluster.once(method, &path, query, body.to_string().into_bytes(), Some(content_type)).await {
            Ok(object) => {
                self.cluster.has_seen(&object);
                Sent::Ok(super::connect::slim(object))
            }
            Err(e) if e.is_definite() => {
                let problem = e.problem(&doing, Some(&write.object()));
                // A deletion that finds nothing is done.
                if e.says_not_found() && write.verb == Verb::Delete {
                    return Sent::Ok(fresh.target.unwrap_or_default());
                }
                let again = match (&e, &write.precondition) {
                    (Error::Answer { code: 429, .. }, _) => Again::After(e.pause()),
                    // The guards decided on a version that is no longer there: they decide again.
                    (Error::Answer { code: 409, .. }, Precondition::Uid(_)) => Again::After(Duration::ZERO),
                    // Two at once counted against a quota: nothing was made, and nothing stands in the way.
                    (Error::Answer { code: 409, reason, .. }, Precondition::Absent) if reason == "Conflict" => {
                        Again::After(Duration::ZERO)
                    }
                    _ => Again::No,
                };
                Sent::Rejected(problem, again)
            }
            Err(e) => Sent::Unknown(e.problem(&doing, Some(&write.object()))),
        }
    }

    /// Whether the write is still what it was planned to be, and the guards let it pass.
    fn admit(&self, permit: &Permit, write: &Write, fresh: &Fresh) -> Result<(), Problem> {
        precondition(write, fresh.target.as_ref())?;
        let admitted = guard::admit(permit.run(), write, &self.ledger.books(), fresh);
        admitted.map_err(|problem| problem.object(write.object()))
    }

    /// Reads whatever the guards need for this write.
    async fn gather(&self, write: &Write, seen: Option<Json>) -> Result<Fresh, Problem> {
        self.cluster.requests().guarding(self.gather_all(write, seen)).await
    }

    async fn gather_all(&self, write: &Write, seen: Option<Json>) -> Result<Fresh, Problem> {
        let cluster = &self.cluster;
        let look = |e: Error| e.problem(&format!("look at {} before writing", write.object()), Some(&write.object()));
        let mut fresh = Fresh::default();
        let books = self.ledger.books();
        let (volumes, claims) = (known("PersistentVolume"), known("PersistentVolumeClaim"));
        let resource = cluster.resource(&kind_text(write)).await?;
        if write.verb != Verb::Create {
            fresh.target = match seen {
                Some(seen) => Some(seen),
                None => cluster.find(&resource, &write.namespace, &write.name).await.map_err(look)?,
            };
        }
        let needs = guard::needs(write, fresh.target.as_ref(), &books);
        if needs.pods {
            fresh.pods = cluster.list_all(&known("Pod"), &write.namespace).await.map_err(look)?;
        }
        // The volume of a claim is the last that is looked at: nothing watches over its policy.
        if let Some(target) = &fresh.target {
            if needs.volume_of_claim && !Pvc(target).volume().is_empty() {
                fresh.volume = cluster.find(&volumes, "", Pvc(target).volume()).await.map_err(look)?;
                fresh.vigil = self.vigil(&Pvc(target).reference());
            }
            if needs.claim_of_volume
                && let Some(claim) = Pv(target).claim()
            {
                fresh.claim = cluster.find(&claims, &claim.namespace, &claim.name).await.map_err(look)?;
                if needs.pods_of_claim {
                    fresh.pods = cluster.list_all(&known("Pod"), &claim.namespace).await.map_err(look)?;
                    fresh.vigil = self.vigil(&claim);
                }
            }
            if needs.successor
                && let Some(swapped) = books.swapped.get(Pv(target).name()).map(|swapped| books.last_of(swapped))
            {
                let more = super::dependents::before_free(cluster, target, swapped).await?;
                fresh = Fresh { target: fresh.target.clone(), ..more };
            }
        }
        if needs.volumes && fresh.volumes.is_empty() {
            fresh.volumes = cluster.list_all(&volumes, "").await.map_err(look)?;
        }
        for owner in self.dead_owners(write, fresh.target.as_ref()).await? {
            fresh.dead_owners.push(format!("{}:{}/{}", text(&owner, "/kind"), write.namespace, text(&owner, "/name")));
        }
        Ok(fresh)
    }

    /// The ownerReferences that a write puts on its object, and whose owners do not live.
    ///
    /// # Errors
    /// A read that failed.
    pub async fn dead_owners(&self, write: &Write, target: Option<&Json>) -> Result<Vec<Json>, Problem> {
        let cluster = &self.cluster;
        let look = |e: Error| e.problem(&format!("look at what `{write}` needs"), Some(&write.object()));
        let mut dead = Vec::new();
        for owner in guard::new_owners(write, target) {
            let served =
                cluster.find_resource(&format!("{}/{}", text(owner, "/apiVersion"), text(owner, "/kind"))).await?;
            let live = match served {
                Some(kind) => {
                    let namespace = if kind.namespaced { write.namespace.as_str() } else { "" };
                    cluster.find(&kind, namespace, text(owner, "/name")).await.map_err(look)?
                }
                None => None,
            };
            if live.is_none_or(|object| uid(&object) != text(owner, "/uid")) {
                dead.push(owner.clone());
            }
        }
        Ok(dead)
    }

    /// Finds out by reading whether a write was carried out.
    async fn settle(&self, id: &StepId, write: &Write) -> Result<Settled, Problem> {
        let resource = self.cluster.resource(&kind_text(write)).await?;
        let object =
            self.cluster.find(&resource, &write.namespace, &write.name).await.map_err(|e| {
                e.problem(&format!("find out whether `{write}` was carried out"), Some(&write.object()))
            })?;
        let ours = |object: &Json| {
            text(object, "/metadata/annotations/pvmigrate.io~1step") == id.as_str()
                && text(object, "/metadata/annotations/pvmigrate.io~1run") == self.journal.run().as_str()
        };
        Ok(match (write.verb, object) {
            (Verb::Create, None) => Settled::NotApplied,
            (Verb::Create, Some(object)) if ours(&object) => Settled::Applied(object),
            (Verb::Create, Some(_)) => Settled::Foreign(taken(write)),
            (Verb::Delete, None) => Settled::Applied(Json::Null),
            (Verb::Delete, Some(object)) if !guard::is_same(write, &object) => Settled::Applied(Json::Null),
            (Verb::Delete, Some(object)) if !text(&object, "/metadata/deletionTimestamp").is_empty() => {
                Settled::Applied(object)
            }
            (Verb::Delete, Some(_)) => Settled::NotApplied,
            // A volume that was given up goes at once.
            (Verb::Patch, None) if write.class == Class::Free => Settled::Applied(Json::Null),
            (Verb::Patch, None) => Settled::Foreign(vanished(write)),
            (Verb::Patch, Some(object)) if !guard::is_same(write, &object) => Settled::Foreign(replaced(write)),
            (Verb::Patch, Some(object)) if ours(&object) => Settled::Applied(object),
            // It would carry our run: another run that did the same is not us, and its hand is on the object.
            (Verb::Patch, Some(object))
                if is_marking(write)
                    && text(&object, "/metadata/annotations/pvmigrate.io~1run") != self.journal.run().as_str() =>
            {
                Settled::NotApplied
            }
            (Verb::Patch, Some(object)) => {
                let mut after = object.clone();
                json_patch::merge(&mut after, &write.body);
                if after == object { Settled::Applied(object) } else { Settled::NotApplied }
            }
        })
    }
}

/// `apps/v1/Deployment`: how `Cluster::resource` is asked for the kind of a write.
fn kind_text(write: &Write) -> String {
    if super::kinds::is_known(&write.gvk) {
        write.gvk.kind.clone()
    } else {
        format!("{}/{}", write.gvk.api_version(), write.gvk.kind)
    }
}

fn taken(write: &Write) -> Problem {
    Problem::new(Kind::Conflict, format!("{} exists already and is not ours", write.object())).object(write.object())
}

fn vanished(write: &Write) -> Problem {
    Problem::new(Kind::NotFound, format!("{} does not exist any more", write.object())).object(write.object())
}

fn replaced(write: &Write) -> Problem {
    Problem::new(Kind::Conflict, format!("{} was deleted and made anew by somebody else", write.object()))
        .object(write.object())
}

/// Compares the object that is there with the one that the write was planned for.
fn precondition(write: &Write, target: Option<&Json>) -> Result<(), Problem> {
    match (&write.precondition, target) {
        (Precondition::Absent, _) => Ok(()),
        // Deleting what is gone is done; the server's 404 says so.
        (_, None) if write.verb == Verb::Delete => Ok(()),
        (_, None) => Err(vanished(write)),
        (_, Some(target)) if !guard::is_same(write, target) => Err(replaced(write)),
        (Precondition::Version { resource_version, .. }, Some(target))
            if text(target, "/metadata/resourceVersion") != resource_version =>
        {
            Err(Problem::new(Kind::Conflict, format!("{} was changed by somebody else", write.object()))
                .object(write.object()))
        }
        _ => Ok(()),
    }
}

/// Method, name, body and content type, with preconditions and stamps in the body.
fn request(permit: &Permit, write: &Write, version: &str) -> (&'static str, String, Json, &'static str) {
    match write.verb {
        Verb::Create => {
            let mut body = write.body.clone();
            stamp(permit, &mut body);
            ("POST", write.name.clone(), body, "application/json")
        }
        Verb::Patch => {
            let mut body = write.body.clone();
            // Writes that take our marks off, or touch objects that carry none, are told by their effect.
            if is_marking(write) {
                stamp(permit, &mut body);
            }
            if let Some(uid) = write.precondition.uid() {
                body["metadata"]["uid"] = json!(uid);
            }
            body["metadata"]["resourceVersion"] = json!(version);
            ("PATCH", write.name.clone(), body, "application/merge-patch+json")
        }
        Verb::Delete => {
            let mut body = if write.body.is_object() { write.body.clone() } else { json!({}) };
            body["kind"] = json!("DeleteOptions");
            body["apiVersion"] = json!("v1");
            body["preconditions"] = json!({"uid": write.precondition.uid(), "resourceVersion": version});
            if version.is_empty() {
                body["preconditions"].as_object_mut().map(|p| p.remove("resourceVersion"));
            }
            ("DELETE", write.name.clone(), body, "application/json")
        }
    }
}

/// True if the patch sets one of our own annotations: then it also carries run and step.
fn is_marking(write: &Write) -> bool {
    write.body["metadata"]["annotations"]
        .as_object()
        .is_some_and(|map| map.iter().any(|(key, value)| key.starts_with("pvmigrate.io/") && !value.is_null()))
}

fn stamp(permit: &Permit, body: &mut Json) {
    let annotations = &mut body["metadata"]["annotations"];
    if annotations.is_null() {
        *annotations = Value::Object(serde_json::Map::new());
    }
    annotations[RUN] = json!(permit.run().as_str());
    annotations[STEP] = json!(permit.step().as_str());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{pv, pvc};
    use crate::journal::FileStore;
    use crate::words::RunId;

    async fn permit(write: &Write) -> (tempfile::TempDir, Permit) {
        let dir = tempfile::tempdir().unwrap();
        let journal =
            Journal::open(RunId::parse("0123abcd").unwrap(), Box::new(FileStore::open(dir.path()).unwrap())).unwrap();
        let permit = journal.permit(&StepId::new("root/1.x"), "x", write).await.unwrap();
        (dir, permit)
    }

    fn volume() -> Json {
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-1", "uid": "u1", "resourceVersion": "7"},
            "spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    }

    #[tokio::test]
    async fn every_patch_and_delete_carries_uid_and_version() {
        let claim = json!({"metadata": {"name": "data", "namespace": "shop", "uid": "c1"}});
        let object = volume();
        for write in [
            pv::plan_retain(Pv(&object)),
            pv::plan_policy(Pv(&object), "Delete", crate::journal::Class::Reversible),
            pv::plan_reserve(Pv(&object), &PvcRef::new("shop", "data")),
        ] {
            let (_dir, permit) = permit(&write).await;
            let (method, _, body, _) = request(&permit, &write, "7");
            assert_eq!(
                (method, &body["metadata"]["uid"], &body["metadata"]["resourceVersion"]),
                ("PATCH", &json!("u1"), &json!("7"))
            );
        }
        let write = pvc::plan_delete(Pvc(&claim), crate::journal::Class::Swap);
        let (_dir, permit) = permit(&write).await;
        let (_, _, body, _) = request(&permit, &write, "9");
        assert_eq!(body["preconditions"], json!({"uid": "c1", "resourceVersion": "9"}));
        assert!(body.get("gracePeriodSeconds").is_none());
    }

    #[tokio::test]
    async fn stamps_go_where_they_can_be_taken_off_again() {
        let object = volume();
        let mark = pv::plan_retain(Pv(&object));
        let (_dir, one) = permit(&mark).await;
        let (_, _, body, _) = request(&one, &mark, "7");
        assert_eq!(body["metadata"]["annotations"][STEP], "root/1.x");
        let unmark = pv::plan_policy(Pv(&object), "Delete", crate::journal::Class::Reversible);
        let (_dir, two) = permit(&unmark).await;
        let (_, _, body, _) = request(&two, &unmark, "7");
        assert_eq!(body["metadata"]["annotations"][STEP], Value::Null);
    }

    #[test]
    fn a_precondition_is_the_object_not_its_name() {
        let write = pv::plan_retain(Pv(&volume()));
        assert!(precondition(&write, Some(&volume())).is_ok());
        let mut other = volume();
        other["metadata"]["uid"] = json!("u2");
        assert_eq!(precondition(&write, Some(&other)).map_err(|p| p.kind), Err(Kind::Conflict));
        assert_eq!(precondition(&write, None).map_err(|p| p.kind), Err(Kind::NotFound));
        let exact =
            Write { precondition: Precondition::Version { uid: "u1".into(), resource_version: "6".into() }, ..write };
        assert_eq!(precondition(&exact, Some(&volume())).map_err(|p| p.kind), Err(Kind::Conflict));
    }
}
