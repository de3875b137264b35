//! An [`ObjectStore`] over [`Fs`] whose puts are durable before they are visible.
//!
//! A put writes a staging file beside its target, syncs it, gives it its name (`hard_link` where it must not exist
//! yet, else `rename`), and syncs the folder. A reader, and a power cut, finds the old object or the whole new one.
//! Staging files that a crash left behind are never listed and are swept at the next start ([`FsStore::sweep`]).
//!
//! `object_store`'s own `LocalFileSystem` does not sync at all in this version, so a Delta commit could be lost, or be
//! found empty, after it was acknowledged. Listings are in the order of the paths, as Delta readers expect of a store.

use std::fmt;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use futures::stream::{self, BoxStream, StreamExt as _};
use object_store::path::{Path, PathPart};
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use crate::fs::{Fs, is_no_room};

/// Marks staging files; no object's name holds it.
const STAGING: &str = "#staging-";

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct FsStore {
    fs: Arc<dyn Fs>,
    root: PathBuf,
    staged: Arc<AtomicU64>,
    no_room: Arc<AtomicBool>,
}

impl fmt::Display for FsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FsStore({})", self.root.display())
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    let path = path.to_string();
    match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path, source: Box::new(source) },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: Box::new(source) },
        _ => Error::Generic { store: "lake", source: Box::new(source) },
    }
}

impl FsStore {
    /// A store of the objects below `root`, which must exist.
    pub(crate) fn new(fs: Arc<dyn Fs>, root: PathBuf) -> Self {
        Self { fs, root, staged: Arc::default(), no_room: Arc::default() }
    }

    fn file(&self, path: &Path) -> PathBuf {
        path.parts().fold(self.root.clone(), |file, part| file.join(part.as_ref()))
    }

