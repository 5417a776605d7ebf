//! Two trees walked side by side: what copy counts and verify compares.
//!
//! Not a comparison: it shows what is there on each side under one name. Called by `scan` and `verify`; `native`, which
//! changes the target as it goes, walks by itself with the same parts.
//! What must stay true: no symbolic link is followed, no FIFO or device is opened, nothing that is mounted into a tree is
//! entered or passes for a part of it, a list of names is whole, an empty `lost+found` of the root is invisible; memory
//! grows with the largest directory, not with the tree.

use super::crew::{self, Crew};
use super::trust::{self, ALWAYS};
use super::tune::Tuner;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, Statx, StatxAttributes, StatxFlags, StatxTimestamp,
};
use rustix::io::Errno;
use std::fmt::Write as _;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Made by mkfs, empty, in the root of ext file systems: so it belongs to the file system. With anything in it, it is
/// data like any other.
pub const LOST_FOUND: &[u8] = b"lost+found";

/// What is seen where something is mounted into a tree: it would be neither copied nor compared, and must not pass for
/// equal.
pub(super) const OTHER_FILE_SYSTEM: &str = "another file system begins here: it would be left out";

/// How much of a directory is read at once, in bytes: two names of any length fit.
const LISTED_AT_ONCE: usize = 32 << 10;

const LOOK: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);

/// The longest path that is given to the kernel in one piece (PATH_MAX is 4096 with the final NUL).
const PATH_IN_ONE: usize = 4000;

/// The root directory of one side, held open.
pub struct Root {
    fd: OwnedFd,
    dev: u64,
    ino: u64,
    no_openat2: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Target,
}

/// What stands under one name on one side.
#[derive(Clone, Debug)]
pub struct Node {
    pub kind: FileType,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes, as `stat` says.
    pub size: u64,
    /// Bytes of blocks that are allocated.
    pub allocated: u64,
    /// Nanoseconds since the epoch.
    pub mtime: i128,
    pub ctime: i128,
    pub rdev: u64,
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    /// True if something is mounted here; false where the system does not tell.
    pub is_mount: bool,
    /// The target of a symbolic link; filled with [`Detail::All`].
    pub link: Vec<u8>,
    /// Name and value, sorted, without those of [`compared`]; filled with [`Detail::All`].
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// True if it has attributes that are neither copied nor compared.
    pub has_foreign_xattrs: bool,
}

/// One name and what stands there; at least one side is there.
pub struct Pair {
    /// Relative to the root, empty for the root itself.
    pub path: Vec<u8>,
    pub source: Option<Node>,
    pub target: Option<Node>,
    /// When the directory that it is in was put in its place at the latest, in the source: see `trust`.
    pub arrived: i128,
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time, on the stack")]
pub enum Seen {
    Pair(Pair),
    /// Something could not be read. A directory that cannot be listed is passed over on both sides.
    Trouble {
        side: Side,
        path: Vec<u8>,
        doing: &'static str,
        error: io::Error,
    },
}

/// How much is read of every entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    Stat,
    /// The same, and a network file system asks its server instead of remembering.
    Now,
    /// The same, and link targets and extended attributes too.
    All,
}

impl Root {
    /// # Errors
    /// If `path` is no directory that can be opened.
    pub fn open(path: &Path) -> io::Result<Root> {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let own = of_open(&fd, Detail::Now)?;
        Ok(Root { fd, dev: own.dev, ino: own.ino, no_openat2: AtomicBool::new(false) })
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub fn same_as(&self, other: &Root) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }

    /// True if both are on one file system, as far as its number tells.
    pub(super) fn is_beside(&self, other: &Root) -> bool {
        self.dev == other.dev
    }

    /// True if the node is this root, seen from elsewhere.
    pub fn is(&self, node: &Node) -> bool {
        (self.dev, self.ino) == (node.dev, node.ino)
    }

    /// True if the node is part of the root's file system, and of what is mounted as the root. On an overlay only
    /// directories are sure to have its device.
    pub(super) fn is_on_same(&self, node: &Node) -> bool {
        !node.is_mount && (node.kind != FileType::Directory || self.dev == node.dev)
    }

