//! The tests are tested: bugs are put back, one at a time, and the crash test's oracles must see each.
//!
//! A mutant changes what a run sends, what it is told, or what its journal remembers, behind all guards of the program. The
//! table of what was found first, by whom and after which write is `tests/golden/mutants/table.snap`. A mutant that is not
//! found is a hole of the suite.

mod list;
mod mutant;
mod wire;

pub use mutant::{Mutant, PLAIN, Way};
pub use wire::{At, Mutation};

use crate::crash::reference;
use crate::crash::trial::{End, Trial};
use list::MUTANTS;
use pvmigrate::trial::Doom;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What the sample of an ordinary `cargo test` may take.
const SAMPLE: Duration = Duration::from_secs(15);
/// A run that is known to wait for what will not come, and has written nothing for so long, is ended.
const PATIENCE: Duration = Duration::from_secs(20);
/// Repeats some: `PVMIGRATE_MUTANT=A5`.
const ONE: &str = "PVMIGRATE_MUTANT";
const TABLE: &str = include_str!("../../golden/mutants/table.snap");

#[test]
fn every_bug_that_is_put_back_is_found() {
    let one = std::env::var(ONE).ok();
    let is_whole = crate::matrix::level() > crate::matrix::Level::Sample && one.is_none();
    let mut order: Vec<usize> =
        (0..MUTANTS.len()).filter(|at| one.as_deref().is_none_or(|id| MUTANTS[*at].id == id)).collect();
    assert!(!order.is_empty(), "{ONE}: there is no such mutant");
    if one.is_none() {
        // Another sample each time.
        let from = std::process::id() as usize % order.len();
        order.rotate_left(from);
    }
    let (effects, end) = reference();
    let (next, started) = (AtomicUsize::new(0), Instant::now());
    let lines: Mutex<Vec<Option<String>>> = Mutex::new(vec![None; MUTANTS.len()]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(at) = order.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if !is_whole && one.is_none() && started.elapsed() > SAMPLE {
                        return;
                    }
                    let mutant = &MUTANTS[*at];
                    let found = catch_unwind(AssertUnwindSafe(|| of_lines(find(mutant, &effects, &end))));
                    let found = found.unwrap_or_else(|panic| format!("PANIC {}", said(&*panic)));
                    lines.lock().unwrap()[*at] = Some(format!("{:5} {}\n      {found}", mutant.id, mutant.what));
                }
            });
        }
    });
    let lines = lines.into_inner().unwrap();
    let ran: Vec<&String> = lines.iter().flatten().collect();
    eprintln!("mutants: {} of {}, {:.0?}", ran.len(), MUTANTS.len(), started.elapsed());
    let table = ran.iter().map(|line| line.as_str()).collect::<Vec<_>>().join("\n");
    if is_whole {
        insta::with_settings!({snapshot_path => "../../golden/mutants", prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!("table", table);
        });
    } else {
        let missing: Vec<&&String> = ran.iter().filter(|line| !TABLE.contains(line.as_str())).collect();
        assert!(missing.is_empty(), "not as in tests/golden/mutants/table.snap:\n{missing:#?}");
    }
    for mark in ["SURVIVED", "NOT DONE", "PANIC"] {
        assert!(!table.contains(mark), "{mark}:\n{table}");
    }
}

/// Lines that are lost are seen by the workload and by whoever compares: the faster of the two is not always the same.
fn of_lines(found: String) -> String {
    let by_workload = found.starts_with("I8 a line that was acknowledged is lost");
    if by_workload || found.ends_with("lines of I8 the target") {
        return "I8 lines of the workload are lost".to_owned();
    }
    found
}

/// Runs one, and says what was found first.
fn find(mutant: &'static Mutant, effects: &[String], end: &End) -> String {
    let mut trial = Trial::new();
    let before = trial.end().made_anew();
    if mutant.back {
        trial.run(&Doom::none(), false).expect("nothing disturbs it");
    }
    let mutation = Mutation::new(mutant, trial.lab().core());
    trial.change(&mutation);
    let doom = match mutant.dies {
        Some((label, nth, how)) => {
            let is_it =
                |effect: &&String| effect.split(' ').next().is_some_and(|step| step.ends_with(&format!(".{label}")));
            let of_label = effects.iter().filter(is_it).nth(nth).expect("the undisturbed run has this write");
            Doom::at(effects.iter().position(|effect| effect == of_label).expect("it was just there"), how)
        }
        None => Doom::none(),
    };
    let mut dooms = vec![doom.clone()];
    let mut ended = watched(&trial, &doom, &mutation, false);
    if mutant.dies.is_some() && found(&trial, &doom).is_none() {
        assert!(doom.has_fired() && ended.is_err(), "it did not die: {ended:?}");
        let calm = Doom::none();
        dooms.push(calm.clone());
        ended = watched(&trial, &calm, &mutation, true);
    }
    if !mutation.did() {
        return format!("NOT DONE {ended:?}");
    }
    for doom in &dooms {
        if let Some(what) = first(&trial, doom, &mutation) {
            return what;
        }
    }
    match ended {
        Err(why) if why.starts_with(WAITS) => format!("L1 it waits for ever, after {}", mutation.last_label()),
        Err(why) => format!("the run stops, after {}: {}", mutation.last_label(), plain(&why)),
        Ok(()) => match catch_unwind(AssertUnwindSafe(|| match mutant.back {
            true => before.differences(&trial.end().made_anew()),
            false => end.differences(&trial.end()),
        })) {
            Err(panic) => format!("the end cannot be looked at: {}", plain(&said(&*panic))),
            Ok(all) if all.is_empty() && mutant.withstood => {
                "withstood: the end is that of an undisturbed run".to_owned()
            }
            Ok(all) if all.is_empty() => "SURVIVED".to_owned(),
            Ok(all) => format!("the end is another one: {}", difference(&all[0])),
        },
    }
}

