//! The stories as data: what is asked, in which order, and what is waited for between. `tests/conformance/README.md`
//! says how they are written.

use super::root;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    #[serde(skip)]
    pub name: String,
    pub about: String,
    /// Bodies that `give` names, beside those of `given.yaml`.
    #[serde(default)]
    pub given: BTreeMap<String, Value>,
    pub stories: Vec<Story>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Story {
    /// A fact, like a test's name.
    pub name: String,
    pub steps: Vec<Step>,
}

/// One line of a story: exactly one of `do`, `wait`, `events`, `settle`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// `METHOD path`; `@word` begins a path: see `PLACES`.
    #[serde(rename = "do")]
    pub ask: Option<String>,
    /// `json`, `merge`, `strategic`, `apply` (patches), or a content type in full.
    #[serde(rename = "as")]
    pub content: Option<String>,
    pub accept: Option<String>,
    /// Who asks, if it is not the administrator, who then plays them.
    pub user: Option<String>,
    pub body: Option<Value>,
    /// The body word by word, when it is no JSON or must not be rewritten.
    pub text: Option<String>,
    /// The body by its name in `given`, with `with` merged over it.
    pub give: Option<String>,
    pub with: Option<Value>,
    /// Word → pointer into the answer; later steps say `<word>`.
    #[serde(default)]
    pub take: BTreeMap<String, String>,
    /// Part of the scenery: must succeed, its answer is not recorded.
    #[serde(default)]
    pub quiet: bool,
    /// Only these pointers of the answer are recorded.
    pub see: Option<Vec<String>>,
    /// These pointers are recorded as present, whatever their value. `*` stands for each entry of a list.
    #[serde(default)]
    pub mask: Vec<String>,
    /// Revisions of this answer are compared too, by order. They always are for kinds that no controller writes.
    #[serde(default)]
    pub revisions: bool,
    /// Lists are in the server's order, which is under test.
    #[serde(default)]
    pub ordered: bool,

    /// A path whose answer is asked for until all of `until`, `gone`, `any`, `count` hold.
    pub wait: Option<String>,
    /// Pointer → value, or `<exists>`, `<absent>`.
    #[serde(default)]
    pub until: BTreeMap<String, Value>,
    #[serde(default)]
    pub gone: bool,
    /// As `until`, for one entry of the list at `path`.
    #[serde(default)]
    pub any: BTreeMap<String, Value>,
    pub count: Option<usize>,

    /// Which events there are about the objects of these names: type, reason, message, as a set.
    pub events: Option<Vec<String>>,
    /// Only events of these reasons.
    pub reasons: Option<Vec<String>>,

    /// Waits until nothing has changed below these paths for the server's time of rest.
    pub settle: Option<Vec<String>>,
    /// A quarter of that is enough.
    #[serde(default)]
    pub brief: bool,
}

