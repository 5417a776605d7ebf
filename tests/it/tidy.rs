//! What must hold of the source itself. A failure names the line and the rule.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file under a folder with this ending, as path from the root and text.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // What was built of tests/fuzz is nobody's text.
                open.extend((!path.ends_with("target")).then_some(path));
            } else if path.to_string_lossy().ends_with(ending) {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {ending} under {folder}");
    found
}

/// A layer may use itself and what stands before it.
const LAYERS: [&str; 8] = ["words", "journal", "cluster", "copy", "script", "repl", "trial", "cli"];

fn layer(path: &str) -> Option<usize> {
    let part = path.strip_prefix("src/")?.split('/').next()?;
    LAYERS.iter().position(|layer| *layer == part)
}

/// The code of a line, without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn layers_look_down_only() {
    let mut wrong = Vec::new();
    for (path, text) in files("src", ".rs") {
        let Some(mine) = layer(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            for used in code(line).split("crate::").skip(1) {
                let name: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if LAYERS.iter().position(|layer| *layer == name).is_some_and(|theirs| theirs > mine) {
                    wrong.push(format!("{path}:{}: {} uses {name}, which stands above it", number + 1, LAYERS[mine]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The lab is a cluster, not a part of the tool: it knows the words only, and only trials and the command line know it.
#[test]
fn the_lab_stands_beside() {
    let mut wrong = Vec::new();
    for (path, text) in files("src", ".rs") {
        for (number, line) in text.lines().enumerate() {
            for used in code(line).split("crate::").skip(1) {
                let name: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let fits = if path.starts_with("src/lab/") {
                    matches!(&name[..], "lab" | "words")
                } else {
                    name != "lab" || path.starts_with("src/cli/") || path.starts_with("src/trial/")
                };
                if !fits {
                    wrong.push(format!("{path}:{}: uses {name}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_crate_stays_in_its_room() {
    let rules: [(&str, &[&str]); 6] = [
        ("kube::", &["src/cluster/"]),
        ("rhai::", &["src/script/", "src/repl/", "src/trial/"]),
        ("clap::", &["src/cli/"]),
        ("println!", &["src/cli/"]),
        ("std::process::exit", &["src/cli/ui.rs"]),
        ("hyper::", &["src/lab/", "src/cluster/connect.rs", "src/trial/doom.rs"]),
    ];
    let mut wrong = Vec::new();
    for (path, text) in files("src", ".rs") {
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in product.lines().enumerate() {
            for (word, rooms) in rules {
                let in_room = rooms.iter().any(|room| path.starts_with(room));
                let is_test = path.ends_with("tests.rs") || path.ends_with("torture.rs");
                if code(line).contains(word) && !in_room && !is_test {
                    wrong.push(format!("{path}:{}: {word} belongs into {}", number + 1, rooms.join(" or ")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["todo!", "unimplemented!", concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut wrong = Vec::new();
    for (path, text) in
        [files("src", ".rs"), files("tests", ".rs"), files("stdlib", ".rhai"), files("scripts", ".rhai")].concat()
    {
        if path == "tests/it/tidy.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                wrong.push(format!("{path}:{}: {word}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_hold_one_noun() {
    let long: Vec<String> = [files("src", ".rs"), files("tests", ".rs"), files("stdlib", ".rhai")]
        .concat()
        .into_iter()
        .filter(|(_, text)| text.lines().count() > 800)
        .map(|(path, text)| format!("{path}: {} lines: two nouns?", text.lines().count()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn no_test_file_is_forgotten() {
    for (path, _) in files("tests/it", ".rs") {
        let path = Path::new(&path);
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let folder = path.parent().unwrap();
        if name == "main" || name == "mod" {
            continue;
        }
        let parent = [folder.join("mod.rs"), folder.join("main.rs"), folder.with_extension("rs")]
            .into_iter()
            .find(|file| root().join(file).is_file())
            .unwrap();
        let text = std::fs::read_to_string(root().join(&parent)).unwrap();
        assert!(text.contains(&format!("mod {name};")), "{} is not in {}", path.display(), parent.display());
    }
}

#[test]
fn nothing_of_this_machine_is_committed() {
    let home = concat!("/ro", "ot/");
    for (path, text) in
        [files("src", ".rs"), files("tests", ".rs"), files("scripts", ".rhai"), files("docs", ".md")].concat()
    {
        assert!(!text.contains(home) && !text.contains(concat!("/wo", "rk/")), "{path}: a path of one machine");
    }
}

#[test]
fn evil_scripts_are_short() {
    for (path, text) in files("tests/evil", ".rhai") {
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("//")).count();
        assert!(lines <= 10, "{path}: {lines} lines");
    }
}
