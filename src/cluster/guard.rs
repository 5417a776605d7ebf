//! The rules that no script can switch off. Pure: a write, the books and fresh reads in, yes or the reason out.
//!
//! They look at what a write *does*, never at who asks: patch_object, apply_object and delete_object pass here like
//! `rebind` does. The letters and numbers in brackets are the invariants that the rules keep.

use super::ledger::Books;
use super::pv::{Backend, Pv};
use super::pvc::Pvc;
use super::workload;
use super::{is_storage_finalizer, text, uid};
use crate::journal::{Class, Verb, Write};
use crate::words::{Json, Problem, PvcRef, RunId};

/// The mode of a verification that was none: the person gave up what the volume holds and the other does not.
pub const DISCARDED: &str = "discarded";

/// What was read just before the write, as far as its rules need it.
#[derive(Clone, Debug, Default)]
pub struct Fresh {
    /// The object to be changed.
    pub target: Option<Json>,
    /// Of a claim: its volume. Of a volume: the claim that its claimRef names.
    pub volume: Option<Json>,
    pub claim: Option<Json>,
    /// All pods of the claim's namespace.
    pub pods: Vec<Json>,
    /// All volumes, where backends must be compared.
    pub volumes: Vec<Json>,
    /// Snapshots and clones that depend on the volume, each with what it is.
    pub dependents: Vec<String>,
    /// For every ownerReference of the body: whether that very owner lives.
    pub dead_owners: Vec<String>,
    /// Of the claim of a swapped name: what stands there now, and its volume.
    pub successor: Option<Json>,
    pub successor_volume: Option<Json>,
    /// Nobody but us has mounted the claim since before its final pass; `Err` says why that is not known.
    pub vigil: Option<Result<(), String>>,
}

/// Says yes, or why not.
///
/// # Errors
/// `Refused` (never, as things stand) or `Voided` (verify again first).
pub fn admit(run: &RunId, write: &Write, books: &Books, fresh: &Fresh) -> Result<(), Problem> {
    no_force(write, fresh)?;
    live_owners(fresh)?;
    if let Some(target) = &fresh.target
        && let Some(holder) = workload::other_holder(target, run)
    {
        return Err(workload::in_other_hands(target, holder));
    }
    match write.gvk.kind.as_str() {
        "PersistentVolume" => match write.verb {
            Verb::Delete => Err(never("a PersistentVolume is not deleted: its backend may go with it")
                .hint("give a volume up with free_pv(pv), which frees the backend too")),
            Verb::Create => new_volume(write, fresh),
            Verb::Patch => volume(run, write, books, fresh),
        },
        "PersistentVolumeClaim" => match write.verb {
            Verb::Delete => delete_claim(books, fresh),
            Verb::Create => Ok(()),
            Verb::Patch => patch_claim(write, fresh),
        },
        "Namespace" | "CustomResourceDefinition" | "Node" | "VolumeAttachment" if write.verb == Verb::Delete => {
            Err(never(&format!("a {} is not deleted: what depends on it goes with it", write.gvk.kind)))
        }
        "VolumeAttachment" | "Node" => {
            Err(never(&format!("a {} is not changed: attachments are the cluster's", write.gvk.kind)))
        }
        "Pod" if write.verb == Verb::Create => {
            own_target(write, books)?;
            final_copy(run, write, fresh)
        }
        "StatefulSet" => stateful_set(write, fresh),
        _ => Ok(()),
    }
}

fn never(message: &str) -> Problem {
    Problem::refused(message)
}

