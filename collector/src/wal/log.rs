//! The core of the log.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use toolgauge_proto::id::{WalPosition, WriterId};
use toolgauge_proto::time::UnixMicros;

use super::digest::{Digests, Prepared};
use super::format::{self, FrameHead, HEAD_BYTES, SegmentHeader};
use super::recover::{Active, Recovery, Sealed, draw_marker, recover};
use super::replay::{Extent, Replay};
use super::{Appended, Frame, FrameContent, WalCounters, WalError, WalSettings};
use crate::export::{Export, Refusal};
use crate::fs::{DirLock, File, Fs, create_dir_all_synced, is_no_room};

/// A frame that waits for the next sync.
#[derive(Debug)]
struct Staged {
    head: FrameHead,
    content: FrameContent,
}

/// The log, without waiting and threads; see the [module](super).
#[derive(Debug)]
pub struct Wal {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    settings: WalSettings,
    counters: Arc<WalCounters>,
    writer: WriterId,
    /// Oldest first.
    sealed: VecDeque<Sealed>,
    active: Active,
    synced_time_us: i64,
    staged: Vec<Staged>,
    staged_bytes: usize,
    /// Receive time of the last frame, staged ones included.
    last_time_us: i64,
    digests: Digests,
    /// Set for good after a failure that leaves open what is on the disk.
    closed: Option<String>,
    _lock: Box<dyn DirLock>,
}

