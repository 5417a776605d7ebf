//! Bad input at the command line, through the real program and without a cluster: one clear message, what to type next,
//! the right exit code, nothing lost.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Desk { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn kubeconfig(&self, server: &str) -> String {
        self.file("kubeconfig", &format!("apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: '{server}'}}}}]\nusers: [{{name: u, user: {{}}}}]\ncontexts: [{{name: here, context: {{cluster: c, user: u}}}}]\ncurrent-context: here\n"))
    }

    /// Runs the program in an empty environment; returns the exit code and everything that it said.
    fn run(&self, args: &[&str]) -> (i32, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_pvmigrate"))
            .args(args)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("NO_COLOR", "1")
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &*String::from_utf8_lossy(&out.stderr);
        (out.status.code().unwrap_or(-1), text)
    }

    fn says(&self, args: &[&str], code: i32, texts: &[&str]) {
        let (got, said) = self.run(args);
        assert_eq!(got, code, "{args:?}: {said}");
        for text in texts {
            assert!(said.contains(text), "{args:?} does not say `{text}`:\n{said}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
}

const MOVE: [&str; 6] = ["run", "sc-migrate", "--source-sc", "slow", "--dest-sc", "fast"];

#[test]
fn slips_of_the_pen_are_understood() {
    let desk = Desk::new();
    for (args, texts) in [
        (&["runn"][..], &["unrecognized subcommand 'runn'", "run"][..]),
        (&["run", "sc-migrat"], &["there is no script `sc-migrat`", "did you mean `sc-migrate`?"]),
        (
            &["run", "sc-migrate", "--source-scc", "x", "--dest-sc", "y"],
            &["unexpected argument '--source-scc'", "--source-sc"],
        ),
        (&["run", "sc-migrate"], &["--source-sc <CLASS>", "--dest-sc <CLASS>"]),
        (&["run", "sc-migrate", "--source-sc", "Slow!", "--dest-sc", "fast"], &["`Slow!` is not a Kubernetes name"]),
        (
            &["run", "sc-migrate", "--source-sc", "a", "--dest-sc", "b", "--parallel", "x"],
            &["`--parallel` wants a whole number, not `x`"],
        ),
        (
            &["run", "sc-migrate", "--source-sc", "a", "--dest-sc", "b", "--dest-size", "big"],
            &["`--dest-size` wants a size"],
        ),
        (
            &["run", "sc-migrate", "--source-sc", "a", "--dest-sc", "b", "--pvc", "data"],
            &["`data` is not NAMESPACE/NAME"],
        ),
        (
            &["run", "sc-migrate", "--source-sc", "a", "--dest-sc", "b", "--originals", "burn"],
            &["invalid value 'burn'", "keep, delete"],
        ),
        (
            &["run", "sc-migrate", "--source-sc", "a", "--dest-sc", "b", "--pod-patch", "none.yaml"],
            &["none.yaml cannot be read"],
        ),
        (&["show", "sc-migrat"], &["did you mean `sc-migrate`?"]),
        (&["doc", "scal"], &["did you mean `scale`?"]),
        (&["runs", "show", "12"], &["`12` is not the id of a run"]),
        (&["runs", "show", "0123abcd"], &["run 0123abcd is not known here"]),
        (&["resume", "0123abcd"], &["run 0123abcd is not known here", "pvmigrate runs"]),
        (&["resume"], &["there is no stopped run to resume"]),
        (&["cleanup", "0123abcd"], &["run 0123abcd is not known here"]),
        (&["rollback", "0123abcd"], &["run 0123abcd is not known here", "pvmigrate runs"]),
        (&["rollback"], &["there is no stopped run"]),
        (&["rollback", "0123abcd", "--reverse-sync", "--discard-new-data"], &["cannot be used with"]),
        (&["agent", "copy", "nowhere", "elsewhere", "--pass", "hot"], &["nowhere"]),
    ] {
        desk.says(args, 2, texts);
    }
}

#[test]
fn faults_of_a_script_are_shown_where_they_are() {
    let desk = Desk::new();
    for (text, texts) in [
        ("let a = ;", &["mine:1:9", "let a = ;"][..]),
        ("log(\"a\");\nscal(1, 2);", &["there is no function `scal`", "did you mean `scale`?", "mine:2:1"]),
        ("import \"other\" as o;", &["there is no module `other`", "mine:1:1"]),
        ("let x = arg(\"yes\");", &["`--yes` is an option of pvmigrate itself"]),
    ] {
        let file = desk.file("mine.rhai", text);
        desk.says(&["check", &file], 2, texts);
        desk.says(&["run", &file], 2, texts);
    }
}

#[test]
fn a_kubeconfig_that_is_none_is_told() {
    let desk = Desk::new();
    let broken = desk.file("broken", "apiVersion: [");
    let good = desk.kubeconfig("http://127.0.0.1:1");
    let missing = desk.path("missing").display().to_string();
    for (more, texts) in [
        (&["--kubeconfig", broken.as_str()][..], &["cannot be used", "broken"][..]),
        (&["--kubeconfig", missing.as_str()], &["cannot be used", "missing"]),
        (&["--kubeconfig", good.as_str(), "--context", "hear"], &["has no context `hear`", "did you mean `here`?"]),
        (&[], &["of KUBECONFIG or ~/.kube/config cannot be used", "--kubeconfig FILE"]),
    ] {
        desk.says(&[&MOVE[..], more].concat(), 2, texts);
    }
    assert!(!desk.path(".local").exists(), "nothing is kept of a run that never began");
}

#[test]
fn a_server_that_is_away_is_told_before_anything_begins() {
    let desk = Desk::new();
    let config = desk.kubeconfig("http://127.0.0.1:1");
    desk.says(
        &[&MOVE[..], &["--kubeconfig", &config]].concat(),
        3,
        &["cannot reach the cluster at http://127.0.0.1:1", "kubectl get --raw /readyz"],
    );
    assert!(!desk.path(".local").exists());
}

/// Answers every request alike, as often as asked, until the test ends.
fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

#[test]
fn a_server_that_says_no_or_nonsense_is_told() {
    for (answer, texts) in [
        (
            "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 119\r\nconnection: close\r\n\r\n{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"message\":\"Unauthorized\",\"reason\":\"Unauthorized\",\"code\":401}     ",
            &["401 Unauthorized", "renew them"][..],
        ),
        (
            "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: 118\r\nconnection: close\r\n\r\n{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"message\":\"no namespaces\",\"reason\":\"Forbidden\",\"code\":403}      ",
            &["403 Forbidden", "grant the missing right"],
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello", &["cannot reach the cluster"]),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}", &["is not a Kubernetes API server"]),
        ("", &["cannot reach the cluster"]),
    ] {
        let desk = Desk::new();
        let config = desk.kubeconfig(&server(answer));
        desk.says(&[&MOVE[..], &["--kubeconfig", &config]].concat(), 3, texts);
    }
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 80\r\nconnection: close\r\n\r\n{\"kind\":\"Namespace\",\"metadata\":{\"name\":\"kube-system\",\"uid\":\"11-22\"}}            ";

#[test]
fn a_state_directory_that_cannot_be_written_stops_before_the_first_step() {
    let desk = Desk::new();
    let config = desk.kubeconfig(&server(HELLO));
    let file = desk.file("taken", "a file");
    let args = [&MOVE[..], &["--kubeconfig", &config, "--state-dir", &file]].concat();
    desk.says(&args, 3, &["the state directory", "--state-dir"]);
    for command in
        [&["runs"][..], &["resume"], &["resume", "0123abcd"], &["rollback", "0123abcd"], &["runs", "show", "0123abcd"]]
    {
        desk.says(&[command, &["--state-dir", &file]].concat(), 3, &["the state directory", "--state-dir"]);
    }
    desk.says(
        &[&MOVE[..], &["--kubeconfig", &config, "--state-dir", "/proc/nowhere"]].concat(),
        3,
        &["cannot be used"],
    );
}

fn journal(desk: &Desk, run_json: &str, lines: &str) {
    desk.file(".local/state/pvmigrate/runs/11-22/0123abcd/run.json", run_json);
    desk.file(".local/state/pvmigrate/runs/11-22/0123abcd/journal.jsonl", lines);
}

fn run_json(uid: &str, version: u32) -> String {
    format!(
        "{{\"v\":{version},\"tool\":\"0.1.0\",\"run\":\"0123abcd\",\"cluster_uid\":\"{uid}\",\"server\":\"https://elsewhere\",\"context\":\"there\",\"argv\":[],\"script\":\"mine\",\"args\":{{}},\"yes\":true,\"began\":\"2026-11-21T04:00:00.000Z\",\"sources\":[{{\"name\":\"mine\",\"text\":\"log(1);\"}}]}}"
    )
}

#[test]
fn journals_that_do_not_belong_are_refused() {
    let line = |v: u32| format!("{{\"v\":{v},\"n\":0,\"t\":\"done\",\"id\":\"root/1\",\"op\":\"now\",\"out\":1}}\n");
    for (run, lines, texts) in [
        (
            run_json("11-22", 1),
            line(2),
            &["another version of pvmigrate wrote this journal", "record 0 has format 2"][..],
        ),
        (run_json("11-22", 9), line(1), &["another version of pvmigrate", "0.1.0"]),
        (
            run_json("11-22", 1),
            "nonsense\n".to_owned(),
            &["line 1 of ", "journal.jsonl is damaged", "nothing was sent"],
        ),
        (run_json("11-22", 1), line(1).replace("done", "vow").replace(":1,", ":7,"), &["record 0 has format 7"]),
        (run_json("11-22", 1), line(1).replace("\"n\":0", "\"n\":4"), &["record 4 where 0 belongs"]),
        (run_json("33-44", 1), line(1), &["run 0123abcd belongs to another cluster", "--context there"]),
    ] {
        let desk = Desk::new();
        journal(&desk, &run, &lines);
        let config = desk.kubeconfig(&server(HELLO));
        desk.says(&["resume", "0123abcd", "--kubeconfig", &config], 5, texts);
        if run == run_json("11-22", 1) {
            desk.says(&["rollback", "0123abcd", "--kubeconfig", &config], 5, texts);
            desk.says(&["cleanup", "0123abcd", "--kubeconfig", &config], 5, texts);
        }
        let kept =
            std::fs::read_to_string(desk.path(".local/state/pvmigrate/runs/11-22/0123abcd/journal.jsonl")).unwrap();
        assert_eq!(kept, lines, "nothing is written to it");
    }
}

const GONE: &str = "gone";

/// Whatever is wrong with one run: the others are listed and found, and it is not thrown away by the way.
#[test]
fn a_damaged_run_hides_no_other_and_is_kept() {
    let place = ".local/state/pvmigrate/runs/11-22";
    for (run, lines, why) in [
        (run_json("11-22", 1), "nonsense\n", "is damaged"),
        (run_json("11-22", 1), "{\"v\":2,\"n\":0,\"t\":\"done\",\"id\":\"root/1\",\"op\":\"now\"}\n", "record 0"),
        (
            run_json("11-22", 1),
            "{\"v\":1,\"n\":3,\"t\":\"done\",\"id\":\"root/1\",\"op\":\"now\"}\n",
            "record 3 where 0",
        ),
        (run_json("11-22", 9), "", "another version of pvmigrate (format 9)"),
        ("{".to_owned(), "", "run.json is damaged"),
        (run_json("11-22", 1), GONE, "journal.jsonl is missing"),
    ] {
        let desk = Desk::new();
        journal(&desk, &run, lines);
        let path = desk.path(&format!("{place}/0123abcd/journal.jsonl"));
        if lines == GONE {
            std::fs::remove_file(&path).unwrap();
            for word in ["resume", "rollback", "cleanup"] {
                desk.says(&[word, "0123abcd"], 5, &["journal.jsonl is missing", "what the run did is not known"]);
                assert!(!path.exists(), "{word} makes no journal that says that nothing was done");
            }
        }
        let good = run_json("11-22", 1).replace("0123abcd", "4567cdef");
        desk.file(&format!("{place}/4567cdef/run.json"), &good);
        let write = r#"{"verb":"patch","gvk":{"version":"v1","kind":"PersistentVolume"},"name":"pv-1","precondition":{"uid":"u1"},"class":"reversible"}"#;
        let line = format!(
            "{{\"v\":1,\"n\":0,\"t\":\"start\",\"id\":\"root/1.retain\",\"op\":\"retain\",\"write\":{write}}}\n"
        );
        desk.file(&format!("{place}/4567cdef/journal.jsonl"), &line);
        desk.says(&["runs"], 0, &["0123abcd", "damaged", why, "4567cdef", "pvmigrate resume 4567cdef"]);
        // It is the newest one that stopped; that no cluster can be reached comes after.
        desk.says(&["resume"], 2, &["KUBECONFIG"]);
        desk.says(&["runs", "forget", "0123abcd"], 3, &["what became of run 0123abcd is not known", "--force"]);
        assert!(desk.path(&format!("{place}/0123abcd/run.json")).exists());
        desk.says(&["runs", "forget", "0123abcd", "--force"], 0, &["is forgotten"]);
    }
}

#[test]
fn the_reference_is_data_too() {
    let desk = Desk::new();
    for name in ["set_retain", "log"] {
        desk.says(&["doc", name, "--output", "json"], 0, &[&format!("{{\"name\":\"{name}\""), "\"example\":"]);
    }
    desk.says(&["doc", "apply_object"], 0, &["\n  delete_object("]);
}

#[test]
fn help_and_version_are_data() {
    let desk = Desk::new();
    desk.says(&["--version"], 0, &[concat!("pvmigrate ", env!("CARGO_PKG_VERSION"))]);
    desk.says(
        &["--help"],
        0,
        &[
            "run",
            "resume",
            "runs",
            "rollback",
            "cleanup",
            "check",
            "scripts",
            "show",
            "doc",
            "eval",
            "repl",
            "completions",
            "agent",
        ],
    );
    desk.says(
        &["run", "sc-migrate", "--help"],
        0,
        &["Move every volume of one StorageClass to another", "--source-sc <CLASS>", "[default: 4]"],
    );
    desk.says(&["completions", "bash"], 0, &["_pvmigrate"]);
    desk.says(&["scripts"], 0, &["sc-migrate"]);
    desk.says(&["runs"], 0, &["no runs yet"]);
    assert!(Path::new(env!("CARGO_BIN_EXE_pvmigrate")).exists());
}

/// The comparison is another process than the copy, and one report tells of both.
#[test]
fn a_pass_and_its_proof_are_one_report() {
    let desk = Desk::new();
    let long = "a-name-that-is-longer-than-most".repeat(4);
    desk.file(&format!("from/{long}"), "content");
    std::fs::create_dir(desk.path("to")).unwrap();
    let copy = ["agent", "copy", "--termination-log=-said", "--waive", "xattr,acl", "--workers", "2", "from", "to"];
    for (more, code, ok) in [
        (&["--pass", "hot", "--verify", "metadata"][..], 0, true),
        (&["--pass", "final", "--verify", "full"], 0, true),
        // Without the time that it is about it cannot be made.
        (&["--pass", "final", "--verify", "changed"], 2, false),
    ] {
        let (got, said) = desk.run(&[&copy[..], more].concat());
        assert_eq!(got, code, "{more:?}: {said}");
        let report = said.lines().rfind(|line| line.starts_with('{')).expect("it tells");
        let kept = std::fs::read_to_string(desk.path("-said")).unwrap();
        for text in [report, &kept] {
            let told: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(
                (&told["t"], &told["ok"], &told["files_total"]),
                (&"copy_report".into(), &true.into(), &1.into())
            );
            assert_eq!((&told["proof"]["ok"], &told["proof"]["mode"]), (&ok.into(), &(*more.last().unwrap()).into()));
            assert!(!ok || told["proof"]["source_digest"] == told["proof"]["target_digest"], "{text}");
        }
        assert_eq!(said.matches("\"t\":\"copy_report\"").count(), 1, "{said}");
    }
    // A pass that came to nothing is not compared.
    let (got, said) = desk.run(&["agent", "copy", "nowhere", "to", "--pass", "final", "--verify", "full"]);
    assert!(got == 2 && said.contains("\"ok\":false") && !said.contains("\"proof\""), "{got}: {said}");
}