/// What `@word` stands for.
pub const PLACES: [(&str, &str); 21] = [
    ("cm", "/api/v1/namespaces/<ns>/configmaps"),
    ("secret", "/api/v1/namespaces/<ns>/secrets"),
    ("sa", "/api/v1/namespaces/<ns>/serviceaccounts"),
    ("pod", "/api/v1/namespaces/<ns>/pods"),
    ("pvc", "/api/v1/namespaces/<ns>/persistentvolumeclaims"),
    ("event", "/api/v1/namespaces/<ns>/events"),
    ("pvevent", "/api/v1/namespaces/default/events"),
    ("pv", "/api/v1/persistentvolumes"),
    ("nss", "/api/v1/namespaces"),
    ("node", "/api/v1/nodes"),
    ("deploy", "/apis/apps/v1/namespaces/<ns>/deployments"),
    ("rs", "/apis/apps/v1/namespaces/<ns>/replicasets"),
    ("sts", "/apis/apps/v1/namespaces/<ns>/statefulsets"),
    ("ds", "/apis/apps/v1/namespaces/<ns>/daemonsets"),
    ("revision", "/apis/apps/v1/namespaces/<ns>/controllerrevisions"),
    ("job", "/apis/batch/v1/namespaces/<ns>/jobs"),
    ("lease", "/apis/coordination.k8s.io/v1/namespaces/<ns>/leases"),
    ("sc", "/apis/storage.k8s.io/v1/storageclasses"),
    ("va", "/apis/storage.k8s.io/v1/volumeattachments"),
    ("ssar", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
    ("ns", "/api/v1/namespaces/<ns>"),
];

/// The path behind `@word…`; others are themselves.
pub fn place(path: &str) -> String {
    let Some(rest) = path.strip_prefix('@') else { return path.to_owned() };
    let end = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
    let (word, tail) = rest.split_at(end);
    let (_, whole) = PLACES.iter().find(|(name, _)| *name == word).unwrap_or_else(|| panic!("no place @{word}"));
    format!("{whole}{tail}")
}

fn yaml(file: &str) -> String {
    let path = root().join("tests/conformance").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn given() -> BTreeMap<String, Value> {
    serde_yaml_ng::from_str(&yaml("given.yaml")).unwrap_or_else(|e| panic!("given.yaml: {e}"))
}

/// Files of the directory that hold no stories.
const OTHERS: [&str; 3] = ["given", "allowed", "volume_controller"];

/// All topics in the order of their names, the rows of the volume controller among them.
pub fn topics() -> Vec<Topic> {
    let dir = root().join("tests/conformance");
    let mut topics = Vec::new();
    for entry in std::fs::read_dir(&dir).expect("the stories are there") {
        let path = entry.expect("it can be listed").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if path.extension().is_some_and(|ending| ending == "yaml") && !OTHERS.contains(&name.as_str()) {
            let text = yaml(&format!("{name}.yaml"));
            let mut topic: Topic = serde_yaml_ng::from_str(&text).unwrap_or_else(|e| panic!("{name}.yaml: {e}"));
            topic.name = name;
            topics.push(topic);
        }
    }
    topics.push(super::volumes::topic());
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let only = std::env::var("PVMIGRATE_STORIES").unwrap_or_default();
    if !only.is_empty() {
        let wanted = |name: &str| only.split(',').any(|part| name.contains(part));
        for topic in &mut topics {
            let whole = topic.name.clone();
            topic.stories.retain(|story| wanted(&whole) || wanted(&story.name));
        }
        topics.retain(|topic| !topic.stories.is_empty());
    }
    topics
}

impl Step {
    /// How a report names it.
    pub fn title(&self) -> String {
        if let Some(ask) = &self.ask {
            return ask.clone();
        }
        if let Some(path) = &self.wait {
            return format!("wait {path}");
        }
        if let Some(names) = &self.events {
            return format!("events {}", names.join(" "));
        }
        "settle".to_owned()
    }

    fn is_one_thing(&self) -> bool {
        let things = [self.ask.is_some(), self.wait.is_some(), self.events.is_some(), self.settle.is_some()];
        things.iter().filter(|is| **is).count() == 1
    }
}

#[test]
fn the_stories_are_well_formed() {
    let given = given();
    let mut names = std::collections::BTreeSet::new();
    let mut count = 0;
    for topic in topics() {
        for story in &topic.stories {
            count += 1;
            assert!(names.insert(format!("{}/{}", topic.name, story.name)), "{} is there twice", story.name);
            for (n, step) in story.steps.iter().enumerate() {
                let at = format!("{}/{} step {n}", topic.name, story.name);
                assert!(step.is_one_thing(), "{at}: exactly one of do, wait, events, settle");
                let give = step.give.as_ref();
                assert!(
                    give.is_none_or(|name| topic.given.contains_key(name) || given.contains_key(name)),
                    "{at}: give"
                );
                if let Some(ask) = &step.ask {
                    place(ask.split_once(' ').unwrap_or_else(|| panic!("{at}: METHOD path")).1);
                }
                let waits = !step.until.is_empty() || step.gone || !step.any.is_empty() || step.count.is_some();
                assert!(step.wait.is_some() == waits, "{at}: what is waited for?");
            }
        }
    }
    assert!(std::env::var_os("PVMIGRATE_STORIES").is_some() || count >= 200, "{count} stories");
}
