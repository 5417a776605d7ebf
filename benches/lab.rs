//! Many small claims on the lab: wall time, peak memory, requests a claim.
//!
//! `cargo bench --bench lab -- [CLAIMS]` moves 500 claims of 10 small files with `--parallel 8`. The numbers are those of
//! the process that is the cluster, the copier's parent and the tool at once.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a bench prints and panics")]

use std::fmt::Write as _;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn main() {
    let claims: usize = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(500);
    let dir = tempfile::tempdir().unwrap();
    let scenario = dir.path().join("many.yaml");
    std::fs::write(&scenario, many(claims)).unwrap();
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_pvmigrate"))
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .arg(format!("--lab={}", scenario.display()))
        .args([
            "--yes",
            "--verbose",
            "run",
            "sc-migrate",
            "--source-sc",
            "slow",
            "--dest-sc",
            "fast",
            "--parallel",
            "8",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let (mut peak, status) = (0, loop_until_ended(&mut child));
    let (status, most) = status;
    peak = peak.max(most);
    let wall = started.elapsed();
    let said = reader.join().unwrap();
    assert!(status.success(), "{status}\n{said}");
    let requests = said.lines().find(|line| line.contains("requests:")).unwrap_or_default();
    let count = |word: &str| {
        let before = requests.split(&format!(" {word}")).next().unwrap_or_default();
        before.rsplit([' ', ',']).next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / claims as f64
    };
    println!("{claims} claims of 10 files, --parallel 8");
    println!("wall time       {:.1} s", wall.as_secs_f64());
    println!("peak memory     {:.0} MB", peak as f64 / 1024.0);
    println!(
        "a claim costs   {:.1} reads, {:.1} more for the guards, {:.1} writes, {:.1} watches",
        count("reads"),
        count("more"),
        count("writes"),
        count("watches")
    );
}

/// The peak of its resident memory in KiB, as far as it was seen.
fn loop_until_ended(child: &mut std::process::Child) -> (std::process::ExitStatus, u64) {
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status, peak);
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
        peak = peak.max(line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn many(claims: usize) -> String {
    let mut text = String::new();
    for class in ["slow", "fast"] {
        writeln!(
            text,
            "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: {class}}}\n\
             provisioner: shared.lab.pvmigrate.io\n---"
        )
        .unwrap();
    }
    writeln!(text, "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}").unwrap();
    for n in 0..claims {
        writeln!(
            text,
            "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: data-{n:04}, namespace: shop}}\n\
             spec: {{storageClassName: slow, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}\n\
             ---\napiVersion: lab.pvmigrate.io/v1\nkind: Files\nmetadata: {{name: data-{n:04}, namespace: shop}}\n\
             spec: {{files: 10, bytes: 20000}}"
        )
        .unwrap();
    }
    text
}
