//! A file system in memory that knows what a power cut leaves.
//!
//! # What it is
//! Every file has its live bytes (what a reader sees), its synced bytes, and the unsynced writes between the two. Every
//! name that was created, renamed, linked or removed stands in a journal until its folder is synced. A power cut throws
//! the live state away and rebuilds it from what was synced and a part of the rest, chosen by [`Survival`].
//!
//! # How it is used
//! [`SimFs::crash_at`] lets the n-th operation fail, and all after it, with an error that [`is_crash`] recognises; the
//! operation itself may or may not have reached the disk. [`SimFs::restart`] gives a new file system with what survived;
//! the old one and its files stay dead. [`SimFs::operations`] counts the calls that write or sync; reads are free.
//! The same calls and the same seed give the same survivors.
//!
//! # Limits
//! Stricter than ext4: a sync of a file never makes its name durable; unsynced writes may come through in any order, torn
//! at any byte, or as zeros. As ext4 does it, a rename is atomic also between two folders, and a sync of either makes it
//! durable. Symbolic links and `..` do not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{DirEntry, DirLock, File, Fs, Metadata};

/// What a restart finds of everything that was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survival {
    /// Power cut: nothing of it.
    None,
    /// Power cut: all of it had reached the disk.
    All,
    /// Power cut: a part of it, drawn from the seed.
    Random,
    /// Only the process died: all can be read, and is as unsynced as before.
    ProcessKill,
}

#[derive(Debug, thiserror::Error)]
#[error("crashed (simulated)")]
struct Crashed;

/// Whether an operation failed because the simulated machine is down.
#[must_use]
pub fn is_crash(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Crashed>())
}

fn crashed() -> io::Error {
    io::Error::other(Crashed)
}

/// A small deterministic random number generator (splitmix64), for simulations.
#[derive(Clone, Debug)]
pub struct SimRng(u64);

impl SimRng {
    /// Starts from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next_u64() % bound as u64) as usize }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone, Debug, Default)]
struct FileNode {
    live: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<Change>,
}

type Names = BTreeMap<String, usize>;

#[derive(Clone, Debug, Default)]
struct DirNode {
    live: Names,
    synced: Names,
}

#[derive(Clone, Debug)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Clone, Debug)]
struct Entry {
    node: Node,
    modified_micros: i64,
}

/// One name set to a node, or taken away.
#[derive(Clone, Debug)]
struct NameChange {
    dir: usize,
    name: String,
    node: Option<usize>,
}

/// Name changes that happen together.
type DirOp = Vec<NameChange>;

#[derive(Clone, Debug)]
struct SyncFault {
    pattern: String,
    left: u64,
}

#[derive(Debug)]
struct State {
    entries: Vec<Entry>,
    journal: Vec<DirOp>,
    operations: u64,
    crash_at: Option<u64>,
    down: bool,
    capacity: Option<u64>,
    faults: Vec<SyncFault>,
    locks: BTreeSet<PathBuf>,
    rng: SimRng,
    /// The disk before each operation, if somebody wants to know.
    moments: Option<Vec<Arc<SimFs>>>,
}

/// A file system in memory; see the [module](self).
#[derive(Debug)]
pub struct SimFs {
    state: Arc<Mutex<State>>,
}

const ROOT: usize = 0;
/// 2026-01-01T00:00:00Z: where the clock of last changes starts; every operation is a microsecond.
const EPOCH_MICROS: i64 = 1_767_225_600_000_000;
const ENDLESS_BYTES: u64 = 1 << 40;

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => write_at(content, *offset, bytes),
        Change::SetLen(len) => content.resize(*len, 0),
    }
}

fn write_at(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if offset == content.len() {
        content.extend_from_slice(bytes);
        return;
    }
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("\"{}\" does not exist", path.display()))
}

impl State {
    /// Counts an operation; `true` if the machine goes down in it.
    fn begin(&mut self) -> io::Result<bool> {
        self.alive()?;
        if let Some(mut moments) = self.moments.take() {
            moments.push(SimFs::from_state(self.survivors(self.rng.clone(), Survival::ProcessKill)));
            self.moments = Some(moments);
        }
        self.operations += 1;
        self.down = self.crash_at.is_some_and(|at| self.operations >= at);
        Ok(self.down)
    }

