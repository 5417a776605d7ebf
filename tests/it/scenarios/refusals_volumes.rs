//! What is refused because of a claim, its volume or what else stands on the same bytes.

use super::refused::{is_seen, tells_exactly};
use crate::world::{World, cluster_test, opts};
use serde_json::{Value, json};

const HOLD: &str = "backup.example/hold";

/// A class that has the volumes that somebody made by hand, and no others.
async fn handmade(w: &World) -> String {
    let class = format!("{}-hand", w.ns);
    w.apply(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "Immediate",
    }))
    .await;
    class
}

/// A volume made by hand on a backend, named after what it is for.
async fn volume(w: &World, class: &str, name: &str, backend: Value) -> String {
    let name = format!("{}-{name}", w.ns);
    let mut spec = json!({
        "capacity": {"storage": "16Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
        "persistentVolumeReclaimPolicy": "Retain",
    });
    json_patch::merge(&mut spec, &backend);
    w.apply(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})).await;
    name
}

/// A claim that is soon bound to a volume made for it.
async fn bound(w: &World, class: &str, name: &str, backend: Value) -> String {
    let volume = volume(w, class, name, backend.clone()).await;
    let resources = json!({"requests": {"storage": "16Mi"}});
    let mut spec = json!({"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": resources, "volumeName": volume});
    if backend["volumeMode"].is_string() {
        spec["volumeMode"] = backend["volumeMode"].clone();
    }
    w.apply(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}))
        .await;
    volume
}

fn nfs(path: &str) -> Value {
    json!({"nfs": {"server": "files.example", "path": path}})
}

fn csi(handle: &str) -> Value {
    json!({"csi": {"driver": "disks.example", "volumeHandle": handle}})
}

fn path(w: &World, dir: &str) -> Value {
    json!({"hostPath": {"path": w.dir().join(dir)}})
}

/// A local volume, on a node.
fn local(w: &World, dir: &str) -> Value {
    let here = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]}]);
    let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": here}]}});
    json!({"local": {"path": w.dir().join(dir)}, "nodeAffinity": affinity})
}

