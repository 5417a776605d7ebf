//! Each rule as a table of worlds: what is there, what is tried, what the guard says.

use super::*;
use crate::cluster::ledger::{Fact, Swapped};
use crate::cluster::{known, pv, pvc};
use crate::journal::{Class, Precondition};
use crate::words::{Kind, ObjectRef};
use serde_json::json;

fn run() -> RunId {
    RunId::parse("0123abcd").unwrap()
}

fn volume_named(name: &str, policy: &str, claim: Option<(&str, &str)>, phase: &str) -> Json {
    let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "1",
            "annotations": {"pv.kubernetes.io/provisioned-by": "x"}, "finalizers": ["kubernetes.io/pv-protection"]},
        "spec": {"persistentVolumeReclaimPolicy": policy, "csi": {"driver": "d", "volumeHandle": name}},
        "status": {"phase": phase}});
    if let Some((claim, uid)) = claim {
        volume["spec"]["claimRef"] = json!({"namespace": "shop", "name": claim, "uid": uid});
    }
    volume
}

fn claim_named(name: &str, uid: &str, volume: &str) -> Json {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "shop", "uid": uid, "finalizers": ["kubernetes.io/pvc-protection"]},
        "spec": {"volumeName": volume}, "status": {"phase": "Bound"}})
}

fn patch(object: &Json, body: Json) -> Write {
    Write {
        verb: Verb::Patch,
        gvk: known(text(object, "/kind")).gvk,
        namespace: text(object, "/metadata/namespace").into(),
        name: text(object, "/metadata/name").into(),
        body,
        precondition: Precondition::Uid(uid(object).into()),
        inverse: vec![],
        class: Class::Reversible,
    }
}

fn delete(object: &Json, body: Json) -> Write {
    Write { verb: Verb::Delete, ..patch(object, body) }
}

fn policy_to(object: &Json, policy: &str) -> Write {
    patch(object, json!({"spec": {"persistentVolumeReclaimPolicy": policy}}))
}

fn books(facts: Vec<Fact>) -> Books {
    let mut books = Books::default();
    for fact in facts {
        books.take(fact);
    }
    books
}

fn retained(pv: &str) -> Fact {
    Fact::Retained { pv: pv.into(), uid: format!("uid-{pv}"), was: "Delete".into() }
}

fn temporary() -> Fact {
    Fact::Temporary {
        claim: PvcRef::new("shop", "temp"),
        uid: "t1".into(),
        like: PvcRef::new("shop", "data"),
        like_uid: "c1".into(),
    }
}

fn verified() -> Fact {
    Fact::Verified {
        claim: PvcRef::new("shop", "data"),
        source: "old".into(),
        source_uid: "uid-old".into(),
        target: "new".into(),
        target_uid: "uid-new".into(),
        digest: "d".into(),
        mode: "full".into(),
        at: String::new(),
        waived: std::collections::BTreeMap::new(),
    }
}

fn stopped() -> Fact {
    Fact::Stopped {
        workload: ObjectRef::new("Deployment", "shop", "web"),
        uid: "w".into(),
        replicas: 1,
        at_ms: 0,
        claims: vec![PvcRef::new("shop", "data")],
        generation: 1,
    }
}

fn other_stopped() -> Fact {
    Fact::Stopped {
        workload: ObjectRef::new("Deployment", "shop", "else"),
        uid: "e".into(),
        replicas: 1,
        at_ms: 0,
        claims: vec![PvcRef::new("shop", "else")],
        generation: 1,
    }
}

fn swapped() -> Fact {
    Fact::Swapped {
        claim: PvcRef::new("shop", "data"),
        was_uid: "c1".into(),
        uid: "c2".into(),
        source: "old".into(),
        target: "new".into(),
    }
}

fn of(target: &Json) -> Fresh {
    Fresh { target: Some(target.clone()), ..Fresh::default() }
}

fn verdict(write: &Write, books: &Books, fresh: &Fresh) -> Option<Kind> {
    admit(&run(), write, books, fresh).err().map(|problem| problem.kind)
}

const YES: Option<Kind> = None;
const NO: Option<Kind> = Some(Kind::Refused);
const AGAIN: Option<Kind> = Some(Kind::Voided);

