//! Claims: what they are, and how the temporary one and the new one of the old name are planned.

use super::pv::Pv;
use super::{RUN, STEP, known, text, uid};
use crate::journal::{Class, Precondition, Verb, Write};
use crate::words::{Json, PvcRef, RunId, names, size};
use serde_json::{Map, json};

/// A claim as the API server sent it.
#[derive(Clone, Copy, Debug)]
pub struct Pvc<'a>(pub &'a Json);

/// Annotations that controllers write and that must not be carried to a new claim.
const CONTROLLERS: [&str; 4] = [
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-resizer",
];
const LEGACY_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

impl<'a> Pvc<'a> {
    pub fn name(self) -> &'a str {
        text(self.0, "/metadata/name")
    }

    pub fn namespace(self) -> &'a str {
        text(self.0, "/metadata/namespace")
    }

    pub fn reference(self) -> PvcRef {
        PvcRef::new(self.namespace(), self.name())
    }

    pub fn uid(self) -> &'a str {
        uid(self.0)
    }

    pub fn phase(self) -> &'a str {
        text(self.0, "/status/phase")
    }

    /// The volume that it is bound to or asks for; empty if none.
    pub fn volume(self) -> &'a str {
        text(self.0, "/spec/volumeName")
    }

    pub fn class(self) -> &'a str {
        match text(self.0, "/metadata/annotations/volume.beta.kubernetes.io~1storage-class") {
            "" => text(self.0, "/spec/storageClassName"),
            class => class,
        }
    }

    pub fn is_block(self) -> bool {
        text(self.0, "/spec/volumeMode") == "Block"
    }

    pub fn is_going(self) -> bool {
        !text(self.0, "/metadata/deletionTimestamp").is_empty()
    }

    pub fn is_bound(self) -> bool {
        self.phase() == "Bound" && !self.volume().is_empty()
    }

    pub fn request_bytes(self) -> u64 {
        size::parse_bytes(text(self.0, "/spec/resources/requests/storage")).unwrap_or(0)
    }

    pub fn capacity_bytes(self) -> u64 {
        size::parse_bytes(text(self.0, "/status/capacity/storage")).unwrap_or(0)
    }

    pub fn modes(self) -> Vec<&'a str> {
        self.0["spec"]["accessModes"].as_array().into_iter().flatten().filter_map(Json::as_str).collect()
    }

    pub fn finalizers(self) -> Vec<&'a str> {
        super::finalizers(self.0)
    }

    /// True if a pod brought it along and takes it away.
    pub fn is_ephemeral(self) -> bool {
        self.0["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|owner| owner["kind"] == "Pod")
    }
}

/// How the target claim differs from its source.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    pub class: String,
    /// A quantity; the largest of volume, request and status if absent.
    pub size: Option<String>,
    pub modes: Option<Vec<String>>,
}

/// The temporary claim's name: recognisable, unique for the run, legal.
pub fn temporary_name(run: &RunId, like: &PvcRef) -> String {
    names::short_name(&format!("{}-pvmigrate", like.name), &format!("{run}/{like}"), 63)
}

/// Plans the temporary claim that provisions the target: no data source, no selector, no volume name.
pub fn plan_temporary(run: &RunId, like: Pvc<'_>, pv_capacity: &str, shape: &Shape) -> Write {
    let size = shape.size.clone().unwrap_or_else(|| largest(like, pv_capacity));
    let modes = shape.modes.clone().unwrap_or_else(|| like.modes().into_iter().map(str::to_owned).collect());
    let mut spec = json!({
        "accessModes": modes, "resources": {"requests": {"storage": size}}, "storageClassName": shape.class,
    });
    if like.is_block() {
        spec["volumeMode"] = json!("Block");
    }
    let name = temporary_name(run, &like.reference());
    let body = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name, "namespace": like.namespace(),
            "labels": {"app.kubernetes.io/managed-by": "pvmigrate", RUN: run.as_str()},
        },
        "spec": spec,
    });
    create(like.namespace(), &name, body, Class::Own)
}

