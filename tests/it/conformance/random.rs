//! Random sequences of writes over a few names, told to two servers step by step to rest, compared, and made short.
//!
//! A sequence is a story, so what is sent, heard and compared is the stories' own. Seeds that found something are kept
//! in `tests/conformance/seeds.txt` and are always run first.

use super::compare::{Difference, Verdict, judge};
use super::normal::{Answer, normal};
use super::root;
use super::run::tell;
use super::server::Server;
use super::story::{Step, Story, Topic, given};
use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const LONGEST: u64 = 8;
const AT_ONCE: usize = 10;
/// So many of the seeds that find something are made short.
const SHORT: usize = 3;

/// Splitmix64: a seed is a sequence, on any machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        let sides = u64::try_from(all.len()).expect("few");
        all[usize::try_from(self.roll(sides)).expect("few")].clone()
    }
}

pub fn seeds() -> Vec<u64> {
    let path = root().join("tests/conformance/seeds.txt");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split(' ').next().and_then(|seed| seed.parse().ok()).expect("a seed is a number")).collect()
}

/// The writes of a seed.
pub fn sequence(seed: u64) -> Vec<Step> {
    let mut dice = Dice(seed);
    let length = 3 + dice.roll(LONGEST - 2);
    (0..length).map(|_| write(&mut dice)).collect()
}

fn write(dice: &mut Dice) -> Step {
    let pv = format!("<ns>-v{}", dice.roll(2));
    let pvc = dice.pick(&["c0", "c1", "data-s-0"]);
    let pod = dice.pick(&["p0", "p1"]);
    // No two volumes are of one size, and no two claims of one class: who comes first is a matter of chance.
    let own = if pv.ends_with('0') { ["1Gi", "2Gi", "3Gi"] } else { ["1500Mi", "2500Mi", "3500Mi"] };
    let (size, asked) = (dice.pick(&own), dice.pick(&["1Gi", "2Gi", "3Gi"]));
    let class = dice.pick(&["<ns>-c0", "<ns>-c0", "<ns>-c1", "<ns>-data-s-0"]);
    let step = |ask: String, body: Value| Step {
        ask: Some(ask),
        body: (!body.is_null()).then_some(body),
        see: Some(vec!["/reason".into(), "/status/phase".into()]),
        ..Step::default()
    };
    match dice.roll(16) {
        0..=2 => {
            let policy = dice.pick(&["Retain", "Retain", "Delete"]);
            let mut spec = json!({
                "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "persistentVolumeReclaimPolicy": policy, "hostPath": {"path": "<dir>/<ns>"},
            });
            if dice.roll(3) == 0 {
                spec["claimRef"] = json!({"namespace": "<ns>", "name": pvc});
            }
            step(
                "POST @pv".into(),
                json!({"kind": "PersistentVolume", "apiVersion": "v1",
                "metadata": {"name": pv, "labels": {"story": "<ns>"}}, "spec": spec}),
            )
        }
        3..=5 => {
            let mut spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": format!("<ns>-{pvc}"),
                "resources": {"requests": {"storage": asked}}});
            if dice.roll(3) == 0 {
                spec["volumeName"] = json!(pv);
            }
            step(
                "POST @pvc".into(),
                json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1",
                "metadata": {"name": pvc}, "spec": spec}),
            )
        }
        6 => step(format!("DELETE @pv/{pv}"), Value::Null),
        7 => step(format!("DELETE @pvc/{pvc}"), Value::Null),
        // On a node that does not exist: nobody runs it, and it protects its claim all the same.
        8 => step(
            "POST @pod".into(),
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": pod}, "spec": {
            "automountServiceAccountToken": false, "nodeName": "<ns>-nowhere",
            "containers": [{"name": "c", "image": "<agent>", "imagePullPolicy": "IfNotPresent"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": pvc}}]}}),
        ),
        9 => step(format!("DELETE @pod/{pod}?gracePeriodSeconds=0"), Value::Null),
        10 => step(format!("PATCH @pv/{pv}"), json!({"spec": {"claimRef": null}})),
        11 => step(format!("PATCH @pv/{pv}"), json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}})),
        12 => {
            let policy = dice.pick(&["Retain", "Delete"]);
            step(format!("PATCH @pv/{pv}"), json!({"spec": {"persistentVolumeReclaimPolicy": policy}}))
        }
        13 => {
            let replicas = dice.roll(2);
            step(
                "POST @sts".into(),
                json!({"kind": "StatefulSet", "apiVersion": "apps/v1", "metadata": {"name": "s"},
                "spec": {"replicas": replicas, "serviceName": "s", "selector": {"matchLabels": {"app": "s"}},
                "template": {"metadata": {"labels": {"app": "s"}}, "spec": {
                    "automountServiceAccountToken": false, "nodeName": "<ns>-nowhere",
                    "containers": [{"name": "c", "image": "<agent>", "imagePullPolicy": "IfNotPresent"}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                    "storageClassName": "<ns>-data-s-0", "resources": {"requests": {"storage": asked}}}}]}}),
            )
        }
        14 => step("PATCH @sts/s/scale".into(), json!({"spec": {"replicas": dice.roll(2)}})),
        _ => {
            let policy = dice.pick(&["Background", "Orphan"]);
            step("DELETE @sts/s".into(), json!({"propagationPolicy": policy}))
        }
    }
}

