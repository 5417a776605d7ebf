//! `pvmigrate test`: tests of scripts, and what a crash would cost, as a user meets them.

use crate::docs::read;
use pvmigrate::trial::words::WORDS;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn pvmigrate(args: &[&str], dir: &Path) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pvmigrate"));
    command.args(args).env_clear().env("HOME", dir).env("NO_COLOR", "1").current_dir(dir);
    let output = command.output().expect("the program can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

impl Said {
    #[track_caller]
    fn ended(self, code: i32) -> Said {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn out_has(self, parts: &[&str]) -> Said {
        for part in parts {
            assert!(self.out.contains(part), "no `{part}` in\n{}\n{}", self.out, self.err);
        }
        self
    }

    #[track_caller]
    fn err_has(self, parts: &[&str]) -> Said {
        for part in parts {
            assert!(self.err.contains(part), "no `{part}` in\n{}\n{}", self.out, self.err);
        }
        self
    }
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn is_all() -> bool {
    std::env::var("PVMIGRATE_MATRIX").is_ok_and(|word| word == "all")
}

const SMALL: &str = include_str!("../scenarios/crash.yaml");

fn with_note() -> String {
    format!("{SMALL}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: old, namespace: shop}}\ndata: {{a: b}}\n")
}

#[test]
fn the_stock_script_passes_its_tests() {
    let dir = folder(&[]);
    let said = pvmigrate(&["test", "sc-migrate"], dir.path()).ended(0).err_has(&["10 passed, 0 failed"]);
    assert_eq!(said.out.lines().filter(|line| line.starts_with("ok ")).count(), 10, "{}", said.out);
    // Nothing is left of the labs.
    let left = dir.path().join(".local/state/pvmigrate/tests");
    assert_eq!(std::fs::read_dir(left).unwrap().count(), 0);
}

/// All of it with PVMIGRATE_MATRIX=all.
#[test]
fn no_crash_of_the_stock_script_costs_anything() {
    let dir = folder(&[]);
    let args = ["test", "sc-migrate", "--crash", "--output", "json"];
    let sample = [&args[..], &["--sample", "6"]].concat();
    let said = pvmigrate(if is_all() { &args } else { &sample }, dir.path()).ended(0);
    let lines: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (end, cases) = lines.split_last().unwrap();
    assert!(cases.iter().all(|case| case["ok"] == true), "{}", said.out);
    let wanted = if is_all() { end["writes"].as_u64().unwrap() * 12 } else { 6 };
    assert_eq!((end["cases"].as_u64(), end["passed"].as_u64()), (Some(wanted), Some(wanted)), "{end}");
    assert_eq!(end["undisturbed"], serde_json::json!([]));
}

#[test]
fn a_script_that_forgets_to_start_is_told_what_it_costs() {
    let script = "let name = arg(\"claim\", #{ kind: \"PersistentVolumeClaim\", required: true });
let parts = name.split(\"/\");
let claim = get_pvc(parts[0], parts[1]);
set_retain(get_pv(claim.volume));
for workload in users_of(claim).workloads { stop(workload); }
";
    let dir = folder(&[("forgets.rhai", script)]);
    let args =
        ["test", "forgets.rhai", "--crash", "--scenario", "small", "--sample", "3", "--", "--claim", "shop/data"];
    pvmigrate(&args, dir.path())
        .ended(1)
        .out_has(&["undisturbed: Deployment shop/web is left with 0 replicas; it had 1", "patch Deployment shop/web"])
        .err_has(&["3 of 3 cases passed"]);
    // What it needs to know is said.
    let args = ["test", "forgets.rhai", "--crash", "--scenario", "small"];
    pvmigrate(&args, dir.path()).ended(2).err_has(&["--claim <NS/NAME>", "stand after `--`"]);
}

#[test]
fn a_script_that_deletes_the_claim_before_it_copies_is_told_what_it_costs() {
    let script = "let claim = get_pvc(\"shop\", \"data\");
set_retain(get_pv(claim.volume));
let stopped = users_of(claim).workloads.map(|w| stop(w));
delete_pvc(claim);
apply_object(#{
    apiVersion: \"v1\", kind: \"PersistentVolumeClaim\", metadata: #{ namespace: \"shop\", name: \"data\" },
    spec: #{ storageClassName: \"fast\", accessModes: [\"ReadWriteOnce\"], resources: #{ requests: #{ storage: \"64Mi\" } } },
});
for one in stopped { start(one); }
";
    let dir = folder(&[("deletes.rhai", script)]);
    let args =
        ["test", "deletes.rhai", "--crash", "--scenario", "small", "--seed", "3", "--filter", "6:after-done:rollback"];
    pvmigrate(&args, dir.path())
        .ended(1)
        .out_has(&[
            "undisturbed: the data of claim shop/data: ",
            " files are gone: d000, ",
            "6:after-done:rollback  killed after `patch Deployment shop/web` (deletes:9): rollback leaves ",
            "rollback leaves the first volume of shop/data Released, not Bound",
        ])
        .err_has(&[
            "0 of 1 cases passed",
            "pvmigrate test deletes.rhai --crash --scenario small --seed 3 --filter 6:after-done:rollback",
        ]);
}

#[test]
fn a_script_that_is_stopped_by_a_guard_is_shown_where() {
    let script = "let claim = get_pvc(\"shop\", \"data\");\ndelete_pvc(claim);\n";
    let dir = folder(&[("mine.rhai", script)]);
    pvmigrate(&["test", "mine.rhai", "--crash", "--scenario", "small"], dir.path()).ended(1).err_has(&[
        "mine:2:1",
        "delete_pvc(claim);",
        "without any crash",
    ]);
}

#[test]
fn a_failure_points_into_the_test_and_into_the_script() {
    let script = "log(\"begins\");\nget_pv(\"nowhere\");\n";
    let tests = "const SCENARIO = \"note.yaml\";
fn test_one() {
    assert_eq(#{ a: [1, 2], b: \"x\" }, #{ a: [1, 3], b: \"x\" });
}
fn test_two() {
    let end = run();
    assert(end.ok, \"it goes on\");
}
fn test_three(context) {
    crash_at(\"delete Secret\", \"before-done\");
    assert_eq(context.name, \"test_three\");
}
fn test_four() {
    fault(#{ on: #{ verb: \"delete\" }, then: \"lost\" });
    run();
}
fn test_five() {
    scale(get_object(\"Deployment\", \"shop\", \"web\"), 0);
}
fn test_six() {
    assert(find_object(\"ConfigMap\", \"shop\", \"old\") != ());
}
";
    let dir = folder(&[("mine.rhai", script), ("mine_test.rhai", tests), ("note.yaml", &with_note())]);
    let said = pvmigrate(&["test", "mine.rhai"], dir.path()).ended(1).err_has(&[
        "the two differ",
        "cause: a/1: left 2, right 3",
        "mine_test:3:5",
        "error: it goes on",
        "the last run of mine in it had stopped:",
        "mine:2:1",
        "get_pv(\"nowhere\");",
        "the crash at `delete Secret` (before-done) did not happen",
        "did not happen",
        "`scale` belongs into scripts",
        "1 passed, 5 failed",
    ]);
    assert!(said.out.contains("ok      test_six"), "{}", said.out);
    // One of them alone, for programs.
    let said = pvmigrate(&["test", "mine.rhai", "--filter", "_two", "--output", "json"], dir.path()).ended(1);
    let one: Value = serde_json::from_str(said.out.trim()).unwrap();
    assert_eq!((one["test"].as_str(), one["at"].as_str()), (Some("test_two"), Some("mine_test:7")), "{one}");
    assert!(one["stopped"].as_str().is_some_and(|why| why.contains("nowhere")), "{one}");
}

#[test]
fn what_is_wrong_with_a_test_is_said_before_anything_runs() {
    let dir = folder(&[
        ("none.rhai", "let c = arg(\"class\", #{ required: true });"),
        ("typo.rhai", "log(\"x\");"),
        ("typo_test.rhai", "fn test_it() {\n    asert(true);\n}"),
        ("many.rhai", "log(\"x\");"),
        ("many_test.rhai", "fn test_it(a, b) { assert(a == b); }"),
        ("empty.rhai", "log(\"x\");"),
        ("empty_test.rhai", "fn helper() { 1 }"),
        ("lost.rhai", "log(\"x\");"),
        ("lost_test.rhai", "const SCENARIO = \"away.yaml\";\nfn test_it() { assert(true); }"),
    ]);
    let run = |args: &[&str]| pvmigrate(&[&["test"], args].concat(), dir.path()).ended(2);
    run(&["none.rhai"]).err_has(&[
        "there is no none_test.rhai",
        "const OPTIONS = #{ \"class\": \"…\" };",
        "--crash needs none",
    ]);
    run(&["typo.rhai"]).err_has(&["there is no function `asert`", "did you mean `assert`?", "typo_test:2:5"]);
    run(&["many.rhai"]).err_has(&["the test `test_it` takes no arguments, or one map", "many_test:1:1"]);
    run(&["empty.rhai"]).err_has(&["empty_test has no functions `test_…`"]);
    run(&["lost.rhai"]).err_has(&["away.yaml cannot be read", "`shop` and `small`"]);
    run(&["nowhere.rhai"]).err_has(&["there is no script `nowhere.rhai`"]);
    run(&["typo.rhai", "--lab"]).err_has(&["test makes clusters of its own"]);
    run(&["sc-migrate", "--filter", "zzz"]).err_has(&["no test has `zzz` in its name", "test_the_old_volume_is_kept"]);
    run(&["sc-migrate", "--", "--dest-sc", "x"]).err_has(&["options after -- are for --crash"]);
    run(&["sc-migrate", "--sample", "1"]).err_has(&["--crash"]);
}

#[test]
fn every_word_of_tests_has_an_example_that_runs() {
    let mut tests = String::from(
        "const SCENARIO = \"small\";\nconst OPTIONS = #{ \"source-sc\": \"slow\", \"dest-sc\": \"fast\" };\n",
    );
    for word in WORDS {
        tests.push_str(&format!("fn test_{}() {{\n{}\n}}\n", word.name, word.example));
    }
    let dir = folder(&[("sc-migrate.rhai", &read("scripts/sc-migrate.rhai")), ("sc-migrate_test.rhai", &tests)]);
    let all = format!("{} passed, 0 failed", WORDS.len());
    pvmigrate(&["test", "./sc-migrate.rhai"], dir.path()).ended(0).err_has(&[&all]);
}

#[test]
fn the_page_about_testing_is_true() {
    let page = read("docs/testing.md");
    let dir = folder(&[("forgets.yaml", &with_note())]);
    let words = pvmigrate(&["doc", "--tests", "--markdown"], dir.path()).ended(0).out;
    assert!(page.ends_with(&words), "docs/testing.md is old: its end is what `pvmigrate doc --tests --markdown` says");
    for block in page.split("```rhai ").skip(1) {
        let (name, text) = block.split_once('\n').unwrap();
        std::fs::write(dir.path().join(name), text.split("```").next().unwrap()).unwrap();
    }
    let said = pvmigrate(&["test", "keep.rhai"], dir.path()).ended(0).err_has(&["4 passed, 0 failed"]);
    for line in page.lines().filter(|line| line.starts_with("ok ")) {
        let test = line.split_whitespace().nth(1).unwrap();
        assert!(said.out.contains(test), "{test}: {}", said.out);
    }
    let args = ["test", "forgets.rhai", "--crash", "--scenario", "forgets.yaml", "--filter", "4:after-done"];
    let said = pvmigrate(&args, dir.path()).ended(1);
    for line in page.lines().filter(|line| line.starts_with("undisturbed: ") || line.starts_with("4:after-done")) {
        assert!(said.out.contains(line), "{line}\n{}", said.out);
    }
    for part in page.split('`').filter(|part| part.starts_with("pvmigrate test ") || part.starts_with("pvmigrate doc "))
    {
        assert!(part.split(' ').count() > 2, "{part}");
    }
}

#[test]
fn a_word_of_tests_is_explained_like_a_primitive() {
    let dir = folder(&[]);
    pvmigrate(&["doc", "crash_at"], dir.path()).ended(0).out_has(&[
        "crash_at(write: int or string",
        "torn-line",
        "Example:",
    ]);
    pvmigrate(&["doc", "crash_it"], dir.path()).ended(2).err_has(&["did you mean `crash_at`?"]);
    pvmigrate(&["doc", "--tests"], dir.path()).ended(0).out_has(&["lost_lines", "fault"]);
    pvmigrate(&["show", "sc-migrate_test"], dir.path()).ended(0).out_has(&["fn test_"]);
}