    /// Creates the folder of a file and makes the names of all new folders durable.
    fn create_folder(&self, folder: &FsPath) -> io::Result<()> {
        match self.fs.metadata(folder) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                crate::fs::create_dir_all_synced(&*self.fs, folder)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a put found no room since the last such question. The libraries between here and there turn errors into
    /// texts, so this cannot be read from theirs.
    pub(crate) fn take_no_room(&self) -> bool {
        self.no_room.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn put_durably(&self, path: &Path, chunks: &[Bytes], create: bool) -> io::Result<()> {
        self.put(path, chunks, create).inspect_err(|error| {
            if is_no_room(error) {
                self.no_room.store(true, Ordering::Relaxed);
            }
        })
    }

    fn put(&self, path: &Path, chunks: &[Bytes], create: bool) -> io::Result<()> {
        let mut staged = self.stage(path)?;
        for chunk in chunks {
            staged.write_all(chunk)?;
        }
        staged.publish(create).map(drop)
    }

    /// A store of the same objects that tells of no room on its own.
    pub(crate) fn apart(&self) -> Self {
        Self { no_room: Arc::default(), ..self.clone() }
    }

    /// Begins to write an object, which is not there before it is published.
    pub(crate) fn stage(&self, path: &Path) -> io::Result<Staged> {
        let file = self.file(path);
        let folder = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
        self.create_folder(folder)?;
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let staging = folder.join(format!("{name}{STAGING}{}-{number}", std::process::id()));
        let out = self.fs.create_new(&staging)?;
        let no_room = Arc::clone(&self.no_room);
        Ok(Staged { fs: Arc::clone(&self.fs), file, staging: Some(staging), out, bytes: 0, no_room })
    }

    /// The whole of an object.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Bytes> {
        self.fs.read(&self.file(path))
    }

    /// Bytes that may still be written.
    pub(crate) fn available_bytes(&self) -> io::Result<u64> {
        self.fs.available_bytes(&self.root)
    }

    /// Random hex digits for a name.
    pub(crate) fn token(&self) -> io::Result<String> {
        Ok(format!("{:016x}", u128::from_be_bytes(self.fs.random_bytes()?) >> 64))
    }

    fn meta(&self, path: &Path) -> io::Result<ObjectMeta> {
        let meta = self.fs.metadata(&self.file(path))?;
        if meta.is_dir {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(ObjectMeta {
            location: path.clone(),
            last_modified: DateTime::from_timestamp_micros(meta.modified_micros).unwrap_or_default(),
            size: meta.len,
            e_tag: None,
            version: None,
        })
    }

    /// Paths of all objects below a prefix, in their order.
    pub(crate) fn walk(&self, prefix: &Path) -> io::Result<Vec<Path>> {
        self.walk_after(prefix, None)
    }

    /// Paths of the objects below a prefix that come after this one.
    fn walk_after(&self, prefix: &Path, after: Option<&Path>) -> io::Result<Vec<Path>> {
        let mut found = Vec::new();
        self.walk_into(prefix, after, &mut found)?;
        found.sort_unstable();
        Ok(found)
    }

    fn walk_into(&self, prefix: &Path, after: Option<&Path>, found: &mut Vec<Path>) -> io::Result<()> {
        let entries = match self.fs.list_dir(&self.file(prefix)) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // A path costs far more than a name, and a refresh asks for the few that are new of a long log.
        let after_name = after.and_then(|after| after.prefix_match(prefix)?.next());
        let after_name = after_name.as_ref().map(PathPart::as_ref);
        for entry in entries {
            let is_before = |after| PathPart::from(entry.name.as_str()).as_ref() < after;
            if !entry.is_dir && after_name.is_some_and(is_before) {
                continue;
            }
            let path = prefix.clone().join(entry.name.as_str());
            if entry.is_dir {
                self.walk_into(&path, after, found)?;
            } else if !entry.name.contains(STAGING) && after.is_none_or(|after| &path > after) {
                found.push(path);
            }
        }
        Ok(())
    }

    /// Removes an object.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.fs.remove_file(&self.file(path))
    }

    /// Removes the staging files that a crash left behind, and makes every other name durable: a process that was killed
    /// may have given it without syncing its folder, and what is found now is built upon. Only while nothing writes.
    pub(crate) fn sweep(&self) -> io::Result<u64> {
        fn sweep(fs: &dyn Fs, folder: &FsPath) -> io::Result<u64> {
            let mut swept = 0;
            for entry in fs.list_dir(folder)? {
                let path = folder.join(&entry.name);
                if entry.is_dir {
                    swept += sweep(fs, &path)?;
                } else if entry.name.contains(STAGING) {
                    fs.remove_file(&path)?;
                    swept += 1;
                }
            }
            fs.sync_dir(folder)?;
            Ok(swept)
        }
        sweep(&*self.fs, &self.root)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.map_err(|panic| failed(path, io::Error::other(panic)))?.map_err(|error| failed(path, error))
    }

    fn listing(&self, prefix: Option<&Path>, after: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let (prefix, after) = (prefix.cloned().unwrap_or_default(), after.cloned());
        stream::once(async move {
            match store.list_all(prefix, after).await {
                Ok(metas) => stream::iter(metas),
                Err(error) => stream::iter(vec![Err(error)]),
            }
        })
        .flatten()
        .boxed()
    }

    async fn list_all(&self, prefix: Path, after: Option<Path>) -> Result<Vec<Result<ObjectMeta>>> {
        let at = prefix.clone();
        self.blocking(&at, move |store| {
            let paths = store.walk_after(&prefix, after.as_ref())?;
            let metas = paths.iter().map(|path| store.meta(path).map_err(|error| failed(path, error)));
            // A file may be removed between the listing and the look at it.
            Ok(metas.filter(|meta| !matches!(meta, Err(Error::NotFound { .. }))).collect())
        })
        .await
    }
}

/// An object that is being written. Dropped, it never was.
#[derive(Debug)]
pub(crate) struct Staged {
    fs: Arc<dyn Fs>,
    file: PathBuf,
    /// What is to be removed in the end.
    staging: Option<PathBuf>,
    out: Box<dyn crate::fs::File>,
    bytes: u64,
    no_room: Arc<AtomicBool>,
}

impl Staged {
    /// Makes it durable and gives it its name; its size in bytes. With `create`, there must be nothing of that name.
    pub(crate) fn publish(mut self, create: bool) -> io::Result<u64> {
        self.out.sync_all()?;
        let Some(staging) = self.staging.take() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let named = if create { self.fs.hard_link(&staging, &self.file) } else { self.fs.rename(&staging, &self.file) };
        if create || named.is_err() {
            // Left behind, it is swept at the next start.
            drop(self.fs.remove_file(&staging));
        }
        named?;
        self.fs.sync_dir(self.file.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        Ok(self.bytes)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(staging) = self.staging.take() {
            drop(self.fs.remove_file(&staging));
        }
    }
}

impl io::Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write_all(bytes);
        // What encodes the rows makes a text of the error.
        self.no_room.fetch_or(written.as_ref().is_err_and(is_no_room), Ordering::Relaxed);
        written?;
        self.out.begin_to_sync(self.bytes, bytes.len() as u64);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for FsStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "conditional update".into(),
                    implementer: "FsStore".into(),
                });
            }
        };
        let path = location.clone();
        self.blocking(location, move |store| {
            let chunks: Vec<Bytes> = payload.into_iter().collect();
            store.put_durably(&path, &chunks, create)
        })
        .await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Upload { store: self.clone(), location: location.clone(), parts: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let path = location.clone();
        let wanted = options.range.clone();
        let head = options.head;
        let (meta, range, bytes) = self
            .blocking(location, move |store| {
                let meta = store.meta(&path)?;
                let range = match wanted {
                    Some(range) => range.as_range(meta.size).map_err(io::Error::other)?,
                    None => 0..meta.size,
                };
                let bytes = if head { Bytes::new() } else { store.fs.read_range(&store.file(&path), range.clone())? };
                if !head && bytes.len() as u64 != range.end - range.start {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok((meta, range, bytes))
            })
            .await?;
        options.check_preconditions(&meta)?;
        let payload = GetResultPayload::Stream(stream::once(std::future::ready(Ok(bytes))).boxed());
        Ok(GetResult { payload, meta, range, attributes: Attributes::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let path = location.clone();
        let ranges = ranges.to_vec();
        self.blocking(location, move |store| {
            let file = store.file(&path);
            ranges.into_iter().map(|range| store.fs.read_range(&file, range)).collect()
        })
        .await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let path = location.clone();
                    store.blocking(&location, move |store| store.fs.remove_file(&store.file(&path))).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, None)
    }

    /// The default looks at every file below the prefix first, which in a long `_delta_log` costs more than a commit.
    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        let at = prefix.clone();
        self.blocking(&at, move |store| {
            let mut result = ListResult { common_prefixes: Vec::new(), objects: Vec::new() };
            let entries = match store.fs.list_dir(&store.file(&prefix)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(result),
                Err(error) => return Err(error),
            };
            for entry in entries {
                let path = prefix.clone().join(entry.name.as_str());
                if entry.is_dir {
                    result.common_prefixes.push(path);
                } else if !entry.name.contains(STAGING) {
                    result.objects.push(store.meta(&path)?);
                }
            }
            Ok(result)
        })
        .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (source, target) = (from.clone(), to.clone());
        self.blocking(from, move |store| {
            let bytes = store.fs.read(&store.file(&source))?;
            store.put_durably(&target, &[bytes], matches!(options.mode, CopyMode::Create))
        })
        .await
    }
}

/// Parts are kept until the upload is complete; what the lake writes in parts (checkpoints) is small.
#[derive(Debug)]
struct Upload {
    store: FsStore,
    location: Path,
    parts: Vec<Bytes>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.extend(data);
        Box::pin(std::future::ready(Ok(())))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (path, parts) = (self.location.clone(), std::mem::take(&mut self.parts));
        self.store.blocking(&self.location, move |store| store.put_durably(&path, &parts, false)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}