/// No grace period of zero, no finalizer of others removed, no orphans (I15).
fn no_force(write: &Write, fresh: &Fresh) -> Result<(), Problem> {
    if write.verb == Verb::Delete {
        if write.body["gracePeriodSeconds"] == 0 {
            return Err(never("nothing is deleted by force: the kubelet may still be writing"));
        }
        if text(&write.body, "/propagationPolicy") == "Orphan" || write.body["orphanDependents"] == true {
            return Err(never("nothing is deleted with its dependents orphaned"));
        }
    }
    let Some(target) = &fresh.target else { return Ok(()) };
    let after = after(write, target);
    let kept = super::finalizers(&after);
    if let Some(gone) = super::finalizers(target).into_iter().find(|finalizer| !kept.contains(finalizer)) {
        return Err(never(&format!("the finalizer `{gone}` of {} is not ours to remove", write.object())));
    }
    if write.verb == Verb::Patch
        && text(target, "/metadata/deletionTimestamp") != text(&after, "/metadata/deletionTimestamp")
    {
        return Err(never("a deletionTimestamp is not written"));
    }
    Ok(())
}

/// A claim with a dead owner is collected as garbage (I23).
fn live_owners(fresh: &Fresh) -> Result<(), Problem> {
    match fresh.dead_owners.first() {
        Some(owner) => Err(never(&format!("the owner {owner} does not live: the object would be deleted as garbage"))
            .hint("leave the ownerReference out, or name the living owner's uid")),
        None => Ok(()),
    }
}

/// The object as the patch would leave it.
fn after(write: &Write, target: &Json) -> Json {
    let mut after = target.clone();
    if write.verb == Verb::Patch {
        json_patch::merge(&mut after, &write.body);
    }
    after
}

/// A new volume must not be a second door to bytes that another volume holds, with leave to delete them.
fn new_volume(write: &Write, fresh: &Fresh) -> Result<(), Problem> {
    let new = Pv(&write.body);
    if new.policy() == "Recycle" {
        return Err(never("the policy Recycle scrubs volumes"));
    }
    let shared = sharing(new.backend(), new.name(), &fresh.volumes);
    if let Some(other) = shared
        && new.policy() != "Retain"
    {
        return Err(never(&format!(
            "`{}` would share its backend with `{other}` and delete it: make it Retain",
            new.name()
        )));
    }
    Ok(())
}

fn sharing(backend: Option<Backend>, name: &str, volumes: &[Json]) -> Option<String> {
    let backend = backend?;
    volumes
        .iter()
        .map(Pv)
        .find(|other| other.name() != name && other.backend().is_some_and(|theirs| theirs.overlaps(&backend)))
        .map(|other| other.name().to_owned())
}

fn volume(run: &RunId, write: &Write, books: &Books, fresh: &Fresh) -> Result<(), Problem> {
    let Some(target) = &fresh.target else { return Ok(()) };
    let (before, after) = (Pv(target), after(write, target));
    let after = Pv(&after);
    let holder = before.held_by();
    if !holder.is_empty() && holder != run.as_str() {
        return Err(Problem::new(
            crate::words::Kind::Conflict,
            format!("volume `{}` is in the hands of run {holder}", before.name()),
        )
        .hint(format!("end that run first: pvmigrate resume {holder}")));
    }
    if after.policy() != before.policy() {
        policy(write, before, after.policy(), books, fresh)?;
    }
    if after.0["spec"]["claimRef"] != before.0["spec"]["claimRef"] {
        claim_ref(before, after, books, fresh)?;
    }
    Ok(())
}