    /// Opens what stands under a relative path for reading, without following any link on the way. Never blocks.
    ///
    /// # Errors
    /// ELOOP or ENOTDIR if a part of the path is a symbolic link, [`OTHER_FILE_SYSTEM`] if something is mounted there;
    /// else what the system says.
    pub fn open_in(&self, path: &[u8], more: OFlags) -> io::Result<OwnedFd> {
        if path.is_empty() {
            return Ok(rustix::fs::openat(&self.fd, ".", LOOK | more, Mode::empty())?);
        }
        if path.len() < PATH_IN_ONE && !self.no_openat2.load(Ordering::Relaxed) {
            let resolve =
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
            match rustix::fs::openat2(&self.fd, path, LOOK | more, Mode::empty(), resolve) {
                // Old kernels do not have it, and the sandboxes of old container runtimes refuse what they do not
                // know. EPERM is an answer about the file too, which the other way then gives as well.
                Err(Errno::NOSYS | Errno::PERM) => {
                    let opened = self.open_stepwise(path, more);
                    if opened.is_ok() {
                        self.no_openat2.store(true, Ordering::Relaxed);
                    }
                    return opened;
                }
                Err(Errno::XDEV) => return Err(io::Error::other(OTHER_FILE_SYSTEM)),
                other => return Ok(other?),
            }
        }
        self.open_stepwise(path, more)
    }

    fn open_stepwise(&self, path: &[u8], more: OFlags) -> io::Result<OwnedFd> {
        let step = |here: &OwnedFd, name: &[u8], flags: OFlags| {
            let there = rustix::fs::openat(here, name, LOOK | flags, Mode::empty())?;
            match of_open(&there, Detail::Stat)? {
                node if self.is_on_same(&node) => Ok(there),
                _ => Err(io::Error::other(OTHER_FILE_SYSTEM)),
            }
        };
        let (parents, name) = split(path);
        let mut here = rustix::fs::openat(&self.fd, ".", LOOK | OFlags::DIRECTORY, Mode::empty())?;
        for part in parents.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            here = step(&here, part, OFlags::DIRECTORY)?;
        }
        step(&here, name, more)
    }
}

/// Opens without moving the time of last access, where we may: of files of other users only root may.
pub(super) fn open_unseen(root: &Root, path: &[u8], more: OFlags) -> io::Result<OwnedFd> {
    match root.open_in(path, more | OFlags::NOATIME) {
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => root.open_in(path, more),
        other => other,
    }
}

/// Walks both trees with several threads and shows every name once, in no order. Ends early when `see` says so, which is
/// called by all of them; `look` is called by this one every now and then, and says how much was seen.
pub fn walk(
    sides: [&Root; 2],
    detail: Detail,
    tuner: &mut Tuner,
    see: &(dyn Fn(Seen) -> ControlFlow<()> + Sync),
    look: &mut dyn FnMut() -> f64,
) {
    let together = Together { sides, detail, see, is_over: AtomicBool::new(false) };
    crew::run(Part::Root, tuner, || (), |crew, (), part| together.part(crew, part), look);
}

/// So many names of a directory are one task.
const NAMES_AT_ONCE: usize = 64;

struct Together<'a> {
    sides: [&'a Root; 2],
    detail: Detail,
    see: &'a (dyn Fn(Seen) -> ControlFlow<()> + Sync),
    is_over: AtomicBool,
}

enum Part {
    Root,
    Directory(Step),
    Names(Arc<Listed>, Range<usize>),
}

/// A directory that was listed: each name once, as side by side.
struct Listed {
    step: Step,
    open: [Option<OwnedFd>; 2],
    names: [Names; 2],
    /// Where a name is in either.
    merged: Vec<[Option<u32>; 2]>,
}

