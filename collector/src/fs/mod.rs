//! The seam for all durable I/O: everything that must survive a power cut goes through [`Fs`].
//!
//! # What it is
//! A small file system interface of blocking calls, used as `Arc<dyn Fs>`. [`real::RealFs`] is the machine's file
//! system; [`sim::SimFs`] is one in memory that knows what a power cut leaves, so that crash tests can stop at
//! every operation.
//!
//! # Guarantees
//! What a caller may count on is what POSIX and ext4 give, not more:
//! * The content of a file is durable after [`File::sync_data`] or [`File::sync_all`] has returned `Ok`.
//! * A name in a folder (created, renamed, linked, removed) is durable after [`Fs::sync_dir`] of that folder. A sync of
//!   the file does not do that.
//! * [`Fs::create_new`] and [`Fs::hard_link`] never replace anything; [`Fs::rename`] replaces atomically.
//!
//! # Failure
//! After a failed sync the unsynced data may be gone although it can still be read, and a second sync would answer
//! `Ok` for nothing. Nobody may try a failed sync again: stop, start anew, and write the data again.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

pub mod real;
pub mod sim;

/// What is known about a file or folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// Length in bytes; 0 for folders.
    pub len: u64,
    /// Last change, in microseconds since 1970-01-01T00:00:00Z.
    pub modified_micros: i64,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// A name in a folder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    /// The last component of its path.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// An open file that grows at its end.
pub trait File: Send + Debug {
    /// Appends all of `bytes`. After an error any prefix may have been written; [`File::set_len`] cuts it off.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Appends all of `slices`, in one system call where the machine allows it; they are advanced. Errors as in
    /// [`File::write_all`].
    fn write_vectored_all(&mut self, slices: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Overwrites the bytes from `offset` (in bytes) on, which must lie within the file or end it.
    fn write_all_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content durable, and of the metadata what is needed to read it.
    fn sync_data(&mut self) -> io::Result<()>;

    /// Makes content and metadata durable.
    fn sync_all(&mut self) -> io::Result<()>;

    /// Tells the machine that nobody is about to read what is durable, so that its memory can be used for what is
    /// written next. A hint, of no consequence for the content.
    fn drop_cache(&mut self) {}

    /// Tells the machine to begin to write these bytes to the disk, so that a sync at the end of a large file is not a burst that
    /// others who sync must wait for. A hint, of no consequence for the content.
    fn begin_to_sync(&mut self, _offset: u64, _len: u64) {}

    /// Cuts the file off, or extends it with zeros, to `len` bytes; appending goes on from there.
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Holds a folder; given back when dropped, or when the process dies.
pub trait DirLock: Send + Sync + Debug {}

/// A file system. All paths are used as they are given; all calls block.
pub trait Fs: Send + Sync + Debug + 'static {
    /// Creates the folder and those above it; fine if it is there already. The new names are not durable: see
    /// [`create_dir_all_synced`].
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Creates an empty file; `AlreadyExists` if there is something of that name.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Opens an existing file to write at its end.
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// The whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Bytes>;

    /// The bytes of `range`; fewer, or none, if the file ends before.
    fn read_range(&self, path: &Path, range: Range<u64>) -> io::Result<Bytes>;

    /// Length, time of last change, kind.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// The names in a folder, sorted.
    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Gives a file another name, and atomically replaces what has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file one more name; `AlreadyExists` if there is something of that name.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Bytes that may still be written there.
    fn available_bytes(&self, path: &Path) -> io::Result<u64>;

    /// Takes an existing folder for this holder alone; `WouldBlock` if someone else has it, in this process or another.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DirLock>>;

    /// 16 random bytes, for identities; a simulated file system draws them from its seed.
    fn random_bytes(&self) -> io::Result<[u8; 16]>;
}

/// Whether the device, or what may be used of it, is full: the only failure that may pass by itself.
#[must_use]
pub fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Creates the folder and those above it, and makes their names durable. Names that were there already are synced too,
/// since an earlier run may have ended between the two, but not in folders that this process may not read.
///
/// # Errors
/// Those of the file system; some folders may have been created then.
pub fn create_dir_all_synced(fs: &dyn Fs, path: &Path) -> io::Result<()> {
    let mut known = Vec::new();
    for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        let there = match fs.metadata(dir) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        known.push((dir, there));
    }
    fs.create_dir_all(path)?;
    for (dir, was_there) in known {
        let Some(parent) = dir.parent() else { continue };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match fs.sync_dir(parent) {
            Err(error) if was_there && error.kind() == io::ErrorKind::PermissionDenied => {}
            done => done?,
        }
    }
    Ok(())
}
