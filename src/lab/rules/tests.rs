//! The rules against what a real server of 1.20.2 answered to the same objects.

use crate::lab::admit::{self, Operation};
use crate::lab::kind::{Kind, kind};
use crate::lab::meta;
use crate::lab::rules::field::{drop_key, drop_nulls, set};
use crate::lab::status::Cause;
use crate::lab::store::{Key, State, text};
use serde_json::{Value, json};

const CREATES: &str = include_str!("../../../tests/golden/lab/creates-1.20.2.jsonl");
const UPDATES: &str = include_str!("../../../tests/golden/lab/updates-1.20.2.jsonl");
const OBJECTS: &str = include_str!("../../../tests/golden/lab/objects-1.20.2.json");

fn state() -> State {
    let mut state = State::new(1, jiff::Timestamp::UNIX_EPOCH);
    for namespace in ["shop", "e28429"] {
        state.put(Key::new("Namespace", "", namespace), json!({"status": {"phase": "Active"}}), "me");
        state.put(Key::new("ServiceAccount", namespace, "default"), json!({}), "me");
    }
    state
}

fn said(causes: &[Cause]) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for one in causes {
        let one = json!({"reason": one.reason, "field": one.field, "message": one.message});
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

/// What becomes of an object that is created: it, or why not.
fn create(state: &State, kind: &'static Kind, input: &Value, like: &Value) -> Result<Value, Vec<Value>> {
    let mut object = input.clone();
    meta::tidy(&mut object);
    (kind.rules.default)(&mut object);
    let namespace = if kind.namespaced { text(&like["metadata"]["namespace"]) } else { "" };
    let namespace = if kind.namespaced && namespace.is_empty() { "shop" } else { namespace };
    if kind.namespaced {
        set(&mut object["metadata"], "namespace", namespace);
    }
    let refused = |status: crate::lab::status::Status| vec![json!({"code": status.code, "message": status.message})];
    admit::mutate(state, kind, Operation::Create, namespace, &mut object, None, "me").map_err(refused)?;
    set(&mut object["metadata"], "uid", "868c730c-5400-4525-8fbc-f9c04c1458a6");
    for key in ["uid", "creationTimestamp", "resourceVersion", "generation"] {
        if !like["metadata"][key].is_null() {
            set(&mut object["metadata"], key, like["metadata"][key].clone());
        }
    }
    if kind.kind == "Node" {
        // These were recorded without the admission that taints new nodes.
        drop_taint(&mut object["spec"]);
    }
    (kind.rules.prepare)(&mut object, None);
    let mut causes = meta::validate(kind, &object);
    causes.extend((kind.rules.validate)(&object));
    if causes.is_empty() { Ok(object) } else { Err(said(&causes)) }
}

fn drop_taint(spec: &mut Value) {
    let Some(taints) = spec["taints"].as_array_mut() else { return };
    taints.retain(|taint| taint["key"] != "node.kubernetes.io/not-ready");
    if taints.is_empty() {
        drop_key(spec, "taints");
    }
}

fn update(state: &State, kind: &'static Kind, case: &Value) -> Result<Value, Vec<Value>> {
    let (old, mut new) = (&case["old"], case["new"].clone());
    for key in ["creationTimestamp", "generation", "resourceVersion"] {
        set(&mut new["metadata"], key, old["metadata"][key].clone());
    }
    meta::tidy(&mut new);
    let mut causes = Vec::new();
    if case["sub"] == "/status" {
        let mut object = old.clone();
        set(&mut object, "status", new["status"].clone());
        (kind.rules.default)(&mut object);
        causes.extend((kind.rules.validate_status)(&object, old));
        return if causes.is_empty() { Ok(object) } else { Err(said(&causes)) };
    }
    (kind.rules.default)(&mut new);
    let namespace = text(&old["metadata"]["namespace"]);
    admit::mutate(state, kind, Operation::Update, namespace, &mut new, Some(old), "me").unwrap();
    (kind.rules.prepare)(&mut new, Some(old));
    causes.extend(meta::validate(kind, &new));
    causes.extend(meta::validate_update(&new, old));
    causes.extend((kind.rules.validate)(&new));
    causes.extend((kind.rules.validate_update)(&new, old));
    if causes.is_empty() { Ok(new) } else { Err(said(&causes)) }
}

fn sorted(mut all: Vec<Value>) -> Vec<Value> {
    all.sort_by_key(Value::to_string);
    all
}

/// Compares with what the real server said.
fn differences(case: &Value, ours: Result<Value, Vec<Value>>) -> Option<String> {
    let name = text(&case["name"]);
    match ours {
        Ok(mut object) => {
            let mut expected = case["object"].clone();
            for one in [&mut object, &mut expected] {
                if let Some(meta) = one.get_mut("metadata") {
                    for key in ["generation", "resourceVersion", "selfLink"] {
                        drop_key(meta, key);
                    }
                }
                if case["kind"] != "Event" {
                    drop_nulls(one);
                }
            }
            (object != expected).then(|| format!("{name}\n   ours {object}\n   real {expected}"))
        }
        Err(causes) => {
            let expected: Vec<Value> = match &case["causes"] {
                Value::Array(all) => all.clone(),
                _ if case["object"].is_object() => Vec::new(),
                _ => vec![json!({"code": case["code"], "message": case["message"]})],
            };
            // The real server walks through maps in any order.
            let any_order = ["metadata.labels", "spec.hard", "data[", "spec.containers[0].ports"]
                .iter()
                .any(|start| expected.iter().any(|one| text(&one["field"]).starts_with(start)));
            let same = match any_order {
                true => sorted(causes.clone()) == sorted(expected.clone()),
                false => causes == expected,
            };
            (!same).then(|| format!("{name}\n   ours {}\n   real {}", json!(causes), json!(expected)))
        }
    }
}

fn check(cases: &str, ours: impl Fn(&Value) -> Result<Value, Vec<Value>>) {
    let mut wrong = Vec::new();
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        wrong.extend(differences(&case, ours(&case)));
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn new_objects_are_answered_as_by_the_real_server() {
    let state = state();
    check(CREATES, |case| create(&state, kind(text(&case["kind"])), &case["input"], &case["object"]));
}

#[test]
fn changes_are_answered_as_by_the_real_server() {
    let state = state();
    check(UPDATES, |case| update(&state, kind(text(&case["kind"])), case));
}

/// Each captured object, from as little as makes it. What controllers wrote later is taken out first.
#[test]
fn captured_objects_come_from_little() {
    let state = state();
    let captured: Value = serde_json::from_str(OBJECTS).unwrap();
    let containers = json!([{"name": "c", "image": "i"}]);
    let template = |label: &str| json!({"metadata": {"labels": {"a": label}}, "spec": {"containers": containers}});
    let workload =
        |label: &str| json!({"replicas": 0, "selector": {"matchLabels": {"a": label}}, "template": template(label)});
    let mut set_spec = workload("y");
    set_spec["serviceName"] = "s".into();
    let volume = json!({
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "sa",
        "hostPath": {"path": "/tmp/hp/t-e28429"},
    });
    let claim = json!({
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "sa",
    });
    let job = json!({"template": {"spec": {"containers": containers, "restartPolicy": "Never"}}});
    for (key, spec) in [
        ("pod", json!({"containers": containers, "nodeName": "n1"})),
        ("pvc", claim),
        ("pv", volume),
        ("deploy", workload("z")),
        ("sts", set_spec),
        ("job", job),
        ("ns", json!({})),
    ] {
        let mut expected = captured[key].clone();
        let kind = kind(text(&expected["kind"]));
        let mut input = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "spec": spec});
        input["metadata"] = json!({"name": expected["metadata"]["name"]});
        if key == "pod" {
            input["metadata"]["labels"] = expected["metadata"]["labels"].clone();
        }
        let mut object = create(&state, kind, &input, &expected).unwrap();
        // The server that answered had no service accounts.
        for name in ["serviceAccount", "serviceAccountName"] {
            drop_key(&mut object["spec"], name);
        }
        for name in ["claimRef", "volumeName"] {
            drop_key(&mut expected["spec"], name);
        }
        drop_key(&mut expected["metadata"], "annotations");
        let later = ["deploy", "sts", "job", "pv", "pvc"].contains(&key);
        if later {
            drop_key(&mut expected, "status");
            drop_key(&mut object, "status");
        }
        assert_eq!(object, expected, "{key}");
    }
}

