//! Admission against the sentences of a real server of 1.20.2.

use super::*;
use crate::lab::kind::kind;
use crate::lab::store::Key;

fn world() -> State {
    let mut state = State::new(1, jiff::Timestamp::UNIX_EPOCH);
    for (name, phase) in [("shop", "Active"), ("going", "Terminating")] {
        state.put(Key::new("Namespace", "", name), json!({"status": {"phase": phase}}), "me");
        state.put(Key::new("ServiceAccount", name, "default"), json!({}), "me");
    }
    state
}

/// Puts an object as `handle` would, without asking admission.
fn put(state: &mut State, name: &str, namespace: &str, mut object: Value) {
    let kind = kind(name);
    (kind.rules.default)(&mut object);
    if kind.namespaced {
        object["metadata"]["namespace"] = namespace.into();
    }
    let key = Key::new(kind.kind, namespace, text(&object["metadata"]["name"]));
    state.put(key, object, "me");
}

fn create(state: &State, name: &str, namespace: &str, mut object: Value) -> Result<Value, String> {
    let kind = kind(name);
    (kind.rules.default)(&mut object);
    admit(state, kind, Operation::Create, namespace, &mut object, None, "me")
        .map_err(|status| format!("{} {}", status.code, status.message))?;
    Ok(object)
}

fn claim(name: &str, size: &str, class: &str) -> Value {
    let mut claim = json!({"metadata": {"name": name}, "spec": {"resources": {"requests": {"storage": size}}}});
    if !class.is_empty() {
        claim["spec"]["storageClassName"] = class.into();
    }
    claim
}

fn pod(name: &str, resources: Value) -> Value {
    let containers = json!([{"name": "c", "image": "i", "resources": resources}]);
    json!({"metadata": {"name": name}, "spec": {"containers": containers}})
}

#[test]
fn namespaces_decide_first() {
    let state = world();
    let at = |namespace| create(&state, "ConfigMap", namespace, json!({"metadata": {"name": "zz"}})).unwrap_err();
    assert_eq!(at("nope"), "404 namespaces \"nope\" not found");
    assert_eq!(
        at("going"),
        "403 configmaps \"zz\" is forbidden: unable to create new content in namespace going because it is being \
         terminated"
    );
    let mut object = json!({"metadata": {"name": "zz"}});
    let refused = mutate(&state, kind("ConfigMap"), Operation::Create, "going", &mut object, None, "me").unwrap_err();
    assert_eq!(
        refused.details.unwrap()["causes"],
        json!([{
            "reason": "NamespaceTerminating", "message": "namespace going is being terminated",
            "field": "metadata.namespace",
        }])
    );
    let delete = |name: &str| {
        let mut object = json!({"metadata": {"name": name}});
        admit(&state, kind("Namespace"), Operation::Delete, "", &mut object, None, "me").map_err(|one| one.message)
    };
    let refused = "namespaces \"default\" is forbidden: this namespace may not be deleted";
    assert_eq!((delete("default").unwrap_err().as_str(), delete("shop")), (refused, Ok(())));
}

#[test]
fn pods_get_an_account_and_tolerations() {
    let mut state = world();
    let made = create(&state, "Pod", "shop", pod("p", json!({}))).unwrap();
    let spec = &made["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["priority"]), (&json!("default"), &json!(0)));
    assert_eq!(list_of(&spec["tolerations"]).len(), 2);
    assert!(spec["volumes"].is_null(), "no token is mounted");
    let mut other = pod("x", json!({}));
    other["spec"]["serviceAccountName"] = "zz".into();
    assert_eq!(
        create(&state, "Pod", "shop", other).unwrap_err(),
        "403 pods \"x\" is forbidden: error looking up service account shop/zz: serviceaccount \"zz\" not found"
    );
    let account = json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "s"}]});
    put(&mut state, "ServiceAccount", "shop", account);
    let made = create(&state, "Pod", "shop", pod("p", json!({}))).unwrap();
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "s"}]));
}

#[test]
fn claims_get_the_default_class_and_a_finalizer() {
    let mut state = world();
    let class = |name: &str| {
        let annotations = json!({"storageclass.kubernetes.io/is-default-class": "true"});
        json!({"metadata": {"name": name, "annotations": annotations}, "provisioner": "a.b/c"})
    };
    let class_of = |state: &State, claim: Value| {
        let made = create(state, "PersistentVolumeClaim", "shop", claim).unwrap();
        assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
        made["spec"]["storageClassName"].clone()
    };
    assert_eq!(class_of(&state, claim("data", "1Gi", "")), json!(null));
    put(&mut state, "StorageClass", "", class("slow"));
    assert_eq!(class_of(&state, claim("data", "1Gi", "")), json!("slow"));
    let mut none = claim("data", "1Gi", "");
    none["spec"]["storageClassName"] = "".into();
    assert_eq!(class_of(&state, none), json!(""));
    put(&mut state, "StorageClass", "", class("fast"));
    assert_eq!(class_of(&state, claim("data", "1Gi", "fast")), json!("fast"));
    assert_eq!(
        create(&state, "PersistentVolumeClaim", "shop", claim("data", "1Gi", "")).unwrap_err(),
        "403 persistentvolumeclaims \"data\" is forbidden: Internal error occurred: 2 default StorageClasses were found"
    );
}

