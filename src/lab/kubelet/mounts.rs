//! Where the volumes of a pod are on this machine, and the command line that follows from it.
//!
//! There are no mount namespaces: an argument that is a mount path, or below one, is rewritten to the directory. Only
//! whole arguments and only these prefixes; a shell could not be served so, and is refused.

use super::Image;
use crate::lab::act::drivers;
use crate::lab::disk::Disks;
use crate::lab::process::Program;
use crate::lab::store::{State, list_of, text};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Volume name → directory.
pub type Mounts = BTreeMap<String, PathBuf>;

/// The directories of a pod's volumes, made where they are the node's or the pod's own.
///
/// # Errors
/// What cannot be mounted, and why.
pub fn mounts(state: &State, pod: &Value, disks: &Disks) -> Result<Mounts, String> {
    let (namespace, node) = (text(&pod["metadata"]["namespace"]), text(&pod["spec"]["nodeName"]));
    let uid = text(&pod["metadata"]["uid"]);
    let mut mounts = Mounts::new();
    for volume in list_of(&pod["spec"]["volumes"]) {
        let name = text(&volume["name"]);
        let fault = |e: std::io::Error| format!("volume {name}: {e}");
        let dir = if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
            let volume_name = state
                .get("PersistentVolumeClaim", namespace, claim)
                .map(|claim| text(&claim["spec"]["volumeName"]).to_owned())
                .unwrap_or_default();
            let pv = state
                .get("PersistentVolume", "", &volume_name)
                .ok_or_else(|| format!("volume {name}: the claim {claim} has no volume"))?;
            of_volume(pv, node, disks)?
        } else if let Some(path) = volume["hostPath"]["path"].as_str() {
            let kind = text(&volume["hostPath"]["type"]);
            let dir = disks.on_node(node, path, kind.is_empty() || kind == "DirectoryOrCreate").map_err(fault)?;
            if !dir.is_dir() {
                return Err(format!("volume {name}: hostPath type check failed: {path} is not a directory"));
            }
            dir
        } else if volume["emptyDir"].is_object() {
            let dir = disks.of_pod(uid, name);
            std::fs::create_dir_all(&dir).map_err(fault)?;
            dir
        } else if let Some(map) = volume["configMap"]["name"].as_str() {
            let dir = disks.of_pod(uid, name);
            std::fs::create_dir_all(&dir).map_err(fault)?;
            let map = state.get("ConfigMap", namespace, map).ok_or_else(|| format!("configmap \"{map}\" not found"))?;
            for (file, content) in map["data"].as_object().into_iter().flatten() {
                std::fs::write(dir.join(file), text(content)).map_err(fault)?;
            }
            dir
        } else if let Some(secret) = volume["secret"]["secretName"].as_str() {
            use base64::Engine;
            let dir = disks.of_pod(uid, name);
            std::fs::create_dir_all(&dir).map_err(fault)?;
            let found =
                state.get("Secret", namespace, secret).ok_or_else(|| format!("secret \"{secret}\" not found"))?;
            for (file, content) in found["data"].as_object().into_iter().flatten() {
                let bytes = base64::engine::general_purpose::STANDARD.decode(text(content));
                std::fs::write(dir.join(file), bytes.unwrap_or_default()).map_err(fault)?;
            }
            dir
        } else {
            return Err(format!("volume {name}: {} this type of volume", crate::lab::status::UNSIMULATED));
        };
        mounts.insert(name.to_owned(), dir);
    }
    Ok(mounts)
}

/// Why a claim's volume is nothing for the pod: a device is no directory, nor the other way round.
pub fn misused(pod: &Value, claim: &str, pv: &Value) -> Option<String> {
    let (mode, wrong) = match text(&pv["spec"]["volumeMode"]) {
        "Block" => ("Block", "volumeMounts"),
        _ => ("Filesystem", "volumeDevices"),
    };
    let of_claim = |volume: &&Value| volume["persistentVolumeClaim"]["claimName"] == claim;
    let is_wrong = |volume: &&str| {
        let uses = |container: &Value| list_of(&container[wrong]).iter().any(|one| one["name"] == **volume);
        list_of(&pod["spec"]["containers"]).iter().any(uses)
    };
    let names = list_of(&pod["spec"]["volumes"]).iter().filter(of_claim).map(|volume| text(&volume["name"]));
    let volume = { names }.find(is_wrong)?;
    Some(format!(
        "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[{volume}]: volume \
         {volume} has volumeMode {mode}, but is specified in {wrong}"
    ))
}