#[test]
fn nothing_is_forced_and_no_finalizer_of_others_removed() {
    let claim = claim_named("data", "c1", "");
    for (write, want) in [
        (delete(&claim, json!({"gracePeriodSeconds": 0})), NO),
        (delete(&claim, json!({"propagationPolicy": "Orphan"})), NO),
        (delete(&claim, json!({"propagationPolicy": "Background"})), YES),
        (patch(&claim, json!({"metadata": {"finalizers": null}})), NO),
        (patch(&claim, json!({"metadata": {"finalizers": []}})), NO),
        (patch(&claim, json!({"metadata": {"finalizers": ["kubernetes.io/pvc-protection", "mine.io/x"]}})), YES),
        (patch(&claim, json!({"metadata": {"labels": {"a": "b"}}})), YES),
        (patch(&claim, json!({"spec": {"volumeName": "x"}})), YES),
        (patch(&claim_named("data", "c1", "old"), json!({"spec": {"volumeName": "x"}})), NO),
    ] {
        let target = if write.body.pointer("/spec/volumeName").is_some() && want == NO {
            claim_named("data", "c1", "old")
        } else {
            claim.clone()
        };
        assert_eq!(verdict(&write, &Books::default(), &of(&target)), want, "{write} {}", write.body);
    }
}

#[test]
fn volumes_namespaces_nodes_and_attachments_are_not_deleted() {
    let volume = volume_named("old", "Retain", None, "Available");
    assert_eq!(verdict(&delete(&volume, Json::Null), &Books::default(), &of(&volume)), NO);
    for kind in ["Namespace", "Node", "VolumeAttachment"] {
        let object = json!({"kind": kind, "metadata": {"name": "x", "uid": "u"}});
        assert_eq!(verdict(&delete(&object, Json::Null), &Books::default(), &of(&object)), NO, "{kind}");
    }
    let object = json!({"kind": "ConfigMap", "metadata": {"name": "x", "namespace": "shop", "uid": "u"}});
    assert_eq!(verdict(&delete(&object, Json::Null), &Books::default(), &of(&object)), YES);
}

#[test]
fn delete_policy_only_where_it_destroys_nothing() {
    let bound = volume_named("old", "Retain", Some(("data", "c1")), "Bound");
    let claim = claim_named("data", "c1", "old");
    let mut going = claim.clone();
    going["metadata"]["deletionTimestamp"] = json!("now");
    let mut volume_going = bound.clone();
    volume_going["metadata"]["deletionTimestamp"] = json!("now");
    for (name, volume, there, facts, want) in [
        ("bound both ways", &bound, Some(&claim), vec![], YES),
        ("only protected so far", &bound, Some(&claim), vec![retained("old")], YES),
        ("claim gone", &bound, None, vec![], NO),
        ("another claim of that name", &bound, Some(&claim_named("data", "c9", "old")), vec![], NO),
        ("claim bound elsewhere", &bound, Some(&claim_named("data", "c1", "new")), vec![], NO),
        ("claim going", &bound, Some(&going), vec![], NO),
        ("volume going", &volume_going, Some(&claim), vec![], NO),
        ("released", &volume_named("old", "Retain", Some(("data", "c1")), "Released"), None, vec![], NO),
        ("not yet bound", &volume_named("old", "Retain", Some(("data", "c1")), "Available"), Some(&claim), vec![], NO),
        ("a source while its workload is stopped", &bound, Some(&claim), vec![retained("old"), stopped()], NO),
        ("while another unit is stopped", &bound, Some(&claim), vec![retained("old"), other_stopped()], YES),
        ("a source with a verified copy", &bound, Some(&claim), vec![retained("old"), verified()], NO),
    ] {
        let fresh = Fresh { claim: there.cloned(), ..of(volume) };
        assert_eq!(verdict(&policy_to(volume, "Delete"), &books(facts.clone()), &fresh), want, "{name}");
        assert_eq!(verdict(&policy_to(volume, "Recycle"), &books(facts.clone()), &fresh), NO, "{name}");
        assert_eq!(verdict(&policy_to(volume, "Retain"), &books(facts), &fresh), YES, "{name}");
    }
}

