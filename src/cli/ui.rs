//! Everything that is printed is printed here. stdout is data, stderr is talk.

use super::{Cli, Global, Output};
use crate::words::clock::human_seconds;
use crate::words::size::human_bytes;
use crate::words::{Json, Progress, Voice};
use clap::CommandFactory;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::io::{BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// All bars of the process: talk goes above them.
fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

/// One line to the person.
pub fn talk(text: &str) {
    bars().suspend(|| {
        let mut err = std::io::stderr().lock();
        // A closed stderr is no reason to stop moving data.
        let _ = writeln!(err, "{text}");
    });
}

/// One line of data.
pub fn print(text: &str) {
    bars().suspend(|| {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}");
    });
}

pub fn print_json(value: &Json) {
    print(&value.to_string());
}

pub fn print_table(rows: &[Json], columns: &[&str]) {
    let columns = Json::from(columns.to_vec());
    print(&crate::script::primitives::render_table(&Json::Array(rows.to_vec()), Some(&columns)));
}

/// A value of a script for people: objects by name, lists line by line.
pub fn display(value: &Json) -> String {
    match value {
        Json::Array(items) if items.iter().all(|item| !item.is_object()) && !items.is_empty() => {
            items.iter().map(display).collect::<Vec<_>>().join("\n")
        }
        Json::Array(items) if items.iter().all(crate::script::view::is_object) && !items.is_empty() => {
            items.iter().map(display).collect::<Vec<_>>().join("\n")
        }
        Json::Array(items) if items.iter().all(Json::is_object) && !items.is_empty() => {
            crate::script::primitives::render_table(value, None)
        }
        Json::Object(_) if crate::script::view::is_object(value) => {
            crate::cluster::workload::reference(value).to_string()
        }
        Json::Object(_) => serde_yaml_ng::to_string(value).unwrap_or_default().trim_end().to_owned(),
        Json::String(text) => crate::words::names::plain(text),
        other => other.to_string(),
    }
}

/// The help of one command.
pub fn print_help(name: &str) {
    let mut cli = Cli::command();
    cli.build();
    if let Some(command) = cli.find_subcommand_mut(name) {
        let _ = command.print_help();
    }
}

static ASKING: AtomicBool = AtomicBool::new(false);

/// True while a question waits for its answer: nothing is in hand then.
pub fn is_asking() -> bool {
    ASKING.load(Ordering::SeqCst)
}

/// Ends the process at once, after a second Ctrl-C.
#[expect(clippy::disallowed_methods, reason = "the second Ctrl-C: the journal is whole at every instant")]
pub fn leave(code: i32) -> ! {
    std::process::exit(code)
}

/// The terminal's settings as they were: whoever reads keys changes them.
pub struct Terminal(Option<rustix::termios::Termios>);

impl Terminal {
    pub fn now() -> Self {
        Terminal(rustix::termios::tcgetattr(std::io::stdin()).ok())
    }

    pub fn restore(&self) {
        if let Some(settings) = &self.0 {
            let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, settings);
        }
    }
}

/// Sets up what --verbose shows.
pub fn log(verbose: bool) {
    let level = if verbose { "pvmigrate=debug" } else { "pvmigrate=warn" };
    let filter = std::env::var("PVMIGRATE_LOG").unwrap_or_else(|_| level.to_owned());
    static RELOAD: OnceLock<
        tracing_subscriber::reload::Handle<tracing_subscriber::EnvFilter, tracing_subscriber::Registry>,
    > = OnceLock::new();
    if let Some(handle) = RELOAD.get() {
        let _ = handle.reload(tracing_subscriber::EnvFilter::new(filter));
        return;
    }
    use tracing_subscriber::prelude::*;
    let (layer, handle) = tracing_subscriber::reload::Layer::new(tracing_subscriber::EnvFilter::new(filter));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time().with_target(false);
    if tracing_subscriber::registry().with(layer).with(lines).try_init().is_ok() {
        let _ = RELOAD.set(handle);
    }
}

/// The voice of a run: bars on a terminal, plain lines elsewhere.
pub fn voice(global: &Global) -> Arc<dyn Voice> {
    Arc::new(Screen { output: global.output, fancy: is_fancy(), bars: Mutex::default() })
}

fn is_fancy() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none()
        && std::env::var("TERM").as_deref() != Ok("dumb")
}

struct Screen {
    output: Output,
    fancy: bool,
    bars: Mutex<HashMap<String, Shown>>,
}

enum Shown {
    Bar(ProgressBar),
    /// Without a terminal: when the next line is due.
    Lines(crate::words::clock::Deadline),
}

