//! `pvmigrate lab up` as a stranger meets it: the built program, its directory, its port; with and without kubectl.

use crate::docs;
use http::{HeaderMap, Request};
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/shop.yaml");
const SMALL: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pvmigrate"));
    command.args(args);
    quiet(command, dir)
}

fn quiet(mut command: Command, dir: &Path) -> Command {
    command.env_clear().env("HOME", dir).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("NO_COLOR", "1");
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end: exit code and everything that it said.
fn run(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let out = command(dir, args).output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned() + &*String::from_utf8_lossy(&out.stderr))
}

/// A lab that is up, or a shell that has it up.
struct Up {
    child: Child,
    stdout: BufReader<ChildStdout>,
    kubeconfig: PathBuf,
    client: kube::Client,
    runtime: tokio::runtime::Runtime,
}

impl Up {
    fn at(dir: &Path, args: &[&str]) -> Up {
        Up::from(command(dir, &[&["lab", "up", "--dir", "lab"], args].concat()))
    }

    /// Waits until it says how to use it.
    fn from(mut command: Command) -> Up {
        // A test that fails takes everything with it.
        let mut child = command.process_group(0).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let Some(kubeconfig) = said_kubeconfig(&mut stdout, child.id()) else {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("the lab is not up: {said}");
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(client(&kubeconfig));
        Up { child, stdout, kubeconfig, client, runtime }
    }

    /// Code 0: it went away before it answered.
    fn send(&self, method: &str, path: &str, content: &str, body: &Value) -> (u16, HeaderMap, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("Content-Type", content);
        let request = request.body(Body::from(body)).unwrap();
        self.runtime.block_on(async {
            let answer = tokio::time::timeout(LIMIT, self.client.send(request)).await.expect("it answers");
            let Ok(answer) = answer else { return (0, HeaderMap::new(), Value::Null) };
            let (head, body) = answer.into_parts();
            let bytes = body.collect_bytes().await.unwrap();
            // Of a watch the first event.
            let first = serde_json::Deserializer::from_slice(&bytes).into_iter().next();
            (head.status.as_u16(), head.headers, first.and_then(Result::ok).unwrap_or_default())
        })
    }

    fn get(&self, path: &str) -> Value {
        let (code, _, body) = self.send("GET", path, "", &Value::Null);
        assert_eq!(code, 200, "{path}: {body}");
        body
    }

    fn make(&self, path: &str, object: &Value) -> (u16, Value) {
        let (code, _, body) = self.send("POST", path, "application/json", object);
        (code, body)
    }

    /// Whether there is a pod, and all are ready.
    fn pods_are_ready(&self) -> bool {
        let list = self.get("/api/v1/namespaces/shop/pods");
        let pods = list["items"].as_array().unwrap();
        let ready = |pod: &Value| {
            let containers = pod["status"]["containerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
            !containers.is_empty() && containers.iter().all(|one| one["ready"] == true)
        };
        !pods.is_empty() && pods.iter().all(ready)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end: the exit code, and what it said on stderr.
    fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Where it is for us: a process may have mounts of its own.
fn said_kubeconfig(stdout: &mut BufReader<ChildStdout>, pid: u32) -> Option<PathBuf> {
    let mut line = String::new();
    while stdout.read_line(&mut line).unwrap() > 0 {
        if let Some(path) = line.trim_end().strip_prefix("export KUBECONFIG=") {
            let path = PathBuf::from(path);
            let theirs = PathBuf::from(format!("/proc/{pid}/root{}", path.display()));
            return Some(if path.exists() { path } else { theirs });
        }
        line.clear();
    }
    None
}

async fn client(kubeconfig: &Path) -> kube::Client {
    let read = Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    kube::Client::try_from(config).unwrap()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        std::thread::yield_now();
    }
}

/// Processes that were started for something in this directory.
fn processes_of(dir: &Path) -> usize {
    let needle = dir.display().to_string();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(&needle))
        .count()
}

fn config_map(name: &str, bytes: usize) -> Value {
    json!({"kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": "x".repeat(bytes)}})
}

const MAPS: &str = "/api/v1/namespaces/shop/configmaps";

fn revision(list: &Value) -> u64 {
    list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[test]
fn everything_is_kept_when_it_ends_and_when_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("lab");
    let up = Up::at(dir.path(), &["--scenario", SHOP]);
    for secret in ["kubeconfig", "state.jsonl"] {
        assert_eq!(place.join(secret).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{secret}");
    }
    until("pods run", || up.pods_are_ready());
    let claim = up.get("/api/v1/namespaces/shop/persistentvolumeclaims/data");
    let volume = place.join("volumes").join(claim["spec"]["volumeName"].as_str().unwrap()).join("data");
    assert!(volume.join("odd/linked").is_file(), "{}", volume.display());
    assert_eq!(up.make(MAPS, &config_map("one", 1)).0, 201);
    let old = revision(&up.get(MAPS));
    up.signal(Signal::INT);
    let kubeconfig = up.kubeconfig.clone();
    let (code, said) = up.end();
    assert_eq!((code, kubeconfig.exists(), processes_of(&place)), (Some(0), false, 0), "{said}");
    assert!(said.contains("the same command goes on with it"), "{said}");

    let up = Up::at(dir.path(), &[]);
    assert_eq!(up.get(&format!("{MAPS}/one"))["data"]["text"], "x");
    assert!(revision(&up.get(MAPS)) >= old);
    // What a watch of before has missed cannot be told any more.
    let (_, _, event) = up.send("GET", &format!("{MAPS}?watch=1&resourceVersion=1"), "", &Value::Null);
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    until("pods run again", || up.pods_are_ready() && processes_of(&place) > 0);
    assert_eq!(up.make(MAPS, &config_map("two", 1)).0, 201);
    up.signal(Signal::KILL);
    assert_eq!(up.end().0, None);
    until("the pods' processes end with it", || processes_of(&place) == 0);

    let up = Up::at(dir.path(), &[]);
    assert_eq!(up.get(&format!("{MAPS}/two"))["data"]["text"], "x");
    until("pods run again", || up.pods_are_ready());
    assert!(volume.join("odd/linked").is_file());
}

#[test]
fn bad_input_is_named_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("broken.yaml", &format!("{SMALL}---\nkind: [\n"));
    write("strange.yaml", &format!("{SMALL}---\n# new\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n"));
    let lost = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: nowhere}\n";
    write("refused.yaml", &format!("{SMALL}---\n{lost}"));
    write("foreign/thesis.txt", "mine");
    write("newer/lab.json", "{\"pvmigrate-lab\": 99}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let cases: [(&[&str], &[&str]); 9] = [
        (&["--scenario", "none.yaml"], &["the scenario none.yaml cannot be read"]),
        (&["--scenario", "broken.yaml"], &["the scenario is wrong", "broken.yaml:5: "]),
        (&["--scenario", "strange.yaml"], &["strange.yaml:6: the lab does not serve Service of \"v1\""]),
        (&["--scenario", "refused.yaml"], &["refused.yaml:5: ConfigMap c: namespaces \"nowhere\" not found"]),
        (&["--port", &port], &["port", "cannot be opened", "without --port any free one is taken"]),
        (&["--dir", "foreign"], &["foreign is not empty, and not the directory of a lab", "--dir"]),
        (&["--dir", "newer"], &["was made by a newer lab (form 99; this one knows form 1)"]),
        (&["--dir", "foreign/thesis.txt/lab"], &["Not a directory", "--dir"]),
        (&["--lab"], &["take one of them"]),
    ];
    for (args, texts) in cases {
        let place: &[&str] = if args[0] == "--dir" { &[] } else { &["--dir", "lab"] };
        let (code, said) = run(dir.path(), &[&["lab", "up"], place, args].concat());
        assert_eq!(code, Some(2), "{args:?}: {said}");
        for text in texts {
            assert!(said.contains(text), "{args:?} does not say `{text}`:\n{said}");
        }
        let left = std::fs::read_dir(dir.path().join("lab")).into_iter().flatten().count();
        assert_eq!(left, 0, "{args:?} leaves something");
    }
    assert_eq!(std::fs::read_dir(dir.path().join("foreign")).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(dir.path().join("newer")).unwrap().count(), 1);
}

