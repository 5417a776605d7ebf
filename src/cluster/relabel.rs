//! Another class for a volume that stays where it is. Pure: when that is nothing but another name, and what is written.
//!
//! A class says how volumes are made. If two of them would have made the same one, nothing has to be copied: the volume and
//! its claim are called after the other. Not who decides that it is done, nor the order: that is `relabel`'s.

use super::pv::Pv;
use super::pvc::{Pvc, Shape};
use super::text;
use crate::words::{Json, size};
use serde::Serialize;

const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Provisioners that may be configured by the names of classes, elsewhere.
const BY_NAME: [&str; 1] = ["rancher.io/local-path"];

/// Annotations of classes that drivers take for parameters.
const CONFIGURATION: [&str; 2] = ["cas.openebs.io/config", "openebs.io/cas-type"];

/// Annotations of classes that say nothing about their volumes.
const OF_OTHERS: [&str; 7] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
    "kubectl.kubernetes.io/",
    "meta.helm.sh/",
    "argocd.argoproj.io/",
    "kustomize.toolkit.fluxcd.io/",
    "pvmigrate.io/",
];

/// What speaks against calling a volume after another class.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Judgement {
    /// It would not be what the class says: never.
    pub obstacles: Vec<String>,
    /// What may be nothing to the driver: a person says so.
    pub doubts: Vec<String>,
}

/// Judges one claim on its volume. `from` and `to` are the classes; `from` is null if it is gone.
pub fn judge(claim: Pvc<'_>, volume: Pv<'_>, from: &Json, to: &Json, wanted: &Shape) -> Judgement {
    let mut found = Judgement::default();
    let name = text(to, "/metadata/name");
    if volume.class() != claim.class() {
        found.obstacles.push(format!(
            "volume `{}` is of the class `{}`, its claim of `{}`",
            volume.name(),
            volume.class(),
            claim.class()
        ));
    }
    if let Some(bytes) = wanted.size.as_deref().and_then(|size| size::parse_bytes(size).ok())
        && ![volume.capacity_bytes(), claim.request_bytes()].contains(&bytes)
    {
        found.obstacles.push("a volume that stays keeps its size".into());
    }
    if let Some(modes) = &wanted.modes
        && sorted(modes.iter().map(String::as_str)) != sorted(claim.modes())
    {
        found.obstacles.push("a volume that stays keeps its access modes".into());
    }
    if claim.capacity_bytes() < claim.request_bytes() {
        found.obstacles.push("it is being expanded".into());
    }
    if from.is_null() {
        found.obstacles.push(format!(
            "its class `{}` does not exist any more, so nobody can tell in what it differs",
            claim.class()
        ));
        return found;
    }
    let (of, is) = (text(from, "/provisioner"), text(to, "/provisioner"));
    if of != is {
        found.obstacles.push(format!("the class is of the provisioner `{of}`, `{name}` is of `{is}`"));
        return found;
    }
    let makes = if of == NO_PROVISIONER { "" } else { of };
    let driver = text(volume.0, "/spec/csi/driver");
    if volume.provisioned_by() != makes || !(driver.is_empty() || driver == of) {
        found.obstacles.push(format!("volume `{}` was not made by `{of}`", volume.name()));
    }
    let differing = unequal(&from["parameters"], &to["parameters"]);
    if !differing.is_empty() {
        found.obstacles.push(format!("the classes differ in parameters: {}", differing.join(", ")));
    }
    if is_other(&from["allowedTopologies"], &to["allowedTopologies"]) {
        found.obstacles.push("the classes differ in allowedTopologies".into());
    }
    if is_other(&from["mountOptions"], &to["mountOptions"])
        && is_other(&volume.0["spec"]["mountOptions"], &from["mountOptions"])
    {
        found
            .obstacles
            .push(format!("volume `{}` has mount options of its own, and the classes differ in theirs", volume.name()));
    }
    if makes.is_empty() {
        found.doubts.push("volumes of these classes are made by hand: no class says what they are".into());
    }
    if BY_NAME.contains(&of) {
        found.doubts.push(format!("`{of}` may be configured by the class's name"));
    }
    let notes = unequal(&from["metadata"]["annotations"], &to["metadata"]["annotations"]);
    for note in notes.iter().filter(|note| !OF_OTHERS.iter().any(|prefix| note.starts_with(prefix))) {
        let why = format!("the classes differ in the annotation {note}");
        if CONFIGURATION.contains(note) { found.obstacles.push(why) } else { found.doubts.push(why) }
    }
    found
}

/// The mount options of a volume under its new class: the class's, if the classes differ in them. They hold from the next
/// mount on, as those of a new volume would.
pub fn mount_options(volume: Pv<'_>, from: &Json, to: &Json) -> Json {
    match is_other(&from["mountOptions"], &to["mountOptions"]) {
        true => to["mountOptions"].clone(),
        false => volume.0["spec"]["mountOptions"].clone(),
    }
}

fn sorted<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut words: Vec<&str> = words.into_iter().collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// Nothing and an empty list are the same.
pub fn is_other(a: &Json, b: &Json) -> bool {
    let items = |json: &Json| json.as_array().cloned().unwrap_or_default();
    items(a) != items(b)
}

