//! Persistent volumes: what they are, what they stand on, and how their writes are planned.

use super::{POLICY, RUN, STEP, known, text, uid};
use crate::journal::{Class, Precondition, Verb, Write};
use crate::words::{Json, PvcRef, size};
use serde_json::json;

/// A volume as the API server sent it.
#[derive(Clone, Copy, Debug)]
pub struct Pv<'a>(pub &'a Json);

/// What holds the bytes: two volumes with equal or overlapping backends are users of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// CSI or FlexVolume: driver and handle.
    Handle(String, String),
    /// Server and path.
    Nfs(String, String),
    /// A directory of a node, or of all nodes.
    Path(String),
}

impl<'a> Pv<'a> {
    pub fn name(self) -> &'a str {
        text(self.0, "/metadata/name")
    }

    pub fn uid(self) -> &'a str {
        uid(self.0)
    }

    pub fn phase(self) -> &'a str {
        text(self.0, "/status/phase")
    }

    /// `Retain`, `Delete` or `Recycle`.
    pub fn policy(self) -> &'a str {
        match text(self.0, "/spec/persistentVolumeReclaimPolicy") {
            "" => "Retain",
            policy => policy,
        }
    }

    pub fn class(self) -> &'a str {
        match text(self.0, "/metadata/annotations/volume.beta.kubernetes.io~1storage-class") {
            "" => text(self.0, "/spec/storageClassName"),
            class => class,
        }
    }

    pub fn capacity_bytes(self) -> u64 {
        size::parse_bytes(text(self.0, "/spec/capacity/storage")).unwrap_or(0)
    }

    pub fn is_block(self) -> bool {
        text(self.0, "/spec/volumeMode") == "Block"
    }

    pub fn is_going(self) -> bool {
        !text(self.0, "/metadata/deletionTimestamp").is_empty()
    }

    /// The claim that it is bound to or reserved for.
    pub fn claim(self) -> Option<PvcRef> {
        let name = text(self.0, "/spec/claimRef/name");
        (!name.is_empty()).then(|| PvcRef::new(text(self.0, "/spec/claimRef/namespace"), name))
    }

    /// Empty while it is only reserved.
    pub fn claim_uid(self) -> &'a str {
        text(self.0, "/spec/claimRef/uid")
    }

    /// The provisioner that made it and can free it; empty for volumes made by hand.
    pub fn provisioned_by(self) -> &'a str {
        text(self.0, "/metadata/annotations/pv.kubernetes.io~1provisioned-by")
    }

    /// The run that has it in its hands, if one does.
    pub fn held_by(self) -> &'a str {
        text(self.0, "/metadata/annotations/pvmigrate.io~1run")
    }

    pub fn finalizers(self) -> Vec<&'a str> {
        super::finalizers(self.0)
    }

    pub fn backend(self) -> Option<Backend> {
        let spec = &self.0["spec"];
        let get = |path: &str| spec.pointer(path).and_then(Json::as_str).map(str::to_owned);
        if let (Some(driver), Some(handle)) = (get("/csi/driver"), get("/csi/volumeHandle")) {
            return Some(Backend::Handle(driver, handle));
        }
        if let Some(driver) = get("/flexVolume/driver") {
            // FlexVolume has no handle of its own: drivers are told the volume's name, unless options name another.
            let options = &spec["flexVolume"]["options"];
            let handle = if options.is_object() { options.to_string() } else { self.name().to_owned() };
            return Some(Backend::Handle(driver, handle));
        }
        if let (Some(server), Some(path)) = (get("/nfs/server"), get("/nfs/path")) {
            return Some(Backend::Nfs(server, path));
        }
        get("/hostPath/path").or_else(|| get("/local/path")).map(Backend::Path)
    }

    /// What a person needs to find the bytes again, whatever becomes of the object.
    pub fn handle(self) -> String {
        match self.backend() {
            Some(Backend::Handle(driver, handle)) => format!("{driver} {handle}"),
            Some(Backend::Nfs(server, path)) => format!("nfs {server}:{path}"),
            Some(Backend::Path(path)) => format!("path {path}"),
            None => format!("volume {}", self.name()),
        }
    }

    /// Nodes that it can be used on at all; empty if on any.
    pub fn node_affinity(self) -> &'a Json {
        &self.0["spec"]["nodeAffinity"]["required"]
    }
}

impl Backend {
    /// True if one holds bytes of the other.
    pub fn overlaps(&self, other: &Backend) -> bool {
        match (self, other) {
            (Backend::Handle(..), Backend::Handle(..)) => self == other,
            (Backend::Nfs(a, p), Backend::Nfs(b, q)) => a.eq_ignore_ascii_case(b) && paths_overlap(p, q),
            (Backend::Path(p), Backend::Path(q)) => paths_overlap(p, q),
            _ => false,
        }
    }
}

fn paths_overlap(a: &str, b: &str) -> bool {
    let parts = |path: &str| {
        path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect::<Vec<_>>()
    };
    parts(a).iter().zip(parts(b).iter()).all(|(x, y)| x == y)
}

