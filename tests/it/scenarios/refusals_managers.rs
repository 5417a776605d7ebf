//! What is refused because of who else has a hand on the workload: operators, GitOps, autoscalers.

use super::refused::{is_seen, tells_exactly};
use crate::world::{World, cluster_test, opts};
use serde_json::{Value, json};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// An object that stands for an operator's own resource: whoever is not a workload of Kubernetes is one.
async fn operator(w: &World, name: &str) -> Value {
    let made = w.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})).await;
    let uid = &made["metadata"]["uid"];
    json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "controller": true}]}})
}

cluster_test!(every_manager_of_a_workload_is_named_at_once, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    let refused = ["postgres", "redis", "argo", "tracked", "flux", "helm", "set", "old"];
    for claim in refused.iter().chain(&["data"]) {
        w.claim(claim, &slow, "16Mi", &["ReadWriteOnce"]).await;
    }
    let postgres = operator(w, "postgres").await;
    w.exercise_deployment("postgres", 1, &[("data", "postgres")], opts().patch(postgres)).await;
    // Its pods are the operator's own, and fit no node.
    let redis = operator(w, "redis").await;
    let spec = json!({"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "docker.io/e2e/tools:1"}], "nodeSelector": {"no": "node"},
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "redis"}}]});
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "redis-0"}, "spec": spec});
    json_patch::merge(&mut pod, &redis);
    w.apply(pod).await;
    let tracking = |name: &str| format!("shop:apps/Deployment:{}/{name}", w.ns);
    let marks = [
        ("argo", opts().label("argocd.argoproj.io/instance", "shop")),
        ("tracked", opts().annotation("argocd.argoproj.io/tracking-id", &tracking("tracked"))),
        ("flux", opts().label("kustomize.toolkit.fluxcd.io/name", "apps")),
        ("helm", opts().label("helm.toolkit.fluxcd.io/name", "chart")),
    ];
    for (name, opts) in marks {
        w.exercise_deployment(name, 0, &[("data", name)], opts).await;
    }
    for (kind, version, name) in [("ReplicaSet", "apps/v1", "set"), ("ReplicationController", "v1", "old")] {
        let mut object = w.exercise_deployment("mould", 0, &[("data", name)], opts()).await;
        w.delete("Deployment", "mould").await;
        w.gone("Deployment", "mould").await;
        let mut spec = json!({"replicas": 0, "template": object["spec"]["template"].take()});
        spec["selector"] = object["spec"]["selector"].take();
        if kind == "ReplicationController" {
            spec["selector"] = spec["selector"]["matchLabels"].take();
        }
        w.apply(json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})).await;
    }
    // Marks that stand in nobody's way: a release of plain Helm, a copy of what Argo CD tracks, a paused Flux.
    let harmless = opts()
        .label("app.kubernetes.io/managed-by", "Helm")
        .label("app.kubernetes.io/instance", "shop")
        .label("kustomize.toolkit.fluxcd.io/name", "apps")
        .label("helm.toolkit.fluxcd.io/name", "chart")
        .annotation("meta.helm.sh/release-name", "shop")
        .annotation("argocd.argoproj.io/tracking-id", &tracking("elsewhere"))
        .annotation("kustomize.toolkit.fluxcd.io/reconcile", "disabled")
        .annotation("helm.toolkit.fluxcd.io/driftDetection", "disabled");
    w.exercise_deployment("web", 1, &[("data", "data")], harmless).await;
    for workload in ["postgres", "web"] {
        w.ready("Deployment", workload).await;
    }
    for workload in ["argo", "tracked", "flux", "helm"] {
        is_seen(w, "Deployment", workload).await;
    }
    is_seen(w, "ReplicaSet", "set").await;
    is_seen(w, "ReplicationController", "old").await;

    let before = w.picture().await;
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--image", &image, "--yes"];
    let told = w.pvmigrate(&[&words[..], &["--output", "json"]].concat()).await.exits(3);
    let object = |kind: &str, name: &str| format!("{kind}:{}/{name}", w.ns);
    tells_exactly(
        &told,
        &[
            (object("ConfigMap", "postgres"), "an operator owns the pods: it would start them again"),
            (object("ConfigMap", "redis"), "an operator owns the pods: it would start them again"),
            (object("Deployment", "argo"), "Argo CD's application `shop` syncs it"),
            (object("Deployment", "tracked"), "Argo CD's application `shop` syncs it"),
            (object("Deployment", "flux"), "Flux reconciles it (Kustomization `apps`)"),
            (object("Deployment", "helm"), "Flux's HelmRelease `chart` may correct its drift"),
            (object("ReplicaSet", "set"), "ReplicaSets without a Deployment cannot be stopped yet"),
            (object("ReplicationController", "old"), "cannot be stopped yet"),
        ],
    );
    told.says("8 reasons speak against this move").says("--on-refusal skip").says("nothing was changed").done();
    w.unchanged_since(&before).await;

    // An autoscaler that never starts from zero is no obstacle.
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let spec = json!({"minReplicas": 1, "maxReplicas": 1, "scaleTargetRef": target});
    w.apply(json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": spec})).await;
    let moved = w.pvmigrate(&[&words[..], &["--on-refusal", "skip"]].concat()).await.succeeds();
    moved.says("8 of 9 units are skipped").done();
    for claim in refused {
        assert_eq!(w.get("pvc", claim).await["spec"]["storageClassName"], slow.as_str(), "{claim}");
    }
    assert_eq!(w.get("pvc", "data").await["spec"]["storageClassName"], fast.as_str());
    w.ready("Deployment", "web").await;
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

/// Makes the server know a kind, as whoever installs it would.
async fn install(w: &World, group: &str, plural: &str, kind: &str) {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version = json!({"name": "v1alpha1", "served": true, "storage": true, "schema": schema});
    let names = json!({"plural": plural, "kind": kind, "listKind": format!("{kind}List")});
    let name = format!("{plural}.{group}");
    if let Some(old) = w.find("CustomResourceDefinition", &name).await {
        assert!(old["metadata"]["deletionTimestamp"].is_string(), "{name} is not ours to use");
        w.gone("CustomResourceDefinition", &name).await;
    }
    w.apply(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }))
    .await;
    let path = format!("/apis/{group}/v1alpha1/{plural}");
    let served = async || w.request("GET", &path, Value::Null).await.ok();
    w.until("the kind to be served", LONG, served).await;
}

