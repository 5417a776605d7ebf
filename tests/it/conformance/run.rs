//! One story on one server: a namespace of its own, the steps in order, the answers as they came, and the cleaning up.

use super::server::{Letter, Raw, Server};
use super::story::{Step, Story, Topic, place};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(60);

/// What a step brought. A condition that did not come has code 0.
#[derive(Debug, Clone)]
pub struct Heard {
    pub step: String,
    pub code: u16,
    pub content: String,
    pub retry_after: Option<String>,
    pub body: Value,
    /// The step's own wishes, for the normaliser.
    pub wish: Step,
}

pub struct Told {
    pub words: BTreeMap<String, String>,
    pub heard: Vec<Heard>,
}

/// The code of a step that waited in vain.
pub const IN_VAIN: u16 = 0;

pub fn random() -> String {
    // Letters that are in no hexadecimal number, so that a name is never part of a uid.
    let letters = b"ghjklmnpqrstvwxz";
    let bytes = *uuid::Uuid::new_v4().as_bytes();
    bytes.iter().take(12).map(|byte| letters[usize::from(*byte) % letters.len()] as char).collect()
}

/// Tells a story; stops at the first step that cannot be done (scenery refused, condition that does not come).
pub async fn tell(server: &Server, topic: &Topic, story: &Story, given: &BTreeMap<String, Value>) -> Told {
    let ns = format!("story-{}", random());
    let mut teller = Teller { server, topic, given, words: server.words.clone(), heard: Vec::new() };
    teller.words.insert("ns".into(), ns.clone());
    make_namespace(server, &ns).await;
    for step in &story.steps {
        if !teller.step(step).await {
            break;
        }
    }
    let told = Told { words: teller.words, heard: teller.heard };
    clean(server, &ns).await;
    told
}

pub async fn make_namespace(server: &Server, ns: &str) {
    let namespace = json!({"metadata": {"name": ns, "labels": server.labels}});
    let (code, answer) = server.json("POST", "/api/v1/namespaces", &namespace).await;
    assert_eq!(code, 201, "a namespace can be made: {answer}");
    // Pods are refused before the namespace has its account, and lists are not at rest before the authority is there.
    for path in ["serviceaccounts/default", "configmaps/kube-root-ca.crt"] {
        let path = format!("/api/v1/namespaces/{ns}/{path}");
        let started = Instant::now();
        while server.json("GET", &path, &Value::Null).await.0 != 200 {
            assert!(started.elapsed() < server.patience, "{path} does not come");
            tokio::time::sleep(TICK).await;
        }
    }
}

struct Teller<'a> {
    server: &'a Server,
    topic: &'a Topic,
    given: &'a BTreeMap<String, Value>,
    words: BTreeMap<String, String>,
    heard: Vec<Heard>,
}