/// Retain between protect and release (I2); Delete only while it cannot destroy (I4), or to free after the swap.
fn policy(write: &Write, pv: Pv<'_>, to: &str, books: &Books, fresh: &Fresh) -> Result<(), Problem> {
    match to {
        "Retain" => return Ok(()),
        "Recycle" => return Err(never("the policy Recycle scrubs volumes")),
        _ => {}
    }
    let name = pv.name();
    if pv.is_going() {
        return Err(never(&format!("volume `{name}` is being deleted: with the policy {to} its bytes would go too")));
    }
    if let Some(swapped) = books.swapped.get(name) {
        // No script and no inverse of a write makes one of this class: to give a volume up is said in so many words.
        if write.class != Class::Free {
            return Err(never(&format!("volume `{name}` was replaced: with the policy {to} its bytes would go"))
                .hint("give it up with free_pv(pv)"));
        }
        if books.verified.get(name).is_some_and(|verified| verified.mode == DISCARDED) {
            return Err(never(&format!("volume `{name}` is kept: what was written on it is nowhere else"))
                .hint("`pvmigrate cleanup RUN` gives it up"));
        }
        return free(pv, books.last_of(swapped), fresh);
    }
    let temporary = pv.claim().is_some_and(|claim| books.temporary.contains_key(&claim));
    let is_target = books.verified_target(name).is_some() && books.swap_onto(name).is_none();
    if is_target && !temporary {
        return Err(never(&format!("volume `{name}` is the target of a swap that is not over: it stays Retain")));
    }
    if let Some((_, swapped)) = books.swap_onto(name)
        && pv.claim_uid() != swapped.uid
    {
        return Err(never(&format!(
            "volume `{name}` stays Retain: another claim has it than `{}` of the swap",
            swapped.claim
        )));
    }
    if books.retained.contains_key(name) && books.swap_onto(name).is_none() && !temporary {
        let stopped =
            pv.claim().is_some_and(|claim| books.stopped.values().any(|stopped| stopped.claims.contains(&claim)));
        let verified = books.verified.contains_key(name);
        if stopped || verified {
            return Err(never(&format!("volume `{name}` is the source of a move that is not over: it stays Retain")));
        }
    }
    bound_for_good(pv, fresh, to)
}

/// The only state in which `Delete` destroys nothing: bound both ways, nobody going.
fn bound_for_good(pv: Pv<'_>, fresh: &Fresh, to: &str) -> Result<(), Problem> {
    let claim =
        fresh.claim.as_ref().map(Pvc).filter(|claim| claim.uid() == pv.claim_uid() && !pv.claim_uid().is_empty());
    let fault = match claim {
        None => "its claim is gone",
        Some(claim) if claim.volume() != pv.name() => "its claim is bound elsewhere",
        Some(claim) if claim.is_going() => "its claim is being deleted",
        Some(_) if pv.phase() != "Bound" => "it is not Bound",
        Some(_) => return Ok(()),
    };
    Err(never(&format!("volume `{}` stays Retain: {fault}, so the policy {to} would delete its bytes", pv.name()))
        .hint("a volume that was replaced is given up with free_pv(pv)"))
}

/// Giving a source up: the name stands on the verified target, nothing depends on the bytes (section 6.9 of the design).
fn free(pv: Pv<'_>, swapped: &super::ledger::Swapped, fresh: &Fresh) -> Result<(), Problem> {
    let why = why_kept(pv, swapped, fresh);
    if why.is_empty() {
        return Ok(());
    }
    Err(never(&format!("volume `{}` is kept: {}", pv.name(), why.join("; ")))
        .hint(format!("its bytes are at {}", pv.handle())))
}

/// Everything that speaks against giving a source up, at once.
pub fn why_kept(pv: Pv<'_>, swapped: &super::ledger::Swapped, fresh: &Fresh) -> Vec<String> {
    let mut why = Vec::new();
    let name = pv.name();
    if pv.provisioned_by().is_empty() {
        why.push("it was made by hand: no provisioner can free it".to_owned());
    }
    let successor = fresh.successor.as_ref().map(Pvc);
    let volume = fresh.successor_volume.as_ref().map(Pv);
    let stands = successor.is_some_and(|claim| {
        claim.uid() == swapped.uid && claim.is_bound() && !claim.is_going() && claim.volume() == swapped.target
    }) && volume
        .is_some_and(|target| target.claim_uid() == swapped.uid && target.phase() == "Bound" && !target.is_going());
    if !stands {
        why.push(format!("claim `{}` does not stand on `{}` any more", swapped.claim, swapped.target));
    }
    if let Some(claim) = fresh.claim.as_ref().map(Pvc)
        && claim.volume() == name
    {
        why.push(format!("claim `{}` is bound to it", claim.reference()));
    }
    if let Some(other) = sharing(pv.backend(), name, &fresh.volumes) {
        why.push(format!("`{other}` stands on the same backend"));
    }
    why.extend(fresh.dependents.iter().cloned());
    why
}

