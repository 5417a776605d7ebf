//! A digest of many things that come in any order.
//!
//! Each is hashed by itself, and the hashes are added up: 1024 numbers of 16 bits, each modulo 2^16 (LtHash16, Bellare and
//! Micciancio 1997, Lewi and others 2019), which are hashed in the end. What must stay true: it depends on what was
//! added and on nothing else, neither order nor number of threads.

const LANES: usize = 1024;

/// The sum so far.
#[derive(Clone)]
pub struct Sum(Box<[u16; LANES]>);

impl Default for Sum {
    fn default() -> Sum {
        Sum(Box::new([0; LANES]))
    }
}

impl Sum {
    pub fn add(&mut self, thing: &blake3::Hasher) {
        let mut bytes = [0; 2 * LANES];
        thing.finalize_xof().fill(&mut bytes);
        for (lane, two) in self.0.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *lane = lane.wrapping_add(u16::from_le_bytes(*two));
        }
    }

    pub fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        self.0.iter().for_each(|lane| {
            hasher.update(&lane.to_le_bytes());
        });
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(things: &[&str]) -> Sum {
        let mut sum = Sum::default();
        for thing in things {
            let mut hasher = blake3::Hasher::new();
            hasher.update(thing.as_bytes());
            sum.add(&hasher);
        }
        sum
    }

    #[test]
    fn the_order_is_nothing_and_every_thing_counts() {
        let all = ["a", "b", "c"];
        let digest = of(&all).digest();
        assert_eq!(of(&["c", "a", "b"]).digest(), digest);
        for other in [&["a", "b"][..], &["a", "b", "c", "c"], &["a", "b", "d"], &["ab", "c"], &[]] {
            assert_ne!(of(other).digest(), digest, "{other:?}");
        }
    }
}