/// Without a terminal, a line per copy and so many seconds.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Voice for Screen {
    fn status(&self, text: &str) {
        talk(text);
    }

    fn warn(&self, text: &str) {
        talk(&format!("warning: {text}"));
    }

    fn data(&self, text: &str, json: &Json) {
        match self.output {
            Output::Text => print(text),
            Output::Json => print_json(json),
        }
    }

    fn progress(&self, p: &Progress) {
        let mut shown = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{} {}", p.claim, p.phase);
        if p.over {
            if let Some(Shown::Bar(bar)) = shown.remove(&key) {
                bar.finish_and_clear();
            }
            return;
        }
        if self.fancy {
            let bar = shown.entry(key).or_insert_with(|| Shown::Bar(bar()));
            if let Shown::Bar(bar) = bar {
                bar.set_length(1000);
                bar.set_position(per_mille(p));
                bar.set_prefix(format!("{} {}", p.claim, p.phase));
                bar.set_message(so_far(p));
            }
            return;
        }
        // What is over before the first line was due is told by the script, in one line.
        let next = || Shown::Lines(crate::words::clock::Clock.deadline(LINE_EVERY));
        let due = match shown.entry(key.clone()).or_insert_with(next) {
            Shown::Lines(deadline) => deadline.passed(),
            Shown::Bar(_) => false,
        };
        if due {
            shown.insert(key, next());
            talk(&format!("{}: {}: {}", p.claim, p.phase, so_far(p)));
        }
    }

    fn confirm(&self, plan: &str) -> Option<bool> {
        talk(plan);
        if !std::io::stdin().is_terminal() {
            return None;
        }
        bars().suspend(|| {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "Go on? [y/N] ");
            let _ = err.flush();
        });
        let mut answer = String::new();
        ASKING.store(true, Ordering::SeqCst);
        let read = std::io::stdin().lock().read_line(&mut answer);
        ASKING.store(false, Ordering::SeqCst);
        match read {
            Ok(_) => Some(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes")),
            Err(_) => None,
        }
    }
}

/// Of entries and bytes whichever is further: a later pass moves few bytes, and one large file is no entry until its end.
fn per_mille(p: &Progress) -> u64 {
    let share = |done: u64, all: u64| if all == 0 { 0 } else { u128::from(done.min(all)) * 1000 / u128::from(all) };
    share(p.files, p.files_total).max(share(p.bytes, p.bytes_total)) as u64
}

/// `469 of 2051 files, 105 MiB of 1 GiB, 51.7 MiB/s, 3.0s left`; a device has no files.
fn so_far(p: &Progress) -> String {
    let bytes = done_of(p.bytes, p.bytes_total, human_bytes);
    let files = done_of(p.files, p.files_total, |files| files.to_string());
    let files = if p.files.max(p.files_total) == 0 { String::new() } else { format!("{files} files, ") };
    let eta = p.eta_s.map(|s| format!(", {} left", human_seconds(s))).unwrap_or_default();
    format!("{files}{bytes}, {}/s{eta}", human_bytes(p.rate_bytes_s as u64))
}

/// `3 of 7`, or `3` while nobody knows of how many: a pass after a good one counts as it goes.
fn done_of(done: u64, all: u64, shown: impl Fn(u64) -> String) -> String {
    if all == 0 { shown(done) } else { format!("{} of {}", shown(done), shown(all)) }
}

/// How many of so many are over: a bar on a terminal, a line now and then elsewhere.
pub struct Counter {
    total: usize,
    bar: Option<ProgressBar>,
    seen: Mutex<Seen>,
}

struct Seen {
    over: usize,
    failed: usize,
    due: crate::words::clock::Deadline,
}

impl Counter {
    pub fn new(total: usize) -> Counter {
        let bar = is_fancy().then(bar);
        if let Some(bar) = &bar {
            bar.set_length(total as u64);
            bar.set_prefix("cases");
        }
        let due = crate::words::clock::Clock.deadline(LINE_EVERY);
        Counter { total, bar, seen: Mutex::new(Seen { over: 0, failed: 0, due }) }
    }

    /// One more is over.
    pub fn one(&self, is_good: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.over += 1;
        seen.failed += usize::from(!is_good);
        let text = format!("{} of {}, {} failed", seen.over, self.total, seen.failed);
        match &self.bar {
            Some(bar) => {
                bar.set_position(seen.over as u64);
                bar.set_message(text);
            }
            None if seen.due.passed() => {
                seen.due = crate::words::clock::Clock.deadline(LINE_EVERY);
                talk(&text);
            }
            None => {}
        }
    }

    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:28} [{bar:24}] {percent:>3}% {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let bar = bars().add(ProgressBar::new(1));
    bar.set_style(style);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_stands_where_most_is_done_and_says_what_is_known() {
        let at = |files, files_total, bytes, bytes_total| Progress {
            files,
            files_total,
            bytes,
            bytes_total,
            rate_bytes_s: 1024.0,
            ..Progress::default()
        };
        for (progress, position, said) in [
            (at(1, 4, 512, 4096), 250, "1 of 4 files, 512 B of 4 KiB, 1 KiB/s"),
            // One large file.
            (at(0, 1, 3072, 4096), 750, "0 of 1 files, 3 KiB of 4 KiB, 1 KiB/s"),
            (at(0, 0, 1024, 4096), 250, "1 KiB of 4 KiB, 1 KiB/s"),
            (at(7, 0, 1024, 0), 0, "7 files, 1 KiB, 1 KiB/s"),
            (at(9, 4, 0, 0), 1000, "9 of 4 files, 0 B, 1 KiB/s"),
        ] {
            assert_eq!((per_mille(&progress), so_far(&progress).as_str()), (position, said));
        }
        let last = Progress { eta_s: Some(3.0), ..at(1, 2, 0, 0) };
        assert_eq!(so_far(&last), "1 of 2 files, 0 B, 1 KiB/s, 3.0s left");
    }
}
