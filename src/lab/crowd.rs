//! A crowd: five hundred claims, volumes and pods, and how long the controllers take over them.
//!
//! Not a benchmark: the limit is wide, and only something that looks at everything for everyone passes it.

use super::kubelet::Images;
use super::scenario::Scenario;
use super::store::{State, text};
use super::{Lab, Options};
use std::fmt::Write;
use std::time::Duration;

const MANY: usize = 500;
/// Without optimization, on a machine that has something else to do too.
const LIMIT: Duration = Duration::from_secs(60);

/// In time every claim has its volume and every pod its node, and then all is at rest.
fn settles(scenario: &str) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        dir: dir.path().join("lab"),
        images: Images::default(),
        shared: vec![dir.path().to_owned()],
        seed: 7,
        keep: false,
    };
    let lab = Lab::open(options).unwrap();
    let scenario = Scenario::parse("crowd", &scenario.replace("$DIR", &dir.path().display().to_string())).unwrap();
    let deadline = crate::words::clock::Clock.deadline(LIMIT);
    scenario.apply(&lab).unwrap();
    let count = |state: &State| {
        let bound = state.list("PersistentVolumeClaim", "").filter(|(_, one)| one["status"]["phase"] == "Bound");
        let placed = state.list("Pod", "").filter(|(_, one)| !text(&one["spec"]["nodeName"]).is_empty());
        (bound.count(), placed.count())
    };
    let all = lab.wait(deadline.left(), |state| (count(state) == (MANY, MANY)).then_some(()));
    assert!(all.is_some(), "after {LIMIT:?} {:?} claims and pods of {MANY} have their places", lab.core().look(count));
    assert!(lab.settle(deadline.left()), "it does not come to rest in {LIMIT:?}");
}

fn claim_and_pod(text: &mut String, n: usize, class: &str) {
    write!(
        text,
        "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: c{n}, namespace: default}}\nspec: \
         {{accessModes: [ReadWriteOnce], storageClassName: {class}, resources: {{requests: {{storage: 1Gi}}}}}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: p{n}, namespace: default}}\nspec: {{automountServiceAccountToken: \
         false, containers: [{{name: c, image: none}}], volumes: [{{name: v, persistentVolumeClaim: {{claimName: \
         c{n}}}}}]}}\n"
    )
    .unwrap();
}

#[test]
fn many_volumes_that_are_there_are_bound_in_time() {
    let mut text = String::new();
    for n in 0..MANY {
        write!(
            text,
            "---\napiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: v{n}}}\nspec: {{accessModes: \
             [ReadWriteOnce], storageClassName: manual, capacity: {{storage: 1Gi}}, hostPath: {{path: $DIR}}}}\n"
        )
        .unwrap();
    }
    (0..MANY).for_each(|n| claim_and_pod(&mut text, n, "manual"));
    settles(&text);
}

#[test]
fn many_volumes_that_are_made_and_attached_are_bound_in_time() {
    let mut text = "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: disk}\nprovisioner: \
                    disk.lab.pvmigrate.io\nvolumeBindingMode: WaitForFirstConsumer\n"
        .to_owned();
    (0..MANY).for_each(|n| claim_and_pod(&mut text, n, "disk"));
    settles(&text);
}