#[test]
fn a_target_stays_retain_until_its_name_stands_on_it() {
    let target = volume_named("new", "Retain", Some(("data", "c2")), "Bound");
    let claim = claim_named("data", "c2", "new");
    let fresh = Fresh { claim: Some(claim), ..of(&target) };
    let write = policy_to(&target, "Delete");
    assert_eq!(verdict(&write, &books(vec![temporary(), verified()]), &fresh), NO);
    assert_eq!(verdict(&write, &books(vec![temporary(), verified(), swapped()]), &fresh), YES);
}

#[test]
fn a_source_is_freed_only_behind_a_standing_target() {
    let source = volume_named("old", "Retain", Some(("data", "c1")), "Released");
    let good = Fresh {
        successor: Some(claim_named("data", "c2", "new")),
        successor_volume: Some(volume_named("new", "Retain", Some(("data", "c2")), "Bound")),
        volumes: vec![source.clone(), volume_named("new", "Retain", Some(("data", "c2")), "Bound")],
        ..of(&source)
    };
    let by_the_way = policy_to(&source, "Delete");
    let write = Write { class: Class::Free, ..by_the_way.clone() };
    let all = || books(vec![retained("old"), temporary(), verified(), swapped()]);
    assert_eq!(verdict(&write, &all(), &good), YES);
    assert_eq!(verdict(&by_the_way, &all(), &good), NO, "what is not said in so many words");
    let discarded = match verified() {
        Fact::Verified { claim, target, target_uid, digest, at, source, source_uid, waived, .. } => {
            let mode = DISCARDED.into();
            Fact::Verified { mode, claim, target, target_uid, digest, at, source, source_uid, waived }
        }
        other => other,
    };
    let only_here = books(vec![retained("old"), temporary(), discarded, swapped()]);
    assert_eq!(verdict(&write, &only_here, &good), NO, "what was written on it is nowhere else");
    assert_eq!(verdict(&write, &books(vec![retained("old"), temporary(), verified()]), &good), NO, "no swap");
    let by_hand = {
        let mut volume = source.clone();
        volume["metadata"]["annotations"] = json!({});
        Fresh { target: Some(volume), ..good.clone() }
    };
    let mut twin = source.clone();
    twin["metadata"]["name"] = json!("twin");
    for (name, fresh) in [
        ("made by hand", by_hand),
        ("no successor", Fresh { successor: None, ..good.clone() }),
        ("another successor", Fresh { successor: Some(claim_named("data", "c3", "new")), ..good.clone() }),
        ("successor elsewhere", Fresh { successor: Some(claim_named("data", "c2", "other")), ..good.clone() }),
        (
            "target not bound",
            Fresh {
                successor_volume: Some(volume_named("new", "Retain", Some(("data", "c2")), "Available")),
                ..good.clone()
            },
        ),
        ("shared backend", Fresh { volumes: vec![twin], ..good.clone() }),
        ("snapshot", Fresh { dependents: vec!["VolumeSnapshotContent:s".into()], ..good.clone() }),
        ("bound again", Fresh { claim: Some(claim_named("data", "c1", "old")), ..good }),
    ] {
        assert_eq!(verdict(&write, &all(), &fresh), NO, "{name}");
    }
}

#[test]
fn a_volume_is_never_without_a_claim_ref() {
    let bound = volume_named("old", "Retain", Some(("data", "c1")), "Bound");
    let released = volume_named("old", "Retain", Some(("data", "c1")), "Released");
    let claim = claim_named("data", "c1", "old");
    let to = |name: &str, uid: Json| json!({"spec": {"claimRef": {"namespace": "shop", "name": name, "uid": uid}}});
    for (name, volume, there, body, want) in [
        ("nil", &bound, Some(&claim), json!({"spec": {"claimRef": null}}), NO),
        ("nil when released", &released, None, json!({"spec": {"claimRef": null}}), NO),
        ("nameless", &released, None, json!({"spec": {"claimRef": {"name": null}}}), NO),
        ("stolen from a bound claim", &bound, Some(&claim), to("thief", Json::Null), NO),
        ("uid off a bound claim", &bound, Some(&claim), to("data", Json::Null), NO),
        ("reserved again for its own name", &released, None, to("data", Json::Null), YES),
        ("nothing there before", &volume_named("old", "Retain", None, "Available"), None, to("data", Json::Null), YES),
        (
            "under Delete",
            &volume_named("old", "Delete", Some(("data", "c1")), "Released"),
            None,
            to("data", Json::Null),
            NO,
        ),
    ] {
        let fresh = Fresh { claim: there.cloned(), ..of(volume) };
        assert_eq!(verdict(&patch(volume, body), &Books::default(), &fresh), want, "{name}");
    }
}