impl Teller<'_> {
    async fn step(&mut self, step: &Step) -> bool {
        let mut heard = Heard {
            step: step.title(),
            code: 200,
            content: String::new(),
            retry_after: None,
            body: Value::Null,
            wish: step.clone(),
        };
        let mut is_well = true;
        if let Some(ask) = &step.ask {
            let raw = self.ask(step, ask).await;
            (heard.code, heard.content, heard.retry_after) = (raw.code, raw.content.clone(), raw.retry_after.clone());
            heard.body = understood(&raw);
            is_well = !step.quiet || raw.code < 300;
        } else if let Some(path) = &step.wait {
            let (met, last) = self.wait(step, &self.fill(&place(path))).await;
            heard.body = last;
            is_well = met;
            if !met {
                heard.code = IN_VAIN;
            }
        } else if let Some(names) = &step.events {
            heard.body = self.events(names, step.reasons.as_deref()).await;
        } else if let Some(paths) = &step.settle {
            self.settle(paths, step.brief).await;
            return true;
        }
        for (word, pointer) in &step.take {
            let value = heard.body.pointer(pointer).map(text).unwrap_or_default();
            self.words.insert(word.clone(), value);
        }
        if is_well && step.wait.is_some() && step.see.is_none() {
            heard.body = Value::String("met".to_owned());
        }
        if !is_well || !step.quiet {
            self.heard.push(heard);
        }
        is_well
    }

    async fn ask(&self, step: &Step, ask: &str) -> Raw {
        let (method, path) = ask.split_once(' ').expect("METHOD path");
        let path =
            self.fill(&place(path)).replace(' ', "%20").replace('"', "%22").replace('<', "%3C").replace('>', "%3E");
        let content = match step.content.as_deref() {
            Some("json") => "application/json-patch+json",
            Some("merge") => "application/merge-patch+json",
            Some("strategic") => "application/strategic-merge-patch+json",
            Some("apply") => "application/apply-patch+yaml",
            Some(other) => other,
            None if method == "PATCH" => "application/merge-patch+json",
            None => "application/json",
        };
        let body = self.body(step, method == "POST");
        let letter = Letter { content: content.to_owned(), accept: step.accept.clone(), user: step.user.clone(), body };
        self.server.send(method, &path, letter).await
    }

    fn body(&self, step: &Step, creates: bool) -> Vec<u8> {
        if let Some(text) = &step.text {
            return self.fill(text).into_bytes();
        }
        let named = step.give.as_ref().map(|name| self.topic.given.get(name).unwrap_or_else(|| &self.given[name]));
        let Some(mut body) = named.cloned().or_else(|| step.body.clone()) else {
            return Vec::new();
        };
        if let Some(with) = &step.with {
            json_patch::merge(&mut body, with);
        }
        let cluster_wide = ["PersistentVolume", "StorageClass", "VolumeAttachment", "Namespace", "Node"];
        if creates && cluster_wide.iter().any(|kind| body["kind"] == *kind) && body["metadata"].is_object() {
            let mut all = self.server.labels.clone();
            json_patch::merge(&mut all, &body["metadata"]["labels"].take());
            body["metadata"]["labels"] = all;
        }
        self.fill(&body.to_string()).into_bytes()
    }

    /// `<word>` → its value. What is in capitals or unknown stays: it may be meant.
    fn fill(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        for (word, value) in &self.words {
            filled = filled.replace(&format!("<{word}>"), value);
        }
        filled
    }

    async fn wait(&self, step: &Step, path: &str) -> (bool, Value) {
        let started = Instant::now();
        loop {
            let (code, body) = self.server.json("GET", path, &Value::Null).await;
            if if step.gone { code == 404 } else { code == 200 && self.holds(step, &body) } {
                return (true, body);
            }
            if started.elapsed() > self.server.patience {
                return (false, body);
            }
            tokio::time::sleep(TICK).await;
        }
    }

    fn holds(&self, step: &Step, body: &Value) -> bool {
        let items = body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let all = |conditions: &BTreeMap<String, Value>, value: &Value| {
            conditions.iter().all(|(pointer, want)| self.is_met(value.pointer(pointer), want))
        };
        all(&step.until, body)
            && (step.any.is_empty() || items.iter().any(|item| all(&step.any, item)))
            && step.count.is_none_or(|count| items.len() == count)
    }

    fn is_met(&self, found: Option<&Value>, want: &Value) -> bool {
        match want.as_str() {
            Some("<exists>") => found.is_some(),
            Some("<absent>") => found.is_none(),
            Some(want) => found.is_some_and(|found| text(found) == self.fill(want)),
            None => found == Some(want),
        }
    }

    async fn events(&self, names: &[String], reasons: Option<&[String]>) -> Value {
        let mut found = Vec::new();
        for place in ["@event", "@pvevent"] {
            let path = self.fill(&super::story::place(place));
            let (_, list) = self.server.json("GET", &path, &Value::Null).await;
            for event in list["items"].as_array().cloned().unwrap_or_default() {
                let about = text(&event["involvedObject"]["name"]);
                let reason = text(&event["reason"]);
                if names.iter().any(|name| self.fill(name) == about)
                    && reasons.is_none_or(|reasons| reasons.contains(&reason))
                {
                    let kind = &event["involvedObject"]["kind"];
                    let from = &event["source"]["component"];
                    let (level, message) = (&event["type"], &event["message"]);
                    let short = json!({"about": format!("{}/{about}", text(kind)), "from": from, "type": level,
                        "reason": reason, "message": message});
                    if !found.contains(&short) {
                        found.push(short);
                    }
                }
            }
        }
        json!({"events": found})
    }

    async fn settle(&self, paths: &[String], brief: bool) {
        let places: Vec<String> = paths.iter().map(|path| self.fill(&place(path))).collect();
        // Longer than the real controller of volumes sleeps between two looks at a claim.
        let rest = if brief { self.server.rest * 3 / 4 } else { self.server.rest };
        settle(self.server, &places, &self.words["ns"], rest).await;
    }
}

