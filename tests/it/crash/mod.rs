//! A crash at every write: each write of a migration on the lab is disturbed in each of seven ways, the run is resumed, and
//! the end is compared with an undisturbed one.
//!
//! The lab, the journal's place and the script run in this process, so that the instant of death is exact; one twin kills
//! the real process. A failure prints the one line that repeats it.

mod doom;
mod oracle;
mod trial;

use doom::{Doom, How};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use trial::{End, Trial};

/// What the sample of an ordinary `cargo test` may take.
const SAMPLE: Duration = Duration::from_secs(20);
/// Repeats one case: `PVMIGRATE_CRASH=12:before-done`.
const ONE: &str = "PVMIGRATE_CRASH";
/// `all` runs every point.
const MATRIX: &str = "PVMIGRATE_MATRIX";

/// The writes of an undisturbed run, in their order, and its end.
fn reference() -> (Vec<String>, End) {
    let trial = Trial::new();
    let doom = Doom::none();
    let outcome = trial.run(&doom, false);
    assert!(outcome.is_ok(), "undisturbed: {outcome:?}");
    trial.check_always();
    (doom.effects(), trial.end())
}

#[test]
fn a_crash_at_any_write_ends_as_if_nothing_had_happened() {
    let (effects, end) = reference();
    let (again, same) = reference();
    assert_eq!(effects, again, "the writes of a run are the same each time");
    assert_eq!(end.differences(&same), Vec::<String>::new());
    insta::with_settings!({snapshot_path => "../../golden/effects", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("sc-migrate", effects.join("\n"));
    });
    let mut cases: Vec<(usize, How)> = (0..effects.len()).flat_map(|point| How::ALL.map(|how| (point, how))).collect();
    if let Ok(one) = std::env::var(ONE) {
        cases.retain(|(point, how)| format!("{point}:{}", how.word()) == one);
        assert_eq!(cases.len(), 1, "{ONE}={one} is none of {} points", effects.len());
    }
    let all = std::env::var(MATRIX).is_ok_and(|word| word == "all") || cases.len() == 1;
    let seed = std::env::var("PVMIGRATE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        // Another sample each time, and the seed in the failure.
        u64::from(std::process::id())
    });
    shuffle(&mut cases, seed);
    let (next, failed, started) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Instant::now());
    let done: Mutex<BTreeSet<usize>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((point, how)) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if !all && started.elapsed() > SAMPLE {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(|| single(*point, *how, &effects, &end));
                    done.lock().unwrap().insert(*point);
                    let why = match outcome {
                        Ok(Ok(())) => continue,
                        Ok(Err(why)) => why,
                        Err(panic) => panic
                            .downcast_ref::<String>()
                            .cloned()
                            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                            .unwrap_or_default(),
                    };
                    let line =
                        format!("{ONE}={point}:{} cargo test --test it crash::  # {}", how.word(), effects[*point]);
                    failed.lock().unwrap().push(format!("{line}\n{why}"));
                }
            });
        }
    });
    let ran = next.load(Ordering::SeqCst).min(cases.len());
    let points = done.lock().unwrap().len();
    eprintln!(
        "crash: {ran} of {} cases, {points} of {} writes, seed {seed}, {:.0?}",
        cases.len(),
        effects.len(),
        started.elapsed()
    );
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {ran} cases (seed {seed}):\n{}", failed.len(), failed.join("\n\n"));
    assert!(!all || ran == cases.len());
}

/// One case: disturbed, resumed, compared.
fn single(point: usize, how: How, effects: &[String], end: &End) -> Result<(), String> {
    let trial = Trial::new();
    let doom = Doom::at(point, how);
    let first = trial.run(&doom, false);
    if !doom.has_fired() {
        return Err(format!("the fault did not fire: {first:?}"));
    }
    let met = doom.effects();
    if met[..=point] != effects[..=point] {
        return Err(format!("another write was met: {:?}", met.last()));
    }
    match (&first, how.kills()) {
        (Err(_), true) => {}
        (Ok(()), true) => return Err("it went on after its death".to_owned()),
        // A lost request or answer is a matter of the run itself: it reads what became of it.
        (Ok(()), false) => {}
        (Err(why), false) => eprintln!("crash: {point}:{}: stopped by itself: {why}", how.word()),
    }
    if first.is_err() {
        trial.run(&Doom::none(), true).map_err(|why| format!("resume: {why}"))?;
    }
    trial.check_always();
    let differences = end.differences(&trial.end());
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
}

fn shuffle<T>(list: &mut [T], seed: u64) {
    let mut random = seed | 1;
    for at in (1..list.len()).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        list.swap(at, (random % (at as u64 + 1)) as usize);
    }
}
