//! The external resizer of the lab's drivers: a bound claim that asks for more gets it.
//!
//! Not the permission (admission asks the class) and not the disk's quota. The volume's capacity grows first, then the
//! claim says so; no file system has to be resized on a node.

#[cfg(test)]
mod tests;

use super::binder::matching;
use super::{Controller, Turn, drivers};
use crate::lab::store::{Commit, Key, State, text};
use serde_json::json;

pub static EXPAND: Controller = Controller { name: "expand", wakes, act };

fn wakes(_: &State, commit: &Commit) -> Vec<Key> {
    if commit.key.kind == "PersistentVolumeClaim" { vec![commit.key.clone()] } else { Vec::new() }
}

fn act(state: &State, key: &Key) -> Turn {
    let Some(claim) = state.at(key).filter(|one| one["status"]["phase"] == "Bound") else { return Turn::rest() };
    let name = text(&claim["spec"]["volumeName"]);
    let volume = state.get("PersistentVolume", "", name);
    let Some(volume) = volume.filter(|one| one["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]) else {
        return Turn::rest();
    };
    let wanted = matching::requested(claim);
    let class = state.get("StorageClass", "", matching::class_of(claim));
    let is_allowed = class.is_some_and(|class| class["allowVolumeExpansion"] == true);
    let has_less = wanted > matching::bytes(&claim["status"]["capacity"]["storage"]);
    if drivers::of_volume(volume).is_none() || !is_allowed || !has_less {
        return Turn::rest();
    }
    let mut turn = Turn::rest();
    turn.event(claim, false, "Resizing", format!("External resizer is resizing volume {name}"));
    if wanted > matching::capacity(volume) {
        let mut grown = (**volume).clone();
        grown["spec"]["capacity"]["storage"] = claim["spec"]["resources"]["requests"]["storage"].clone();
        turn.update(volume, grown);
        return turn;
    }
    turn.event(claim, false, "VolumeResizeSuccessful", "Resize volume succeeded");
    let mut after = (**claim).clone();
    after["status"]["capacity"] = json!({"storage": claim["spec"]["resources"]["requests"]["storage"]});
    turn.status(claim, after);
    turn
}