/// Plans the same whose volume is made as a clone of the original's.
pub fn plan_clone(run: &RunId, like: Pvc<'_>, pv_capacity: &str, shape: &Shape) -> Write {
    let mut plan = plan_temporary(run, like, pv_capacity, shape);
    plan.body["spec"]["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": like.name()});
    plan
}

/// Plans a temporary claim on a volume that is there: it stays pending until the volume is given to it.
pub fn plan_standing(run: &RunId, like: Pvc<'_>, volume: Pv<'_>) -> Write {
    let mut spec = json!({
        "accessModes": volume.0["spec"]["accessModes"], "resources": {"requests": {"storage": volume.0["spec"]["capacity"]["storage"]}},
        "storageClassName": volume.class(), "volumeName": volume.name(),
    });
    if volume.is_block() {
        spec["volumeMode"] = json!("Block");
    }
    // A claim that was moved twice goes back twice.
    let seed = format!("{run}/{}/back/{}", like.reference(), volume.name());
    let name = names::short_name(&format!("{}-pvmigrate", like.name()), &seed, 63);
    let body = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name, "namespace": like.namespace(),
            "labels": {"app.kubernetes.io/managed-by": "pvmigrate", RUN: run.as_str()},
        },
        "spec": spec,
    });
    create(like.namespace(), &name, body, Class::Own)
}

/// The largest of what the source has and asks for, as the quantity that says so.
fn largest(like: Pvc<'_>, pv_capacity: &str) -> String {
    [pv_capacity, text(like.0, "/spec/resources/requests/storage"), text(like.0, "/status/capacity/storage")]
        .into_iter()
        .max_by_key(|quantity| size::parse_bytes(quantity).unwrap_or(0))
        .unwrap_or_default()
        .to_owned()
}

/// Plans the claim of the old name on the new volume: everything that people and tools put on the old one is kept,
/// what controllers wrote is not.
pub fn plan_successor(was: Pvc<'_>, target: &Json, pv: &str, shape: &Shape) -> Write {
    let mut metadata = json!({"name": was.name(), "namespace": was.namespace()});
    for field in ["labels", "annotations", "ownerReferences"] {
        let kept = &was.0["metadata"][field];
        if !kept.is_null() {
            metadata[field] = kept.clone();
        }
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Json::as_object_mut) {
        annotations.retain(|key, _| {
            !key.starts_with("pv.kubernetes.io/") && !CONTROLLERS.contains(&key.as_str()) && key != LEGACY_CLASS
        });
    }
    if metadata["annotations"].as_object().is_some_and(Map::is_empty) {
        metadata.as_object_mut().map(|m| m.remove("annotations"));
    }
    let mut spec = was.0["spec"].clone();
    spec["storageClassName"] = json!(shape.class);
    spec["volumeName"] = json!(pv);
    spec["accessModes"] = match &shape.modes {
        Some(modes) => json!(modes),
        None => was.0["spec"]["accessModes"].clone(),
    };
    // The request of the target: at least the original's, so that the claim never asks for less than it did.
    let asked = text(target, "/spec/resources/requests/storage");
    if let Some(size) = &shape.size {
        spec["resources"]["requests"]["storage"] = json!(size);
    } else if size::parse_bytes(asked).unwrap_or(0) < was.request_bytes() {
        spec["resources"]["requests"]["storage"] = json!(asked);
    }
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec});
    create(was.namespace(), was.name(), body, Class::Swap)
}