// It alone may change which kinds there are: the others ask the server for them.
cluster_test!(exclusive real "the lab has no CustomResourceDefinitions" keda_and_argo_cd_are_found_by_their_own_objects, async |w: &World| {
    install(w, "keda.sh", "scaledobjects", "ScaledObject").await;
    install(w, "argoproj.io", "applications", "Application").await;
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    for claim in ["data", "logs"] {
        w.claim(claim, &slow, "16Mi", &["ReadWriteOnce"]).await;
    }
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    w.exercise_deployment("report", 1, &[("logs", "logs")], opts()).await;
    w.ready("Deployment", "web").await;
    w.ready("Deployment", "report").await;
    let scaled = "keda.sh/v1alpha1/ScaledObject";
    let spec = json!({"scaleTargetRef": {"name": "web"}, "minReplicaCount": 0});
    w.apply(json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "queue"}, "spec": spec})).await;
    // Argo CD in a namespace of its own; nothing on the Deployment tells of it.
    let argo = w.extra_namespace().await;
    let listed = json!({"group": "apps", "kind": "Deployment", "namespace": w.ns, "name": "report"});
    w.apply(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "shop", "namespace": argo},
        "spec": {"syncPolicy": {"automated": {"selfHeal": true}}}, "status": {"resources": [listed]},
    }))
    .await;
    let before = w.picture().await;
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--image", &image, "--output", "json"];
    let deployment = |name: &str| format!("Deployment:{}/{name}", w.ns);
    let keda = (deployment("web"), "KEDA's ScaledObject `queue` would start it again");
    let app = (deployment("report"), "Argo CD's application `shop` syncs it");
    let told = w.pvmigrate(&[&words[..], &["--yes"]].concat()).await.exits(3);
    let pause = format!("kubectl -n {} annotate scaledobject queue autoscaling.keda.sh/paused=true", w.ns);
    tells_exactly(&told, &[keda.clone(), app.clone()]);
    told.says(&pause).says("--exclude NS/NAME").says("nothing was changed").done();
    // What the hint says is not enough before KEDA has done it.
    let typed: Vec<&str> = pause.split_whitespace().skip(1).collect();
    assert!(w.kubectl(&w.admin(), &typed).await, "{pause}");
    tells_exactly(&w.pvmigrate(&words).await.exits(3), &[keda, app]);
    let paused = json!({"status": {"conditions": [{"type": "Paused", "status": "True"}]}});
    w.patch(scaled, "queue", paused).await;
    let application = "argoproj.io/v1alpha1/Application";
    w.patch(application, &format!("{argo}/shop"), json!({"status": {"resources": []}})).await;
    w.pvmigrate(&words).await.exits(3).says("2 claims").says("nobody is here to confirm").done();
    w.unchanged_since(&before).await;

    w.delete(scaled, "queue").await;
    w.delete(application, &format!("{argo}/shop")).await;
    for name in ["scaledobjects.keda.sh", "applications.argoproj.io"] {
        w.delete("CustomResourceDefinition", name).await;
        w.gone("CustomResourceDefinition", name).await;
    }
    w.still_intact().await;
});