cluster_test!(every_obstacle_of_a_claim_or_its_volume_is_named_at_once, async |w: &World| {
    let (hand, fast) = (handmade(w).await, w.class("fast").await);
    bound(w, &hand, "held", csi("held")).await;
    bound(w, &hand, "going", csi("going")).await;
    bound(w, &hand, "operated", csi("operated")).await;
    bound(w, &hand, "argo", csi("argo")).await;
    bound(w, &hand, "helm", csi("helm")).await;
    let tied = bound(w, &hand, "tied", csi("tied")).await;
    let doomed = bound(w, &hand, "doomed", csi("doomed")).await;
    let mut recycled = csi("recycled");
    recycled["persistentVolumeReclaimPolicy"] = json!("Recycle");
    let recycled = bound(w, &hand, "recycled", recycled).await;
    let disk = bound(w, &hand, "disk", csi("disk")).await;
    let disk_twin = volume(w, &hand, "disk-twin", csi("disk")).await;
    let share = bound(w, &hand, "share", nfs("/exports/shop")).await;
    let share_twin = volume(w, &hand, "share-twin", nfs("/exports/shop/data")).await;
    let host = bound(w, &hand, "host", path(w, "host")).await;
    let host_twin = volume(w, &hand, "host-twin", local(w, "host/")).await;
    let inline = bound(w, &hand, "inline", nfs("/exports/inline")).await;
    let far = bound(w, &hand, "far", nfs("/far")).await;

    let claims = w.list("pvc").await;
    assert_eq!(claims.len(), 13);
    for claim in claims {
        w.ready("pvc", claim["metadata"]["name"].as_str().expect("it has a name")).await;
    }
    let finalizers = |kept: &str| json!({"metadata": {"finalizers": [kept, HOLD]}});
    w.patch("pvc", "held", finalizers("kubernetes.io/pvc-protection")).await;
    w.patch("pvc", "going", finalizers("kubernetes.io/pvc-protection")).await;
    w.delete("pvc", "going").await;
    w.patch("pv", &tied, finalizers("kubernetes.io/pv-protection")).await;
    w.delete("pv", &doomed).await;
    let owner = w.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "postgres"}})).await;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "postgres", "uid": owner["metadata"]["uid"], "controller": true});
    w.patch("pvc", "operated", json!({"metadata": {"ownerReferences": [owner]}})).await;
    let tracking = format!("shop:/PersistentVolumeClaim:{}/argo", w.ns);
    w.patch("pvc", "argo", json!({"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": tracking}}})).await;
    w.patch("pvc", "helm", json!({"metadata": {"labels": {"helm.toolkit.fluxcd.io/name": "chart"}}})).await;
    // They mount the server's directories themselves. None has a running pod: one is scaled to zero, the others fit
    // no node.
    let mount = json!([{"name": "share", "nfs": {"server": "files.example", "path": "/exports"}}]);
    let container = json!([{"name": "c", "image": "docker.io/e2e/tools:1"}]);
    let patch = json!({"spec": {"template": {"spec": {"volumes": mount, "containers": container}}}});
    w.exercise_deployment("backup", 0, &[], opts().patch(patch)).await;
    let other = w.extra_namespace().await;
    let peek = async |ns: &str, server: &str, path: &str| {
        let volumes = json!([{"name": "share", "nfs": {"server": server, "path": path}}]);
        let spec = json!({"automountServiceAccountToken": false, "containers": container, "nodeSelector": {"no": "node"}, "volumes": volumes});
        let meta = json!({"name": "peek", "namespace": ns});
        w.apply(json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})).await;
    };
    peek(&w.ns, "FILES.example", "/exports/inline/").await;
    peek(&other, "files.example", "/far/away").await;
    // These are told of and stand in nobody's way.
    w.claim("unbound", &hand, "16Gi", &["ReadWriteOnce"]).await;
    let good = bound(w, &hand, "good", local(w, "good")).await;
    w.ready("pvc", "good").await;
    std::fs::create_dir(w.dir().join("good")).expect("a directory can be made");
    std::fs::write(w.dir().join("good/precious"), "x").expect("a file can be written");

    for claim in ["held", "going"] {
        assert!(w.get("pvc", claim).await["metadata"]["finalizers"].to_string().contains(HOLD));
    }
    assert!(w.get("pvc", "going").await["metadata"]["deletionTimestamp"].is_string());
    assert!(w.get("pv", &doomed).await["metadata"]["deletionTimestamp"].is_string());
    is_seen(w, "Deployment", "backup").await;
    let before = w.picture().await;
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &hand, "--dest-sc", &fast, "--image", &image, "--yes"];
    let (claim, pv) = (
        |name: &str| format!("PersistentVolumeClaim:{}/{name}", w.ns),
        |name: &str| format!("PersistentVolume:{name}"),
    );
    let same = |twin: &str| format!("volume `{twin}` stands on the same backend");
    let refused = w.pvmigrate(&[&words[..], &["--output", "json"]].concat()).await.exits(3);
    tells_exactly(
        &refused,
        &[
            (claim("held"), "it has the finalizer `backup.example/hold`"),
            (claim("going"), "it is being deleted"),
            (claim("going"), "it has the finalizer `backup.example/hold`"),
            (claim("operated"), "ConfigMap `postgres` controls it and may make it anew"),
            (claim("argo"), "Argo CD's application `shop` syncs it"),
            (claim("helm"), "Flux's HelmRelease `chart` may correct its drift"),
            (pv(&tied), "it has the finalizer `backup.example/hold`"),
            (pv(&doomed), "it is being deleted: its bytes go with its claim, whatever the policy"),
            (pv(&recycled), "its policy is Recycle"),
            (pv(&disk), &same(&disk_twin)),
            (pv(&share), &same(&share_twin)),
            (pv(&host), &same(&host_twin)),
            (format!("Pod:{}/peek", w.ns), &format!("it mounts the backend of volume `{inline}` directly")),
            (format!("Deployment:{}/backup", w.ns), &format!("it mounts the backend of volume `{inline}` directly")),
            (format!("Deployment:{}/backup", w.ns), &format!("it mounts the backend of volume `{share}` directly")),
            (format!("Pod:{other}/peek"), &format!("it mounts the backend of volume `{far}` directly")),
        ],
    );
    refused.says("unbound is Pending, not Bound").says("--on-refusal skip").says("nothing was changed").done();
    w.unchanged_since(&before).await;

    w.pvmigrate(&[&words[..], &["--on-refusal", "skip"]].concat())
        .await
        .succeeds()
        .says("13 of 14 units are skipped")
        .done();
    assert_eq!(w.get("pvc", "good").await["spec"]["storageClassName"], fast.as_str());
    assert_ne!(w.pv_of("good").await["metadata"]["name"], good.as_str());
    assert!(w.digest("good").await.paths().contains(&"precious"));
    // Nothing but this claim, its old volume and its new one is another than before.
    let old = format!("PersistentVolume {good}");
    let changes = before.changes(&w.picture().await);
    let others = changes
        .iter()
        .filter(|change| !change.contains("/good ") && !change.starts_with(&old) && !change.contains(&fast));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});