/// Never without a claimRef (I3); a new one only as a reservation for the name that the bytes belong to.
fn claim_ref(before: Pv<'_>, after: Pv<'_>, books: &Books, fresh: &Fresh) -> Result<(), Problem> {
    let name = before.name();
    let Some(wanted) = after.claim() else {
        return Err(never(&format!("volume `{name}` is never without a claimRef: any claim could take it"))
            .hint("rebind(pv, namespace, name) reserves it for one claim"));
    };
    if before.claim().is_none() {
        return Ok(());
    }
    if after.policy() != "Retain" {
        return Err(never(&format!(
            "volume `{name}` has the policy {}: its claimRef is changed only under Retain",
            after.policy()
        ))
        .hint("set_retain(pv) first"));
    }
    let live =
        fresh.claim.as_ref().map(Pvc).filter(|claim| {
            claim.uid() == before.claim_uid() && !before.claim_uid().is_empty() && claim.volume() == name
        });
    if let Some(claim) = live {
        // Only our own temporary claim may lose its volume, and only to the original whose bytes were verified on it.
        let Some((_, like, _)) = books.temporary.get(&claim.reference()) else {
            if books.relabels.get(name).is_some_and(|one| one.claim == wanted && one.uid == claim.uid()) {
                return unused(&claim.reference(), fresh);
            }
            if before.claim() == Some(wanted.clone()) {
                return Err(never(&format!(
                    "the uid in the claimRef of `{name}` is not removed: claim `{wanted}` is bound to it"
                )));
            }
            return Err(never(&format!("claim `{}` is bound to `{name}`: it would be lost", claim.reference())));
        };
        let itself = wanted == claim.reference() && after.claim_uid() == claim.uid();
        if !itself && (wanted != *like || books.verified_target(name).is_none()) {
            return Err(never(&format!("`{name}` may be reserved for `{like}` only, after its copy was verified")));
        }
        return Ok(());
    }
    let belongs = before.claim() == Some(wanted.clone())
        || books.temporary.values().any(|(_, like, _)| *like == wanted)
        || books.temporary.contains_key(&wanted)
        || books.relabels.get(name).is_some_and(|one| one.claim == wanted || one.from == wanted);
    let is_moved =
        books.swap_onto(name).is_some() || books.verified_target(name).is_some() || books.swapped.contains_key(name);
    if is_moved || books.relabels.contains_key(name) {
        return if belongs {
            Ok(())
        } else {
            Err(never(&format!("`{name}` is not given to `{wanted}`: its bytes belong to another claim")))
        };
    }
    Ok(())
}

/// A claim that is to be made anew on its own volume is let go only when nobody uses it: whoever has it mounted would lose it.
fn unused(claim: &PvcRef, fresh: &Fresh) -> Result<(), Problem> {
    let user = fresh.pods.iter().find(|pod| names(pod, claim)).map(|pod| text(pod, "/metadata/name"));
    let why = match (user, &fresh.vigil) {
        (Some(user), _) => format!("pod `{user}` names it"),
        (None, Some(Ok(()))) => return Ok(()),
        (None, Some(Err(why))) => why.clone(),
        (None, None) => "nobody watches that it is not used".to_owned(),
    };
    Err(Problem::new(crate::words::Kind::Voided, format!("claim `{claim}` stays on its volume: {why}"))
        .retryable()
        .hint("stop what uses it again"))
}

fn patch_claim(write: &Write, fresh: &Fresh) -> Result<(), Problem> {
    let Some(target) = &fresh.target else { return Ok(()) };
    let (before, after) = (Pvc(target), after(write, target));
    if !before.volume().is_empty() && Pvc(&after).volume() != before.volume() {
        return Err(
            never(&format!("claim `{}` stays on its volume", before.reference())).hint("moves go through rebind")
        );
    }
    Ok(())
}

