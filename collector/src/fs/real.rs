//! The machine's file system.

use std::fs::{DirBuilder, File as StdFile, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;

use super::{DirEntry, DirLock, File, Fs, Metadata};

/// The machine's file system.
#[derive(Debug, Clone, Copy)]
pub struct RealFs {
    file_mode: u32,
    dir_mode: u32,
}

impl RealFs {
    /// What it creates can be read by its owner alone: files 0600, folders 0700.
    #[must_use]
    pub const fn private() -> Self {
        Self { file_mode: 0o600, dir_mode: 0o700 }
    }

    /// What it creates can be read by whom the process's umask allows.
    #[must_use]
    pub const fn shared() -> Self {
        Self { file_mode: 0o666, dir_mode: 0o777 }
    }
}

/// Writes go to the cursor, which always stands at the end: unlike with `O_APPEND`, positioned writes stay possible.
#[derive(Debug)]
struct RealFile(StdFile);

#[derive(Debug)]
struct RealLock {
    _held: StdFile,
}

impl DirLock for RealLock {}

impl Fs for RealFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(self.dir_mode).create(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(self.file_mode).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Box::new(RealFile(file)))
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        std::fs::read(path).map(Bytes::from)
    }

    fn read_range(&self, path: &Path, range: Range<u64>) -> io::Result<Bytes> {
        let wanted = range.end.saturating_sub(range.start);
        let mut file = StdFile::open(path)?;
        let there = file.metadata()?.len().saturating_sub(range.start).min(wanted);
        let mut bytes = Vec::with_capacity(usize::try_from(there).map_err(io::Error::other)?);
        if there > 0 {
            file.seek(SeekFrom::Start(range.start))?;
            file.take(there).read_to_end(&mut bytes)?;
        }
        Ok(bytes.into())
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let meta = std::fs::metadata(path)?;
        let modified_micros = meta.mtime().saturating_mul(1_000_000).saturating_add(meta.mtime_nsec() / 1_000);
        let len = if meta.is_dir() { 0 } else { meta.len() };
        Ok(Metadata { len, modified_micros, is_dir: meta.is_dir() })
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|name| {
                io::Error::new(io::ErrorKind::InvalidData, format!("file name {name:?} is not UTF-8"))
            })?;
            let is_dir = entry.file_type()?.is_dir();
            entries.push(DirEntry { name, is_dir });
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        StdFile::open(path)?.sync_all()
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DirLock>> {
        // flock(2) on the folder itself: bound to this open file, so the kernel gives it back when the process dies.
        let held = StdFile::open(dir)?;
        match held.try_lock() {
            Ok(()) => Ok(Box::new(RealLock { _held: held })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn random_bytes(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        StdFile::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl File for RealFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn write_vectored_all(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        // Skips empty slices at the front, so that a return of 0 below means that nothing could be written.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match self.0.write_vectored(slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_all_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)?;
        self.0.seek(SeekFrom::End(0)).map(drop)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }

    #[cfg(target_os = "linux")]
    fn drop_cache(&mut self) {
        let _a_hint = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed);
    }

    #[cfg(target_os = "linux")]
    fn begin_to_sync(&mut self, offset: u64, len: u64) {
        // Linux begins to write what is not written yet, and keeps in memory what is being written.
        let _a_hint = rustix::fs::fadvise(&self.0, offset, len.try_into().ok(), rustix::fs::Advice::DontNeed);
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)?;
        self.0.seek(SeekFrom::Start(len)).map(drop)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