impl Together<'_> {
    fn part(&self, crew: &Crew<Part>, part: Part) {
        if self.is_over.load(Ordering::Relaxed) {
            return;
        }
        let flow = match part {
            Part::Root => self.root(crew),
            Part::Directory(step) => self.directory(crew, step),
            Part::Names(listed, range) => self.names(crew, &listed, range),
        };
        if flow.is_break() {
            self.is_over.store(true, Ordering::Relaxed);
        }
    }

    fn see(&self, seen: Seen) -> ControlFlow<()> {
        (self.see)(seen)
    }

    fn root(&self, crew: &Crew<Part>) -> ControlFlow<()> {
        let read = |side: usize| node(&self.sides[side].fd, b".", self.detail);
        let (s, t) = both(Vec::new(), [(Side::Source, read(0)), (Side::Target, read(1))], &mut |seen| self.see(seen))?;
        crew.later(Part::Directory(Step { path: Vec::new(), here: [true, true], ctime: ctime(&s), arrived: ALWAYS }));
        self.see(Seen::Pair(Pair { path: Vec::new(), source: s, target: t, arrived: ALWAYS }))
    }

    fn directory(&self, crew: &Crew<Part>, step: Step) -> ControlFlow<()> {
        let (mut open, mut names) = ([None, None], [Names::default(), Names::default()]);
        for (n, side) in [Side::Source, Side::Target].into_iter().enumerate() {
            if !step.here[n] {
                continue;
            }
            match list(self.sides[n], &step.path) {
                Ok((fd, listed)) => (open[n], names[n]) = (Some(fd), listed),
                Err(error) => {
                    return self.see(Seen::Trouble { side, path: step.path, doing: "listing", error });
                }
            }
        }
        let mut next = [0, 0];
        let merged: Vec<_> = merge(&names[0], &names[1])
            .map(|name| {
                let mut place = |n: usize, here: bool| {
                    next[n] += u32::from(here);
                    here.then(|| next[n] - 1)
                };
                [place(0, name.in_source), place(1, name.in_target)]
            })
            .collect();
        let all = merged.len();
        let listed = Arc::new(Listed { step, open, names, merged });
        if all <= NAMES_AT_ONCE {
            return self.names(crew, &listed, 0..all);
        }
        let parts = (0..all).step_by(NAMES_AT_ONCE).map(|from| from..(from + NAMES_AT_ONCE).min(all));
        crew.urgent(parts.map(|range| Part::Names(listed.clone(), range)));
        ControlFlow::Continue(())
    }

    fn names(&self, crew: &Crew<Part>, listed: &Listed, range: Range<usize>) -> ControlFlow<()> {
        let Listed { step, open, names, merged } = listed;
        for places in &merged[range] {
            let name = |n: usize| places[n].map(|place| names[n].get(place as usize));
            let child = join(&step.path, name(0).or(name(1)).unwrap_or_default());
            let read = |n: usize| match (&open[n], name(n)) {
                (Some(fd), Some(name)) => node(fd, name, self.detail),
                _ => Ok(None),
            };
            let (s, t) =
                both(child.clone(), [(Side::Source, read(0)), (Side::Target, read(1))], &mut |seen| self.see(seen))?;
            let mut here = [false, false];
            for (n, (side, node)) in [(Side::Source, &s), (Side::Target, &t)].into_iter().enumerate() {
                let Some(node) = node else { continue };
                here[n] = node.kind == FileType::Directory;
                if !self.sides[n].is_on_same(node) {
                    here[n] = false;
                    let error = io::Error::other(OTHER_FILE_SYSTEM);
                    self.see(Seen::Trouble { side, path: child.clone(), doing: "entering", error })?;
                }
            }
            if here != [false, false] {
                let ctime = ctime(&s);
                let arrived = trust::arrived(step.arrived, [ctime, step.ctime]);
                crew.later(Part::Directory(Step { path: child.clone(), here, ctime, arrived }));
            }
            if s.is_some() || t.is_some() {
                self.see(Seen::Pair(Pair { path: child, source: s, target: t, arrived: step.arrived }))?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// A directory that is still to be looked into.
struct Step {
    path: Vec<u8>,
    /// On which sides it is there.
    here: [bool; 2],
    /// In the source, like what follows.
    ctime: i128,
    arrived: i128,
}

fn ctime(node: &Option<Node>) -> i128 {
    node.as_ref().map_or(ALWAYS, |node| node.ctime)
}

type Read = (Side, io::Result<Option<Node>>);

/// Takes both readings apart: trouble is told, the rest returned.
fn both(
    path: Vec<u8>,
    sides: [Read; 2],
    see: &mut dyn FnMut(Seen) -> ControlFlow<()>,
) -> ControlFlow<(), (Option<Node>, Option<Node>)> {
    let mut take = |(side, read): Read| match read {
        Ok(node) => ControlFlow::Continue(node),
        Err(error) => {
            see(Seen::Trouble { side, path: path.clone(), doing: "reading", error })?;
            ControlFlow::Continue(None)
        }
    };
    let [source, target] = sides;
    ControlFlow::Continue((take(source)?, take(target)?))
}

/// Opens a directory and reads its names, sorted.
pub(super) fn list(root: &Root, path: &[u8]) -> io::Result<(OwnedFd, Names)> {
    let fd = open_unseen(root, path, OFlags::DIRECTORY)?;
    let names = names(root, path, &fd)?;
    Ok((fd, names))
}

/// The names in the directory at `path` that was opened just now, sorted.
pub(super) fn names(root: &Root, path: &[u8], fd: &OwnedFd) -> io::Result<Names> {
    let mut names = all_names(fd)?;
    let lost_found = names.iter().position(|name| name == LOST_FOUND);
    if path.is_empty()
        && let Some(at) = lost_found
        && is_of_the_file_system(root)?
    {
        names.at.remove(at);
    }
    Ok(names)
}

/// The names in a directory, sorted and packed: a million of them take little more room than their letters.
#[derive(Debug, Default)]
pub(super) struct Names {
    letters: Vec<u8>,
    /// Where each begins, and its length.
    at: Vec<(u32, u16)>,
}

impl Names {
    pub fn len(&self) -> usize {
        self.at.len()
    }

    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    pub fn get(&self, n: usize) -> &[u8] {
        self.cut(self.at[n])
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.at.iter().map(|at| self.cut(*at))
    }

    fn cut(&self, (start, length): (u32, u16)) -> &[u8] {
        &self.letters[start as usize..][..usize::from(length)]
    }

    pub fn push(&mut self, name: &[u8]) -> io::Result<()> {
        let too_many = |_| io::Error::other("more names than fit into memory");
        let start = u32::try_from(self.letters.len()).map_err(too_many)?;
        let length = u16::try_from(name.len()).map_err(too_many)?;
        self.letters.extend_from_slice(name);
        self.at.push((start, length));
        Ok(())
    }

    pub fn sort(&mut self) {
        let Names { letters, at } = self;
        let cut = |(start, length): (u32, u16)| &letters[start as usize..][..usize::from(length)];
        at.sort_unstable_by(|a, b| cut(*a).cmp(cut(*b)));
        // A directory that is changed meanwhile may give a name twice.
        at.dedup_by(|a, b| cut(*a) == cut(*b));
    }
}

/// True if there is something named `lost+found` in the root that is shown like all else.
pub(super) fn lost_found_is_data(root: &Root) -> io::Result<bool> {
    match node(&root.fd, LOST_FOUND, Detail::Stat) {
        Ok(_) => Ok(!is_of_the_file_system(root)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// True if the root's `lost+found` holds nothing.
fn is_of_the_file_system(root: &Root) -> io::Result<bool> {
    match open_unseen(root, LOST_FOUND, OFlags::DIRECTORY) {
        Ok(fd) => Ok(all_names(&fd)?.is_empty()),
        Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            // As mkfs makes it, nobody but root can look into it.
            Some(Errno::ACCESS) => {
                Ok(node(&root.fd, LOST_FOUND, Detail::Stat)?.is_some_and(|n| (n.uid, n.mode) == (0, 0o700)))
            }
            // Something mounted: that is said where it is met.
            None => Ok(false),
            _ => Err(error),
        },
    }
}

/// All names, sorted. What the source does not have is deleted, so a list that broke off must not pass for a whole one:
/// most libraries take ENOENT for the end of a directory.
fn all_names(fd: &OwnedFd) -> io::Result<Names> {
    let (mut names, mut buffer) = (Names::default(), Vec::with_capacity(LISTED_AT_ONCE));
    let mut listing = RawDir::new(fd, buffer.spare_capacity_mut());
    while let Some(entry) = listing.next() {
        match entry {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            Ok(entry) => names.push(entry.file_name().to_bytes())?,
            Err(Errno::INTR) => {}
            // Only of a directory that was removed it is the truth.
            Err(Errno::NOENT) if rustix::fs::fstat(fd)?.st_nlink > 0 => return Err(Errno::IO.into()),
            Err(error) => return Err(error.into()),
        }
    }
    names.sort();
    Ok(names)
}

pub(super) struct Name<'a> {
    pub bytes: &'a [u8],
    pub in_source: bool,
    pub in_target: bool,
}

/// Merges two sorted lists of names.
pub(super) fn merge<'a>(source: &'a Names, target: &'a Names) -> impl Iterator<Item = Name<'a>> {
    let (mut source, mut target) = (source.iter().peekable(), target.iter().peekable());
    std::iter::from_fn(move || {
        let (in_source, in_target) = match (source.peek(), target.peek()) {
            (Some(s), Some(t)) => (s <= t, t <= s),
            (s, t) => (s.is_some(), t.is_some()),
        };
        let (s, t) = (source.next_if(|_| in_source), target.next_if(|_| in_target));
        Some(Name { bytes: s.or(t)?, in_source, in_target })
    })
}

pub(super) fn node(dir: &OwnedFd, name: &[u8], detail: Detail) -> io::Result<Option<Node>> {
    let mut node = stat(dir, name, AtFlags::SYMLINK_NOFOLLOW, detail)?;
    // A directory under its own name says what it is, not where it is.
    node.is_mount &= name != b".";
    if detail == Detail::All {
        if node.kind == FileType::Symlink {
            node.link = rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes();
        }
        (node.xattrs, node.has_foreign_xattrs) = xattrs(dir, name)?;
    }
    Ok(Some(node))
}

/// Attributes of what is open, as [`xattrs`] gives those of a name.
pub(super) fn xattrs_of(fd: &OwnedFd) -> io::Result<(Xattrs, bool)> {
    let list = || loop {
        let mut names = match rustix::fs::flistxattr_query(fd) {
            // Most files have none.
            Ok(0) => return Ok(Vec::new()),
            other => vec![0; other?],
        };
        match rustix::fs::flistxattr(fd, &mut names) {
            Ok(length) => {
                names.truncate(length);
                let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
                return Ok(names.map(<[u8]>::to_vec).collect());
            }
            // More of them came meanwhile.
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let get = |name: &[u8]| {
        let mut value = vec![0; 256];
        loop {
            match rustix::fs::fgetxattr(fd, name, &mut value) {
                Ok(length) => {
                    value.truncate(length);
                    return Ok(Some(value));
                }
                Err(Errno::RANGE) => value.resize(rustix::fs::fgetxattr_query(fd, name)?.max(256), 0),
                Err(Errno::NODATA) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    };
    all_xattrs(&list, &get)
}

/// All attributes that belong to the data, sorted, and whether there are others. One that is listed and not there was
/// removed in between, so all are listed again; one that stays so is a fault of the disk.
fn all_xattrs(list: &dyn Fn() -> io::Result<Vec<Vec<u8>>>, get: &dyn Fn(&[u8]) -> Value) -> io::Result<(Xattrs, bool)> {
    let mut missed = None;
    'again: loop {
        let names = match list() {
            Err(error) if error.raw_os_error() == Some(Errno::NOTSUP.raw_os_error()) => Vec::new(),
            other => other?,
        };
        let (mut found, mut foreign) = (Vec::new(), false);
        for name in names {
            if !compared(&name) {
                foreign |= name != b"security.selinux";
                continue;
            }
            match get(&name)? {
                Some(value) => found.push((name, value)),
                None if missed.as_ref() == Some(&name) => return Err(Errno::IO.into()),
                None => {
                    missed = Some(name);
                    continue 'again;
                }
            }
        }
        found.sort_unstable();
        return Ok((found, foreign));
    }
}

/// What an open descriptor belongs to.
pub(super) fn of_open(fd: &OwnedFd, detail: Detail) -> io::Result<Node> {
    stat(fd, b"", AtFlags::EMPTY_PATH, detail)
}

fn stat(dir: &OwnedFd, name: &[u8], flags: AtFlags, detail: Detail) -> io::Result<Node> {
    let asked = if detail == Detail::Stat { AtFlags::empty() } else { AtFlags::STATX_FORCE_SYNC };
    match rustix::fs::statx(dir, name, flags | asked | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS) {
        Ok(stat) => Ok(from_statx(&stat)),
        // Old kernels and some sandboxes do not have it.
        Err(Errno::NOSYS) => Ok(from_stat(&rustix::fs::statat(dir, name, flags)?)),
        Err(error) => Err(error.into()),
    }
}

fn from_statx(stat: &Statx) -> Node {
    let time = |time: StatxTimestamp| i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    Node {
        kind: FileType::from_raw_mode(stat.stx_mode.into()),
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        size: stat.stx_size,
        allocated: stat.stx_blocks * 512,
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
        rdev: rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
        dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        ino: stat.stx_ino,
        nlink: stat.stx_nlink.into(),
        is_mount: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        link: Vec::new(),
        xattrs: Vec::new(),
        has_foreign_xattrs: false,
    }
}

#[allow(clippy::useless_conversion, reason = "the kernel's types differ by architecture")]
fn from_stat(stat: &Stat) -> Node {
    let nanoseconds = |s: i64, ns: i128| i128::from(s) * 1_000_000_000 + ns;
    Node {
        kind: FileType::from_raw_mode(stat.st_mode),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        allocated: u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
        mtime: nanoseconds(stat.st_mtime, stat.st_mtime_nsec.into()),
        ctime: nanoseconds(stat.st_ctime, stat.st_ctime_nsec.into()),
        rdev: stat.st_rdev,
        dev: stat.st_dev,
        ino: stat.st_ino,
        nlink: stat.st_nlink.into(),
        is_mount: false,
        link: Vec::new(),
        xattrs: Vec::new(),
        has_foreign_xattrs: false,
    }
}

/// Of an attribute, if it is there.
type Value = io::Result<Option<Vec<u8>>>;

pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Attributes of the entry itself, whatever its type. Sockets and links cannot be opened, so it goes through the
/// open directory's own name in /proc, which no rename can redirect.
pub(super) fn xattrs(dir: &OwnedFd, name: &[u8]) -> io::Result<(Xattrs, bool)> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let path = Path::new(std::ffi::OsStr::from_bytes(&path));
    let list = || Ok(xattr::list(path)?.map(OsStringExt::into_vec).collect());
    all_xattrs(&list, &|name| xattr::get(path, std::ffi::OsStr::from_bytes(name)))
}

/// True for the attributes that belong to the data. SELinux labels belong to the pod that mounts it; other `system.`
/// attributes (an NFS server's or SMB server's own ACLs) appear and vanish with the file system and rsync, like every
/// other tool, does not carry them.
pub fn compared(name: &[u8]) -> bool {
    let posix_acl: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
    name != b"security.selinux" && (!name.starts_with(b"system.") || posix_acl.contains(&name))
}

pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// A path for people: `.` for the root; backslashes, control characters and bytes that are no UTF-8 escaped.
pub fn shown(path: &[u8]) -> String {
    if path.is_empty() {
        return ".".into();
    }
    let mut out = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("writing to a string cannot fail");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn paths_are_shown_without_doubt() {
        for (path, text) in [
            (&b""[..], "."),
            (b"a/b c", "a/b c"),
            (b"caf\xc3\xa9", "café"),
            (b"caf\xe9", "caf\\xe9"),
            (b"a\nb", "a\\nb"),
            (b"\x1b[31m", "\\u{1b}[31m"),
            (b"a\\nb", "a\\\\nb"),
        ] {
            assert_eq!(shown(path), text);
        }
    }

    #[test]
    fn the_file_systems_own_attributes_do_not_count() {
        for (name, counts) in [
            ("user.x", true),
            ("trusted.x", true),
            ("security.capability", true),
            ("system.posix_acl_default", true),
            ("security.selinux", false),
            ("system.nfs4_acl", false),
        ] {
            assert_eq!(compared(name.as_bytes()), counts, "{name}");
        }
    }

    #[test]
    fn an_attribute_that_goes_is_gone_and_one_that_cannot_be_read_is_a_fault() {
        let listed = std::cell::RefCell::new(vec![vec!["user.a", "user.b", "system.x"], vec!["user.a"]]);
        let list = || {
            let mut all = listed.borrow_mut();
            let now = if all.len() > 1 { all.remove(0) } else { all[0].clone() };
            Ok(now.into_iter().map(|name| name.as_bytes().to_vec()).collect())
        };
        let get = |name: &[u8]| Ok((name == b"user.a").then(|| b"1".to_vec()));
        assert_eq!(all_xattrs(&list, &get).unwrap(), (vec![(b"user.a".to_vec(), b"1".to_vec())], false));
        listed.replace(vec![vec!["user.a", "user.b"]]);
        assert_eq!(all_xattrs(&list, &get).unwrap_err().raw_os_error(), Some(5));
        let none = || Err(io::Error::from(Errno::NOTSUP));
        assert_eq!(all_xattrs(&none, &get).unwrap(), (Vec::new(), false));
    }

    #[test]
    fn a_list_that_broke_off_is_no_list() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/d")).unwrap();
        let root = Root::open(&dir.path().join("root")).unwrap();
        let fd = open_unseen(&root, b"d", OFlags::DIRECTORY).unwrap();
        fs::remove_dir(dir.path().join("root/d")).unwrap();
        // The system says ENOENT, which is the end of a directory to most libraries.
        assert_eq!(names(&root, b"d", &fd).unwrap_err().kind(), io::ErrorKind::NotFound);
        for n in 0..3000 {
            fs::write(dir.path().join(format!("root/{n:0200}")), "").unwrap();
        }
        let all = list(&root, b"").unwrap().1;
        assert!(all.len() == 3000 && all.iter().is_sorted() && all.get(7).ends_with(b"0007"));
    }

    #[test]
    fn both_ways_of_asking_say_the_same() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        for path in [dir.path(), &dir.path().join("file"), Path::new("/dev/null"), Path::new("/dev/full")] {
            let fd = rustix::fs::open(path, OFlags::PATH, Mode::empty()).unwrap();
            let old = from_stat(&rustix::fs::fstat(&fd).unwrap());
            let new = Node { is_mount: false, ..of_open(&fd, Detail::Now).unwrap() };
            assert_eq!(format!("{old:?}"), format!("{new:?}"));
        }
    }

    #[test]
    fn no_link_leads_out_by_either_way_of_opening() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("root/d/e")).unwrap();
        fs::write(at("outside"), "").unwrap();
        fs::write(at("root/d/e/file"), "").unwrap();
        std::os::unix::fs::symlink("../outside", at("root/link")).unwrap();
        std::os::unix::fs::symlink("d", at("root/inner")).unwrap();
        let root = Root::open(&at("root")).unwrap();
        for without in [false, true] {
            root.no_openat2.store(without, Ordering::Relaxed);
            for (path, opens) in [
                (&b""[..], true),
                (b"d", true),
                (b"d/e/file", true),
                (b"link", false),
                (b"inner/e/file", false),
                (b"absent", false),
            ] {
                let opened = root.open_in(path, OFlags::empty());
                assert_eq!(opened.is_ok(), opens, "{} {without}", shown(path));
            }
        }
    }
}