fn patch(pv: Pv<'_>, body: Json, inverse: Option<Json>, class: Class) -> Write {
    let write = |body: Json, inverse: Vec<Write>| Write {
        verb: Verb::Patch,
        gvk: known("PersistentVolume").gvk,
        namespace: String::new(),
        name: pv.name().to_owned(),
        body,
        precondition: Precondition::Uid(pv.uid().to_owned()),
        inverse,
        class,
    };
    let inverse = inverse.into_iter().map(|body| write(body, Vec::new())).collect();
    write(body, inverse)
}

/// Retain, and our hand on it: other runs keep off. The policy before is noted on the volume.
pub fn plan_retain(pv: Pv<'_>) -> Write {
    let was = pv.policy();
    patch(
        pv,
        json!({"metadata": {"annotations": {POLICY: was}}, "spec": {"persistentVolumeReclaimPolicy": "Retain"}}),
        Some(
            json!({"metadata": {"annotations": {POLICY: null, RUN: null, STEP: null}}, "spec": {"persistentVolumeReclaimPolicy": was}}),
        ),
        Class::Reversible,
    )
}

/// The final policy; our hand is taken off.
pub fn plan_policy(pv: Pv<'_>, policy: &str, class: Class) -> Write {
    patch(
        pv,
        json!({"metadata": {"annotations": {POLICY: null, RUN: null, STEP: null}}, "spec": {"persistentVolumeReclaimPolicy": policy}}),
        Some(json!({"spec": {"persistentVolumeReclaimPolicy": pv.policy()}})),
        class,
    )
}

/// Reserves the volume for a claim by name: nobody else can bind it, and it is never without a claimRef.
pub fn plan_reserve(pv: Pv<'_>, claim: &PvcRef) -> Write {
    patch(pv, claim_ref(claim, None), Some(json!({"spec": {"claimRef": pv.0["spec"]["claimRef"]}})), Class::Swap)
}

/// Calls the volume after a class, with these mount options, and reserves it for the claim that stands on it, or gives it
/// to the one of this uid.
pub fn plan_relabel(pv: Pv<'_>, claim: &PvcRef, claim_uid: Option<&str>, class: &str, mount_options: &Json) -> Write {
    const LEGACY: &str = "volume.beta.kubernetes.io/storage-class";
    let label = |class: &str, mount_options: &Json| {
        let mut body = json!({"spec": {"storageClassName": class, "mountOptions": mount_options}});
        if pv.0["metadata"]["annotations"].get(LEGACY).is_some() {
            body["metadata"]["annotations"][LEGACY] = json!(class);
        }
        body
    };
    let mut body = label(class, mount_options);
    body["spec"]["claimRef"] = claim_ref(claim, claim_uid)["spec"]["claimRef"].clone();
    let mut inverse = label(pv.class(), &pv.0["spec"]["mountOptions"]);
    inverse["spec"]["claimRef"] = pv.0["spec"]["claimRef"].clone();
    patch(pv, body, Some(inverse), Class::Swap)
}

/// Gives the volume back to the very claim that it was bound to.
pub fn plan_return(pv: Pv<'_>, claim: &PvcRef, claim_uid: &str) -> Write {
    patch(pv, claim_ref(claim, Some(claim_uid)), None, Class::Swap)
}

fn claim_ref(claim: &PvcRef, uid: Option<&str>) -> Json {
    json!({"spec": {"claimRef": {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace, "name": claim.name,
        "uid": uid, "resourceVersion": null,
    }}})
}

/// The stricter of two policies: what keeps data wins.
pub fn stricter<'a>(a: &'a str, b: &'a str) -> &'a str {
    if a == "Delete" { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(spec: Json) -> Option<Backend> {
        Pv(&json!({"metadata": {"name": "pv"}, "spec": spec})).backend()
    }

    #[test]
    fn volumes_on_one_backend_know_each_other() {
        let csi = |handle: &str| json!({"csi": {"driver": "d", "volumeHandle": handle}});
        let nfs = |server: &str, path: &str| json!({"nfs": {"server": server, "path": path}});
        let path = |path: &str| json!({"hostPath": {"path": path}});
        for (a, b, same) in [
            (csi("1"), csi("1"), true),
            (csi("1"), csi("2"), false),
            (nfs("s", "/a"), nfs("S", "/a/b"), true),
            (nfs("s", "/a"), nfs("s", "/ab"), false),
            (nfs("s", "/a"), nfs("t", "/a"), false),
            (path("/x/"), json!({"local": {"path": "/x/./y"}}), true),
            (path("/x"), csi("/x"), false),
        ] {
            let (Some(one), Some(two)) = (backend(a.clone()), backend(b.clone())) else { panic!("{a} {b}") };
            assert_eq!(one.overlaps(&two), same, "{a} {b}");
            assert_eq!(two.overlaps(&one), same, "{b} {a}");
        }
    }

    #[test]
    fn the_stricter_policy_keeps_data() {
        for (a, b, want) in
            [("Delete", "Delete", "Delete"), ("Delete", "Retain", "Retain"), ("Retain", "Delete", "Retain")]
        {
            assert_eq!(stricter(a, b), want);
        }
    }
}
