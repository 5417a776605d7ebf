//! What it takes a resumed run to reach live work: the journal read and folded, the script replayed over it.
//!
//! `cargo bench --bench resume` prints seconds and the most memory that was used. Target: 60,000 steps in less than 5 s and
//! 500 MB, whether in 500 branches of which most have ended, or all in one.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a bench measures and prints")]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use pvmigrate::cluster::{self, Door, Ledger, Vigils};
use pvmigrate::journal::{FileStore, Journal};
use pvmigrate::script::Script;
use pvmigrate::script::session::Session;
use pvmigrate::words::RunId;
use pvmigrate::words::voice::Mute;
use serde_json::{Value, json};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// 500 branches with 120 steps each: reads, large lists, writes with their facts; the last ones are not over.
const BRANCHES: &str = r#"
let items = [];
for i in 0..520 { items.push(`shop/data-${i}`); }
parallel_map(items, 8, |item| {
    let name = item.split("/")[1];
    for n in 0..28 {
        let pv = get_pv(`pv-${name}-${n}`);
        let kept = set_retain(pv);
        set_reclaim_policy(kept, "Delete");
    }
    for n in 0..8 { get_pvc("shop", `large-${n}`); }
    if name in ["data-490", "data-495", "data-501", "data-502", "data-503", "data-504", "data-505", "data-506"] {
        get_pv("stop-here");
    }
    item
});
"#;

/// The same in the script itself.
const ONE: &str = r#"
for i in 0..20000 {
    let pv = get_pv(`pv-${i}`);
    let kept = set_retain(pv);
    set_reclaim_policy(kept, "Delete");
}
get_pv("stop-here");
"#;

const SHAPES: [(&str, &str); 2] = [("branches", BRANCHES), ("one branch", ONE)];

/// In the environment of the process that resumes: it measures itself alone.
const RESUMED: &str = "PVMIGRATE_BENCH_RESUMED";

fn main() {
    let only = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    for (name, text) in
        SHAPES.into_iter().filter(|(name, _)| only.as_ref().is_none_or(|only| name.starts_with(only.as_str())))
    {
        match std::env::var_os(RESUMED) {
            Some(dir) => resume(name, text, Path::new(&dir)),
            None => make(name, text),
        }
    }
}

/// Makes the journal of a run that is cut off, and has another process resume it.
fn make(name: &str, text: &str) {
    let dir = tempfile::tempdir().expect("a directory for the journal");
    let begun = Instant::now();
    let failed = run(dir.path(), &Server::default(), text, false);
    assert!(failed.as_ref().is_some_and(|why| why.contains("stop-here")), "the first run is cut off: {failed:?}");
    let bytes = std::fs::metadata(dir.path().join("journal.jsonl")).map_or(0, |m| m.len());
    println!("{name}: a journal of {} MB made in {:.1?}", bytes >> 20, begun.elapsed());
    let program = std::env::current_exe().expect("it runs");
    let ended =
        std::process::Command::new(program).arg(name).env(RESUMED, dir.path()).status().expect("it can be started");
    assert!(ended.success(), "the resumed run: {ended}");
}

fn resume(name: &str, text: &str, dir: &Path) {
    let server = Server::default();
    let begun = Instant::now();
    run(dir, &server, text, true);
    let live = server.live.lock().expect("nobody panics").expect("the resumed run gets there") - begun;
    println!(
        "{name}: live work after {live:.1?} ({:.1?} of processor, {} requests), {} MB at most",
        processor(),
        server.asked.load(Ordering::SeqCst),
        peak_mb(),
    );
}

/// Runs the script, from the beginning or from its journal, until it fails.
fn run(dir: &Path, server: &Server, text: &str, resumed: bool) -> Option<String> {
    let cancel = CancellationToken::new();
    let mut script = Script::typed(text, &cancel).expect("the script is right");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let store = FileStore::open(dir).expect("a journal");
    let journal = Journal::open(RunId::parse("0123abcd").expect("an id"), Box::new(store)).expect("it is whole");
    let ledger = Ledger::from_facts(&journal.facts()).expect("facts of ours");
    let door = Door {
        cluster: runtime.block_on(async { cluster::over(server.clone(), "bench") }),
        journal: Arc::new(journal),
        ledger: Arc::new(ledger),
        vigils: Arc::new(Vigils::default()),
        cancel,
    };
    let session = Arc::new(Session {
        door,
        runtime: runtime.handle().clone(),
        voice: Arc::new(Mute),
        args: json!({}),
        yes: true,
        resumed,
    });
    let ended = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(64 << 20);
        let thread = thread.spawn_scoped(scope, || script.run(&session, "root")).expect("a thread can be started");
        thread.join().expect("the script's thread does not panic")
    });
    ended.err().map(|problem| problem.to_string())
}

/// A server that has whatever is asked for, but for the one object that ends a run. It keeps only what was written.
#[derive(Clone, Default)]
struct Server {
    objects: Arc<Mutex<std::collections::HashMap<String, Value>>>,
    asked: Arc<AtomicU64>,
    live: Arc<Mutex<Option<Instant>>>,
}

impl Server {
    fn answer(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let name = path.rsplit('/').next().unwrap_or_default().split('?').next().unwrap_or_default();
        if name == "stop-here" {
            self.live.lock().expect("nobody panics").get_or_insert_with(Instant::now);
            return (
                403,
                json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden",
                "message": "stop-here"}),
            );
        }
        let mut objects = self.objects.lock().expect("nobody panics");
        if method == "PATCH" {
            let object = objects.entry(name.to_owned()).or_insert_with(|| object(name));
            let patch: Value = serde_json::from_slice(body).unwrap_or_default();
            json_patch::merge(object, &patch);
            let version = object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
            object["metadata"]["resourceVersion"] = (version.unwrap_or(0) + 1).to_string().into();
        }
        (200, objects.get(name).cloned().unwrap_or_else(|| object(name)))
    }
}

fn object(name: &str) -> Value {
    let claim = name.starts_with("large");
    let filler = if claim { "x".repeat(20_000) } else { "x".repeat(300) };
    json!({
        "apiVersion": "v1", "kind": if claim { "PersistentVolumeClaim" } else { "PersistentVolume" },
        "metadata": {"name": name, "uid": format!("uid-of-{name}"), "resourceVersion": "1", "annotations": {"a.example/note": filler},
            "namespace": if claim { json!("shop") } else { Value::Null }},
        "spec": {"capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "slow",
            "claimRef": {"namespace": "shop", "name": name, "uid": format!("uid-of-{name}")},
            "volumeName": name, "csi": {"driver": "d", "volumeHandle": name}},
        "status": {"phase": "Bound"},
    })
}

impl<B> tower_service::Service<http::Request<B>> for Server
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    type Response = http::Response<Full<Bytes>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(|e| std::io::Error::other(e.to_string()))?.to_bytes();
            let (code, value) = server.answer(parts.method.as_str(), &parts.uri.to_string(), &body);
            let answer = http::Response::builder().status(code).body(Full::new(Bytes::from(value.to_string())));
            answer.map_err(std::io::Error::other)
        })
    }
}

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn peak_mb() -> u64 {
    status("VmHWM:") >> 10
}

fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let words: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