#[test]
fn a_target_is_reserved_only_for_the_name_whose_bytes_it_holds() {
    let target = volume_named("new", "Retain", Some(("temp", "t1")), "Bound");
    let fresh = Fresh { claim: Some(claim_named("temp", "t1", "new")), ..of(&target) };
    let reserve = |name: &str| pv::plan_reserve(Pv(&target), &PvcRef::new("shop", name));
    assert_eq!(verdict(&reserve("data"), &books(vec![temporary()]), &fresh), NO, "not verified");
    assert_eq!(verdict(&reserve("data"), &books(vec![temporary(), verified()]), &fresh), YES);
    assert_eq!(verdict(&reserve("thief"), &books(vec![temporary(), verified()]), &fresh), NO);
    let reserved = volume_named("new", "Retain", Some(("data", "")), "Available");
    let back = pv::plan_return(Pv(&reserved), &PvcRef::new("shop", "temp"), "t1");
    assert_eq!(verdict(&back, &books(vec![temporary(), verified()]), &of(&reserved)), YES, "given back");
    let thief = pv::plan_reserve(Pv(&reserved), &PvcRef::new("shop", "thief"));
    assert_eq!(verdict(&thief, &books(vec![temporary(), verified()]), &of(&reserved)), NO);
}

#[test]
fn a_claim_goes_only_with_its_bytes_safe() {
    let claim = claim_named("data", "c1", "old");
    let write = pvc::plan_delete(Pvc(&claim), Class::Swap);
    let retain = volume_named("old", "Retain", Some(("data", "c1")), "Bound");
    let pod = |phase: &str| {
        json!({"metadata": {"name": "web-0", "namespace": "shop"}, "status": {"phase": phase},
        "spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "data", "readOnly": true}}]}})
    };
    let mut foreign = claim.clone();
    foreign["metadata"]["finalizers"] = json!(["backup.io/hold"]);
    let base = Fresh { volume: Some(retain.clone()), vigil: Some(Ok(())), ..of(&claim) };
    let moving = || vec![retained("old"), temporary(), verified()];
    for (name, fresh, facts, want) in [
        ("verified and watched", base.clone(), moving(), YES),
        ("not of this run, under Retain", base.clone(), vec![], YES),
        (
            "policy Delete",
            Fresh { volume: Some(volume_named("old", "Delete", Some(("data", "c1")), "Bound")), ..base.clone() },
            moving(),
            NO,
        ),
        ("volume unseen", Fresh { volume: None, ..base.clone() }, moving(), NO),
        ("a running pod", Fresh { pods: vec![pod("Running")], ..base.clone() }, moving(), NO),
        ("a finished pod", Fresh { pods: vec![pod("Succeeded")], ..base.clone() }, moving(), NO),
        ("foreign finalizer", Fresh { target: Some(foreign), ..base.clone() }, moving(), NO),
        ("copied, not verified", base.clone(), vec![retained("old"), temporary()], AGAIN),
        ("nobody watched", Fresh { vigil: None, ..base.clone() }, moving(), AGAIN),
        ("somebody came", Fresh { vigil: Some(Err("pod x".into())), ..base.clone() }, moving(), AGAIN),
        (
            "another volume",
            Fresh {
                volume: Some({
                    let mut v = retain.clone();
                    v["metadata"]["uid"] = json!("z");
                    v
                }),
                ..base.clone()
            },
            moving(),
            AGAIN,
        ),
    ] {
        assert_eq!(verdict(&write, &books(facts), &fresh), want, "{name}");
    }
}

#[test]
fn our_temporary_claim_goes_with_its_volume_unless_that_is_precious() {
    let claim = claim_named("temp", "t1", "new");
    let write = pvc::plan_delete(Pvc(&claim), Class::Own);
    for (policy, facts, want) in [
        ("Delete", vec![temporary()], YES),
        ("Delete", vec![temporary(), verified()], NO),
        ("Retain", vec![temporary(), verified()], YES),
    ] {
        let fresh = Fresh { volume: Some(volume_named("new", policy, Some(("temp", "t1")), "Bound")), ..of(&claim) };
        assert_eq!(verdict(&write, &books(facts), &fresh), want, "{policy}");
    }
}

#[test]
fn a_volume_in_other_hands_is_not_touched() {
    let mut volume = volume_named("old", "Delete", Some(("data", "c1")), "Bound");
    volume["metadata"]["annotations"]["pvmigrate.io/run"] = json!("ffffffff");
    assert_eq!(verdict(&pv::plan_retain(Pv(&volume)), &Books::default(), &of(&volume)), Some(Kind::Conflict));
    volume["metadata"]["annotations"]["pvmigrate.io/run"] = json!("0123abcd");
    assert_eq!(verdict(&pv::plan_retain(Pv(&volume)), &Books::default(), &of(&volume)), YES);
}

#[test]
fn a_workload_in_other_hands_is_not_touched() {
    for kind in ["Deployment", "StatefulSet", "ReplicaSet"] {
        for (run, want) in [("ffffffff", Some(Kind::Conflict)), ("0123abcd", YES)] {
            let web = json!({"apiVersion": "apps/v1", "kind": kind, "spec": {"replicas": 0}, "metadata": {
                "name": "web", "namespace": "shop", "uid": "w1", "annotations": {"pvmigrate.io/run": run}}});
            // What a Deployment's ReplicaSets carry is a copy of its own annotation.
            let want = if kind == "ReplicaSet" { YES } else { want };
            for write in [workload::plan_start(&web, 2), workload::plan_scale(&web, 3)] {
                assert_eq!(verdict(&write, &Books::default(), &of(&web)), want, "{kind} {run}");
            }
        }
    }
}

#[test]
fn a_final_pass_waits_for_writers_to_go() {
    let write = Write {
        verb: Verb::Create,
        body: json!({"metadata": {"labels": {"pvmigrate.io/pass": "final", "pvmigrate.io/run": "0123abcd"}},
            "spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}}),
        ..patch(&json!({"kind": "Pod", "metadata": {"namespace": "shop", "name": "copy", "uid": "p"}}), Json::Null)
    };
    let pod = |phase: &str, run: &str, going: bool| {
        let mut pod = json!({"metadata": {"name": "web", "namespace": "shop", "labels": {}}, "status": {"phase": phase},
            "spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}});
        if !run.is_empty() {
            pod["metadata"]["labels"]["pvmigrate.io/run"] = json!(run);
        }
        if going {
            pod["metadata"]["deletionTimestamp"] = json!("now");
        }
        pod
    };
    for (name, pod, want) in [
        ("running", pod("Running", "", false), AGAIN),
        ("terminating", pod("Running", "", true), AGAIN),
        ("pending", pod("Pending", "", false), AGAIN),
        ("unknown", pod("Unknown", "", false), AGAIN),
        ("finished", pod("Succeeded", "", false), YES),
        ("ours", pod("Running", "0123abcd", false), YES),
    ] {
        let fresh = Fresh { pods: vec![pod], ..Fresh::default() };
        assert_eq!(verdict(&write, &Books::default(), &fresh), want, "{name}");
    }
}

#[test]
fn a_set_that_deletes_its_claims_is_not_shrunk() {
    let set = |when: &str, rule: &str| {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "shop", "uid": "s"},
        "spec": {"replicas": 2, "persistentVolumeClaimRetentionPolicy": {when: rule}}})
    };
    for (object, write, want) in [
        (set("whenScaled", "Delete"), workload::plan_stop(&set("whenScaled", "Delete")), NO),
        (set("whenScaled", "Retain"), workload::plan_stop(&set("whenScaled", "Retain")), YES),
        (set("whenScaled", "Delete"), workload::plan_scale(&set("whenScaled", "Delete"), 3), YES),
        (set("whenDeleted", "Delete"), delete(&set("whenDeleted", "Delete"), Json::Null), NO),
        (
            set("x", "y"),
            patch(&set("x", "y"), json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}})),
            NO,
        ),
    ] {
        assert_eq!(verdict(&write, &Books::default(), &of(&object)), want, "{write} {}", write.body);
    }
}