/// The directory of a PersistentVolume on a node, or the file that is its device.
pub fn of_volume(pv: &Value, node: &str, disks: &Disks) -> Result<PathBuf, String> {
    let spec = &pv["spec"];
    let name = text(&pv["metadata"]["name"]);
    if let Some(handle) = spec["csi"]["volumeHandle"].as_str() {
        let dir = disks.volume(handle);
        return if dir.exists() { Ok(dir) } else { Err(format!("volume {name}: the handle {handle} does not exist")) };
    }
    let (path, make) = match (spec["local"]["path"].as_str(), spec["hostPath"]["path"].as_str()) {
        (Some(path), _) => (path, true),
        (None, Some(path)) => (path, true),
        (None, None) => {
            return Err(format!("volume {name}: {} this type of volume", crate::lab::status::UNSIMULATED));
        }
    };
    if spec["volumeMode"] == "Block" && spec["local"].is_null() {
        return Err(format!("volume {name}: no volume plugin of hostPath has devices"));
    }
    let make = make && spec["volumeMode"] != "Block";
    let found = disks.on_node(node, path, make).map_err(|e| format!("volume {name}: {e}"))?;
    if spec["volumeMode"] == "Block" && !found.is_file() {
        return Err(format!("volume {name}: there is no device {path} on {node}"));
    }
    Ok(found)
}

/// The program of a container with its arguments as they are on this machine.
///
/// # Errors
/// If the image is unknown, or the command is not one of its programs.
pub fn command(container: &Value, image: Option<&Image>, mounts: &Mounts, pod: &Value) -> Result<Program, String> {
    let named = text(&container["image"]);
    let image = image.ok_or_else(|| format!("the image {named} is not registered"))?;
    let mut words: Vec<&str> = list_of(&container["command"]).iter().map(text).collect();
    let called = if words.is_empty() { None } else { Some(words.remove(0)) };
    words.extend(list_of(&container["args"]).iter().map(text));
    let program = match called {
        None => image.programs.first(),
        Some(called) => image.programs.iter().find(|(name, _)| name == called),
    };
    let Some((_, program)) = program else {
        let called = called.unwrap_or_default();
        return Err(format!(
            "LabUnsupportedCommand: {} the program {called} of {named}",
            crate::lab::status::UNSIMULATED
        ));
    };
    let mut places: Vec<(&str, &PathBuf)> = Vec::new();
    for mount in list_of(&container["volumeMounts"]) {
        if let Some(dir) = mounts.get(text(&mount["name"])) {
            places.push((text(&mount["mountPath"]).trim_end_matches('/'), dir));
        }
    }
    for device in list_of(&container["volumeDevices"]) {
        if let Some(file) = mounts.get(text(&device["name"])) {
            places.push((text(&device["devicePath"]), file));
        }
    }
    // The longest first: a mount inside another one hides it.
    places.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    let args = words.iter().map(|word| rewritten(word, &places)).collect();
    let mut env = BTreeMap::from([("HOSTNAME".to_owned(), text(&pod["metadata"]["name"]).to_owned())]);
    for variable in list_of(&container["env"]) {
        let name = text(&variable["name"]);
        let value = match text(&variable["valueFrom"]["fieldRef"]["fieldPath"]) {
            "" if variable["valueFrom"].is_null() => rewritten(text(&variable["value"]), &places),
            "metadata.name" => text(&pod["metadata"]["name"]).to_owned(),
            "metadata.namespace" => text(&pod["metadata"]["namespace"]).to_owned(),
            "metadata.uid" => text(&pod["metadata"]["uid"]).to_owned(),
            "spec.nodeName" => text(&pod["spec"]["nodeName"]).to_owned(),
            _ => return Err(format!("env {name}: {} this valueFrom", crate::lab::status::UNSIMULATED)),
        };
        env.insert(name.to_owned(), value);
    }
    env.insert("PVMIGRATE_LAB_PID".to_owned(), std::process::id().to_string());
    let dir = PathBuf::from(rewritten(text(&container["workingDir"]), &places));
    Ok(Program { path: program.clone(), args, env, dir, user: user(container, pod) })
}

/// The user and group that a container asks for; the container's own word goes before the pod's.
fn user(container: &Value, pod: &Value) -> Option<(u32, u32)> {
    let number = |field: &str| {
        let of = |object: &Value| object["securityContext"][field].as_u64().and_then(|id| u32::try_from(id).ok());
        of(container).or_else(|| of(&pod["spec"]))
    };
    let (user, group) = (number("runAsUser"), number("runAsGroup"));
    (user.is_some() || group.is_some()).then(|| (user.unwrap_or(0), group.unwrap_or(0)))
}

