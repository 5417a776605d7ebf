//! blake3 of a whole device from the hashes of its chunks, in whatever order they come.
//!
//! Not a hash of its own: it is what `b3sum` says of the same bytes, so that anybody can check it. Called by `verify`.
//! What must stay true: memory does not grow with the device as long as the chunks come nearly in order.

use super::CHUNK;
use blake3::Hash;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use std::collections::BTreeMap;

/// The hash of one chunk: the whole hash if there is only one.
pub enum Leaf {
    Whole(Hash),
    Part(ChainingValue),
}

/// Hashes the chunk that begins at `at`, of `size` bytes in all.
pub fn leaf(at: u64, bytes: &[u8], size: u64) -> Leaf {
    if size <= CHUNK {
        return Leaf::Whole(blake3::hash(bytes));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(at);
    Leaf::Part(hasher.update(bytes).finalize_non_root())
}

/// What is known so far: subtrees by their height and place.
#[derive(Default)]
pub struct Tree {
    parts: BTreeMap<(u32, u64), ChainingValue>,
    whole: Option<Hash>,
}

impl Tree {
    pub fn add(&mut self, at: u64, leaf: Leaf, size: u64) {
        let mut part = match leaf {
            Leaf::Whole(hash) => {
                self.whole = Some(hash);
                return;
            }
            Leaf::Part(part) => part,
        };
        let chunks = size.div_ceil(CHUNK);
        let (mut height, mut place) = (0, at / CHUNK);
        // Two halves of a whole subtree become one; what is left at the end of the device is joined in the end.
        while let Some(other) = self.parts.remove(&(height, place ^ 1)) {
            let (left, right) = if place & 1 == 0 { (&part, &other) } else { (&other, &part) };
            if place < 2 && chunks <= 2 << height {
                self.whole = Some(merge_subtrees_root(left, right, Mode::Hash));
                return;
            }
            part = merge_subtrees_non_root(left, right, Mode::Hash);
            (height, place) = (height + 1, place >> 1);
        }
        self.parts.insert((height, place), part);
    }

    /// The hash, when every chunk was added.
    pub fn digest(self) -> Hash {
        if let Some(whole) = self.whole {
            return whole;
        }
        // From the right: the smallest subtrees stand at the end.
        let mut parts =
            self.parts.into_iter().map(|((height, place), part)| (place << height, part)).collect::<Vec<_>>();
        parts.sort_by_key(|(at, _)| *at);
        let Some((_, mut right)) = parts.pop() else { return blake3::hash(&[]) };
        while let Some((_, left)) = parts.pop() {
            if parts.is_empty() {
                return merge_subtrees_root(&left, &right, Mode::Hash);
            }
            right = merge_subtrees_non_root(&left, &right, Mode::Hash);
        }
        blake3::hash(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_b3sum_says_in_any_order() {
        for size in [0, 1, 1024, 1025, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK - 5, 5 * CHUNK, 7 * CHUNK + 3, 8 * CHUNK]
        {
            let bytes: Vec<u8> = (0..size).map(|n| (n * 7 + n / 251) as u8).collect();
            for step in [1, 3, 7] {
                let mut tree = Tree::default();
                let chunks: Vec<&[u8]> = bytes.chunks(CHUNK as usize).collect();
                let count = chunks.len();
                // Every chunk once, in another order; by leaps that are prime to their number.
                let leap = if count.is_multiple_of(step) { 1 } else { step };
                for n in 0..count {
                    let number = (n * leap) % count;
                    let at = number as u64 * CHUNK;
                    tree.add(at, leaf(at, chunks[number], size), size);
                }
                assert_eq!(tree.digest(), blake3::hash(&bytes), "{size} {step}");
            }
        }
    }
}