#[test]
fn a_directory_has_one_lab_and_one_beginning() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("small.yaml"), SMALL).unwrap();
    let up = Up::at(dir.path(), &["--scenario", "small.yaml"]);
    let (code, said) = run(dir.path(), &["lab", "up", "--dir", "lab"]);
    assert!(code == Some(2) && said.contains("is used by another lab that runs"), "{said}");
    assert!(up.kubeconfig.exists());
    up.signal(Signal::TERM);
    assert_eq!(up.end().0, Some(0));
    let (code, said) = run(dir.path(), &["lab", "up", "--dir", "lab", "--scenario", "small.yaml"]);
    assert!(code == Some(2) && said.contains("there is a cluster in"), "{said}");
}

/// In a file system of one megabyte of its own; where that is not allowed, with files of one megabyte at most.
#[test]
fn a_full_disk_stops_it_and_nothing_that_it_answered_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("small.yaml"), SMALL).unwrap();
    std::fs::create_dir(dir.path().join("lab")).unwrap();
    let may_mount = Command::new("unshare").args(["-rm", "true"]).output().is_ok_and(|out| out.status.success());
    let (shell, narrow, wide): (&[&str], _, _) = if may_mount {
        let wide = "\"$@\"; echo \"again $?\" >&2; mount -o remount,size=16m lab || exit 9";
        (&["unshare", "-rm", "sh"], "mount -t tmpfs -o size=1m none lab || exit 9", wide)
    } else {
        (&["sh"], "trap '' XFSZ; ulimit -S -f 1024", "ulimit -S -f unlimited")
    };
    let script = format!("{narrow}\n\"$@\" --scenario small.yaml; echo \"ended $?\" >&2\n{wide}\nexec \"$@\"\n");
    let mut program = Command::new(shell[0]);
    program.args(&shell[1..]).args(["-c", &script, "sh", env!("CARGO_BIN_EXE_pvmigrate"), "lab", "up", "--dir", "lab"]);
    let mut up = Up::from(quiet(program, dir.path()));
    let mut acknowledged = Vec::new();
    let refused = loop {
        let name = format!("c{}", acknowledged.len());
        match up.make(MAPS, &config_map(&name, 50_000)) {
            (201, _) => acknowledged.push(name),
            (code, body) => break (code, body.to_string()),
        }
        assert!(acknowledged.len() < 100, "the disk is not full");
    };
    let said = refused.1.contains("the lab has stopped: the state cannot be written");
    assert!(refused.0 == 0 || (refused.0 == 500 && said), "{refused:?}");
    assert!(acknowledged.len() > 5, "{acknowledged:?}");
    // The next one of the script has room.
    let kubeconfig = said_kubeconfig(&mut up.stdout, up.child.id()).expect("it goes on where there is room");
    up.client = up.runtime.block_on(client(&kubeconfig));
    let list = up.get(MAPS);
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|one| &one["metadata"]["name"]).collect();
    for name in &acknowledged {
        assert!(names.iter().any(|one| *one == name), "{name} was answered and is lost");
    }
    up.signal(Signal::TERM);
    let (_, said) = up.end();
    for text in ["error: the state cannot be written", "make room, and the same command goes on with it", "ended 3"] {
        assert!(said.contains(text), "it does not say `{text}`:\n{said}");
    }
    assert!(!may_mount || said.contains("again 2"), "{said}");
}

