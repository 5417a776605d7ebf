//! The documents are true: generated ones are current, links resolve, commands and scripts in them run.

use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn pvmigrate(args: &[&str], dir: &Path) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_pvmigrate"))
        .args(args)
        .env_clear()
        .env("HOME", dir)
        .env("NO_COLOR", "1")
        .current_dir(dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &*String::from_utf8_lossy(&out.stderr);
    (out.status.code(), text)
}

#[test]
fn the_reference_is_what_the_program_says() {
    let dir = tempfile::tempdir().unwrap();
    let (_, said) = pvmigrate(&["doc", "--markdown"], dir.path());
    assert!(
        said == read("docs/primitives.md"),
        "docs/primitives.md is old: pvmigrate doc --markdown > docs/primitives.md"
    );
}

#[test]
fn the_roles_in_deploy_are_what_the_program_says() {
    let dir = tempfile::tempdir().unwrap();
    let command = read("docs/in-cluster.md");
    let command =
        blocks(&command, "sh").into_iter().flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>());
    let command = command.into_iter().find_map(|line| line.strip_prefix("pvmigrate rbac ").map(str::to_owned));
    let command = command.expect("it says how they are made");
    let command = command.split(" | ").next().expect("there is something before a pipe");
    let (code, said) = pvmigrate(&[&["rbac"][..], &command.split(' ').collect::<Vec<_>>()].concat(), dir.path());
    assert_eq!(code, Some(0), "{said}");
    assert!(said == read("deploy/rbac.yaml"), "deploy/rbac.yaml is old: pvmigrate rbac {command} > deploy/rbac.yaml");
}

#[test]
fn links_lead_somewhere() {
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        for target in read(name).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let local = !target.starts_with("http") && !target.starts_with('#');
            assert!(!local || root().join(target).exists(), "{name}: {target}");
        }
    }
}

/// Blocks of a language in a Markdown text.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
}

#[test]
fn the_readmes_console_says_what_is_written_there() {
    let dir = tempfile::tempdir().unwrap();
    for block in blocks(&read("README.md"), "console") {
        let mut want = String::new();
        let mut got = String::new();
        for line in block.lines() {
            match line.strip_prefix("$ pvmigrate ") {
                Some(words) => got += &pvmigrate(&words.split(' ').collect::<Vec<_>>(), dir.path()).1,
                None => want += &format!("{line}\n"),
            }
        }
        assert_eq!(got, want);
    }
}

#[test]
fn the_readmes_first_command_moves_the_shop() {
    let block = blocks(&read("README.md"), "sh").into_iter().next().expect("it begins with a command");
    let words = block.trim().strip_prefix("cargo run --release -- ").expect("it needs nothing but the sources");
    let dir = tempfile::tempdir().unwrap();
    let script = root().join("scripts/sc-migrate.rhai").display().to_string();
    let mut args: Vec<&str> =
        words.split(' ').map(|word| if word == "scripts/sc-migrate.rhai" { &script } else { word }).collect();
    // Pods are told where their volumes are, and run elsewhere.
    args.extend(["--state-dir", "state"]);
    let (code, said) = pvmigrate(&args, dir.path());
    assert_eq!(code, Some(0), "{said}");
    for claim in ["shop/data", "shop/logs", "shop/data-db-0", "shop/data-db-1", "shop/media"] {
        let row = said.lines().find(|line| line.starts_with(&format!("{claim} "))).unwrap_or_else(|| panic!("{said}"));
        assert!(row.contains(" full "), "{row}");
    }
    assert!(std::fs::read_dir(dir.path().join("state/trials")).unwrap().next().is_none(), "{said}");
}

#[test]
fn the_documented_hand_over_hands_a_volume_over() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = blocks(&read("docs/copying.md"), "rhai");
    let [block] = &blocks[..] else { panic!("{} scripts", blocks.len()) };
    let block =
        format!("{block}\ntable(list_pvcs(#{{ namespace: \"shop\" }}).map(|c| #{{ name: c.name, phase: c.phase }}));");
    std::fs::write(dir.path().join("mine.rhai"), block).unwrap();
    let (code, said) = pvmigrate(&["run", "mine.rhai", "--lab", "--yes"], dir.path());
    let row = said.lines().find(|line| line.starts_with("data-2 "));
    assert!(code == Some(0) && row.is_some_and(|row| row.contains("Bound")), "{said}");
}

#[test]
fn the_readmes_script_passes_the_checks_and_has_its_options() {
    let dir = tempfile::tempdir().unwrap();
    for block in blocks(&read("README.md"), "rhai") {
        std::fs::write(dir.path().join("mine.rhai"), block).unwrap();
        assert_eq!(pvmigrate(&["check", "mine.rhai"], dir.path()), (Some(0), "mine.rhai: no faults found\n".into()));
        let (code, help) = pvmigrate(&["run", "mine.rhai", "--help"], dir.path());
        assert!(code == Some(0) && help.contains("--in <NAMESPACE>") && help.contains("--least <N>"), "{help}");
    }
}