/// A whole argument that is a mount path or below one; also behind `--name=`.
fn rewritten(word: &str, places: &[(&str, &PathBuf)]) -> String {
    let (before, path) = match word.split_once('=') {
        Some((name, path)) if name.starts_with("--") => (&word[..=name.len()], path),
        _ => ("", word),
    };
    for (mount, dir) in places {
        if let Some(rest) = path.strip_prefix(mount)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            let below = Path::new(rest.trim_start_matches('/'));
            let whole = if rest.is_empty() { (*dir).clone() } else { dir.join(below) };
            return format!("{before}{}", whole.display());
        }
    }
    word.to_owned()
}

/// The attachable volumes that pods of a node use: mounted or about to be, as a kubelet says in `volumesInUse`.
pub fn in_use(state: &State, node: &str, is_running: impl Fn(&str) -> bool) -> Vec<String> {
    let mut used = BTreeSet::new();
    for (_, pod) in state.pods_on(node) {
        let is_over = matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
        if is_over && !is_running(text(&pod["metadata"]["uid"])) {
            continue;
        }
        for claim in crate::lab::store::claims_of(&pod["spec"]) {
            let namespace = text(&pod["metadata"]["namespace"]);
            let volume = state
                .get("PersistentVolumeClaim", namespace, claim)
                .and_then(|claim| state.get("PersistentVolume", "", text(&claim["spec"]["volumeName"])));
            let attachable = |volume: &Value| drivers::of_volume(volume).is_some_and(|driver| driver.attachable);
            if let Some(volume) = volume.filter(|volume| attachable(volume)) {
                used.insert(drivers::name_on_node(volume));
            }
        }
    }
    used.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_device_is_no_directory() {
        let pod = json!({"spec": {
            "containers": [{"volumeMounts": [{"name": "a"}], "volumeDevices": [{"name": "b"}]}],
            "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "b", "persistentVolumeClaim": {"claimName": "disk"}},
            ],
        }});
        let [device, directory] = ["Block", "Filesystem"].map(|mode| json!({"spec": {"volumeMode": mode}}));
        assert_eq!(misused(&pod, "data", &directory), None);
        assert_eq!(misused(&pod, "disk", &device), None);
        let why = |claim: &str, pv: &Value| misused(&pod, claim, pv).unwrap();
        assert!(why("data", &device).ends_with("volume a has volumeMode Block, but is specified in volumeMounts"));
        assert!(why("disk", &directory).ends_with("b has volumeMode Filesystem, but is specified in volumeDevices"));
    }

    #[test]
    fn only_whole_arguments_below_a_mount_are_rewritten() {
        let mounts =
            Mounts::from([("a".to_owned(), PathBuf::from("/lab/v1")), ("b".to_owned(), PathBuf::from("/lab/v2"))]);
        let container = json!({
            "image": "agent:1", "command": ["pvmigrate"],
            "args": ["agent", "copy", "/source", "/source/inner/x", "/sources", "--ack=/ack/web", "x/source", "--since", "T"],
            "volumeMounts": [
                {"name": "a", "mountPath": "/source"}, {"name": "b", "mountPath": "/source/inner"},
                {"name": "b", "mountPath": "/ack/"},
            ],
        });
        let image = Image { programs: vec![("pvmigrate".into(), "/bin/p".into())] };
        let pod =
            json!({"metadata": {"name": "web-0"}, "spec": {"securityContext": {"runAsUser": 7, "runAsGroup": 8}}});
        let program = command(&container, Some(&image), &mounts, &pod).unwrap();
        let wanted =
            ["agent", "copy", "/lab/v1", "/lab/v2/x", "/sources", "--ack=/lab/v2/web", "x/source", "--since", "T"];
        assert_eq!(program.args, wanted);
        assert_eq!(program.user, Some((7, 8)));
        assert_eq!(user(&json!({"securityContext": {"runAsUser": 9}}), &pod), Some((9, 8)));
        assert_eq!(user(&container, &json!({})), None);
        let shell = json!({"image": "agent:1", "command": ["sh", "-c", "true"]});
        assert!(command(&shell, Some(&image), &mounts, &pod).unwrap_err().starts_with("LabUnsupportedCommand"));
        assert!(command(&container, None, &mounts, &pod).is_err());
    }
}