/// Why a group commit did not happen.
enum Failure {
    /// Nothing of it is on the disk; it may go better later.
    NoRoom(io::Error),
    /// What is on the disk is unknown.
    Fatal(&'static str, io::Error),
}

fn write_failure(error: io::Error) -> Failure {
    if is_no_room(&error) { Failure::NoRoom(error) } else { Failure::Fatal("write", error) }
}

impl Wal {
    /// Opens the log in a folder, or makes a new one. When it returns, everything that is part of the log is durable.
    ///
    /// # Errors
    /// See [`WalError`]; nothing acknowledged has been touched then.
    pub fn open(fs: Arc<dyn Fs>, dir: &Path, settings: WalSettings) -> Result<(Self, Recovery), WalError> {
        create_dir_all_synced(&*fs, dir).map_err(WalError::io("create", dir))?;
        let lock = fs.lock(dir).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => WalError::InUse { dir: dir.to_owned() },
            _ => WalError::io("lock", dir)(error),
        })?;
        let found = recover(&fs, dir, &settings)?;
        let wal = Self {
            fs,
            dir: dir.to_owned(),
            settings,
            counters: Arc::default(),
            writer: found.writer,
            sealed: found.sealed.into(),
            active: found.active,
            synced_time_us: found.last_time_us,
            staged: Vec::new(),
            staged_bytes: 0,
            last_time_us: found.last_time_us,
            digests: found.digests,
            closed: None,
            _lock: lock,
        };
        WalCounters::add(&wal.counters.torn_bytes, found.recovery.torn_bytes);
        wal.publish();
        Ok((wal, found.recovery))
    }

    /// Whether there is no log in the folder yet, so that opening it makes one.
    #[must_use]
    pub fn is_new(fs: &dyn Fs, dir: &Path) -> bool {
        fs.metadata(&dir.join(format::WRITER_FILE)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Who writes this log.
    #[must_use]
    pub fn writer(&self) -> WriterId {
        self.writer
    }

    /// How it is kept.
    #[must_use]
    pub fn settings(&self) -> &WalSettings {
        &self.settings
    }

    /// Its figures.
    #[must_use]
    pub fn counters(&self) -> Arc<WalCounters> {
        Arc::clone(&self.counters)
    }

    /// Position up to which everything is durable.
    #[must_use]
    pub fn synced(&self) -> WalPosition {
        self.active.extent.last
    }

    /// Receive time of the last durable frame; `None` if there never was one.
    #[must_use]
    pub fn synced_time(&self) -> Option<UnixMicros> {
        (self.synced_time_us != i64::MIN).then_some(UnixMicros(self.synced_time_us))
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sealed.iter().map(|sealed| sealed.extent.bytes).sum::<u64>() + self.active.extent.bytes
    }

    /// Bytes that the next sync will write.
    #[must_use]
    pub fn staged_bytes(&self) -> usize {
        self.staged_bytes
    }

    /// Stages an export, received at this time (or at that of the last frame, if that is later). It is part of the log
    /// after the next [`Wal::sync`].
    ///
    /// # Errors
    /// See [`Prepared::new`], and `Closed` after a failure.
    pub fn append(&mut self, export: &Export, receive_time: UnixMicros) -> Result<Appended, Refusal> {
        self.append_prepared(Prepared::new(export.clone())?, receive_time)
    }

    /// As [`Wal::append`], when checksum and digest are known.
    ///
    /// # Errors
    /// `Closed` after a failure.
    pub fn append_prepared(&mut self, prepared: Prepared, receive_time: UnixMicros) -> Result<Appended, Refusal> {
        self.check_open()?;
        let receive_time_us = receive_time.0.max(self.last_time_us);
        if let Some(position) = self.digests.find(prepared.digest, receive_time_us) {
            WalCounters::add(&self.counters.resends, 1);
            return Ok(Appended::Resend(position));
        }
        let position = self.next_position();
        if self.digests.insert(prepared.digest, receive_time_us, position) {
            WalCounters::add(&self.counters.digests_cut, 1);
        }
        let head = FrameHead {
            payload_crc: prepared.payload_crc,
            body_len: prepared.body_len,
            position,
            synced: self.synced(),
            receive_time_us,
            digest: prepared.digest,
            signal: prepared.export.signal as u8,
            encoding: prepared.export.encoding as u8,
            tenant_len: prepared.tenant_len,
        };
        self.stage(head, FrameContent::Export(prepared.export));
        Ok(Appended::New(position))
    }

    /// Stages a frame that says nothing but that it is this late.
    ///
    /// # Errors
    /// `Closed` after a failure.
    pub fn tick(&mut self, receive_time: UnixMicros) -> Result<WalPosition, Refusal> {
        self.check_open()?;
        let position = self.next_position();
        let mut head = FrameHead::tick(position, receive_time.0.max(self.last_time_us));
        head.synced = self.synced();
        self.stage(head, FrameContent::Tick);
        Ok(position)
    }

    /// Writes what is staged, makes it durable, and returns it in order.
    ///
    /// # Errors
    /// `Overloaded` if there is no room: nothing of it is in the log, and it may be appended again later. `Closed` after
    /// any other failure: it is open whether a later process will find it.
    pub fn sync(&mut self) -> Result<Vec<Frame>, Refusal> {
        self.check_open()?;
        if self.staged.is_empty() {
            return Ok(Vec::new());
        }
        let has_frames = self.active.extent.last >= self.active.extent.first;
        let done = if has_frames && self.active.extent.bytes >= self.settings.segment_bytes {
            self.commit_to_new_segment()
        } else {
            self.commit()
        };
        match done {
            Ok(()) => Ok(self.take_committed()),
            Err(Failure::NoRoom(error)) => {
                self.unstage();
                Err(Refusal::Overloaded { reason: format!("write the log: {error}") })
            }
            Err(Failure::Fatal(what, error)) => {
                self.unstage();
                self.close(format!("{what} the log in \"{}\" failed: {error}", self.dir.display()));
                self.check_open().map(|()| Vec::new())
            }
        }
    }

    /// Refuses everything from now on.
    pub fn close(&mut self, reason: String) {
        self.closed.get_or_insert(reason);
    }

    /// Why the log is closed, if it is.
    #[must_use]
    pub fn closed(&self) -> Option<&str> {
        self.closed.as_deref()
    }

    /// Reads all durable frames from `from` on. If segments are forgotten before they are read, it ends with an error.
    #[must_use]
    pub fn replay(&self, from: WalPosition) -> Replay {
        let sealed = self.sealed.iter().map(|sealed| sealed.extent.clone());
        let extents = sealed.chain([self.active.extent.clone()]).collect();
        Replay::new(Arc::clone(&self.fs), self.writer, extents, from)
    }

    /// Deletes the oldest segments as far as all their frames are at or before `up_to` and were received before
    /// `not_younger_than`; above `retain_bytes`, the latter counts no more. The segment that is written stays.
    ///
    /// # Errors
    /// `Closed` if a deletion failed or could not be made durable.
    pub fn forget(&mut self, up_to: WalPosition, not_younger_than: UnixMicros) -> Result<(), Refusal> {
        self.check_open()?;
        while let Some(oldest) = self.sealed.front() {
            let old = oldest.last_time_us < not_younger_than.0;
            if oldest.extent.last > up_to || !(old || self.bytes() > self.settings.retain_bytes) {
                break;
            }
            let removed = self.fs.remove_file(&oldest.extent.path).and_then(|()| self.fs.sync_dir(&self.dir));
            if let Err(error) = removed {
                self.close(format!("delete an old segment in \"{}\" failed: {error}", self.dir.display()));
                return self.check_open();
            }
            self.sealed.pop_front();
            let counter = if old { &self.counters.segments_forgotten } else { &self.counters.segments_cut };
            WalCounters::add(counter, 1);
        }
        self.publish();
        Ok(())
    }

    fn check_open(&self) -> Result<(), Refusal> {
        match &self.closed {
            None => Ok(()),
            Some(reason) => Err(Refusal::Closed { reason: reason.clone() }),
        }
    }

    fn next_position(&self) -> WalPosition {
        self.staged.last().map_or(self.synced(), |staged| staged.head.position).next()
    }

    fn stage(&mut self, head: FrameHead, content: FrameContent) {
        self.last_time_us = head.receive_time_us;
        self.staged_bytes += head.frame_bytes();
        self.staged.push(Staged { head, content });
    }

    fn unstage(&mut self) {
        self.staged.clear();
        self.staged_bytes = 0;
        self.last_time_us = self.synced_time_us;
        self.digests.cut_back(self.synced());
    }

    /// Appends the staged frames to the segment that is written.
    fn commit(&mut self) -> Result<(), Failure> {
        let active = &mut self.active;
        // The log is read at a start only. Without this its writes touch ever new pages, which cost more than the copy.
        active.file.drop_cache();
        if let Err(error) = write_frames(&mut *active.file, active.marker, None, &self.staged) {
            let failure = write_failure(error);
            if matches!(failure, Failure::NoRoom(_)) {
                active.file.set_len(active.extent.bytes).map_err(|error| Failure::Fatal("cut back", error))?;
            }
            return Err(failure);
        }
        let before = Instant::now();
        active.file.sync_data().map_err(|error| Failure::Fatal("sync", error))?;
        active.extent.bytes += self.staged_bytes as u64;
        self.count_sync(before);
        Ok(())
    }

    /// Begins a segment with the staged frames; it becomes part of the log when all of it is durable.
    fn commit_to_new_segment(&mut self) -> Result<(), Failure> {
        let first = self.synced().next();
        let path = self.dir.join(format::segment_name(first));
        let marker = draw_marker(self.fs.random_bytes().map_err(|error| Failure::Fatal("draw a marker for", error))?);
        let header = SegmentHeader { writer: self.writer, first, previous_time_us: self.synced_time_us, marker };
        let mut file = self.fs.create_new(&path).map_err(write_failure)?;
        if let Err(error) = write_frames(&mut *file, marker, Some(header.encode()), &self.staged) {
            let failure = write_failure(error);
            if matches!(failure, Failure::NoRoom(_)) {
                drop(file);
                self.fs.remove_file(&path).map_err(|error| Failure::Fatal("cut back", error))?;
            }
            return Err(failure);
        }
        let before = Instant::now();
        file.sync_all().map_err(|error| Failure::Fatal("sync", error))?;
        self.fs.sync_dir(&self.dir).map_err(|error| Failure::Fatal("sync the folder of", error))?;
        let extent = Extent { path, first, last: self.synced(), bytes: (HEAD_BYTES + self.staged_bytes) as u64 };
        let sealed = std::mem::replace(&mut self.active, Active { extent, marker, file });
        self.sealed.push_back(Sealed { extent: sealed.extent, last_time_us: self.synced_time_us });
        self.count_sync(before);
        Ok(())
    }

    fn count_sync(&self, before: Instant) {
        WalCounters::add(&self.counters.syncs, 1);
        WalCounters::add(&self.counters.sync_ns, u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    fn take_committed(&mut self) -> Vec<Frame> {
        self.staged_bytes = 0;
        self.synced_time_us = self.last_time_us;
        let frames: Vec<Frame> = self
            .staged
            .drain(..)
            .map(|staged| Frame {
                position: staged.head.position,
                receive_time: UnixMicros(staged.head.receive_time_us),
                content: staged.content,
            })
            .collect();
        for frame in &frames {
            match &frame.content {
                FrameContent::Export(export) => {
                    WalCounters::add(&self.counters.appended, 1);
                    WalCounters::add(&self.counters.appended_bytes, export.body.len() as u64);
                }
                FrameContent::Tick => WalCounters::add(&self.counters.ticks, 1),
            }
            self.active.extent.last = frame.position;
        }
        self.publish();
        frames
    }

    fn publish(&self) {
        WalCounters::set(&self.counters.synced_position, self.synced().0);
        WalCounters::set(&self.counters.bytes, self.bytes());
    }
}

fn write_frames(
    file: &mut dyn File,
    marker: u64,
    header: Option<[u8; HEAD_BYTES]>,
    staged: &[Staged],
) -> io::Result<()> {
    let heads: Vec<[u8; HEAD_BYTES]> = staged.iter().map(|staged| staged.head.encode(marker)).collect();
    let mut slices = Vec::with_capacity(1 + 3 * staged.len());
    if let Some(header) = &header {
        slices.push(IoSlice::new(header));
    }
    for (head, staged) in heads.iter().zip(staged) {
        slices.push(IoSlice::new(head));
        if let FrameContent::Export(export) = &staged.content {
            slices.push(IoSlice::new(export.tenant.as_bytes()));
            slices.push(IoSlice::new(&export.body));
        }
    }
    file.write_vectored_all(&mut slices)
}