    fn alive(&self) -> io::Result<()> {
        if self.down { Err(crashed()) } else { Ok(()) }
    }

    /// The answer of an operation whose effect is only in memory so far.
    fn done<T>(&self, value: T) -> io::Result<T> {
        self.alive().map(|()| value)
    }

    fn now_micros(&self) -> i64 {
        EPOCH_MICROS.saturating_add_unsigned(self.operations)
    }

    fn add(&mut self, node: Node) -> usize {
        let modified_micros = self.now_micros();
        self.entries.push(Entry { node, modified_micros });
        self.entries.len() - 1
    }

    fn dir(&self, id: usize, path: &Path) -> io::Result<&DirNode> {
        match &self.entries[id].node {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => {
                Err(io::Error::new(io::ErrorKind::NotADirectory, format!("\"{}\" is not a folder", path.display())))
            }
        }
    }

    fn file(&self, id: usize, path: &Path) -> io::Result<&FileNode> {
        match &self.entries[id].node {
            Node::File(file) => Ok(file),
            Node::Dir(_) => {
                Err(io::Error::new(io::ErrorKind::IsADirectory, format!("\"{}\" is a folder", path.display())))
            }
        }
    }

    fn file_mut(&mut self, id: usize) -> io::Result<&mut FileNode> {
        let modified_micros = self.now_micros();
        let entry = &mut self.entries[id];
        entry.modified_micros = modified_micros;
        match &mut entry.node {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut at = ROOT;
        for name in names(path)? {
            at = *self.dir(at, path)?.live.get(name).ok_or_else(|| not_found(path))?;
        }
        Ok(at)
    }

    fn find_file(&self, path: &Path) -> io::Result<usize> {
        let id = self.find(path)?;
        self.file(id, path).map(|_| id)
    }

    /// The folder that holds `path`, and its name there.
    fn place(&self, path: &Path) -> io::Result<(usize, String)> {
        let names = names(path)?;
        let (last, above) = names.split_last().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut at = ROOT;
        for name in above {
            at = *self.dir(at, path)?.live.get(*name).ok_or_else(|| not_found(path))?;
        }
        self.dir(at, path)?;
        Ok((at, (*last).to_owned()))
    }

    fn lookup(&self, dir: usize, name: &str) -> Option<usize> {
        match &self.entries[dir].node {
            Node::Dir(dir) => dir.live.get(name).copied(),
            Node::File(_) => None,
        }
    }

    fn change_names(&mut self, op: DirOp) {
        for change in &op {
            if let Node::Dir(dir) = &mut self.entries[change.dir].node {
                set_name(&mut dir.live, change);
            }
        }
        self.journal.push(op);
    }

    fn make_durable(&mut self, op: &DirOp) {
        for change in op {
            if let Node::Dir(dir) = &mut self.entries[change.dir].node {
                set_name(&mut dir.synced, change);
            }
        }
    }

    /// Makes the names of a folder durable, and of every folder that a rename ties to it.
    fn sync_names(&mut self, dir: usize) {
        let mut dirs = BTreeSet::from([dir]);
        loop {
            let before = dirs.len();
            for op in &self.journal {
                if op.iter().any(|change| dirs.contains(&change.dir)) {
                    dirs.extend(op.iter().map(|change| change.dir));
                }
            }
            if dirs.len() == before {
                break;
            }
        }
        for op in std::mem::take(&mut self.journal) {
            if op.iter().any(|change| dirs.contains(&change.dir)) {
                self.make_durable(&op);
            } else {
                self.journal.push(op);
            }
        }
    }

    fn used_bytes(&self) -> u64 {
        let mut used = 0;
        let mut seen = BTreeSet::new();
        let mut open = vec![ROOT];
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                match &self.entries[id].node {
                    Node::File(file) => used += file.live.len() as u64,
                    Node::Dir(dir) => open.extend(dir.live.values()),
                }
            }
        }
        used
    }

    fn available_bytes(&self) -> u64 {
        self.capacity.map_or(ENDLESS_BYTES, |capacity| capacity.saturating_sub(self.used_bytes()))
    }

    fn sync_fails(&mut self, path: &Path) -> bool {
        let path = path.to_string_lossy();
        let mut fails = false;
        self.faults.retain_mut(|fault| {
            if !path.contains(&fault.pattern) {
                return true;
            }
            fault.left = fault.left.saturating_sub(1);
            fails |= fault.left == 0;
            fault.left > 0
        });
        fails
    }

    fn write(&mut self, id: usize, offset: Option<usize>, bytes: &[u8]) -> io::Result<()> {
        let room = if self.capacity.is_some() { self.available_bytes() } else { ENDLESS_BYTES };
        let file = self.file_mut(id)?;
        let offset = offset.unwrap_or(file.live.len());
        let grows = (offset + bytes.len()).saturating_sub(file.live.len());
        let missing = grows.saturating_sub(usize::try_from(room).unwrap_or(usize::MAX));
        let bytes = &bytes[..bytes.len() - missing];
        if !bytes.is_empty() {
            write_at(&mut file.live, offset, bytes);
            file.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
        }
        if missing > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// The state after the restart; the journal and the pending writes stay only if the machine kept running.
    fn survivors(&self, mut rng: SimRng, survival: Survival) -> Self {
        let mut next = Self {
            entries: self.entries.clone(),
            journal: self.journal.clone(),
            operations: 0,
            crash_at: None,
            down: false,
            capacity: self.capacity,
            faults: Vec::new(),
            locks: BTreeSet::new(),
            rng: rng.clone(),
            moments: None,
        };
        if survival == Survival::ProcessKill {
            return next;
        }
        let journal = std::mem::take(&mut next.journal);
        for op in surviving_names(&journal, &mut rng, survival) {
            next.make_durable(&op);
        }
        for entry in &mut next.entries {
            match &mut entry.node {
                Node::Dir(dir) => dir.live = dir.synced.clone(),
                Node::File(file) => {
                    let pending = std::mem::take(&mut file.pending);
                    surviving_bytes(&mut file.synced, &pending, &mut rng, survival);
                    file.live.clone_from(&file.synced);
                }
            }
        }
        next.rng = rng;
        next
    }
}