#[test]
fn what_the_lab_would_ignore_is_refused() {
    let pod = |spec: Value| json!({"spec": spec});
    let workload = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    let table = [
        ("Pod", pod(json!({"initContainers": [{"name": "i"}]})), "spec.initContainers"),
        ("Pod", pod(json!({"volumes": [{"name": "v", "projected": {}}]})), "spec.volumes[0].projected"),
        (
            "Pod",
            pod(json!({"containers": [{"volumeMounts": [{"subPath": "a"}]}]})),
            "spec.containers[0].volumeMounts[0].subPath",
        ),
        (
            "Deployment",
            workload(json!({"containers": [{"livenessProbe": {"exec": {}}}]})),
            "spec.template.spec.containers[0].livenessProbe",
        ),
        (
            "StatefulSet",
            workload(json!({"topologySpreadConstraints": [{}]})),
            "spec.template.spec.topologySpreadConstraints",
        ),
        (
            "DaemonSet",
            workload(
                json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}}),
            ),
            "spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        ),
        ("PersistentVolumeClaim", pod(json!({"dataSource": {"kind": "VolumeSnapshot"}})), "spec.dataSource"),
        (
            "PersistentVolumeClaim",
            pod(json!({"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "a"}})),
            "spec.dataSourceRef",
        ),
        (
            "PersistentVolume",
            pod(json!({"persistentVolumeReclaimPolicy": "Recycle"})),
            "spec.persistentVolumeReclaimPolicy",
        ),
        ("PersistentVolume", pod(json!({"rbd": {}})), "spec.rbd"),
        ("CronJob", json!({}), "kind"),
        ("HorizontalPodAutoscaler", json!({}), "kind"),
        ("ReplicationController", json!({}), "kind"),
    ];
    for (name, object, field) in table {
        let causes = (kind(name).rules.unsimulated)(&object);
        let fields: Vec<&str> = causes.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(fields, [field], "{name}");
    }
    let harmless = json!({
        "containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}, "securityContext": {"runAsUser": 0}}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "e", "emptyDir": {}}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{}]}},
        "tolerations": [{"operator": "Exists"}], "imagePullSecrets": [{"name": "s"}],
    });
    assert_eq!((kind("Pod").rules.unsimulated)(&pod(harmless)), []);
}

/// Whatever a client sends, the rules answer.
#[test]
fn no_shape_is_too_odd() {
    let odd = [json!(null), json!(1), json!("a"), json!([]), json!([1, null, "x", []]), json!({"a": 1})];
    for kind in crate::lab::kind::KINDS {
        let keys =
            ["metadata", "spec", "status", "data", "rules", "subjects", "roleRef", "parameters", "involvedObject"];
        for key in keys {
            for value in &odd {
                let mut object = json!({"metadata": {"name": "x"}});
                object[key] = value.clone();
                try_all(kind, object);
            }
        }
        for key in
            ["template", "containers", "selector", "resources", "volumes", "limits", "hard", "strategy", "capacity"]
        {
            for value in &odd {
                try_all(kind, json!({"metadata": {"name": "x"}, "spec": {key: value}}));
                try_all(kind, json!({"metadata": {"name": "x"}, "spec": {"template": {"spec": {key: value}}}}));
            }
        }
    }
}

fn try_all(kind: &'static Kind, mut object: Value) {
    (kind.rules.unsimulated)(&object);
    meta::tidy(&mut object);
    (kind.rules.default)(&mut object);
    let state = state();
    let _ = admit::mutate(&state, kind, Operation::Create, "shop", &mut object, None, "me");
    let before = object.clone();
    (kind.rules.prepare)(&mut object, None);
    (kind.rules.prepare)(&mut object, Some(&before));
    (kind.rules.validate)(&object);
    (kind.rules.validate_update)(&object, &before);
    (kind.rules.validate_status)(&object, &before);
    meta::validate(kind, &object);
    meta::validate_update(&object, &before);
    let _ = admit::check(&state, kind, Operation::Create, "shop", &object, None);
}