/// The claim as it is under another name. What names objects of its namespace, or itself, does not go along.
pub fn named(was: Pvc<'_>, to: &PvcRef) -> Json {
    let mut claim = was.0.clone();
    claim["metadata"]["name"] = json!(to.name);
    claim["metadata"]["namespace"] = json!(to.namespace);
    if let Some(annotations) = claim.pointer_mut("/metadata/annotations").and_then(Json::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    if was.namespace() != to.namespace {
        for (at, fields) in [("/metadata", &["ownerReferences"][..]), ("/spec", &["dataSource", "dataSourceRef"])] {
            let object = claim.pointer_mut(at).and_then(Json::as_object_mut);
            object.into_iter().for_each(|object| fields.iter().for_each(|field| drop(object.remove(*field))));
        }
    }
    claim
}

fn create(namespace: &str, name: &str, body: Json, class: Class) -> Write {
    Write {
        verb: Verb::Create,
        gvk: known("PersistentVolumeClaim").gvk,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        body,
        precondition: Precondition::Absent,
        inverse: Vec::new(),
        class,
    }
}

/// Plans the deletion of this very claim.
pub fn plan_delete(pvc: Pvc<'_>, class: Class) -> Write {
    Write {
        verb: Verb::Delete,
        gvk: known("PersistentVolumeClaim").gvk,
        namespace: pvc.namespace().to_owned(),
        name: pvc.name().to_owned(),
        body: Json::Null,
        precondition: Precondition::Uid(pvc.uid().to_owned()),
        inverse: Vec::new(),
        class,
    }
}

/// Plans taking our marks off a claim.
pub fn plan_clean(pvc: Pvc<'_>) -> Write {
    Write {
        verb: Verb::Patch,
        gvk: known("PersistentVolumeClaim").gvk,
        namespace: pvc.namespace().to_owned(),
        name: pvc.name().to_owned(),
        body: json!({"metadata": {"annotations": {RUN: null, STEP: null}}}),
        precondition: Precondition::Uid(pvc.uid().to_owned()),
        inverse: Vec::new(),
        class: Class::Swap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Json {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": "data", "namespace": "shop", "uid": "u1", "resourceVersion": "5",
                "labels": {"app": "web"},
                "annotations": {
                    "pv.kubernetes.io/bind-completed": "yes", "volume.kubernetes.io/selected-node": "node1",
                    "odd": "quotes \" ' $(x)\nnew line é", "helm.sh/resource-policy": "keep",
                },
                "ownerReferences": [{"kind": "ConfigMap", "name": "c", "uid": "o"}],
                "finalizers": ["kubernetes.io/pvc-protection"],
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
                "storageClassName": "slow", "volumeName": "pv-1", "volumeMode": "Filesystem",
                "dataSource": {"kind": "VolumeSnapshot", "name": "s"}, "selector": {"matchLabels": {"a": "b"}},
            },
            "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}},
        })
    }

    #[test]
    fn the_temporary_claim_is_large_enough_and_bare() {
        let run = RunId::parse("0123abcd").unwrap();
        let shape = Shape { class: "fast".into(), ..Shape::default() };
        let write = plan_temporary(&run, Pvc(&data()), "2147483649", &shape);
        let spec = &write.body["spec"];
        assert_eq!(spec["resources"]["requests"]["storage"], "2147483649");
        assert!(spec.get("dataSource").is_none() && spec.get("selector").is_none() && spec.get("volumeName").is_none());
        assert_eq!(write.body["metadata"]["labels"]["pvmigrate.io/run"], "0123abcd");
        assert!(write.body["metadata"].get("annotations").is_none());
    }

    #[test]
    fn the_successor_keeps_what_people_wrote_and_drops_what_controllers_wrote() {
        let shape = Shape { class: "fast".into(), ..Shape::default() };
        let target = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
        let body = plan_successor(Pvc(&data()), &target, "pv-2", &shape).body;
        assert_eq!(
            body,
            json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {
                    "name": "data", "namespace": "shop", "labels": {"app": "web"},
                    "ownerReferences": [{"kind": "ConfigMap", "name": "c", "uid": "o"}],
                    "annotations": {"odd": "quotes \" ' $(x)\nnew line é", "helm.sh/resource-policy": "keep"},
                },
                "spec": {
                    "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
                    "storageClassName": "fast", "volumeName": "pv-2", "volumeMode": "Filesystem",
                    "dataSource": {"kind": "VolumeSnapshot", "name": "s"}, "selector": {"matchLabels": {"a": "b"}},
                },
            })
        );
    }
}
