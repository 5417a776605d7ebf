//! A directory behind a wire: every operation takes so long, and any number of them at once.
//!
//! A file system in this process that passes everything on to a directory, after a pause. What the kernel remembers of
//! names and attributes for a second is not asked for again, as on NFS. Needs root and /dev/fuse.

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, SessionACL, TimeOrNow, WriteFlags,
};
use rustix::fs::{AtFlags, CWD, FileType as Kind, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// For so long the kernel remembers.
const REMEMBERED: Duration = Duration::from_secs(1);
/// So many operations are under way at most.
const AT_ONCE: usize = 128;

/// Mounts `directory` at `place` until what is returned is dropped.
///
/// # Errors
/// If it cannot be mounted here.
pub fn mount(directory: &Path, place: &Path, delay: Duration) -> io::Result<fuser::BackgroundSession> {
    let root = rustix::fs::open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let nodes = Mutex::new(HashMap::from([(INodeNo::ROOT, (Arc::new(root), 1))]));
    let files = Mutex::default();
    let mut config = Config::default();
    (config.n_threads, config.clone_fd, config.acl) = (Some(AT_ONCE), true, SessionACL::Owner);
    fuser::spawn_mount(Slow { delay, nodes, files }, place, &config)
}

struct Slow {
    delay: Duration,
    /// What the kernel knows of, and how often it was told.
    nodes: Mutex<HashMap<INodeNo, (Arc<OwnedFd>, u64)>>,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    next: u64,
    open: HashMap<u64, Arc<File>>,
    listed: HashMap<u64, Arc<Vec<Listed>>>,
}

type Listed = (INodeNo, FileType, Vec<u8>);

impl Slow {
    /// Everything begins with it.
    #[expect(clippy::disallowed_methods, reason = "the delay is what this is for")]
    fn wait(&self) {
        std::thread::sleep(self.delay);
    }

    fn node(&self, ino: INodeNo) -> io::Result<Arc<OwnedFd>> {
        let nodes = self.nodes.lock().expect("nobody panics");
        nodes.get(&ino).map(|(fd, _)| fd.clone()).ok_or_else(|| io::Error::from_raw_os_error(2))
    }

    fn proc(&self, ino: INodeNo) -> io::Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/self/fd/{}", self.node(ino)?.as_raw_fd())))
    }

    fn attr_of(&self, fd: &OwnedFd, is_root: bool) -> io::Result<FileAttr> {
        let stat = rustix::fs::fstat(fd)?;
        let time = |seconds: i64, nanos: i64| {
            let whole = Duration::new(seconds.unsigned_abs(), 0);
            let base = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
            base + Duration::from_nanos(nanos.unsigned_abs())
        };
        Ok(FileAttr {
            ino: if is_root { INodeNo::ROOT } else { INodeNo(stat.st_ino) },
            size: stat.st_size.unsigned_abs(),
            blocks: stat.st_blocks.unsigned_abs(),
            atime: time(stat.st_atime, stat.st_atime_nsec as i64),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec as i64),
            crtime: UNIX_EPOCH,
            kind: kind(Kind::from_raw_mode(stat.st_mode)),
            perm: (stat.st_mode & 0o7777) as u16,
            nlink: stat.st_nlink as u32,
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: stat.st_rdev as u32,
            blksize: 4096,
            flags: 0,
        })
    }

    fn attr(&self, ino: INodeNo) -> io::Result<FileAttr> {
        self.attr_of(&*self.node(ino)?, ino == INodeNo::ROOT)
    }

    fn entry(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*self.node(parent)?, name, flags, Mode::empty())?;
        let attr = self.attr_of(&fd, false)?;
        let mut nodes = self.nodes.lock().expect("nobody panics");
        nodes.entry(attr.ino).or_insert_with(|| (Arc::new(fd), 0)).1 += 1;
        Ok(attr)
    }

    fn keep(&self, file: File) -> FileHandle {
        let mut files = self.files.lock().expect("nobody panics");
        files.next += 1;
        let handle = files.next;
        files.open.insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        let files = self.files.lock().expect("nobody panics");
        files.open.get(&handle.0).cloned().ok_or_else(|| io::Error::from_raw_os_error(9))
    }

    fn answer(&self, made: io::Result<FileAttr>, reply: ReplyEntry) {
        match made {
            Ok(attr) => reply.entry(&REMEMBERED, &attr, Generation(0)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn set(&self, ino: INodeNo, change: Change) -> io::Result<FileAttr> {
        let node = self.node(ino)?;
        let Change { mode, uid, gid, size, atime, mtime } = change;
        if uid.is_some() || gid.is_some() {
            rustix::fs::chownat(&*node, "", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = mode {
            rustix::fs::chmodat(CWD, self.proc(ino)?, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        if let Some(size) = size {
            File::options().write(true).open(self.proc(ino)?)?.set_len(size)?;
        }
        if atime.is_some() || mtime.is_some() {
            let time = |time: Option<TimeOrNow>| match time {
                None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
                Some(TimeOrNow::SpecificTime(time)) => {
                    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
                    Timespec { tv_sec: since.as_secs() as i64, tv_nsec: since.subsec_nanos().into() }
                }
            };
            let times = Timestamps { last_access: time(atime), last_modification: time(mtime) };
            rustix::fs::utimensat(CWD, self.proc(ino)?, &times, AtFlags::empty())?;
        }
        self.attr(ino)
    }
}

struct Change {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
}

fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn told(attr: io::Result<FileAttr>, reply: ReplyAttr) {
    match attr {
        Ok(attr) => reply.attr(&REMEMBERED, &attr),
        Err(error) => reply.error(error.into()),
    }
}

fn done(made: io::Result<()>, reply: ReplyEmpty) {
    match made {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}

impl Filesystem for Slow {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.wait();
        self.answer(self.entry(parent, name), reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, times: u64) {
        let mut nodes = self.nodes.lock().expect("nobody panics");
        if let Some((_, known)) = nodes.get_mut(&ino) {
            *known = known.saturating_sub(times);
            if *known == 0 && ino != INodeNo::ROOT {
                nodes.remove(&ino);
            }
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.wait();
        told(self.attr(ino), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.wait();
        told(self.set(ino, Change { mode, uid, gid, size, atime, mtime }), reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        self.wait();
        let made = self.node(parent).and_then(|dir| {
            rustix::fs::mkdirat(&*dir, name, Mode::from_raw_mode(mode))?;
            self.entry(parent, name)
        });
        self.answer(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.wait();
        let unlink = |dir: Arc<OwnedFd>| Ok(rustix::fs::unlinkat(&*dir, name, AtFlags::empty())?);
        done(self.node(parent).and_then(unlink), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.wait();
        let remove = |dir: Arc<OwnedFd>| Ok(rustix::fs::unlinkat(&*dir, name, AtFlags::REMOVEDIR)?);
        done(self.node(parent).and_then(remove), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.wait();
        let renamed = self
            .node(parent)
            .and_then(|from| Ok(rustix::fs::renameat(&*from, name, &*self.node(new_parent)?, new_name)?));
        done(renamed, reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.wait();
        let linked = self.proc(ino).and_then(|path| {
            rustix::fs::linkat(CWD, path, &*self.node(parent)?, name, AtFlags::SYMLINK_FOLLOW)?;
            self.entry(parent, name)
        });
        self.answer(linked, reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.wait();
        let flags =
            OFlags::from_bits_retain(flags.0.cast_unsigned()) - OFlags::NOFOLLOW - OFlags::CREATE - OFlags::EXCL;
        match self.proc(ino).and_then(|path| Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?)) {
            Ok(fd) => reply.opened(self.keep(fd.into()), FopenFlags::empty()),
            Err(error) => reply.error(error.into()),
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, flags: i32, reply: ReplyCreate) {
        self.wait();
        let flags = OFlags::from_bits_retain(flags.cast_unsigned()) | OFlags::CREATE | OFlags::CLOEXEC;
        let made = self.node(parent).and_then(|dir| {
            let fd = rustix::fs::openat(&*dir, name, flags, Mode::from_raw_mode(mode))?;
            Ok((fd, self.entry(parent, name)?))
        });
        match made {
            Ok((fd, attr)) => {
                reply.created(&REMEMBERED, &attr, Generation(0), self.keep(fd.into()), FopenFlags::empty());
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.wait();
        let mut buffer = vec![0; size as usize];
        match self.file(handle).and_then(|file| file.read_at(&mut buffer, offset)) {
            Ok(bytes) => reply.data(&buffer[..bytes]),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.wait();
        match self.file(handle).and_then(|file| file.write_all_at(data, offset)) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error.into()),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.files.lock().expect("nobody panics").open.remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.wait();
        done(self.file(handle).and_then(|file| file.sync_all()), reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.wait();
        let listed = self.proc(ino).and_then(|path| {
            let dir = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let entries = rustix::fs::Dir::read_from(&dir)?.map(|entry| {
                let entry = entry?;
                Ok((INodeNo(entry.ino()), kind(entry.file_type()), entry.file_name().to_bytes().to_vec()))
            });
            entries.collect::<io::Result<Vec<_>>>()
        });
        match listed {
            Ok(listed) => {
                let mut files = self.files.lock().expect("nobody panics");
                files.next += 1;
                let handle = files.next;
                files.listed.insert(handle, Arc::new(listed));
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.wait();
        let listed = self.files.lock().expect("nobody panics").listed.get(&handle.0).cloned();
        let Some(listed) = listed else { return reply.error(Errno::EBADF) };
        for (n, (ino, kind, name)) in listed.iter().enumerate().skip(offset as usize) {
            if reply.add(*ino, n as u64 + 1, *kind, OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.files.lock().expect("nobody panics").listed.remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.wait();
        match self.node(INodeNo::ROOT).and_then(|root| Ok(rustix::fs::fstatvfs(&*root)?)) {
            Ok(s) => reply.statfs(
                s.f_blocks,
                s.f_bfree,
                s.f_bavail,
                s.f_files,
                s.f_ffree,
                s.f_bsize as u32,
                255,
                s.f_frsize as u32,
            ),
            Err(error) => reply.error(error.into()),
        }
    }
}