fn delete_claim(books: &Books, fresh: &Fresh) -> Result<(), Problem> {
    let Some(target) = &fresh.target else { return Ok(()) };
    let claim = Pvc(target);
    let reference = claim.reference();
    if let Some(foreign) = claim.finalizers().into_iter().find(|finalizer| !is_storage_finalizer(finalizer)) {
        return Err(never(&format!(
            "claim `{reference}` has the finalizer `{foreign}`: somebody else must let it go first"
        )));
    }
    // A finished pod holds a claim as a running one does: the deletion would hang and could not be taken back (obs C).
    let holding = fresh.pods.iter().find(|pod| names(pod, &reference));
    if let Some(pod) = holding {
        // What stays on its volume is stopped again, and let go then.
        if books.relabels.get(claim.volume()).is_some_and(|one| one.uid == claim.uid()) {
            return unused(&reference, fresh);
        }
        return Err(never(&format!("claim `{reference}` is still named by pod `{}`", text(pod, "/metadata/name"))));
    }
    if claim.volume().is_empty() {
        return Ok(());
    }
    let is_ours = books.temporary.get(&reference).is_some_and(|(uid, ..)| uid == claim.uid());
    if is_ours && fresh.volume.is_none() && books.freed.contains(claim.volume()) {
        return Ok(());
    }
    let Some(volume) = fresh.volume.as_ref().map(Pv) else {
        return Err(never(&format!("claim `{reference}`: its volume `{}` cannot be seen", claim.volume())));
    };
    if is_ours {
        // Ours: its volume may go with it unless it is, or is about to be, what the original name stands on.
        let precious = books.verified_target(volume.name()).is_some() || books.swap_onto(volume.name()).is_some();
        if precious && volume.policy() != "Retain" {
            return Err(never(&format!("volume `{}` holds verified bytes and is not Retain", volume.name())));
        }
        return Ok(());
    }
    if volume.policy() != "Retain" || volume.is_going() {
        return Err(never(&format!(
            "claim `{reference}` is not deleted while its volume `{}` has the policy {}: the bytes would go too",
            volume.name(),
            volume.policy()
        ))
        .hint("set_retain(pv) first"));
    }
    if let Some(verified) = books.verified.get(volume.name()) {
        if verified.source_uid != volume.uid() {
            return Err(voided(&reference, "its volume is another one than the verified one"));
        }
        match &fresh.vigil {
            Some(Ok(())) => return Ok(()),
            Some(Err(why)) => return Err(voided(&reference, why)),
            None => return Err(voided(&reference, "nobody has watched since the final pass")),
        }
    }
    if books.temporary.values().any(|(_, like, _)| *like == reference) {
        return Err(voided(&reference, "its copy is not verified"));
    }
    Ok(())
}

fn voided(claim: &PvcRef, why: &str) -> Problem {
    Problem::new(crate::words::Kind::Voided, format!("the copy of `{claim}` cannot be trusted any more: {why}"))
        .retryable()
        .hint("make the final pass and its verification again")
}

fn names(pod: &Json, claim: &PvcRef) -> bool {
    text(pod, "/metadata/namespace") == claim.namespace
        && workload::claims_of_spec(&pod["spec"]).contains(&claim.name.as_str())
}

/// A copy overwrites and deletes in its target: only what this run made for it may be one.
fn own_target(write: &Write, books: &Books) -> Result<(), Problem> {
    if text(&write.body, "/metadata/labels/pvmigrate.io~1task") != "copy" {
        return Ok(());
    }
    let volumes = write.body["spec"]["volumes"].as_array().into_iter().flatten();
    for target in volumes.filter(|volume| volume["name"] == "target") {
        let claim = PvcRef::new(&write.namespace, text(target, "/persistentVolumeClaim/claimName"));
        if !books.temporary.contains_key(&claim) {
            return Err(never(&format!("claim `{claim}` was not made by this run: nothing is copied over it"))
                .hint("copy to what create_pvc(like, opts) returned"));
        }
    }
    Ok(())
}