#[test]
fn fields_that_there_are_not_are_refused_told_or_dropped() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("small.yaml"), SMALL).unwrap();
    let up = Up::at(dir.path(), &["--scenario", "small.yaml"]);
    let claims = "/api/v1/namespaces/shop/persistentvolumeclaims";
    let claim = json!({"metadata": {"name": "data"}, "more": 1, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClass": "slow", "resources": {"requests": {"storage": "1Mi"}},
    }});
    let (code, _, said) = up.send("POST", &format!("{claims}?fieldValidation=Strict"), "application/json", &claim);
    let want = "PersistentVolumeClaim in version \"v1\" cannot be handled as a PersistentVolumeClaim: strict decoding \
                error: unknown field \"more\", unknown field \"spec.storageClass\"";
    assert_eq!((code, &said["reason"], &said["message"]), (400, &json!("BadRequest"), &json!(want)));
    let (code, headers, made) = up.send("POST", &format!("{claims}?fieldValidation=Warn"), "application/json", &claim);
    let warnings: Vec<_> = headers.get_all("warning").iter().map(|one| one.to_str().unwrap()).collect();
    let want = ["299 - \"unknown field \\\"more\\\"\"", "299 - \"unknown field \\\"spec.storageClass\\\"\""];
    assert_eq!((code, &warnings[..]), (201, &want[..]));
    assert_eq!((&made["more"], &made["spec"]["storageClass"]), (&Value::Null, &Value::Null));
    let merge = "application/merge-patch+json";
    let patch = json!({"spec": {"storageClas": "slow"}});
    let path = format!("{claims}/data");
    let (code, _, said) = up.send("PATCH", &format!("{path}?fieldValidation=Strict"), merge, &patch);
    let message = said["message"].as_str().unwrap_or_default();
    assert!(code == 422 && message.ends_with("strict decoding error: unknown field \"spec.storageClas\""), "{said}");
    for ignored in ["", "?fieldValidation=Ignore"] {
        let (code, headers, _) = up.send("PATCH", &format!("{path}{ignored}"), merge, &patch);
        assert_eq!((code, headers.get("warning")), (200, None), "{ignored}");
    }
    assert_eq!(up.send("PATCH", &format!("{path}?fieldValidation=Loose"), merge, &patch).0, 422);
    // Nothing is said where the lab knows no fields.
    let events = "/api/v1/namespaces/shop/events?fieldValidation=Strict";
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "shop"}, "what": 1});
    assert_eq!(up.make(events, &event).0, 201);
    // What kubectl from 1.32 on sends when it makes objects itself is refused with what to do.
    let (code, _, said) = up.send("POST", claims, "application/vnd.kubernetes.protobuf", &claim);
    assert!(code == 415 && said["message"].as_str().is_some_and(|text| text.contains("--dry-run=client")), "{said}");
}