fn set_name(names: &mut Names, change: &NameChange) {
    match change.node {
        Some(node) => names.insert(change.name.clone(), node),
        None => names.remove(&change.name),
    };
}

/// Which name changes had reached the disk: of each folder a prefix (as a journal leaves it), or any subset.
fn surviving_names(journal: &[DirOp], rng: &mut SimRng, survival: Survival) -> Vec<DirOp> {
    match survival {
        Survival::None => Vec::new(),
        Survival::All | Survival::ProcessKill => journal.to_vec(),
        Survival::Random if rng.below(2) == 0 => journal.iter().filter(|_| rng.below(2) == 0).cloned().collect(),
        Survival::Random => {
            let mut of_dir = BTreeMap::new();
            for change in journal.iter().flatten() {
                *of_dir.entry(change.dir).or_insert(0) += 1;
            }
            let mut left: BTreeMap<usize, usize> =
                of_dir.into_iter().map(|(dir, count)| (dir, rng.below(count + 1))).collect();
            let mut kept = Vec::new();
            for op in journal {
                let mut all = true;
                for change in op {
                    let left = left.entry(change.dir).or_insert(0);
                    all &= *left > 0;
                    *left = left.saturating_sub(1);
                }
                if all {
                    kept.push(op.clone());
                }
            }
            kept
        }
    }
}

/// Adds to the synced bytes those unsynced changes that had reached the disk.
fn surviving_bytes(synced: &mut Vec<u8>, pending: &[Change], rng: &mut SimRng, survival: Survival) {
    match survival {
        Survival::None => {}
        Survival::All | Survival::ProcessKill => pending.iter().for_each(|change| apply(synced, change)),
        // In order, the last one torn.
        Survival::Random if rng.below(2) == 0 => {
            let kept = rng.below(pending.len() + 1);
            pending[..kept].iter().for_each(|change| apply(synced, change));
            if let Some(Change::Write { offset, bytes }) = pending.get(kept) {
                let torn = rng.below(bytes.len() + 1);
                write_at(synced, *offset, &bytes[..torn]);
            }
        }
        // In any order: what was not written but lies before something that was, reads as zeros.
        Survival::Random => {
            for change in pending {
                match change {
                    Change::Write { offset, bytes } => {
                        let from = rng.below(bytes.len() + 1);
                        let to = from + rng.below(bytes.len() - from + 1);
                        if from < to {
                            write_at(synced, offset + from, &bytes[from..to]);
                        }
                    }
                    Change::SetLen(_) => {
                        if rng.below(2) == 0 {
                            apply(synced, change);
                        }
                    }
                }
            }
        }
    }
}

fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().ok_or(io::ErrorKind::InvalidInput)?),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(names)
}

impl SimFs {
    /// An empty file system; the seed decides its random bytes.
    #[must_use]
    pub fn new(seed: u64) -> Arc<Self> {
        let root = Entry { node: Node::Dir(DirNode::default()), modified_micros: EPOCH_MICROS };
        Self::from_state(State {
            entries: vec![root],
            journal: Vec::new(),
            operations: 0,
            crash_at: None,
            down: false,
            capacity: None,
            faults: Vec::new(),
            locks: BTreeSet::new(),
            rng: SimRng::new(seed),
            moments: None,
        })
    }

    fn from_state(state: State) -> Arc<Self> {
        Arc::new(Self { state: Arc::new(Mutex::new(state)) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the n-th operation from the beginning (the first is 1), and all after it, fail.
    pub fn crash_at(&self, operation: u64) {
        self.state().crash_at = Some(operation);
    }

    /// From now on, keeps what the disk is before each operation: one life gives every crash that could have ended it.
    pub fn keep_moments(&self) {
        self.state().moments = Some(Vec::new());
    }

    /// The disks before the operations since [`Self::keep_moments`], in order; restart them to see what a crash there leaves.
    #[must_use]
    pub fn moments(&self) -> Vec<Arc<Self>> {
        self.state().moments.take().unwrap_or_default()
    }

    /// Operations that wrote or synced so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Whether the simulated machine is down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.state().down
    }

    /// Lets the n-th sync from now on (the first is 1) of a file or folder whose path contains `pattern` fail with `EIO`.
    /// As on Linux, the unsynced bytes of that file can still be read but will never be durable, whatever is synced later.
    pub fn fail_sync(&self, pattern: &str, nth: u64) {
        self.state().faults.push(SyncFault { pattern: pattern.to_owned(), left: nth.max(1) });
    }

    /// Room for so many bytes of file content in all; a write beyond it is cut short and fails with `ENOSPC`.
    pub fn capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Ends this file system, for the open files too, and gives the one that is found after the restart.
    #[must_use]
    pub fn restart(&self, seed: u64, survival: Survival) -> Arc<Self> {
        let mut state = self.state();
        state.down = true;
        Self::from_state(state.survivors(SimRng::new(seed), survival))
    }

    /// Flips one bit of a file, on the disk and in memory, without counting as an operation.
    ///
    /// # Errors
    /// `NotFound`, and `InvalidInput` if the file is shorter.
    pub fn flip_bit(&self, path: &Path, byte: usize, bit: u8) -> io::Result<()> {
        let mut state = self.state();
        let id = state.find_file(path)?;
        let file = state.file_mut(id)?;
        for content in [&mut file.live, &mut file.synced] {
            *content.get_mut(byte).ok_or(io::ErrorKind::InvalidInput)? ^= 1 << (bit % 8);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    id: usize,
    path: PathBuf,
}

#[derive(Debug)]
struct SimLock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).locks.remove(&self.path);
    }
}

impl SimFs {
    fn open(&self, id: usize, path: &Path) -> Box<dyn File> {
        Box::new(SimFile { state: Arc::clone(&self.state), id, path: path.to_owned() })
    }
}

impl Fs for SimFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        let mut at = ROOT;
        for name in names(path)? {
            state.dir(at, path)?;
            at = match state.lookup(at, name) {
                Some(id) => id,
                None => {
                    let id = state.add(Node::Dir(DirNode::default()));
                    state.change_names(vec![NameChange { dir: at, name: name.to_owned(), node: Some(id) }]);
                    id
                }
            };
        }
        state.dir(at, path)?;
        state.done(())
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.begin()?;
        let (dir, name) = state.place(path)?;
        if state.lookup(dir, &name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.available_bytes() == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let id = state.add(Node::File(FileNode::default()));
        state.change_names(vec![NameChange { dir, name, node: Some(id) }]);
        state.done(self.open(id, path))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let state = self.state();
        state.alive()?;
        Ok(self.open(state.find_file(path)?, path))
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        self.read_range(path, 0..u64::MAX)
    }