/// Waits until nothing of this story in the lists at these paths has changed for so long.
pub async fn settle(server: &Server, paths: &[String], ns: &str, rest: Duration) {
    let started = Instant::now();
    let (mut since, mut before) = (Instant::now(), Vec::new());
    while since.elapsed() < rest {
        let mut now = Vec::new();
        for path in paths {
            let (_, list) = server.json("GET", path, &Value::Null).await;
            let items = list["items"].as_array().cloned().unwrap_or_else(|| vec![list.clone()]);
            let marks = items.iter().filter(|item| is_of(item, ns)).map(|item| {
                let meta = &item["metadata"];
                format!("{} {} {}", meta["name"], meta["uid"], meta["resourceVersion"])
            });
            now.extend(marks);
        }
        if now != before {
            (since, before) = (Instant::now(), now);
        }
        assert!(started.elapsed() < server.patience * 4, "{paths:?} do not come to rest");
        tokio::time::sleep(TICK).await;
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// JSON, or the lines of a watch, or text.
fn understood(raw: &Raw) -> Value {
    let whole = String::from_utf8_lossy(&raw.body).into_owned();
    if let Ok(value) = serde_json::from_str(&whole) {
        let value: Value = value;
        // A watch of one event is a list too.
        return if is_event(&value) { json!({"watch": [value]}) } else { value };
    }
    let lines: Result<Vec<Value>, _> = whole.lines().map(serde_json::from_str).collect();
    match lines {
        Ok(lines) if raw.content.starts_with("application/json") => json!({"watch": lines}),
        _ => Value::String(whole),
    }
}

fn is_event(value: &Value) -> bool {
    let map = value.as_object().map(Map::len);
    map == Some(2) && value["type"].is_string() && value["object"].is_object()
}

/// Whether an object is a story's: in its namespace, named after it, or a volume of its claims.
fn is_of(object: &Value, ns: &str) -> bool {
    let meta = &object["metadata"];
    let name = meta["name"].as_str().unwrap_or_default();
    meta["namespace"] == ns || name.starts_with(&format!("{ns}-")) || object["spec"]["claimRef"]["namespace"] == ns
}

/// Removes what a story made, in its namespace and outside, with the finalizers that it left. The namespace itself
/// goes on its own.
pub async fn clean(server: &Server, ns: &str) {
    let background = json!({"propagationPolicy": "Background", "gracePeriodSeconds": 0});
    let plain = json!({"propagationPolicy": "Background"});
    let inside = ["apps/v1/statefulsets", "apps/v1/deployments", "apps/v1/daemonsets", "apps/v1/replicasets"];
    let inside = inside.iter().chain(&["batch/v1/jobs"]).map(|path| {
        let (api, plural) = path.rsplit_once('/').expect("group/version/plural");
        format!("/apis/{api}/namespaces/{ns}/{plural}")
    });
    let core = ["pods", "persistentvolumeclaims", "configmaps"].map(|kind| format!("/api/v1/namespaces/{ns}/{kind}"));
    let inside: Vec<String> = inside.chain(core).collect();
    for path in &inside {
        let pods = path.ends_with("/pods");
        let _ = server.json("DELETE", path, if pods { &plain } else { &background }).await;
    }
    for path in &inside {
        free(server, path, |_| true, ns).await;
    }
    let _ = server.json("DELETE", &format!("/api/v1/namespaces/{ns}"), &Value::Null).await;
    let outside = [
        "/api/v1/persistentvolumes",
        "/apis/storage.k8s.io/v1/storageclasses",
        "/apis/storage.k8s.io/v1/volumeattachments",
        "/api/v1/nodes",
        "/api/v1/namespaces",
    ];
    for path in outside {
        free(server, path, |object| is_of(object, ns), ns).await;
    }
}

/// Deletes the objects at a path that are ours, and takes the finalizers from those that stay.
async fn free(server: &Server, path: &str, ours: impl Fn(&Value) -> bool, ns: &str) {
    let (_, list) = server.json("GET", path, &Value::Null).await;
    for object in list["items"].as_array().cloned().unwrap_or_default() {
        if !ours(&object) {
            continue;
        }
        let name = text(&object["metadata"]["name"]);
        let one = format!("{path}/{name}");
        if object["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"].is_string() {
            // Its driver frees the storage and then the object, once the claim is gone.
            let delete = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
            let _ = server.json("PATCH", &one, &delete).await;
            continue;
        }
        let has_no_process = path.ends_with("/pods") && object["status"]["containerStatuses"].is_null();
        if !path.contains(ns) || has_no_process {
            let _ = server.json("DELETE", &format!("{one}?gracePeriodSeconds=0"), &Value::Null).await;
        }
        if object["metadata"]["finalizers"].is_array() {
            let foreign = json!({"metadata": {"finalizers": null}});
            let _ = server.json("PATCH", &one, &foreign).await;
        }
    }
}