#[test]
fn a_second_door_to_the_same_bytes_must_be_retain() {
    let there = volume_named("old", "Retain", None, "Bound");
    for (policy, handle, want) in
        [("Delete", "old", NO), ("Retain", "old", YES), ("Delete", "fresh", YES), ("Recycle", "fresh", NO)]
    {
        let mut body = volume_named("twin", policy, None, "");
        body["spec"]["csi"]["volumeHandle"] = json!(handle);
        let write = Write { verb: Verb::Create, precondition: Precondition::Absent, ..patch(&body.clone(), body) };
        let fresh = Fresh { volumes: vec![there.clone()], ..Fresh::default() };
        assert_eq!(verdict(&write, &Books::default(), &fresh), want, "{policy} {handle}");
    }
}

#[test]
fn dead_owners_are_not_written() {
    let claim = claim_named("data", "c1", "");
    let write =
        patch(&claim, json!({"metadata": {"ownerReferences": [{"kind": "ConfigMap", "name": "x", "uid": "dead"}]}}));
    assert_eq!(new_owners(&write, Some(&claim)).len(), 1);
    let fresh = Fresh { dead_owners: vec!["ConfigMap:shop/x".into()], ..of(&claim) };
    assert_eq!(verdict(&write, &Books::default(), &fresh), NO);
}

