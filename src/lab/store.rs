//! What the cluster is at this moment, and how it became so: objects, one revision counter, and the log of commits.
//!
//! Not the API: nothing is checked here. `handle` writes, controllers and readers look. What must stay true: every
//! change is a commit with a revision of its own; an object that was handed out never changes (`Arc`); the state of
//! any revision in the window can be had again, so that pages and stale reads are real.

use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// Which object. Ordered as lists are: kind, namespace, name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: &'static str,
    /// Empty for kinds without one.
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(kind: &'static str, namespace: impl Into<String>, name: impl Into<String>) -> Key {
        Key { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace[..] {
            "" => write!(out, "{} {}", self.kind, self.name),
            namespace => write!(out, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Commit {
    pub revision: u64,
    pub key: Key,
    /// `None`: it was made.
    pub before: Option<Arc<Value>>,
    /// `None`: it went.
    pub after: Option<Arc<Value>>,
    /// Who did it: `system:lab:job-controller`, or a client's user.
    pub by: String,
}

/// A revision that is no longer in the window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compacted {
    /// The oldest that there is.
    pub oldest: u64,
}

/// How many commits are remembered.
const WINDOW: usize = 1_000;

/// The whole cluster. Cloning it takes a snapshot.
#[derive(Clone, Debug)]
pub struct State {
    objects: BTreeMap<Key, Arc<Value>>,
    /// uid of an owner → what it owns.
    owned: HashMap<String, BTreeSet<Key>>,
    /// Claim (namespace, name) → pods that name it.
    mounting: HashMap<(String, String), BTreeSet<Key>>,
    /// PersistentVolume → VolumeAttachments that name it.
    attaching: HashMap<String, BTreeSet<Key>>,
    /// Node → pods that are on it.
    placed: HashMap<String, BTreeSet<Key>>,
    log: VecDeque<Arc<Commit>>,
    revision: u64,
    now: Timestamp,
    random: u64,
}

impl State {
    /// An empty cluster. The seed decides every uid and generated name.
    pub fn new(seed: u64, now: Timestamp) -> State {
        State {
            objects: BTreeMap::new(),
            owned: HashMap::new(),
            mounting: HashMap::new(),
            attaching: HashMap::new(),
            placed: HashMap::new(),
            log: VecDeque::new(),
            revision: 0,
            now,
            random: seed,
        }
    }

    /// The object, whatever its state.
    pub fn get(&self, kind: &'static str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.at(&Key::new(kind, namespace, name))
    }

    pub fn at(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// All objects of a kind, of one namespace or (with an empty one) of all, sorted.
    pub fn list<'a>(
        &'a self,
        kind: &'static str,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        let first = Key::new(kind, namespace, "");
        self.objects
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(move |(key, _)| key.kind == kind && (namespace.is_empty() || key.namespace == namespace))
    }

    /// What names this uid among its owners, sorted.
    pub fn owned_by<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Arc<Value>> {
        self.owned.get(uid).into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    /// The pods that name this claim, in whatever phase, sorted.
    pub fn pods_of_claim<'a>(&'a self, namespace: &str, claim: &str) -> impl Iterator<Item = &'a Arc<Value>> {
        let pods = self.mounting.get(&(namespace.to_owned(), claim.to_owned()));
        pods.into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    /// The VolumeAttachments of this volume, to whatever node, sorted.
    pub fn attachments_of<'a>(&'a self, volume: &str) -> impl Iterator<Item = &'a Arc<Value>> {
        self.attaching.get(volume).into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    /// The pods that are on this node, in whatever phase, sorted; an empty name stands for those without a node.
    pub fn pods_on<'a>(&'a self, node: &str) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        self.placed.get(node).into_iter().flatten().filter_map(|key| self.objects.get_key_value(key))
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The time of the cluster.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    pub fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Writes an object and gives it the next revision.
    pub fn put(&mut self, key: Key, mut object: Value, by: &str) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let object = Arc::new(object);
        self.commit(key, Some(object.clone()), by);
        object
    }

    /// Removes an object that is there; returns its last state with the revision of its going.
    pub fn remove(&mut self, key: &Key, by: &str) -> Option<Arc<Value>> {
        let mut last = (**self.objects.get(key)?).clone();
        self.revision += 1;
        last["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.commit(key.clone(), None, by);
        Some(Arc::new(last))
    }

    fn commit(&mut self, key: Key, after: Option<Arc<Value>>, by: &str) {
        let before = match &after {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(&key),
        };
        if let Some(before) = &before {
            self.index(&key, before, false);
        }
        if let Some(after) = &after {
            self.index(&key, after, true);
        }
        let commit = Commit { revision: self.revision, key, before, after, by: by.to_owned() };
        self.log.push_back(Arc::new(commit));
        if self.log.len() > WINDOW {
            self.log.pop_front();
        }
    }

    fn index(&mut self, key: &Key, object: &Value, is_there: bool) {
        for owner in list_of(&object["metadata"]["ownerReferences"]) {
            change(&mut self.owned, text(&owner["uid"]).to_owned(), key, is_there);
        }
        if key.kind == "Pod" {
            for claim in claims_of(&object["spec"]) {
                change(&mut self.mounting, (key.namespace.clone(), claim.to_owned()), key, is_there);
            }
            change(&mut self.placed, text(&object["spec"]["nodeName"]).to_owned(), key, is_there);
        }
        if key.kind == "VolumeAttachment" {
            let volume = text(&object["spec"]["source"]["persistentVolumeName"]);
            change(&mut self.attaching, volume.to_owned(), key, is_there);
        }
    }

    /// Puts back what was kept: without a commit, and older revisions are gone.
    pub fn restore(&mut self, key: Key, object: Option<Value>, revision: u64) {
        if let Some(before) = self.objects.remove(&key) {
            self.index(&key, &before, false);
        }
        if let Some(object) = object.map(Arc::new) {
            self.index(&key, &object, true);
            self.objects.insert(key, object);
        }
        self.begin_at(self.revision.max(revision));
    }

    /// Everything up to this revision is past.
    pub fn begin_at(&mut self, revision: u64) {
        self.revision = revision;
        self.log.clear();
    }

    /// The commits after a revision, oldest first.
    pub fn since(&self, revision: u64) -> Result<impl Iterator<Item = &Arc<Commit>>, Compacted> {
        let oldest = self.oldest();
        if revision < oldest {
            return Err(Compacted { oldest });
        }
        let from = self.log.partition_point(|commit| commit.revision <= revision);
        Ok(self.log.range(from..))
    }

    /// The oldest revision that can be read again.
    pub fn oldest(&self) -> u64 {
        self.log.front().map_or(self.revision, |commit| commit.revision - 1)
    }

    /// The objects of a kind as they were at a revision.
    pub fn list_at(&self, revision: u64, kind: &'static str, namespace: &str) -> Result<Vec<Arc<Value>>, Compacted> {
        let later: Vec<&Arc<Commit>> = self.since(revision)?.collect();
        let mut objects: BTreeMap<&Key, &Arc<Value>> = self.list(kind, namespace).collect();
        for commit in later.iter().rev() {
            let fits = commit.key.kind == kind && (namespace.is_empty() || commit.key.namespace == namespace);
            match &commit.before {
                _ if !fits => {}
                Some(before) => {
                    objects.insert(&commit.key, before);
                }
                None => {
                    objects.remove(&commit.key);
                }
            }
        }
        Ok(objects.into_values().cloned().collect())
    }

    /// The whole cluster as it was at a revision.
    pub fn as_of(&self, revision: u64) -> Result<State, Compacted> {
        let later: Vec<Arc<Commit>> = self.since(revision)?.cloned().collect();
        let mut state = self.clone();
        for commit in later.into_iter().rev() {
            if let Some(after) = &commit.after {
                state.index(&commit.key, after, false);
                state.objects.remove(&commit.key);
            }
            if let Some(before) = &commit.before {
                state.index(&commit.key, before, true);
                state.objects.insert(commit.key.clone(), before.clone());
            }
            state.log.pop_back();
        }
        state.revision = revision;
        Ok(state)
    }

    /// Forgets all commits up to this revision, as a server does that compacts.
    pub fn compact(&mut self, revision: u64) {
        while self.log.front().is_some_and(|commit| commit.revision <= revision) {
            self.log.pop_front();
        }
    }

    /// The next number of the seeded sequence (splitmix64).
    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A version 4 uid.
    pub fn uid(&mut self) -> String {
        let bits = (u128::from(self.random()) << 64) | u128::from(self.random());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
    }

    /// The five characters that `generateName` appends.
    pub fn suffix(&mut self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut bits = self.random();
        let mut letter = || {
            let at = bits % LETTERS.len() as u64;
            bits /= LETTERS.len() as u64;
            char::from(LETTERS[at as usize])
        };
        (0..5).map(|_| letter()).collect()
    }
}

fn change<K: std::hash::Hash + Eq>(index: &mut HashMap<K, BTreeSet<Key>>, at: K, key: &Key, is_there: bool) {
    if is_there {
        index.entry(at).or_default().insert(key.clone());
    } else if let Some(set) = index.get_mut(&at) {
        set.remove(key);
        if set.is_empty() {
            index.remove(&at);
        }
    }
}

/// The text of a value; empty for anything else.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The elements of an array; none for anything else.
pub fn list_of(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The names of the claims that a pod's spec mounts.
pub fn claims_of(spec: &Value) -> impl Iterator<Item = &str> {
    list_of(&spec["volumes"]).iter().filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state() -> State {
        State::new(1, Timestamp::UNIX_EPOCH)
    }

    fn named(names: &[Arc<Value>]) -> Vec<&str> {
        names.iter().map(|one| text(&one["metadata"]["name"])).collect()
    }

    #[test]
    fn every_revision_can_be_read_again() {
        let mut state = state();
        let key = |name: &str| Key::new("ConfigMap", "shop", name);
        let object = |name: &str, n: u64| json!({"metadata": {"name": name}, "data": {"n": n}});
        state.put(key("a"), object("a", 1), "me");
        state.put(key("b"), object("b", 1), "me");
        state.put(key("a"), object("a", 2), "me");
        let last = state.remove(&key("b"), "me").unwrap();
        assert_eq!((state.revision(), text(&last["metadata"]["resourceVersion"])), (4, "4"));
        let at = |revision| state.list_at(revision, "ConfigMap", "").unwrap();
        assert_eq!([named(&at(0)), named(&at(1)), named(&at(2))], [vec![], vec!["a"], vec!["a", "b"]]);
        assert_eq!((at(2)[0]["data"]["n"].clone(), at(3)[0]["data"]["n"].clone()), (json!(1), json!(2)));
        assert_eq!((named(&at(3)), named(&at(4))), (vec!["a", "b"], vec!["a"]));
        assert_eq!(state.since(2).unwrap().map(|one| one.revision).collect::<Vec<_>>(), [3, 4]);
        for revision in 0..4 {
            let then = state.as_of(revision).unwrap();
            assert_eq!(then.list("ConfigMap", "").map(|(_, one)| one.clone()).collect::<Vec<_>>(), at(revision));
            assert_eq!((then.revision(), then.since(0).unwrap().count() as u64), (revision, revision));
        }
        state.compact(2);
        assert_eq!(state.since(1).err(), Some(Compacted { oldest: 2 }));
        assert_eq!(state.since(2).unwrap().count(), 2);
    }

    #[test]
    fn owners_and_claims_are_found_at_once() {
        let mut state = state();
        let pod = Key::new("Pod", "shop", "web-0");
        let spec = json!({"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]});
        let owners = json!([{"uid": "u1"}, {"uid": "u2"}]);
        state.put(pod.clone(), json!({"metadata": {"name": "web-0", "ownerReferences": owners}, "spec": spec}), "me");
        assert_eq!((state.owned_by("u2").count(), state.pods_of_claim("shop", "data").count()), (1, 1));
        state.put(pod.clone(), json!({"metadata": {"name": "web-0"}, "spec": spec}), "me");
        assert_eq!((state.owned_by("u2").count(), state.pods_of_claim("shop", "data").count()), (0, 1));
        state.remove(&pod, "me");
        assert_eq!(state.pods_of_claim("shop", "data").count(), 0);
    }

    #[test]
    fn one_seed_makes_one_world() {
        let (mut one, mut two) = (state(), state());
        assert_eq!((one.uid(), one.suffix()), (two.uid(), two.suffix()));
        assert_ne!(one.uid(), one.uid());
        assert!(one.suffix().chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
    }
}
