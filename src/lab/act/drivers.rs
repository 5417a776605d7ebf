//! The storage that the lab has: its CSI drivers, and what a volume of theirs is called where.
//!
//! Not their behaviour: volumes are made by `provisioner`, attached by `attach`, grown by `expand`. A volume of another
//! driver is an object like any other, and nobody makes, attaches or deletes anything for it.

use crate::lab::store::text;
use serde_json::Value;

#[derive(Debug)]
pub struct Driver {
    /// Also the provisioner's name in a class.
    pub name: &'static str,
    pub access_modes: &'static [&'static str],
    /// It has volumes of the mode Block.
    pub has_devices: bool,
    /// Its volumes are attached to nodes before pods see them.
    pub attachable: bool,
    /// It makes volumes of others of its own.
    pub clones: bool,
}

pub static DRIVERS: &[Driver] = &[
    Driver {
        name: "shared.lab.pvmigrate.io",
        access_modes: &["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"],
        has_devices: false,
        attachable: false,
        clones: false,
    },
    Driver {
        name: "disk.lab.pvmigrate.io",
        access_modes: &["ReadWriteOnce", "ReadOnlyMany"],
        has_devices: true,
        attachable: true,
        clones: true,
    },
];

impl Driver {
    /// On volumes and attachments, as long as something is attached.
    pub fn finalizer(&self) -> String {
        format!("external-attacher/{}", self.name.replace('.', "-"))
    }
}

pub fn find(name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|one| one.name == name)
}

/// The driver behind a PersistentVolume.
pub fn of_volume(volume: &Value) -> Option<&'static Driver> {
    find(text(&volume["spec"]["csi"]["driver"]))
}

/// What a node calls a volume in `volumesAttached` and `volumesInUse`.
pub fn name_on_node(volume: &Value) -> String {
    let csi = &volume["spec"]["csi"];
    format!("kubernetes.io/csi/{}^{}", text(&csi["driver"]), text(&csi["volumeHandle"]))
}