#[test]
fn the_books_remember_the_first_policy_and_the_first_replicas() {
    let mut books = books(vec![retained("old"), stopped(), swapped()]);
    books.take(Fact::Retained { pv: "old".into(), uid: "uid-old".into(), was: "Retain".into() });
    books.take(Fact::Stopped {
        workload: ObjectRef::new("Deployment", "shop", "web"),
        uid: "w".into(),
        replicas: 0,
        at_ms: 9,
        claims: vec![],
        generation: 1,
    });
    assert_eq!(books.retained["old"].1, "Delete");
    assert_eq!(books.stopped.values().next().unwrap().replicas, 1);
    assert_eq!(
        books.swapped["old"],
        Swapped { claim: PvcRef::new("shop", "data"), uid: "c2".into(), target: "new".into() }
    );
}

#[test]
fn only_what_this_run_made_is_copied_onto() {
    let pod = |task: &str, target: &str| {
        json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "shop", "labels": {"pvmigrate.io/task": task}},
        "spec": {"volumes": [{"name": "source", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "target", "persistentVolumeClaim": {"claimName": target}}]}})
    };
    let create =
        |body: Json| Write { verb: Verb::Create, precondition: Precondition::Absent, ..patch(&body.clone(), body) };
    let mut books = Books::default();
    for (task, want) in [("copy", NO), ("verify", YES)] {
        assert_eq!(verdict(&create(pod(task, "logs")), &books, &Fresh::default()), want, "{task}");
    }
    let Fact::Temporary { claim, .. } = temporary() else { unreachable!("it makes that fact") };
    books.take(temporary());
    assert_eq!(verdict(&create(pod("copy", &claim.name)), &books, &Fresh::default()), YES);
    assert_eq!(verdict(&create(pod("copy", "data")), &books, &Fresh::default()), NO);
}

/// A5 of the ancestor: the policy of the target went back to Delete although a thief had it; the bytes went with the thief.
#[test]
fn thief_then_policy_reset() {
    let thief = claim_named("thief", "t9", "new");
    let target = volume_named("new", "Retain", Some(("thief", "t9")), "Bound");
    let rightful = claim_named("data", "c2", "new");
    let ours = volume_named("new", "Retain", Some(("data", "c2")), "Bound");
    let mut books = Books::default();
    for fact in [retained("old"), temporary(), verified()] {
        books.take(fact);
    }
    books
        .swapped
        .insert("old".into(), Swapped { claim: PvcRef::new("shop", "data"), uid: "c2".into(), target: "new".into() });
    for (volume, claim, want) in [(target, thief, NO), (ours, rightful, YES)] {
        let fresh = Fresh { claim: Some(claim), ..of(&volume) };
        let write = patch(&volume, json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}));
        assert_eq!(verdict(&write, &books, &fresh), want, "{volume}");
    }
}