/// The pod of a final pass starts only when nobody else has the claims (I5).
fn final_copy(run: &RunId, write: &Write, fresh: &Fresh) -> Result<(), Problem> {
    if text(&write.body, "/metadata/labels/pvmigrate.io~1pass") != "final" {
        return Ok(());
    }
    for claim in workload::claims_of_spec(&write.body["spec"]) {
        let claim = PvcRef::new(&write.namespace, claim);
        let ours = |pod: &&Json| text(pod, "/metadata/labels/pvmigrate.io~1run") == run.as_str();
        if let Some(pod) = fresh.pods.iter().find(|pod| names(pod, &claim) && !ours(pod) && !finished(pod)) {
            return Err(Problem::new(
                crate::words::Kind::Voided,
                format!("no final pass of `{claim}`: pod `{}` uses it", text(pod, "/metadata/name")),
            )
            .retryable());
        }
    }
    Ok(())
}

pub(super) fn finished(pod: &Json) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// A set that deletes its claims when it shrinks or goes is not shrunk and does not go.
fn stateful_set(write: &Write, fresh: &Fresh) -> Result<(), Problem> {
    let Some(target) = &fresh.target else { return Ok(()) };
    let after = after(write, target);
    let rule = |object: &Json, when: &str| {
        text(object, &format!("/spec/persistentVolumeClaimRetentionPolicy/{when}")) == "Delete"
    };
    if write.verb == Verb::Delete && rule(target, "whenDeleted") {
        return Err(never(&format!("{} deletes its claims when it is deleted", write.object())));
    }
    if workload::replicas(&after) < workload::replicas(target) && rule(target, "whenScaled") {
        return Err(never(&format!("{} deletes claims when it is scaled down", write.object()))
            .hint("set persistentVolumeClaimRetentionPolicy.whenScaled to Retain first"));
    }
    for when in ["whenDeleted", "whenScaled"] {
        if rule(&after, when) && !rule(target, when) {
            return Err(never(&format!("{} is not told to delete its claims", write.object())));
        }
    }
    Ok(())
}

/// Which fresh reads a write needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub volume_of_claim: bool,
    pub claim_of_volume: bool,
    pub pods: bool,
    /// Of a volume: the pods of the namespace of the claim that its claimRef names, and the watch over that claim.
    pub pods_of_claim: bool,
    pub volumes: bool,
    pub successor: bool,
}

/// Looks at the content of a write and its target.
pub fn needs(write: &Write, target: Option<&Json>, books: &Books) -> Needs {
    let mut needs = Needs::default();
    match (write.gvk.kind.as_str(), write.verb) {
        ("PersistentVolume", Verb::Create) => needs.volumes = true,
        ("PersistentVolume", Verb::Patch) => {
            if let Some(target) = target {
                let after = after(write, target);
                let frees = Pv(&after).policy() != Pv(target).policy() && Pv(&after).policy() != "Retain";
                let moves = after["spec"]["claimRef"] != target["spec"]["claimRef"];
                needs.claim_of_volume = frees || moves;
                // The claim is let go and made anew: whoever names it speaks against that.
                needs.pods_of_claim = moves && books.relabels.contains_key(Pv(target).name());
                if frees && books.swapped.contains_key(Pv(target).name()) {
                    needs.successor = true;
                    needs.volumes = true;
                }
            }
        }
        ("PersistentVolumeClaim", Verb::Delete) => {
            needs.volume_of_claim = true;
            needs.pods = true;
        }
        ("Pod", Verb::Create) => needs.pods = text(&write.body, "/metadata/labels/pvmigrate.io~1pass") == "final",
        _ => {}
    }
    needs
}

/// The ownerReferences that a write puts on its object and that were not there before.
pub fn new_owners<'a>(write: &'a Write, target: Option<&Json>) -> Vec<&'a Json> {
    let had: Vec<&str> = target
        .and_then(|object| object["metadata"]["ownerReferences"].as_array())
        .into_iter()
        .flatten()
        .map(|owner| text(owner, "/uid"))
        .collect();
    write.body["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|owner| !had.contains(&text(owner, "/uid")))
        .collect()
}

/// True if a write's target is still the object that it was planned for.
pub fn is_same(write: &Write, target: &Json) -> bool {
    write.precondition.uid().is_none_or(|wanted| wanted == uid(target))
}

#[cfg(test)]
mod tests;