const WAITS: &str = "it waits: ";

/// Runs until the end, the first finding, or until nothing happens any more.
fn watched(trial: &Trial, doom: &std::sync::Arc<Doom>, mutation: &Mutation, resumed: bool) -> Result<(), String> {
    let (over, wait) = channel::<()>();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            let mut waits = false;
            while let Err(RecvTimeoutError::Timeout) = wait.recv_timeout(Duration::from_millis(50)) {
                waits |= mutation.mutant.waits && mutation.did() && mutation.quiet() > PATIENCE;
                if waits || found(trial, doom).is_some() {
                    mutation.cancel();
                }
            }
            waits
        });
        let ended = catch_unwind(AssertUnwindSafe(|| match mutation.mutant.back {
            true => trial.take_back(doom, "reverse"),
            false => trial.run(doom, resumed),
        }));
        drop(over);
        let waits = watcher.join().expect("it only looks");
        match ended {
            Ok(Err(why)) if waits => Err(format!("{WAITS}{why}")),
            Ok(ended) => ended,
            Err(panic) => Err(format!("PANIC {}", said(&*panic))),
        }
    })
}

fn found(trial: &Trial, doom: &Doom) -> Option<()> {
    (!trial.broken().is_empty() || !doom.faults().is_empty()).then_some(())
}

/// The first thing that an oracle said, and the write after which it said so.
fn first(trial: &Trial, doom: &Doom, mutation: &Mutation) -> Option<String> {
    let request = doom.faults().into_iter().next().map(|fault| {
        let (label, revision) = mutation.first_fault().unwrap_or_default();
        let what = fault.split(": ").next().unwrap_or_default().to_owned();
        (revision, format!("{what}, in {label}"))
    });
    let commit = trial.broken().into_iter().map(|line| revision_of(&line)).min().map(|(revision, line)| {
        let label = mutation.label_at(revision);
        (revision, format!("{line}, after {label}"))
    });
    request.into_iter().chain(commit).min().map(|(_, line)| line)
}

/// `I3 …, after revision 512 (PersistentVolume:pvc-… by system:admin)`
fn revision_of(line: &str) -> (u64, String) {
    let (what, rest) = line.rsplit_once(", after revision ").expect("the oracle says when");
    let (revision, who) = rest.split_once(' ').expect("and what");
    let who = who.trim_matches(['(', ')']);
    let (key, by) = who.rsplit_once(" by ").expect("and who");
    let kind = key.split([':', ' ']).next().unwrap_or_default();
    let by = if by == "system:admin" { "us" } else { by };
    (revision.parse().expect("it is a number"), format!("{what} ({kind} by {by})"))
}

/// `PersistentVolumeClaim:shop/data\n undisturbed {…}\n here {…}` → which fields.
fn difference(text: &str) -> String {
    let mut lines = text.lines();
    let key = lines.next().unwrap_or_default();
    let mut value = || {
        let line = lines.next()?.trim();
        serde_json::from_str::<serde_json::Value>(line.split_once(' ')?.1.trim()).ok()
    };
    let (was, is) = match (value(), value()) {
        (None, None) => return plain(key),
        (None, Some(_)) => return format!("{}: left over", plain(key)),
        (Some(_), None) => return format!("{}: not there", plain(key)),
        (Some(was), Some(is)) => (was, is),
    };
    let (Some(was), Some(is)) = (was.as_object(), is.as_object()) else { return plain(key) };
    let fields: Vec<&str> = was.keys().filter(|field| was.get(*field) != is.get(*field)).map(String::as_str).collect();
    format!("{}: {}", plain(key), fields.join(", "))
}

/// Without names that are made at random, and only its first line. What our names end with comes from uids, which a lab
/// gives away in the order in which its controllers come to ask.
fn plain(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let is_made_up = |word: &str| word.len() > 30 && word.matches('-').count() >= 4;
    let is_of_uid = |end: &str| end.len() == 8 && end.bytes().all(|byte| byte.is_ascii_hexdigit());
    let shown = |word: &str| match word.rsplit_once('-') {
        _ if is_made_up(word) => "…".to_owned(),
        Some((name, end)) if is_of_uid(end) => format!("{name}-…"),
        _ => word.to_owned(),
    };
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let (mut out, mut word) = (String::new(), String::new());
    for c in line.chars().chain(['\n']) {
        if is_of_name(c) {
            word.push(c);
            continue;
        }
        out += &shown(&word);
        word.clear();
        if c != '\n' {
            out.push(c);
        }
    }
    out
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}