/// The keys in which two maps of texts differ.
fn unequal<'a>(a: &'a Json, b: &'a Json) -> Vec<&'a str> {
    let keys = |json: &'a Json| json.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str));
    sorted(keys(a).chain(keys(b)).filter(|key| a[*key] != b[*key]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(base: &Json, patch: Json) -> Json {
        let mut object = base.clone();
        json_patch::merge(&mut object, &patch);
        object
    }

    #[test]
    fn only_what_is_nothing_but_another_name_is_one() {
        let class = json!({"metadata": {"name": "slow"}, "provisioner": "d", "parameters": {"type": "x"}});
        let to = with(
            &class,
            json!({"metadata": {"name": "fast"}, "reclaimPolicy": "Retain", "allowVolumeExpansion": true,
            "volumeBindingMode": "WaitForFirstConsumer", "mountOptions": ["noatime"]}),
        );
        let claim = json!({"metadata": {"name": "data"}, "spec": {"storageClassName": "slow", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}, "status": {"capacity": {"storage": "1Gi"}}});
        let volume = json!({"metadata": {"name": "pv", "annotations": {"pv.kubernetes.io/provisioned-by": "d"}},
            "spec": {"storageClassName": "slow", "capacity": {"storage": "1Gi"}, "csi": {"driver": "d", "volumeHandle": "h"}}});
        let none = Shape::default();
        let judged = |claim: &Json, volume: &Json, from: &Json, to: &Json, wanted: &Shape| {
            judge(Pvc(claim), Pv(volume), from, to, wanted)
        };
        assert_eq!(judged(&claim, &volume, &class, &to, &none), Judgement::default());
        let by_hand = with(&class, json!({"provisioner": NO_PROVISIONER}));
        let local =
            with(&volume, json!({"metadata": {"annotations": null}, "spec": {"csi": null, "local": {"path": "/x"}}}));
        let found = judged(&claim, &local, &by_hand, &by_hand, &none);
        assert!(found.obstacles.is_empty() && found.doubts[0].contains("made by hand"), "{found:?}");
        let size = |size: &str| Shape { size: Some(size.into()), ..Shape::default() };
        let modes =
            |modes: &[&str]| Shape { modes: Some(modes.iter().map(|m| (*m).into()).collect()), ..Shape::default() };
        assert_eq!(judged(&claim, &volume, &class, &to, &size("1024Mi")), Judgement::default());
        assert_eq!(judged(&claim, &volume, &class, &to, &modes(&["ReadWriteOnce"])), Judgement::default());
        for (want, claim, volume, from, to, wanted) in [
            ("keeps its size", &claim, &volume, &class, &to, size("2Gi")),
            ("keeps its access modes", &claim, &volume, &class, &to, modes(&["ReadWriteMany"])),
            (
                "being expanded",
                &with(&claim, json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}})),
                &volume,
                &class,
                &to,
                none.clone(),
            ),
            ("does not exist any more", &claim, &volume, &Json::Null, &to, none.clone()),
            ("`slow`", &claim, &with(&volume, json!({"spec": {"storageClassName": "x"}})), &class, &to, none.clone()),
            ("of the provisioner `d`", &claim, &volume, &class, &with(&to, json!({"provisioner": "e"})), none.clone()),
            ("not made by `d`", &claim, &local, &class, &to, none.clone()),
            (
                "not made by `d`",
                &claim,
                &with(&volume, json!({"spec": {"csi": {"driver": "e"}}})),
                &class,
                &to,
                none.clone(),
            ),
            (
                "differ in parameters: iops, type",
                &claim,
                &volume,
                &class,
                &with(&to, json!({"parameters": {"type": "y", "iops": "1"}})),
                none.clone(),
            ),
            (
                "allowedTopologies",
                &claim,
                &volume,
                &class,
                &with(&to, json!({"allowedTopologies": [{"a": "b"}]})),
                none.clone(),
            ),
            (
                "mount options of its own",
                &claim,
                &with(&volume, json!({"spec": {"mountOptions": ["ro"]}})),
                &class,
                &to,
                none.clone(),
            ),
            (
                "annotation cas.openebs.io/config",
                &claim,
                &volume,
                &class,
                &with(&to, json!({"metadata": {"annotations": {"cas.openebs.io/config": "x"}}})),
                none.clone(),
            ),
        ] {
            let found = judged(claim, volume, from, to, &wanted);
            assert!(found.obstacles.len() == 1 && found.obstacles[0].contains(want), "{want}: {found:?}");
        }
        let noted =
            with(&to, json!({"metadata": {"annotations": {"a.example/b": "x", "meta.helm.sh/release-name": "y"}}}));
        let found = judged(&claim, &volume, &class, &noted, &none);
        assert_eq!(found.doubts, ["the classes differ in the annotation a.example/b"]);
        assert!(found.obstacles.is_empty());
    }

    #[test]
    fn a_volume_gets_the_mount_options_of_its_new_class() {
        let volume = json!({"spec": {"mountOptions": ["a"]}});
        let class = |options: Json| json!({"mountOptions": options});
        for (from, to, want) in [
            (json!(["a"]), json!(["b"]), json!(["b"])),
            (json!(["a"]), Json::Null, Json::Null),
            (json!(["c"]), json!(["c"]), json!(["a"])),
            (Json::Null, json!([]), json!(["a"])),
        ] {
            assert_eq!(mount_options(Pv(&volume), &class(from), &class(to)), want);
        }
    }
}