#[test]
fn claims_grow_if_their_class_lets_them() {
    let mut state = world();
    put(&mut state, "StorageClass", "", json!({"metadata": {"name": "fixed"}, "provisioner": "p"}));
    let grows = json!({"metadata": {"name": "grows"}, "provisioner": "p", "allowVolumeExpansion": true});
    put(&mut state, "StorageClass", "", grows);
    let grow = |class: &str, phase: &str, size: &str| {
        let mut old = claim("a", "1Gi", class);
        old["status"]["phase"] = phase.into();
        let mut new = claim("a", size, class);
        admit(&state, kind("PersistentVolumeClaim"), Operation::Update, "shop", &mut new, Some(&old), "me")
            .map_err(|one| one.message)
    };
    let only = "persistentvolumeclaims \"a\" is forbidden: only dynamically provisioned pvc can be resized and the \
                storageclass that provisions the pvc must support resize";
    assert_eq!(grow("fixed", "Bound", "2Gi").unwrap_err(), only);
    assert_eq!(grow("gone", "Bound", "2Gi").unwrap_err(), only);
    let unbound = "persistentvolumeclaims \"a\" is forbidden: Only bound persistent volume claims can be expanded";
    assert_eq!(grow("grows", "Pending", "2Gi").unwrap_err(), unbound);
    assert_eq!((grow("grows", "Bound", "2Gi"), grow("fixed", "Bound", "1024Mi")), (Ok(()), Ok(())));
}

#[test]
fn limit_ranges_fill_in_and_refuse() {
    let mut state = world();
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [
        {
            "type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "100m"},
            "default": {"memory": "1Gi", "cpu": "1"}, "defaultRequest": {"memory": "512Mi"},
            "maxLimitRequestRatio": {"cpu": "4"},
        },
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}, "min": {"storage": "1Mi"}},
        {"type": "Pod", "max": {"cpu": "3"}},
    ]}});
    put(&mut state, "LimitRange", "shop", range);
    let made = create(&state, "Pod", "shop", pod("x", json!({}))).unwrap();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "512Mi"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"
    );
    let refused = |resources| create(&state, "Pod", "shop", pod("x", resources)).unwrap_err();
    assert_eq!(
        refused(json!({"limits": {"cpu": "5"}})),
        "403 pods \"x\" is forbidden: [maximum cpu usage per Container is 2, but limit is 5, maximum cpu usage per Pod \
         is 3, but limit is 5]"
    );
    assert_eq!(
        refused(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "50m"}})),
        "403 pods \"x\" is forbidden: [minimum cpu usage per Container is 100m, but request is 50m, cpu max limit to \
         request ratio per Container is 4, but provided ratio is 20.000000]"
    );
    let claims = |size| create(&state, "PersistentVolumeClaim", "shop", claim("x", size, "none")).map(|_| ());
    assert_eq!(
        claims("2Gi").unwrap_err(),
        "403 persistentvolumeclaims \"x\" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but \
         request is 2Gi"
    );
    assert_eq!(
        claims("1Ki").unwrap_err(),
        "403 persistentvolumeclaims \"x\" is forbidden: minimum storage usage per PersistentVolumeClaim is 1Mi, but \
         request is 1Ki"
    );
    assert_eq!(claims("1Gi"), Ok(()));
}

#[test]
fn quotas_count_everything_that_is_there() {
    let mut state = world();
    let hard = json!({
        "persistentvolumeclaims": "2", "requests.storage": "3Gi", "fast.storageclass.storage.k8s.io/requests.storage": "1Gi",
        "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1", "pods": "1", "count/configmaps": "1",
        "count/deployments.apps": "1", "requests.cpu": "1", "limits.memory": "1Gi",
    });
    put(&mut state, "ResourceQuota", "shop", json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}));
    let refused = |state: &State, name: &str, object| create(state, name, "shop", object).unwrap_err();
    let why = |resources| refused(&state.clone(), "Pod", pod("x", resources));
    assert_eq!(why(json!({})), "403 pods \"x\" is forbidden: failed quota: q: must specify limits.memory,requests.cpu");
    assert_eq!(
        why(json!({"requests": {"cpu": "2"}, "limits": {"memory": "2Gi"}})),
        "403 pods \"x\" is forbidden: exceeded quota: q, requested: limits.memory=2Gi,requests.cpu=2, used: \
         limits.memory=0,requests.cpu=0, limited: limits.memory=1Gi,requests.cpu=1"
    );
    put(&mut state, "PersistentVolumeClaim", "shop", claim("a", "2Gi", "none"));
    assert_eq!(
        refused(&state, "PersistentVolumeClaim", claim("b", "2Gi", "none")),
        "403 persistentvolumeclaims \"b\" is forbidden: exceeded quota: q, requested: requests.storage=2Gi, used: \
         requests.storage=2Gi, limited: requests.storage=3Gi"
    );
    put(&mut state, "PersistentVolumeClaim", "shop", claim("b", "1Gi", "fast"));
    assert_eq!(
        refused(&state, "PersistentVolumeClaim", claim("c", "1Mi", "fast")),
        "403 persistentvolumeclaims \"c\" is forbidden: exceeded quota: q, requested: \
         fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         fast.storageclass.storage.k8s.io/requests.storage=1Mi,persistentvolumeclaims=1,requests.storage=1Mi, used: \
         fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         fast.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=2,requests.storage=3Gi, limited: \
         fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         fast.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=2,requests.storage=3Gi"
    );
    put(&mut state, "Deployment", "shop", json!({"metadata": {"name": "web"}}));
    assert_eq!(
        refused(&state, "Deployment", json!({"metadata": {"name": "d2"}})),
        "403 deployments.apps \"d2\" is forbidden: exceeded quota: q, requested: count/deployments.apps=1, used: \
         count/deployments.apps=1, limited: count/deployments.apps=1"
    );
    let quota = state.get("ResourceQuota", "shop", "q").unwrap();
    let status = quota::quota_status(&state, quota);
    assert_eq!(status["used"]["requests.storage"], "3Gi");
    assert_eq!((&status["used"]["count/deployments.apps"], &status["used"]["pods"]), (&json!("1"), &json!("0")));
}
