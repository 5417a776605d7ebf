//! The one place that asks for the time. Nobody compares this clock with a server's or a node's.

use super::Problem;
use std::time::{Duration, Instant};

/// Where time comes from: the system, or (later) the lab.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Wall time as RFC 3339 in UTC with milliseconds: for people and journals, never for decisions.
    pub fn stamp(self) -> String {
        jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
    }

    /// The same with microseconds, as Leases want it.
    pub fn stamp_micro(self) -> String {
        jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
    }

    /// Wall time: what the lab's cluster takes for its own.
    pub fn now(self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    /// Milliseconds since the Unix epoch.
    pub fn unix_ms(self) -> i64 {
        jiff::Timestamp::now().as_millisecond()
    }

    /// Seconds since the Unix epoch.
    pub fn unix_s(self) -> i64 {
        jiff::Timestamp::now().as_second()
    }

    /// Monotonic time: the only thing that deadlines are made of.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn monotonic(self) -> Instant {
        Instant::now()
    }

    /// Time since the machine started. Unlike monotonic time it goes on while the machine sleeps: whoever wakes up sees
    /// for how long he was away.
    pub fn since_boot(self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    /// How long the processors worked for this process.
    pub fn of_this_process(self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    pub fn deadline(self, timeout: Duration) -> Deadline {
        Deadline { at: self.monotonic() + timeout, timeout }
    }
}

/// A point in monotonic time with the timeout that made it, so that messages can say it.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    pub at: Instant,
    pub timeout: Duration,
}

impl Deadline {
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Clock.monotonic())
    }

    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }
}

/// `75` → `1m15s`, `0.4` → `0.4s`: durations as people read them.
pub fn human_seconds(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

/// `90m`, `72h`, `7d`: a span as people type it.
///
/// # Errors
/// If it is not a whole number with one of the units s, m, h, d, or is longer than a century.
pub fn parse_duration(text: &str) -> Result<Duration, Problem> {
    let wrong = || Problem::usage(format!("`{}` is not a duration", super::names::plain(text))).hint("90m, 72h or 7d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(wrong()),
    };
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let all = number.checked_mul(seconds).filter(|all| *all <= 100 * 366 * 86400).ok_or_else(wrong)?;
    Ok(Duration::from_secs(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (seconds, text) in [(0.0, "0.0s"), (9.94, "9.9s"), (12.4, "12s"), (75.0, "1m15s"), (7260.0, "2h01m")] {
            assert_eq!(human_seconds(seconds), text);
        }
    }

    #[test]
    fn spans_are_whole_numbers_with_a_unit() {
        for (text, seconds) in [("0s", 0), ("90m", 5400), ("72h", 259_200), ("7d", 604_800)] {
            assert_eq!(parse_duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "7", "d", "-1h", "1.5h", "7 d", "1w", "99999999999999999999h", "999999d", "7ä", "1h30m"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