#[test]
fn a_command_with_a_lab_of_its_own_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lab = format!("--lab={SHOP}");
    let (code, said) = run(dir.path(), &["-v", "--state-dir", "state", &lab, "eval", "list_pvcs().len()"]);
    assert!(code == Some(0) && said.starts_with("4\n") && !said.contains("is not known here"), "{said}");
    for command in [&["resume"][..], &["resume", "00000000"], &["cleanup", "00000000"]] {
        let (code, said) = run(dir.path(), &[&["--state-dir", "state", "--lab"], command].concat());
        assert!(code == Some(2) && said.contains("`pvmigrate lab up` makes one that stays"), "{command:?}: {said}");
    }
    assert_eq!(std::fs::read_dir(dir.path().join("state/trials")).unwrap().count(), 0);
    assert_eq!(processes_of(dir.path()), 0);
}

#[test]
fn the_labs_document_is_true() {
    let text = docs::read("docs/lab.md");
    let dir = tempfile::tempdir().unwrap();
    let scenario = docs::blocks(&text, "yaml");
    std::fs::write(dir.path().join("mine.yaml"), &scenario[0]).unwrap();
    let shell = |line: &str| {
        let bin = Path::new(env!("CARGO_BIN_EXE_pvmigrate")).parent().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", line]);
        let mut shell = quiet(shell, dir.path());
        shell.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        shell
    };
    for block in docs::blocks(&text, "console") {
        let (mut want, mut got) = (String::new(), String::new());
        for line in block.lines() {
            match line.strip_prefix("$ ") {
                Some(line) => got += &String::from_utf8_lossy(&shell(line).output().unwrap().stdout),
                None => want += &format!("{line}\n"),
            }
        }
        assert_eq!(got, want);
    }
    let up = text.lines().find(|line| line.starts_with("pvmigrate lab up --scenario")).expect("how to start it");
    let up = Up::from(shell(&format!("exec {up}")));
    assert_eq!(up.get("/api/v1/namespaces/shop/persistentvolumeclaims/data")["status"]["phase"], "Bound");
}

/// The programs, a line each. They are fetched the first time, which two at once would do into one place.
fn clients() -> &'static str {
    static CLIENTS: OnceLock<String> = OnceLock::new();
    CLIENTS.get_or_init(|| {
        let script = std::env::var_os("PVMIGRATE_TEST_CLUSTER").expect("PVMIGRATE_TEST_CLUSTER is set");
        let fetched = Command::new(script).arg("clients").output().unwrap();
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
        String::from_utf8(fetched.stdout).unwrap()
    })
}