    fn read_range(&self, path: &Path, range: Range<u64>) -> io::Result<Bytes> {
        let state = self.state();
        state.alive()?;
        let content = &state.file(state.find(path)?, path)?.live;
        let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(content.len());
        let (from, to) = (clamp(range.start), clamp(range.end));
        Ok(Bytes::copy_from_slice(content.get(from..to).unwrap_or_default()))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let state = self.state();
        state.alive()?;
        let entry = &state.entries[state.find(path)?];
        let (len, is_dir) = match &entry.node {
            Node::File(file) => (file.live.len() as u64, false),
            Node::Dir(_) => (0, true),
        };
        Ok(Metadata { len, modified_micros: entry.modified_micros, is_dir })
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state();
        state.alive()?;
        let dir = state.dir(state.find(path)?, path)?;
        let entry = |(name, id): (&String, &usize)| DirEntry {
            name: name.clone(),
            is_dir: matches!(state.entries[*id].node, Node::Dir(_)),
        };
        Ok(dir.live.iter().map(entry).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        let id = state.find(from)?;
        let (from_dir, from_name) = state.place(from)?;
        let (to_dir, to_name) = state.place(to)?;
        if let Some(replaced) = state.lookup(to_dir, &to_name) {
            if replaced == id {
                return state.done(());
            }
            if matches!(state.entries[replaced].node, Node::Dir(_)) {
                return Err(io::ErrorKind::IsADirectory.into());
            }
        }
        state.change_names(vec![
            NameChange { dir: from_dir, name: from_name, node: None },
            NameChange { dir: to_dir, name: to_name, node: Some(id) },
        ]);
        state.done(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        let id = state.find_file(from)?;
        let (dir, name) = state.place(to)?;
        if state.lookup(dir, &name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change_names(vec![NameChange { dir, name, node: Some(id) }]);
        state.done(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        state.find_file(path)?;
        let (dir, name) = state.place(path)?;
        state.change_names(vec![NameChange { dir, name, node: None }]);
        state.done(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        let id = state.find(path)?;
        if !state.dir(id, path)?.live.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (dir, name) = state.place(path)?;
        state.change_names(vec![NameChange { dir, name, node: None }]);
        state.done(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.begin()? {
            return Err(crashed());
        }
        let id = state.find(path)?;
        state.dir(id, path)?;
        if state.sync_fails(path) {
            return Err(eio());
        }
        state.sync_names(id);
        Ok(())
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        let state = self.state();
        state.alive()?;
        state.find(path)?;
        Ok(state.available_bytes())
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DirLock>> {
        let mut state = self.state();
        state.alive()?;
        let id = state.find(dir)?;
        state.dir(id, dir)?;
        if !state.locks.insert(dir.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { state: Arc::clone(&self.state), path: dir.to_owned() }))
    }

    fn random_bytes(&self) -> io::Result<[u8; 16]> {
        let mut state = self.state();
        let (a, b) = (state.rng.next_u64(), state.rng.next_u64());
        Ok(((u128::from(a) << 64) | u128::from(b)).to_le_bytes())
    }
}

fn eio() -> io::Error {
    io::Error::from(rustix::io::Errno::IO)
}

impl SimFile {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.begin()? {
            return Err(crashed());
        }
        let fails = state.sync_fails(&self.path);
        let file = state.file_mut(self.id)?;
        let pending = std::mem::take(&mut file.pending);
        if fails {
            return Err(eio());
        }
        pending.iter().for_each(|change| apply(&mut file.synced, change));
        Ok(())
    }
}

impl File for SimFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        state.write(self.id, None, bytes)?;
        state.done(())
    }

    fn write_vectored_all(&mut self, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.write_all(&bytes)
    }

    fn write_all_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        if offset > state.file(self.id, &self.path)?.live.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        state.write(self.id, Some(offset), bytes)?;
        state.done(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.sync()
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let file = state.file_mut(self.id)?;
        file.live.resize(len, 0);
        file.pending.push(Change::SetLen(len));
        state.done(())
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.state();
        state.alive()?;
        Ok(state.file(self.id, &self.path)?.live.len() as u64)
    }
}

#[cfg(test)]
mod tests;