#[test]
fn a_claim_is_let_go_by_its_own_volume_only_to_be_made_anew_on_it_and_when_nobody_uses_it() {
    let bound = volume_named("old", "Retain", Some(("data", "c1")), "Bound");
    let let_go =
        |to: &str| patch(&bound, json!({"spec": {"claimRef": {"namespace": "shop", "name": to, "uid": null}}}));
    let relabels = Fact::Relabels {
        claim: PvcRef::new("shop", "data"),
        from: None,
        uid: "c1".into(),
        pv: "old".into(),
        was: "slow".into(),
    };
    let fresh = Fresh { claim: Some(claim_named("data", "c1", "old")), vigil: Some(Ok(())), ..of(&bound) };
    assert_eq!(verdict(&let_go("data"), &books(vec![]), &fresh), Some(Kind::Refused));
    let ours = books(vec![relabels]);
    assert_eq!(verdict(&let_go("data"), &ours, &fresh), None);
    assert_eq!(verdict(&let_go("other"), &ours, &fresh), Some(Kind::Refused));
    // Somebody uses it, has used it, or nobody watches.
    let pod = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}});
    for other in [
        Fresh { pods: vec![pod.clone()], ..fresh.clone() },
        Fresh { vigil: Some(Err("pod `web` used the claim".into())), ..fresh.clone() },
        Fresh { vigil: None, ..fresh.clone() },
    ] {
        assert_eq!(verdict(&let_go("data"), &ours, &other), Some(Kind::Voided));
    }
    // Not while its volume would go with it, nor for another claim of that name.
    let going = volume_named("old", "Delete", Some(("data", "c1")), "Bound");
    let fresh_going = Fresh { target: Some(going), ..fresh.clone() };
    assert_eq!(verdict(&let_go("data"), &ours, &fresh_going), Some(Kind::Refused));
    let second = volume_named("old", "Retain", Some(("data", "c2")), "Bound");
    let fresh_second = Fresh { target: Some(second), claim: Some(claim_named("data", "c2", "old")), ..fresh.clone() };
    assert_eq!(verdict(&let_go("data"), &ours, &fresh_second), Some(Kind::Refused));
    // A reserved volume is nobody else's, and does not become Delete.
    let reserved = volume_named("old", "Retain", Some(("data", "")), "Available");
    let give = patch(&reserved, json!({"spec": {"claimRef": {"namespace": "shop", "name": "thief"}}}));
    assert_eq!(verdict(&give, &ours, &of(&reserved)), Some(Kind::Refused));
    assert_eq!(verdict(&policy_to(&reserved, "Delete"), &ours, &of(&reserved)), Some(Kind::Refused));
    // Handed over: to the other name only, and back to the one that it is from.
    let over = Fact::Relabels {
        claim: PvcRef::new("shop", "data-2"),
        from: Some(PvcRef::new("shop", "data")),
        uid: "c1".into(),
        pv: "old".into(),
        was: "slow".into(),
    };
    let handed = books(vec![over]);
    assert_eq!(verdict(&let_go("data-2"), &handed, &fresh), None);
    for other in ["data", "thief"] {
        assert_eq!(verdict(&let_go(other), &handed, &fresh), Some(Kind::Refused), "{other}");
    }
    assert_eq!(
        verdict(&let_go("data-2"), &handed, &Fresh { pods: vec![pod.clone()], ..fresh.clone() }),
        Some(Kind::Voided)
    );
    let away = volume_named("old", "Retain", Some(("data-2", "")), "Available");
    let give = |to: &str| patch(&away, json!({"spec": {"claimRef": {"namespace": "shop", "name": to, "uid": "c1"}}}));
    assert_eq!(verdict(&give("data"), &handed, &of(&away)), None);
    assert_eq!(verdict(&give("thief"), &handed, &of(&away)), Some(Kind::Refused));
    // Used again when it is to be deleted: it is let go later.
    let claim = claim_named("data", "c1", "old");
    let used = Fresh { pods: vec![pod], volume: Some(reserved), ..of(&claim) };
    assert_eq!(verdict(&delete(&claim, Json::Null), &ours, &used), Some(Kind::Voided));
    assert_eq!(verdict(&delete(&claim, Json::Null), &books(vec![]), &used), Some(Kind::Refused));
}