/// What a user of this kubectl does in a first hour; `place` among those that `cluster clients` prints.
fn first_hour(place: usize) {
    let program = clients().lines().nth(place).expect("there are three clients");
    let dir = tempfile::tempdir().unwrap();
    let up = Up::at(dir.path(), &["--scenario", SHOP]);
    let start = |words: &str| {
        let mut kubectl = Command::new(program);
        kubectl.args(words.split(' '));
        let mut kubectl = quiet(kubectl, dir.path());
        kubectl.env("KUBECONFIG", &up.kubeconfig);
        kubectl
    };
    let does = |words: &str, texts: &[&str]| {
        let out = start(words).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned() + &*String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "kubectl {words}: {said}");
        for text in texts {
            assert!(said.contains(text), "kubectl {words} does not say `{text}`:\n{said}");
        }
    };
    // Only up to 1.26 validation needs what the lab does not have.
    let is_old = place == 0;
    let unchecked = if is_old { " --validate=false" } else { "" };
    does("-n shop wait deploy/web --for condition=Available --timeout 60s", &["condition met"]);
    does("-n shop get pvc", &["NAME", "STATUS", "data", "Bound", "slow"]);
    does("-n shop get all -o wide", &["deployment.apps/web", "statefulset.apps/db", "node1"]);
    does("get events -A --sort-by=.lastTimestamp", &["Scheduled", "REASON"]);
    does("-n shop get pods -l app=db --field-selector spec.nodeName!=node9 -o name", &["pod/db-0", "pod/db-1"]);
    for (what, text) in [
        ("pod db-0", "Successfully assigned"),
        ("pvc data", "Used By"),
        ("deploy web", "NewReplicaSetAvailable"),
        ("sts db", "Volume Claims"),
        ("sc slow", "shared.lab.pvmigrate.io"),
    ] {
        does(&format!("-n shop describe {what}"), &[text]);
    }
    does("describe pv", &["shop/data", "VolumeHandle"]);
    does("describe node node1", &["Non-terminated Pods"]);
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: note, namespace: shop}\ndata: {a: \"1\"}\n";
    let file = dir.path().join("note.yaml");
    std::fs::write(&file, text).unwrap();
    does(&format!("apply{unchecked} -f note.yaml"), &["configmap/note created"]);
    std::fs::write(&file, text.replace("\"1\"", "\"2\"")).unwrap();
    does(&format!("apply{unchecked} -f note.yaml"), &["configmap/note configured"]);
    does(&format!("apply{unchecked} -f note.yaml"), &["configmap/note unchanged"]);
    std::fs::write(&file, text.replace("note,", "made,")).unwrap();
    does(&format!("create{unchecked} -f note.yaml"), &["configmap/made created"]);
    if !is_old {
        std::fs::write(&file, text.replace("\ndata:", "\ndate:")).unwrap();
        let out = start("apply -f note.yaml").output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains("unknown field \"date\""), "{said}");
    }
    for patch in ["merge -p {\"data\":{\"b\":\"x\"}}", "strategic -p {\"data\":{\"b\":\"y\"}}"] {
        does(&format!("-n shop patch cm note --type {patch}"), &["patched"]);
    }
    does("-n shop patch cm note --type json -p [{\"op\":\"remove\",\"path\":\"/data/b\"}]", &["patched"]);
    does("-n shop label cm note of=mine", &["labeled"]);
    does("-n shop annotate cm note of=mine", &["annotated"]);
    does("-n shop scale sts db --replicas 1", &["scaled"]);
    // The old one fails when it comes too late to see it go.
    if !is_old {
        does("-n shop wait pod/db-1 --for=delete --timeout 60s", &[]);
    }
    does("-n shop rollout restart deploy web", &["restarted"]);
    does("-n shop rollout status deploy web --timeout 60s", &["successfully rolled out"]);
    let first_line = |words: &str, text: &str, then: &dyn Fn()| {
        let mut child = start(words).spawn().unwrap();
        then();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let found = lines.map_while(Result::ok).any(|line| line.contains(text));
        let _ = child.kill();
        child.wait().unwrap();
        assert!(found, "kubectl {words} ends without `{text}`");
    };
    first_line("-n shop logs -f db-0", "exercise: started", &|| {});
    first_line("-n shop get cm -w --request-timeout 60s", "later", &|| {
        assert_eq!(up.make(MAPS, &config_map("later", 1)).0, 201);
    });
    does("-n shop delete cm made later", &["deleted"]);
    // One whose name does not come back: kubectl looks at the pod, then lists by name and waits until that one goes, so of a
    // StatefulSet's, which is there anew between the two, it waits for the wrong one.
    does("-n shop delete pod -l app=web --timeout 120s", &["deleted"]);
    does("api-resources", &["persistentvolumeclaims", "StorageClass"]);
}

macro_rules! kubectl {
    ($($name:ident $place:literal),+) => {$(
        mod $name {
            #[test]
            #[ignore = "needs kubectl: PVMIGRATE_TEST_CLUSTER=<path of the cluster script> cargo test -- --ignored real"]
            fn real() {
                super::first_hour($place);
            }
        }
    )+};
}
kubectl!(kubectl_1_20 0, kubectl_1_32 1, kubectl_1_36 2);
