//! The end of a run as it can be compared: objects, without what differs from run to run.

use super::tell;
use crate::words::Json;
use std::collections::{BTreeMap, BTreeSet};

/// What there is, by names that are the same in every run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    pub objects: BTreeMap<String, Json>,
    /// How often claims, volumes and workloads were made and deleted.
    pub counts: BTreeMap<String, u32>,
}

/// Places in objects that are different each time.
#[derive(Clone, Debug, Default)]
pub struct Noise(BTreeSet<(String, String)>);

impl Noise {
    pub fn covers(&self, key: &str, path: &str) -> bool {
        self.0.contains(&(key.to_owned(), path.to_owned()))
    }
}

impl Picture {
    /// The same without what a claim that was made anew cannot have again: its uid, and who bound it.
    #[must_use]
    pub fn made_anew(mut self) -> Picture {
        self.counts.clear();
        for object in self.objects.values_mut() {
            let Some(fields) = object.as_object_mut() else { continue };
            fields.remove("original");
            fields.remove("of_original");
            if let Some(annotations) = fields.get_mut("annotations").and_then(Json::as_object_mut) {
                annotations
                    .retain(|key, _| !key.starts_with("pv.kubernetes.io/") && !key.contains("storage-provisioner"));
            }
        }
        self
    }

    /// The places at which two ends of the same differ: nothing follows from a difference there.
    pub fn noise(&self, other: &Picture) -> Noise {
        let mut places = BTreeSet::new();
        for (key, object) in &self.objects {
            if let Some(there) = other.objects.get(key) {
                tell::leaves("", object, there, &mut |path, _, _| {
                    places.insert((key.clone(), path.to_owned()));
                });
            }
        }
        Noise(places)
    }

    /// One line for each thing that differs.
    pub fn differences(&self, other: &Picture) -> Vec<String> {
        let mut lines = Vec::new();
        let keys: BTreeSet<&String> = self.objects.keys().chain(other.objects.keys()).collect();
        for key in keys {
            let (was, is) = (self.objects.get(key), other.objects.get(key));
            if was != is {
                let show = |one: Option<&Json>| one.map_or("not there".to_owned(), Json::to_string);
                lines.push(format!("{key}\n  undisturbed {}\n  here        {}", show(was), show(is)));
            }
        }
        let keys: BTreeSet<&String> = self.counts.keys().chain(other.counts.keys()).collect();
        for key in keys {
            let (was, is) = (self.counts.get(key), other.counts.get(key));
            if was != is {
                lines.push(format!("{key}: undisturbed {was:?}, here {is:?}"));
            }
        }
        lines
    }
}
