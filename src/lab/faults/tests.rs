use super::*;
use crate::lab::kubelet::Images;
use crate::lab::{Lab, Options};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::json;
use std::time::Duration;
use tower_service::Service;

struct Ground {
    lab: Lab,
    faults: Faults,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

/// A lab with a ConfigMap `data` in `default`, and these faults.
fn ground(plan: &[Value]) -> Ground {
    let dir = tempfile::tempdir().unwrap();
    let options =
        Options { dir: dir.path().join("lab"), images: Images::default(), shared: Vec::new(), seed: 1, keep: false };
    let lab = Lab::open(options).unwrap();
    assert!(lab.settle(Duration::from_secs(30)));
    let plan = plan.iter().map(|fault| Fault::read(fault.clone()).unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let ground = Ground { faults: Faults::new(&lab, plan), lab, runtime, _dir: dir };
    let quiet = Faults::new(&ground.lab, Vec::new());
    let made = ground.ask_by(&quiet, "POST", MAPS, &json!({"metadata": {"name": "data"}, "data": {"n": "1"}}));
    assert_eq!(made.map(|(code, _)| code), Ok(201));
    ground
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DATA: &str = "/api/v1/namespaces/default/configmaps/data";

impl Ground {
    /// Code and body, or the word of the connection.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<(u16, String), String> {
        self.ask_by(&self.faults, method, path, body)
    }

    fn ask_by(&self, faults: &Faults, method: &str, path: &str, body: &Value) -> Result<(u16, String), String> {
        let form = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = ::http::Request::builder().method(method).uri(path).header("content-type", form);
        let request = request.body(Full::new(bytes)).unwrap();
        let all = async {
            let answer = faults.transport().call(request).await.map_err(|e| e.to_string())?;
            let code = answer.status().as_u16();
            let body = answer.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
            Ok((code, String::from_utf8_lossy(&body).into_owned()))
        };
        let limit = Duration::from_millis(300);
        self.runtime.block_on(async { tokio::time::timeout(limit, all).await }).unwrap_or(Err("nothing".to_owned()))
    }

    /// What `n` is, by the lab itself.
    fn n(&self) -> String {
        self.lab.core().look(|state| {
            let data = state.get("ConfigMap", "default", "data");
            data.map_or("gone".to_owned(), |data| text(&data["data"]["n"]).to_owned())
        })
    }

    fn set(&self, n: &str) -> Result<(u16, String), String> {
        self.ask("PATCH", DATA, &json!({"data": {"n": n}}))
    }
}

#[test]
fn a_fault_is_one_line_that_can_be_read_again() {
    for line in [
        r#"{"then":"lost"}"#,
        r#"{"on":{"verb":"delete","kind":"PersistentVolumeClaim","name":"data"},"then":"answer_lost"}"#,
        r#"{"on":{"verb":"write","namespace":"shop","nth":7},"then":{"status":{"code":429,"retry_after_s":1,"body":"text"}}}"#,
        r#"{"on":{"kind":"pv"},"when":"after","then":{"delay_s":2.5},"times":3}"#,
        r#"{"on":{"verb":"read"},"then":{"stale":2}}"#,
        r#"{"then":{"somebody":{"patch":{"kind":"Deployment","name":"web","body":{"spec":{"replicas":1}}}}}}"#,
        r#"{"then":{"somebody":{"delete":{"kind":"PersistentVolume","like":{"spec":{"storageClassName":"fast"}}}}}}"#,
        r#"{"then":{"kill_pod":{"name":"*-copy"}}}"#,
        r#"{"then":{"oom_kill_pod":{"name":"*-copy"}}}"#,
        r#"{"then":{"evict_pod":{"namespace":"shop"}}}"#,
        r#"{"on":{"verb":"watch"},"then":"watch_silent"}"#,
    ] {
        assert_eq!(Fault::parse(line).map(|fault| fault.to_string()), Ok(line.to_owned()));
    }
    let short = Fault::parse(r#"{"then":{"status":409}}"#).unwrap();
    assert_eq!(short.then, Then::Status(Answer::of(409)));
}

#[test]
fn what_can_never_happen_is_refused() {
    for (fault, why) in [
        (json!({"then": "los"}), "unknown variant `los`"),
        (json!({"on": {"verbs": "get"}, "then": "lost"}), "unknown field `verbs`"),
        (json!({"on": {"nth": 0}, "then": "lost"}), "`nth` counts from 1"),
        (json!({"times": 0, "then": "lost"}), "`times` is at least 1"),
        (json!({"on": {"verb": "delete"}, "then": {"stale": 1}}), "to a get or list only, never to a delete"),
        (json!({"on": {"verb": "get"}, "then": "watch_silent"}), "to a watch only"),
        (json!({"then": {"status": 200}}), "200 is not the code of a failure"),
        (json!({"then": {"status": {"code": 409, "text": "x"}}}), "unknown field `text`"),
        (json!({"then": {"stale": 0}}), "at least 1"),
        (json!({"then": {"somebody": {"delete": {"kind": "Pud"}}}}), "no kind `Pud`"),
        (json!({"then": {"somebody": {"create": {"kind": "Pud"}}}}), "no kind `Pud`"),
        (json!({"then": {"kill_pod": {"kind": "Node"}}}), "only pods have processes"),
        (json!({"then": {"evict_pod": {"kind": "Node"}}}), "only pods have processes"),
    ] {
        let told = Fault::read(fault.clone()).unwrap_err();
        assert!(told.contains(why), "{fault}: {told}");
    }
    assert!(Fault::read(json!({"on": {"verb": "read"}, "then": {"stale": 1}})).is_ok());
}

#[test]
fn a_request_that_is_lost_is_not_done_and_one_whose_answer_is_lost_is() {
    let reset = Err("connection reset by peer".to_owned());
    for (then, n) in [("lost", "1"), ("answer_lost", "2")] {
        let ground = ground(&[json!({"on": {"verb": "patch", "kind": "cm", "name": "d*"}, "then": then})]);
        assert_eq!((ground.set("2"), ground.n()), (reset.clone(), n.to_owned()), "{then}");
        assert_eq!((ground.set("3").map(|(code, _)| code), ground.n()), (Ok(200), "3".to_owned()));
        assert_eq!(ground.faults.fired().len(), 1);
    }
}

#[test]
fn an_answer_in_its_place_comes_before_or_after_the_deed() {
    for (when, n) in [("before", "1"), ("after", "2")] {
        let then = json!({"status": {"code": 503, "retry_after_s": 1}});
        let ground = ground(&[json!({"on": {"verb": "write"}, "when": when, "then": then})]);
        let (code, body) = ground.set("2").unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((code, &body["reason"], ground.n()), (503, &json!("ServiceUnavailable"), n.to_owned()));
        assert_eq!(body["details"], json!({"name": "data", "kind": "configmaps", "retryAfterSeconds": 1}));
    }
    let ground = ground(&[json!({"then": {"status": {"code": 429, "body": "text"}}})]);
    let told = (429, "Too many requests, please try again later.\n".to_owned());
    assert_eq!(ground.ask("GET", DATA, &Value::Null), Ok(told));
}

#[test]
fn answers_break_off_come_late_or_never() {
    let get = |then: Value| {
        let ground = ground(&[json!({"on": {"verb": "get"}, "then": then})]);
        let first = ground.ask("GET", DATA, &Value::Null);
        assert_eq!(ground.ask("GET", DATA, &Value::Null).map(|(code, _)| code), Ok(200));
        first
    };
    assert_eq!(get(json!("reset")), Err("connection reset by peer".to_owned()));
    let (code, half) = get(json!("truncated")).unwrap();
    assert!(code == 200 && half.starts_with("{\"kind\"") && serde_json::from_str::<Value>(&half).is_err(), "{half}");
    assert_eq!(get(json!({"delay_s": 60})), Err("nothing".to_owned()));
    assert_eq!(get(json!("no_answer")), Err("nothing".to_owned()));
    assert_eq!(get(json!({"delay_s": 0.001})).map(|(code, _)| code), Ok(200));
}

#[test]
fn a_stale_read_shows_what_was_and_is_none_if_nothing_changed() {
    let ground = ground(&[json!({"on": {"verb": "read", "nth": 2}, "then": {"stale": 1}, "times": 3})]);
    let n = |path: &str| {
        let (_, body) = ground.ask("GET", path, &Value::Null).unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        let one = if body["items"].is_array() { &body["items"][0] } else { &body };
        text(&one["data"]["n"]).to_owned()
    };
    let namespaces = ground.ask("GET", "/api/v1/namespaces/default", &Value::Null);
    assert_eq!(namespaces.map(|(code, _)| code), Ok(200));
    ground.set("2").unwrap();
    assert_eq!([n(DATA), n(MAPS), n("/api/v1/configmaps"), n(DATA)], ["1", "1", "1", "2"]);
    assert_eq!(ground.faults.fired().len(), 3);
    let (code, body) = ground.ask("GET", "/api/v1/nodes/none", &Value::Null).unwrap();
    assert_eq!(code, 404, "{body}");
}

#[test]
fn watches_end_are_silent_or_have_lost_their_past() {
    let watch = format!("{MAPS}?watch=true&fieldSelector=metadata.name=data");
    let told = |then: &str| {
        let ground = ground(&[json!({"on": {"kind": "ConfigMap", "name": "data"}, "then": then})]);
        assert_eq!(ground.ask("GET", DATA, &Value::Null).map(|(code, _)| code), Ok(200));
        let told = ground.ask("GET", &watch, &Value::Null);
        assert_eq!(ground.faults.fired()[0].on.to_string(), "2: watch ConfigMap default/data #1");
        told
    };
    assert_eq!(told("watch_dropped"), Ok((200, String::new())));
    assert_eq!(told("watch_silent"), Err("nothing".to_owned()));
    let (code, line) = told("watch_expired").unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((code, &event["type"], &event["object"]["code"]), (200, &json!("ERROR"), &json!(410)));
}

#[test]
fn somebody_else_changes_things_before_or_after_a_request() {
    let patch = json!({"patch": {"kind": "cm", "namespace": "default", "like": {"data": {"n": "1"}}, "body": {"data": {"n": "9"}}}});
    let ground = ground(&[
        json!({"on": {"verb": "get"}, "then": {"somebody": patch}}),
        json!({"on": {"verb": "get"}, "when": "after", "then": {"somebody": {"delete": {"kind": "ConfigMap", "name": "data"}}}}),
        json!({"on": {"verb": "get"}, "then": {"somebody": {"delete": {"kind": "Pod"}}}}),
        json!({"on": {"verb": "get", "nth": 2}, "then": {"somebody": {"create":
            {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "data", "namespace": "default"}, "data": {"n": "7"}}}}}),
    ]);
    let (_, body) = ground.ask("GET", DATA, &Value::Null).unwrap();
    assert!(body.contains("\"n\":\"9\""), "{body}");
    assert_eq!(ground.n(), "gone");
    let (_, body) = ground.ask("GET", DATA, &Value::Null).unwrap();
    assert!(body.contains("\"n\":\"7\""), "{body}");
    let changed: Vec<_> = ground.faults.fired().into_iter().flat_map(|one| one.changed).collect();
    assert_eq!(changed, ["ConfigMap data", "ConfigMap data", "ConfigMap data"]);
    // There was no pod to delete: that fault proves nothing.
    assert_eq!(ground.faults.unfired().len(), 1);
}

#[test]
fn a_request_that_arrives_twice_is_done_twice() {
    let ground = ground(&[json!({"on": {"verb": "create"}, "then": "twice"})]);
    let (code, body) = ground.ask("POST", MAPS, &json!({"metadata": {"name": "logs"}})).unwrap();
    assert_eq!(code, 409, "{body}");
    assert!(ground.lab.core().look(|state| state.get("ConfigMap", "default", "logs").is_some()));
}

#[test]
fn after_the_death_nothing_is_answered_any_more() {
    let lab = ground(&[]);
    let died = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = died.clone();
    let plan = vec![Fault::read(json!({"on": {"verb": "patch"}, "when": "after", "then": "crash"})).unwrap()];
    let faults = Faults::with_crash(&lab.lab, plan, Box::new(move |seen| told.lock().unwrap().push(seen.to_string())));
    let set = |n: &str| lab.ask_by(&faults, "PATCH", DATA, &json!({"data": {"n": n}})).map(|(code, _)| code);
    assert_eq!((set("2"), lab.n(), faults.is_dead()), (Ok(403), "2".to_owned(), true));
    assert_eq!((set("3"), lab.n()), (Ok(403), "2".to_owned()));
    assert_eq!(*died.lock().unwrap(), ["1: patch ConfigMap default/data #1"]);
}

#[test]
fn names_are_the_same_in_every_run() {
    let uid = "3f1f473a-13b8-440c-9083-79360ec5aabb";
    assert_eq!(steady(&format!("pvc-{uid}")), "pvc-*");
    assert_eq!(steady(&format!("{uid}{uid}")), "**");
    assert_eq!(steady("web-679485d5c4"), "web-679485d5c4");
    assert_eq!(steady("ä-é"), "ä-é");
    for (pattern, name, fits) in [
        ("*", "", true),
        ("pvc-*", "pvc-1", true),
        ("*data*", "shop-data-2", true),
        ("a*c", "abd", false),
        ("", "a", false),
    ] {
        assert_eq!(glob(pattern, name), fits, "{pattern} {name}");
    }
}
