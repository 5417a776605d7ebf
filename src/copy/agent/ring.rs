//! The exercise on a device: numbered records, each on disk before it is acknowledged, spread over all of it.
//!
//! Not a file system. Called by `exercise`, if what it is given is no directory. Record n goes to place n modulo the number of
//! places, so at any time each place has the newest record that belongs to it, and one of them may be half written.
//! What must stay true: SIGKILL at any instant is never reported as a loss; one process per device.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

const RECORD: usize = 4096;
/// As many places as fit, at most; apart from each other as far as there is room.
const PLACES: u64 = 512;
const SUM: usize = 32;

pub struct Ring {
    file: File,
    places: u64,
    /// Bytes from one place to the next.
    stride: u64,
}

/// True if it is to be exercised as a device.
pub fn is_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}

impl Ring {
    /// Opens a device, or a file in its place, of at least two records.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path, write: bool) -> io::Result<Ring> {
        let mut file = OpenOptions::new().read(true).write(write).open(path)?;
        let records = file.seek(SeekFrom::End(0))? / RECORD as u64;
        if records < 2 {
            return Err(io::Error::other("it is too small to be exercised"));
        }
        let places = records.min(PLACES);
        Ok(Ring { file, places, stride: records / places * RECORD as u64 })
    }

    /// The newest record, if every place has what it must have.
    ///
    /// # Errors
    /// What is missing, in words; or what the system says, in the outer one.
    pub fn check(&self, acked: u64) -> io::Result<Result<u64, String>> {
        let mut found = Vec::new();
        for place in 0..self.places {
            let mut record = vec![0; RECORD];
            self.file.read_exact_at(&mut record, place * self.stride)?;
            found.push(number(&record));
        }
        let newest = found.iter().flatten().copied().max().unwrap_or(0);
        if newest < acked {
            return Ok(Err(format!("device: {acked} was acknowledged, {newest} is the newest there")));
        }
        for (place, number) in (0..self.places).zip(found) {
            let wanted = self.newest_at(place, newest);
            let in_flight = (newest + 1) % self.places == place;
            if number != Some(wanted) && !(in_flight && number.is_none()) {
                return Ok(Err(format!("device: place {place} must have record {wanted} and has {number:?}")));
            }
        }
        Ok(Ok(newest))
    }

    /// Writes record n and waits for the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, n: u64) -> io::Result<()> {
        self.file.write_all_at(&record(n), n % self.places * self.stride)?;
        self.file.sync_data()
    }

    /// The largest number up to `newest` that belongs there; 0 if there is none.
    fn newest_at(&self, place: u64, newest: u64) -> u64 {
        let back = (newest + self.places - place) % self.places;
        newest.saturating_sub(back)
    }
}

fn record(n: u64) -> Vec<u8> {
    let mut record: Vec<u8> = n.to_le_bytes().into_iter().cycle().take(RECORD - SUM).collect();
    let sum = blake3::hash(&record);
    record.extend(sum.as_bytes());
    record
}

/// Its number; 0 if nothing was ever written there, None if it is half written or damaged.
fn number(record: &[u8]) -> Option<u64> {
    if record.iter().all(|byte| *byte == 0) {
        return Some(0);
    }
    let (content, sum) = record.split_at(RECORD - SUM);
    let n = u64::from_le_bytes(content.first_chunk().copied()?);
    (blake3::hash(content).as_bytes() == sum && content == &self::record(n)[..RECORD - SUM]).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(dir: &Path, size: u64) -> Ring {
        let path = dir.join("device");
        File::options().write(true).create(true).truncate(false).open(&path).unwrap().set_len(size).unwrap();
        assert!(is_device(&path) && !is_device(dir) && !is_device(&dir.join("absent")));
        Ring::open(&path, true).unwrap()
    }

    #[test]
    fn every_round_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let ring = ring(dir.path(), 5 * 4096 + 17);
        assert_eq!(ring.check(0).unwrap(), Ok(0));
        for n in 1..=13 {
            ring.write(n).unwrap();
            assert_eq!(ring.check(n).unwrap(), Ok(n));
        }
        assert!(ring.check(14).unwrap().unwrap_err().contains("14 was acknowledged, 13 is the newest"));
    }

    #[test]
    fn a_half_written_record_is_no_loss_and_any_other_damage_is() {
        let dir = tempfile::tempdir().unwrap();
        let ring = ring(dir.path(), 5 * 4096);
        (1..=13).for_each(|n| ring.write(n).unwrap());
        // Record 14 was being written over record 9.
        ring.file.write_all_at(&record(14)[..100], 4 * ring.stride).unwrap();
        assert_eq!(ring.check(13).unwrap(), Ok(13));
        ring.write(14).unwrap();
        // Record 12, of two writes before, is another one; or an older one; or was never written.
        for damage in [vec![1; 1], record(7), vec![0; RECORD]] {
            ring.file.write_all_at(&damage, 2 * ring.stride).unwrap();
            assert!(ring.check(0).unwrap().unwrap_err().starts_with("device: place 2 must have record 12"));
            ring.file.write_all_at(&record(12), 2 * ring.stride).unwrap();
            assert_eq!(ring.check(14).unwrap(), Ok(14));
        }
    }
}