/// Where everything is looked at when all is at rest, and what came and went, object by object.
fn story(writes: &[Step]) -> Story {
    let at = ["@pvc", "@pv", "@pod", "@sts"].map(str::to_owned).to_vec();
    let see = |path: &str, pointers: &[&str]| Step {
        ask: Some(format!("GET {path}")),
        see: Some(pointers.iter().map(|pointer| (*pointer).to_owned()).collect()),
        ..Step::default()
    };
    let mut steps = vec![Step {
        ask: Some("GET @cm".into()),
        quiet: true,
        take: BTreeMap::from([("start".into(), "/metadata/resourceVersion".into())]),
        ..Step::default()
    }];
    for write in writes {
        steps.push(write.clone());
        steps.push(Step { settle: Some(at.clone()), brief: true, ..Step::default() });
    }
    steps.push(Step { settle: Some(at), ..Step::default() });
    let meta = ["/metadata/name", "/metadata/annotations", "/metadata/labels", "/metadata/finalizers"];
    let with = |more: &[&'static str]| [&meta[..], more].concat();
    let gone = "/metadata/deletionTimestamp";
    steps.push(see("@pv?labelSelector=story=<ns>", &with(&["/spec", "/status", gone])));
    steps.push(see("@pvc", &with(&["/spec", "/status", gone])));
    steps.push(see("@pod", &with(&["/metadata/ownerReferences", "/status/phase", gone])));
    steps.push(see("@sts", &with(&["/spec/replicas", "/status/replicas", "/metadata/generation", gone])));
    for path in ["@pvc?watch=1&", "@pod?watch=1&", "@sts?watch=1&", "@pv?labelSelector=story=<ns>&watch=1&"] {
        steps.push(see(&format!("{path}timeoutSeconds=1&resourceVersion=<start>"), &[]));
    }
    Story { name: "random".into(), steps }
}

async fn told(server: &Server, writes: &[Step]) -> Vec<Answer> {
    let topic = Topic { name: "random".into(), about: String::new(), given: BTreeMap::new(), stories: Vec::new() };
    let told = tell(server, &topic, &story(writes), &given()).await;
    normal(server, &told).into_iter().map(counted).collect()
}

/// Of watches only how often each object came and went: changes in between may be joined.
fn counted(mut answer: Answer) -> Answer {
    if let Some(objects) = answer.body.get_mut("watch").and_then(Value::as_object_mut) {
        for events in objects.values_mut() {
            let count =
                |kind: &str| events.as_array().into_iter().flatten().filter(|event| event["type"] == kind).count();
            *events = json!({"added": count("ADDED"), "deleted": count("DELETED")});
        }
    }
    answer
}

/// The first difference of two servers in a sequence. What one refuses in words ends the comparison.
async fn first_difference(one: &Server, two: &Server, writes: &[Step]) -> Option<(String, Difference)> {
    let (one, two) = tokio::join!(told(one, writes), told(two, writes));
    for (n, (one, two)) in one.iter().zip(&two).enumerate() {
        match judge("random/random", n, one, two, &super::compare::table()) {
            Verdict::Wrong(mut differences) => return Some((one.step.clone(), differences.remove(0))),
            Verdict::Refused(_) => return None,
            Verdict::Equal | Verdict::Allowed(_) => {}
        }
    }
    None
}

/// Drops writes one by one as long as the servers still differ.
async fn shrunk(one: &Server, two: &Server, mut writes: Vec<Step>) -> Vec<Step> {
    let mut n = 0;
    while n < writes.len() {
        let mut fewer = writes.clone();
        fewer.remove(n);
        if first_difference(one, two, &fewer).await.is_some() {
            writes = fewer;
        } else {
            n += 1;
        }
    }
    writes
}

/// How many fresh sequences a run tells: `PVMIGRATE_SEQUENCES`, or a few.
pub fn sequences() -> u64 {
    std::env::var("PVMIGRATE_SEQUENCES").ok().and_then(|count| count.parse().ok()).unwrap_or(12)
}

/// The kept seeds and `count` fresh ones on two servers. Panics with the seeds that differ, and for some of them with the
/// shortest sequence that still shows it. A difference that does not come again is a race of the sequence. Fresh seeds
/// follow `PVMIGRATE_SEED`, or the day.
pub async fn differential(one: &Server, two: &Server, kept: &[u64], count: u64) {
    let from_env = std::env::var("PVMIGRATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let today = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let start: u64 = from_env.unwrap_or(today / 86_400 * 1000);
    let seeds: Vec<u64> = kept.iter().copied().chain(start..start + count).collect();
    let mut found = futures::stream::iter(seeds)
        .map(|seed| async move { (seed, first_difference(one, two, &sequence(seed)).await) })
        .buffer_unordered(AT_ONCE);
    let mut differ = Vec::new();
    while let Some((seed, difference)) = found.next().await {
        let Some(first) = difference else { continue };
        match first_difference(one, two, &sequence(seed)).await {
            Some(second) => differ.push((seed, second)),
            None => eprintln!("seed {seed}: a race: {} {} | {}", first.0, first.1.expected, first.1.got),
        }
    }
    let mut said = Vec::new();
    for (n, (seed, (step, difference))) in differ.into_iter().enumerate() {
        let writes = if n < SHORT { shrunk(one, two, sequence(seed)).await } else { sequence(seed) };
        let lines: Vec<String> = writes
            .iter()
            .map(|step| format!("  {} {}", step.title(), step.body.as_ref().map(Value::to_string).unwrap_or_default()))
            .collect();
        let shown = if n < SHORT { "the shortest sequence that shows it" } else { "the sequence" };
        said.push(format!(
            "seed {seed}: the servers differ at {step} {}\n  one: {}\n  two: {}\n{shown}:\n{}",
            difference.pointer,
            difference.expected,
            difference.got,
            lines.join("\n")
        ));
    }
    assert!(said.is_empty(), "{}", said.join("\n\n"));
}

#[test]
fn a_seed_is_a_sequence() {
    let titles = |seed| sequence(seed).iter().map(Step::title).collect::<Vec<_>>();
    assert_eq!(titles(7), titles(7));
    assert_ne!(titles(7), titles(8));
    let all: Vec<String> = (0..200).flat_map(titles).collect();
    for verb in ["POST @pv", "POST @pvc", "POST @pod", "POST @sts", "PATCH @sts/s/scale", "DELETE @sts/s"] {
        assert!(all.iter().any(|title| title == verb), "{verb} never comes");
    }
}
