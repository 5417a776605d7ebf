//! The names that share an inode on either side, and what such an inode holds.
//!
//! Not I/O. Called by `verify`, which comes upon them in any order. What must stay true: two trees have the same
//! partition of names into inodes exactly if every name has the same first name on both sides; an inode is read once.
//! Memory grows with the hard-linked names only.

use super::entry::Content;
use super::sum::Sum;
use super::tree::{Node, shown};
use rustix::fs::FileType;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

type Id = (u64, u64);

#[derive(Default)]
pub struct Groups {
    sides: [Inodes; 2],
    names: Vec<Name>,
}

/// The inodes of one side. Apart from their numbers, as a table of numbers has many empty places, and there may be millions.
#[derive(Default)]
struct Inodes {
    places: HashMap<Id, u32>,
    groups: Vec<Group>,
}

/// A name, and where its inode is on either side; [`NOWHERE`] if it is not.
type Name = (Arc<[u8]>, [u32; 2]);
const NOWHERE: u32 = u32::MAX;

/// Takes a difference: path, what, source's value, target's value.
type Tell<'a> = &'a mut dyn FnMut(&[u8], &str, String, String);

struct Group {
    first: Arc<[u8]>,
    /// Nothing: nobody has read it, or is about to.
    content: Option<Content>,
}

/// True of a pair that belongs here.
pub fn is_linked(nodes: [Option<&Node>; 2]) -> bool {
    nodes.into_iter().flatten().any(|node| node.nlink > 1 && node.kind != FileType::Directory)
}

impl Groups {
    /// Notes a name. Returns which of its inodes are new.
    pub fn add(&mut self, path: &[u8], nodes: [Option<&Node>; 2]) -> [bool; 2] {
        let path: Arc<[u8]> = path.into();
        let (mut places, mut are_new) = ([NOWHERE; 2], [false, false]);
        for (side, node) in nodes.into_iter().enumerate() {
            let Some(node) = node.filter(|node| node.kind != FileType::Directory) else { continue };
            let Inodes { places: known, groups } = &mut self.sides[side];
            let place = *known.entry((node.dev, node.ino)).or_insert_with(|| {
                are_new[side] = true;
                groups.push(Group { first: path.clone(), content: None });
                u32::try_from(groups.len() - 1).expect("four billion of them do not fit into memory")
            });
            places[side] = place;
            let group = &mut groups[place as usize];
            if order(&path) < order(&group.first) {
                group.first = path.clone();
            }
        }
        self.names.push((path, places));
        are_new
    }

    /// True if whoever asks is to read the inode and [`Groups::keep`] what came of it.
    pub fn is_to_be_read(&mut self, side: usize, node: &Node) -> bool {
        self.sides[side].of(node).is_some_and(|group| match group.content {
            None | Some(Content::Reused) => {
                group.content = Some(Content::Failed);
                true
            }
            _ => false,
        })
    }

    /// What an inode holds.
    pub fn keep(&mut self, side: usize, node: &Node, content: Content) {
        if let Some(group) = self.sides[side].of(node) {
            match (&group.content, &content) {
                (Some(_), Content::Reused) => {}
                _ => group.content = Some(content),
            }
        }
    }

    /// When all names are there: tells the differences, and adds both sides to their sums.
    pub fn close(mut self, sums: &mut [Sum; 2], tell: Tell<'_>) {
        self.names.sort_unstable_by(|(a, _), (b, _)| order(a).cmp(&order(b)));
        let mut compared = HashSet::new();
        for (path, places) in &self.names {
            let [source, target] = [0, 1].map(|side: usize| self.sides[side].groups.get(places[side] as usize));
            for (group, sum) in [source, target].into_iter().zip(sums.iter_mut()) {
                if let Some(group) = group {
                    sum.add(&thing(&[b"link", path, &group.first]));
                }
            }
            let (Some(source), Some(target)) = (source, target) else { continue };
            let first = |group: &Group| match &group.first {
                first if first == path => "its own or the first name".to_owned(),
                first => format!("linked to {}", shown(first)),
            };
            if source.first != target.first {
                tell(path, "hard link", first(source), first(target));
            }
            if let [Some(Content::Hash(a)), Some(Content::Hash(b))] = [&source.content, &target.content]
                && a != b
                && compared.insert(*places)
            {
                tell(path, "content", a.to_hex().to_string(), b.to_hex().to_string());
            }
        }
        for (side, sum) in self.sides.iter().zip(sums) {
            for group in &side.groups {
                let content: &[u8] = match &group.content {
                    None | Some(Content::None) => b"none",
                    Some(Content::Reused) => b"reused",
                    Some(Content::Hash(digest)) => digest.as_bytes(),
                    Some(Content::Failed) => b"unreadable",
                };
                sum.add(&thing(&[b"content", &group.first, content]));
            }
        }
    }
}

impl Inodes {
    fn of(&mut self, node: &Node) -> Option<&mut Group> {
        let place = self.places.get(&(node.dev, node.ino))?;
        self.groups.get_mut(*place as usize)
    }
}

/// Names near the root first, so that the first name is one that people look at first.
fn order(path: &[u8]) -> (usize, &[u8]) {
    (path.iter().filter(|byte| **byte == b'/').count(), path)
}

fn thing(parts: &[&[u8]]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher
}
