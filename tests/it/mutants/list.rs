//! The mutants: what each re-introduces, and how.
//!
//! A1 to A15 are the bugs of the tool that came before (its rewrite is why this one exists): each is brought back as a
//! wrong request, a wrong answer or a forgotten journal. The I's break one invariant each.

use super::mutant::{
    DELETE, Mutant, PLAIN, PV, PVC, Way, exchange, forgotten, intruder, lose_a_line, no_pods_of_web, policy, unlink,
    unseen, verified_by_nobody, without,
};
use super::wire::MERGE;
use pvmigrate::journal::T;
use pvmigrate::lab::handle::Verb;
use pvmigrate::trial::How;
use pvmigrate::words::Json;
use serde_json::json;

pub static MUTANTS: &[Mutant] = &[
    Mutant {
        id: "A1",
        what: "dead after the source was made Retain, and what it was before is noted nowhere",
        dies: Some(("retain", 0, How::BeforeDone)),
        wire: |ask, stage| {
            if stage.is("retain", 0) {
                ask.drop("/metadata/annotations/pvmigrate.io~1policy");
            }
            Way::Send
        },
        forged: forgotten,
        ..PLAIN
    },
    Mutant {
        id: "A2",
        what: "dead after the original claim was deleted, and no journal",
        dies: Some(("delete-original", 0, How::BeforeDone)),
        forged: forgotten,
        ..PLAIN
    },
    Mutant {
        id: "A3",
        what: "the source's claimRef is cleared before the new claim is made",
        wire: |_, stage| {
            if stage.is("create", 1) {
                let source = stage.volume_of_class("slow");
                stage.as_us(MERGE, PV, "", &source, json!({"spec": {"claimRef": null}}));
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "A4",
        what: "the target's claimRef is cleared instead of reserved, and a thief waits for it",
        wire: |ask, stage| {
            if stage.is("reserve", 0) {
                ask.set("/spec/claimRef", Json::Null);
                let thief = json!({"apiVersion": "v1", "kind": PVC, "metadata": {"name": "thief", "namespace": "shop"},
                    "spec": {"storageClassName": "fast", "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "64Mi"}}, "volumeName": stage.volume_of_class("fast")}});
                stage.as_another(Verb::Create, PVC, "shop", "thief", thief);
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "A5",
        what: "the policy comes back with the reservation, whoever is bound",
        wire: |ask, stage| {
            if stage.is("reserve", 0) {
                ask.set("/spec/persistentVolumeReclaimPolicy", "Delete");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "A5",
        what: "the source's policy comes back right after the cut-over",
        wire: |_, stage| {
            if stage.is("start", 0) {
                stage.as_us(MERGE, PV, "", &stage.volume_of_class("slow"), policy("Delete"));
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "A6",
        what: "the source volume is deleted right after the cut-over",
        wire: |_, stage| {
            if stage.is("start", 0) {
                stage.as_us(DELETE, PV, "", &stage.volume_of_class("slow"), Json::Null);
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "A7",
        what: "a volume without annotations cannot be annotated",
        wire: |_, stage| {
            if stage.is("retain", 0) {
                return Way::Refuse(422, "Invalid", "the request is invalid: missing path /metadata/annotations");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "A8",
        what: "a copy pod that failed is never seen to have failed",
        waits: true,
        wire: |ask, stage| {
            if stage.is("create-1", 0) {
                ask.set("/spec/containers/0/args", json!(["agent", "copy", "/nowhere", "/target"]));
            }
            Way::Send
        },
        shown: |_, object| {
            if object["status"]["phase"] == "Failed" {
                object["status"]["phase"] = "Running".into();
                object["status"]["containerStatuses"] = json!([]);
            }
            true
        },
        ..PLAIN
    },
    Mutant {
        id: "A9",
        what: "somebody's finalizer holds the original claim for ever",
        waits: true,
        wire: |ask, stage| {
            if stage.is("delete-original", 0) {
                let hold = json!({"metadata": {"finalizers": ["kubernetes.io/pvc-protection", "example.com/hold"]}});
                stage.as_another(MERGE, PVC, "shop", "data", hold);
                ask.drop("/preconditions/resourceVersion");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "A10",
        what: "a pod that somebody starts during the last copy is taken for an old one, by two clocks",
        wire: |_, stage| {
            if stage.is("create-1", 1) {
                stage.as_another(Verb::Create, "Pod", "shop", "intruder", intruder());
            }
            Way::Send
        },
        shown: unseen,
        ..PLAIN
    },
    Mutant {
        id: "A11",
        what: "the workload is scaled by its name alone",
        wire: |ask, stage| {
            if stage.is("start", 0) {
                ask.drop("/metadata/uid");
                ask.drop("/metadata/resourceVersion");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "A12",
        what: "a bystander that carries the annotation is scaled too",
        stage: |stage| {
            let bystander = json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "other", "namespace": "shop", "annotations": {"pvmigrate.io/replicas": "3"}},
                "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "other"}}, "template": {
                    "metadata": {"labels": {"app": "other"}},
                    "spec": {"containers": [{"name": "a", "image": "docker.io/pvmigrate/agent:1"}]}}}});
            stage.as_another(Verb::Create, "Deployment", "shop", "other", bystander);
        },
        wire: |_, stage| {
            if stage.is("start", 0) {
                stage.as_us(MERGE, "Deployment", "shop", "other", json!({"spec": {"replicas": 3}}));
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "A13",
        what: "hard links are lost, and the last pod compares without copying",
        wire: |ask, stage| {
            if stage.is("create-1", 1) {
                unlink(stage);
                ask.set("/spec/containers/0/args", json!(["agent", "verify", "/source", "/target", "--mode", "full"]));
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "A13",
        what: "hard links are lost, and the verification does not look",
        wire: |_, stage| {
            if stage.is("reserve", 0) {
                unlink(stage);
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "A14",
        what: "the new claim has none of the labels",
        wire: |ask, stage| {
            if stage.is("create", 1) {
                ask.drop("/metadata/labels");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "A14",
        what: "the new claim has none of the annotations",
        wire: |ask, stage| {
            if stage.is("create", 1) {
                ask.drop("/metadata/annotations/a.example~1note");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "A15",
        what: "a copy pod is deleted by its name alone",
        wire: |ask, stage| {
            if stage.is("delete-1", 0) {
                ask.drop("/preconditions");
            }
            Way::Send
        },
        ..PLAIN
    },
    // One for each invariant that is looked at.
    Mutant {
        id: "I1",
        what: "at the end the source gets the policy Delete instead of Retain",
        wire: |ask, stage| {
            if stage.is("policy", 1) {
                ask.set("/spec/persistentVolumeReclaimPolicy", "Delete");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I2",
        what: "the source is marked and stays Delete",
        wire: |ask, stage| {
            if stage.is("retain", 0) {
                ask.drop("/spec");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I2",
        what: "the source's policy is given back just before its claim is deleted",
        wire: |_, stage| {
            if stage.is("delete-original", 0) {
                stage.as_us(MERGE, PV, "", &stage.volume_of_class("slow"), policy("Delete"));
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I2",
        what: "the target is marked and stays Delete",
        wire: |ask, stage| {
            if stage.is("retain", 1) {
                ask.drop("/spec");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I3",
        what: "the target's claimRef is cleared after the original claim is gone",
        wire: |_, stage| {
            if stage.is("create", 1) {
                stage.as_us(MERGE, PV, "", &stage.volume_of_class("fast"), json!({"spec": {"claimRef": null}}));
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I4",
        what: "the target gets the policy Delete while its claim is being made",
        wire: |_, stage| {
            if stage.is("create", 1) {
                stage.as_us(MERGE, PV, "", &stage.volume_of_class("fast"), policy("Delete"));
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I5",
        what: "the workload is scaled up as soon as it was stopped, and nobody sees its pods",
        wire: |_, stage| {
            if stage.is("event", 0) {
                stage.as_another(MERGE, "Deployment", "shop", "web", json!({"spec": {"replicas": 1}}));
            }
            Way::Send
        },
        shown: no_pods_of_web,
        ..PLAIN
    },
    Mutant {
        id: "I6",
        what: "a pod comes and goes between the last copy and the deletion, and nobody sees it",
        wire: |_, stage| {
            if stage.is("delete-1", 1) {
                stage.as_another(Verb::Create, "Pod", "shop", "intruder", intruder());
                stage.as_another(DELETE, "Pod", "shop", "intruder", json!({"gracePeriodSeconds": 0}));
            }
            Way::Send
        },
        shown: unseen,
        ..PLAIN
    },
    Mutant {
        id: "I7",
        what: "the last copy goes from the target to the source",
        wire: |ask, stage| {
            if stage.is("create-1", 1) {
                exchange(ask);
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I7",
        what: "the source is written to after the last copy",
        wire: |_, stage| {
            if stage.is("delete-original", 0) {
                let file = stage.directory_of_class("slow").join("odd/linked");
                std::fs::write(file, "one file, written to\n").expect("it is there");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I8",
        what: "a line that the workload wrote last is not on the target",
        wire: |_, stage| {
            if stage.is("reserve", 0) {
                lose_a_line(stage, "fast");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I9",
        what: "the new claim asks for less",
        wire: |ask, stage| {
            if stage.is("create", 1) {
                ask.set("/spec/resources/requests/storage", "32Mi");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I9",
        what: "the new claim is never made, and said to be Bound",
        wire: |ask, stage| {
            if stage.is("create", 1) {
                ask.set("/metadata/uid", "00000000-0000-0000-0000-000000000000");
                ask.set("/status", json!({"phase": "Bound", "capacity": {"storage": "64Mi"}}));
                return Way::Answer(ask.body.clone());
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I10",
        what: "the workload comes back with another number of replicas",
        wire: |ask, stage| {
            if stage.is("start", 0) {
                ask.set("/spec/replicas", 2);
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I10",
        what: "our note stays on the workload",
        wire: |ask, stage| {
            if stage.is("start", 0) {
                ask.drop("/metadata/annotations");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I11",
        what: "the number of replicas is not noted on the workload",
        wire: |ask, stage| {
            if stage.is("stop", 0) {
                ask.drop("/metadata/annotations/pvmigrate.io~1replicas");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I12",
        what: "a write goes to another object than the journal says",
        wire: |ask, stage| {
            if stage.is("policy", 1) {
                let target = stage.volume_of_class("fast");
                let (place, _) = ask.path.rsplit_once('/').expect("it is a path");
                ask.path = format!("{place}/{target}");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I12",
        what: "a write is sent twice for one record",
        wire: |_, stage| if stage.is("delete-temporary", 0) { Way::Twice } else { Way::Send },
        ..PLAIN
    },
    Mutant {
        id: "I13",
        what: "the original claim is deleted by its name alone",
        wire: |ask, stage| {
            if stage.is("delete-original", 0) {
                ask.drop("/preconditions/uid");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I13",
        what: "a volume is patched whatever it is by now",
        wire: |ask, stage| {
            if stage.is("reserve", 0) {
                ask.drop("/metadata/uid");
                ask.drop("/metadata/resourceVersion");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I13",
        what: "a claim is made that does not say by which run",
        wire: |ask, stage| {
            if stage.is("create", 0) {
                ask.drop("/metadata/annotations/pvmigrate.io~1run");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I14",
        what: "somebody else's claim is deleted by the way",
        stage: |stage| {
            let other = json!({"apiVersion": "v1", "kind": PVC, "metadata": {"name": "logs", "namespace": "shop"},
                "spec": {"storageClassName": "fast", "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "64Mi"}}}});
            stage.as_another(Verb::Create, PVC, "shop", "logs", other);
        },
        wire: |_, stage| {
            if stage.is("delete-temporary", 0) {
                stage.as_us(DELETE, PVC, "shop", "logs", Json::Null);
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I15",
        what: "a copy pod is deleted by force",
        wire: |ask, stage| {
            if stage.is("delete-1", 1) {
                ask.set("/gracePeriodSeconds", 0);
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I15",
        what: "the original claim's dependents are orphaned",
        wire: |ask, stage| {
            if stage.is("delete-original", 0) {
                ask.set("/propagationPolicy", "Orphan");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I15",
        what: "finalizers of a claim are taken off",
        wire: |ask, stage| {
            if stage.is("clean", 0) {
                ask.set("/metadata/finalizers", Json::Null);
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I19",
        what: "the temporary claim is left behind",
        wire: |_, stage| {
            if stage.is("delete-temporary", 0) {
                return Way::Answer(json!({"kind": "Status", "status": "Success"}));
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I19",
        what: "our hand stays on the target",
        wire: |ask, stage| {
            if stage.is("policy", 0) {
                ask.drop("/metadata/annotations");
            }
            Way::Send
        },
        ..PLAIN
    },
    Mutant {
        id: "I23",
        what: "the new claim gets an owner that does not live",
        wire: |ask, stage| {
            if stage.is("create", 1) {
                let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db",
                    "uid": "11111111-1111-1111-1111-111111111111"});
                ask.set("/metadata/ownerReferences", json!([owner]));
            }
            Way::Send
        },
        ..PLAIN
    },
    // An order that is another one, and a write that is left out.
    Mutant {
        id: "order",
        what: "the workload is started before the original claim is deleted, and nobody sees its pods",
        wire: |_, stage| {
            if stage.is("delete-1", 1) {
                stage.as_us(MERGE, "Deployment", "shop", "web", json!({"spec": {"replicas": 1}}));
                stage.wait_for_pod_of_web();
            }
            Way::Send
        },
        shown: no_pods_of_web,
        ..PLAIN
    },
    Mutant {
        id: "order",
        what: "the workload is never stopped, and said to be",
        wire: |ask, stage| {
            if stage.is("stop", 0) {
                let mut web = stage.look(|state| state.get("Deployment", "shop", "web").map(|web| (**web).clone()));
                let web = web.as_mut().expect("it is there");
                web["spec"]["replicas"] = 0.into();
                web["metadata"]["annotations"]["pvmigrate.io/replicas"] =
                    ask.body["metadata"]["annotations"]["pvmigrate.io/replicas"].clone();
                return Way::Answer(web.clone());
            }
            Way::Send
        },
        shown: no_pods_of_web,
        ..PLAIN
    },
    Mutant {
        id: "order",
        what: "the reservation is left out, and said to be made",
        wire: |ask, stage| {
            if stage.is("reserve", 0) {
                let mut answer = ask.body.clone();
                answer["metadata"]["name"] = stage.volume_of_class("fast").into();
                return Way::Answer(answer);
            }
            Way::Send
        },
        ..PLAIN
    },
    // The way back.
    Mutant {
        id: "back",
        what: "the new volume may be thrown away before the name stands on the old one",
        wire: |_, stage| {
            if stage.is("delete-original", 0) {
                stage.as_us(MERGE, PV, "", &stage.volume_of_class("fast"), policy("Delete"));
            }
            Way::Send
        },
        back: true,
        ..PLAIN
    },
    Mutant {
        id: "back",
        what: "the old volume is let go instead of given to a temporary claim",
        wire: |ask, stage| {
            if stage.is("give", 0) {
                ask.set("/spec/claimRef", Json::Null);
            }
            Way::Send
        },
        back: true,
        ..PLAIN
    },
    Mutant {
        id: "back",
        what: "the copy back goes the other way",
        wire: |ask, stage| {
            if stage.is("create-1", 1) {
                exchange(ask);
            }
            Way::Send
        },
        back: true,
        ..PLAIN
    },
    Mutant {
        id: "back",
        what: "a line that was written on the new volume does not come along",
        wire: |_, stage| {
            if stage.is("reserve", 0) {
                lose_a_line(stage, "slow");
            }
            Way::Send
        },
        back: true,
        ..PLAIN
    },
    Mutant {
        id: "back",
        what: "the new claim is deleted by its name alone",
        wire: |ask, stage| {
            if stage.is("delete-original", 0) {
                ask.drop("/preconditions/uid");
            }
            Way::Send
        },
        back: true,
        ..PLAIN
    },
    Mutant {
        id: "back",
        what: "the claim comes back without its annotations",
        wire: |ask, stage| {
            if stage.is("create", 1) {
                ask.drop("/metadata/annotations/a.example~1note");
            }
            Way::Send
        },
        back: true,
        ..PLAIN
    },
    Mutant {
        id: "back",
        what: "the temporary claim is left behind",
        wire: |_, stage| {
            if stage.is("delete-temporary", 0) {
                return Way::Answer(json!({"kind": "Status", "status": "Success"}));
            }
            Way::Send
        },
        back: true,
        ..PLAIN
    },
    Mutant {
        id: "back",
        what: "the workload stays at no replicas, and is said to be up",
        wire: |ask, stage| {
            if stage.is("start", 0) {
                ask.set("/spec/replicas", 0);
            }
            Way::Send
        },
        back: true,
        ..PLAIN
    },
    Mutant {
        id: "back",
        what: "the old volume stays Retain",
        wire: |ask, stage| {
            if stage.is("policy", 0) {
                ask.drop("/spec");
            }
            Way::Send
        },
        back: true,
        ..PLAIN
    },
    // The books: what the guards believe.
    Mutant {
        id: "books",
        what: "resumed with a journal that forgot that the workload was stopped",
        dies: Some(("create-1", 1, How::AfterStart)),
        forged: |events| without(events, "stopped"),
        withstood: true,
        ..PLAIN
    },
    Mutant {
        id: "books",
        what: "resumed with a journal that forgot whose the temporary claim is",
        dies: Some(("create-1", 1, How::AfterStart)),
        forged: |events| without(events, "temporary"),
        ..PLAIN
    },
    Mutant {
        id: "books",
        what: "resumed with the records of a last copy and verification that never were, after one that lost hard links",
        dies: Some(("create-1", 1, How::BeforeStart)),
        wire: |_, stage| {
            if stage.is("stop", 0) {
                unlink(stage);
            }
            Way::Send
        },
        forged: verified_by_nobody,
        withstood: true,
        ..PLAIN
    },
    Mutant {
        id: "books",
        what: "resumed with a journal that forgot the claim that was deleted",
        dies: Some(("delete-original", 0, How::BeforeDone)),
        forged: |events| events.into_iter().filter(|event| event.t != T::Beat).collect(),
        ..PLAIN
    },
];
