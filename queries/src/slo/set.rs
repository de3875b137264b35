//! The SLOs of files and folders, kept up to date.
//!
//! # Guarantees
//! * A file that cannot be read, or in which anything is an error, changes nothing: its last good version stays in force, beside the
//!   new versions of all other files. That also holds for what only shows together with other files, such as a name given
//!   twice. A file that was never good has nothing in force.
//! * A file that is just being written is left alone: after the first time, a change is taken when it was seen twice.
//! * What is wrong is told with file, line and key until it is right.
//! * A file that is gone takes its SLOs with it.
//!
//! # How it works
//! [`Sources::read`] is called every few seconds and reads everything; only when some byte has changed is anything parsed. In a folder the
//! files `*.yaml`, `*.yml` and `*.json` count, also those in folders below it; names that begin with a dot do not.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toolgauge_proto::table::Table;
use xxhash_rust::xxh3::xxh3_128;

use super::counter::CompiledSli;
use super::definition::{Form, Slo, Where};
use super::fault::{Fault, Faults, Place, Severity};
use super::learned::{self, Learned};
use super::resolve::{NotEvaluated, Object, resolve};
use super::{rules, shape, yaml};
use crate::engine::Engine;
use crate::rules::definition::RuleSet;

/// Most files.
pub const FILES_MAX: usize = 10_000;
/// Deepest folder below the one that is named.
pub const FOLDERS_MAX: usize = 8;
/// Most SLOs.
pub const SLOS_MAX: usize = 10_000;
/// Most groups of all SLOs together, of which each SLO without groups is one.
pub const GROUPS_MAX: usize = 50_000;

/// An SLO with its expressions compiled.
#[derive(Debug, Clone)]
pub struct CompiledSlo {
    /// The definition.
    pub slo: Slo,
    /// What it counts.
    pub sli: Arc<CompiledSli>,
}

/// The SLOs in force, and what is wrong with the files.
#[derive(Debug, Clone, Default)]
pub struct SloSet {
    /// In force, by service and name.
    pub slos: Vec<CompiledSlo>,
    /// Rules that stand in the same files.
    pub rules: Arc<RuleSet>,
    /// Understood, but not evaluated.
    pub not_evaluated: Vec<NotEvaluated>,
    /// What is wrong, by file.
    pub faults: Vec<Fault>,
    /// Files with an error, of which the last good version is in force, if there was one.
    pub broken_files: usize,
    /// Whether nothing is in force of some of them, or a folder could not be read: what is missing may be there again when that is put right.
    pub is_partial: bool,
    /// Files that were found.
    pub files: usize,
}

#[derive(Debug, Default)]
struct File {
    /// Of the version that was taken.
    digest: Option<u128>,
    /// Of the version that was seen last.
    seen: Option<u128>,
    /// Whether it was not there the last time.
    is_missing: bool,
    /// The last version without errors in it.
    parsed: Option<Vec<Object>>,
    /// What is wrong with the newest version on its own.
    faults: Vec<Fault>,
    /// The last version that was in force.
    in_force: Option<Vec<Object>>,
}

/// Files and folders of SLOs.
#[derive(Debug)]
pub struct Sources {
    paths: Vec<PathBuf>,
    /// Read like a file.
    learned: Option<Arc<Learned>>,
    files: BTreeMap<Arc<str>, File>,
    /// What is wrong with the folders.
    folder_faults: Vec<Fault>,
    compiled: HashMap<String, Arc<CompiledSli>>,
    never_read: bool,
}

impl Sources {
    /// These files and folders; nothing is read yet.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            learned: None,
            files: BTreeMap::new(),
            folder_faults: Vec::new(),
            compiled: HashMap::new(),
            never_read: true,
        }
    }

    /// What is learned from the calls, in place of files.
    #[must_use]
    pub fn learned(learned: Arc<Learned>) -> Self {
        Self { learned: Some(learned), ..Self::new(Vec::new()) }
    }

    /// Reads them, and gives what is in force now; `None` if nothing has changed since the last time.
    pub fn read(&mut self, engine: &Engine) -> Option<SloSet> {
        let changed = self.read_files();
        (std::mem::take(&mut self.never_read) || changed).then(|| self.settle(engine))
    }

    /// Whether anything is different from the last time.
    fn read_files(&mut self) -> bool {
        let mut found = Vec::new();
        let mut faults = Vec::new();
        for path in &self.paths {
            find(path, FOLDERS_MAX, &mut found, &mut faults);
        }
        if found.len() > FILES_MAX {
            let message = format!("there are more than {FILES_MAX} files (name fewer folders)");
            faults.push(fault_of(&found[FILES_MAX].display().to_string(), message));
            found.truncate(FILES_MAX);
        }
        let mut changed = faults != self.folder_faults;
        self.folder_faults = faults;
        let found: BTreeMap<Arc<str>, PathBuf> =
            found.into_iter().map(|path| (Arc::from(path.display().to_string()), path)).collect();
        let has_learned = self.learned.is_some();
        // A path that cannot be read for now has not lost its files.
        if self.folder_faults.is_empty() {
            let before = self.files.len();
            self.files.retain(|name, file| {
                let is_there = found.contains_key(name) || (has_learned && **name == *learned::NAME);
                let was_missing = std::mem::replace(&mut file.is_missing, !is_there);
                !(was_missing && file.is_missing)
            });
            changed |= self.files.len() != before;
        }
        if let Some(learned) = &self.learned {
            let (name, text) = (Arc::from(learned::NAME), learned.document());
            // Nobody is just writing it.
            changed |= self.files.entry(Arc::clone(&name)).or_default().update(&name, Ok(text.to_string()), true);
        }
        for (name, path) in found {
            let file = self.files.entry(Arc::clone(&name)).or_default();
            changed |= file.update(&name, read_text(&path), self.never_read);
        }
        changed
    }

    /// Puts together what fits together: of each file the newest version, else the one that was in force, else none.
    fn settle(&mut self, engine: &Engine) -> SloSet {
        let mut faults: BTreeMap<Arc<str>, Vec<Fault>> = BTreeMap::new();
        let mut candidates: BTreeMap<Arc<str>, Vec<&Vec<Object>>> = BTreeMap::new();
        for (name, file) in &self.files {
            if !file.faults.is_empty() {
                faults.insert(Arc::clone(name), file.faults.clone());
            }
            // The newest last, so that it is tried first.
            let newest = file.parsed.iter().filter(|_| !file.faults.iter().any(is_error));
            // The same version twice would only be refused twice.
            let newest = newest.filter(|newest| file.in_force.as_ref() != Some(*newest));
            candidates.insert(Arc::clone(name), file.in_force.iter().chain(newest).collect());
        }
        let mut all_in_force = false;
        loop {
            let chosen = candidates.values().filter_map(|versions| versions.last());
            let objects: Vec<Object> = chosen.flat_map(|version| version.iter().cloned()).collect();
            let mut resolved = resolve(&objects);
            let slos = compile(std::mem::take(&mut resolved.slos), engine, &mut self.compiled, &mut resolved.faults);
            let mut rules = rules::resolve(&objects, engine);
            rules::add_budgets(&slos, engine, &mut rules);
            resolved.faults.extend(rules.faults);
            for fault in &resolved.faults {
                if let Some((name, _)) = candidates.get_key_value(fault.file.as_str()) {
                    let told = faults.entry(Arc::clone(name)).or_default();
                    if !told.contains(fault) {
                        told.push(fault.clone());
                    }
                }
            }
            let is_refused =
                |name: &Arc<str>| resolved.faults.iter().any(|fault| is_error(fault) && *fault.file == **name);
            let refused: Vec<Arc<str>> = candidates
                .iter()
                .filter(|(name, versions)| !versions.is_empty() && is_refused(name))
                .map(|(name, _)| Arc::clone(name))
                .collect();
            if !refused.is_empty() {
                // What was in force was right together: if some of it no longer is, the change of another file is wrong.
                let is_last = |name: &Arc<str>| candidates.get(name).is_some_and(|versions| versions.len() == 1);
                let was_in_force = |name: &Arc<str>| self.files.get(name).is_some_and(|file| file.in_force.is_some());
                if !all_in_force && refused.iter().any(|name| is_last(name) && was_in_force(name)) {
                    all_in_force = true;
                    for (name, versions) in &mut candidates {
                        versions
                            .truncate(usize::from(self.files.get(name).is_some_and(|file| file.in_force.is_some())));
                    }
                    continue;
                }
                for name in refused {
                    candidates.get_mut(&name).and_then(Vec::pop);
                }
                continue;
            }
            let chosen: Vec<(Arc<str>, Option<Vec<Object>>)> = candidates
                .iter()
                .map(|(name, versions)| (Arc::clone(name), versions.last().map(|version| (*version).clone())))
                .collect();
            drop(candidates);
            let is_broken = |name: &Arc<str>| faults.get(name).is_some_and(|faults| faults.iter().any(is_error));
            let is_partial = !self.folder_faults.is_empty()
                || chosen.iter().any(|(name, version)| version.is_none() && is_broken(name));
            for (name, version) in chosen {
                if let Some(file) = self.files.get_mut(&name) {
                    file.in_force = version;
                }
            }
            let broken_files = faults.values().filter(|faults| faults.iter().any(is_error)).count();
            let mut all: Vec<Fault> = self.folder_faults.clone();
            all.extend(faults.into_values().flatten());
            return SloSet {
                slos,
                rules: Arc::new(RuleSet { is_partial, ..rules.set }),
                is_partial,
                not_evaluated: resolved.not_evaluated,
                faults: all,
                broken_files: broken_files + self.folder_faults.len(),
                files: self.files.len(),
            };
        }
    }
}

fn is_error(fault: &Fault) -> bool {
    fault.severity == Severity::Error
}

fn fault_of(file: &str, message: String) -> Fault {
    Fault { severity: Severity::Error, file: file.to_owned(), place: Place::START, key: String::new(), message }
}

/// The files below a path.
fn find(path: &Path, depth: usize, found: &mut Vec<PathBuf>, faults: &mut Vec<Fault>) {
    if !path.exists() {
        return faults.push(fault_of(&path.display().to_string(), "there is no such file or folder".to_owned()));
    }
    if !path.is_dir() {
        return found.push(path.to_owned());
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            return faults.push(fault_of(&path.display().to_string(), format!("the folder cannot be read: {error}")));
        }
    };
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_document = path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if hidden || found.len() > FILES_MAX {
            continue;
        }
        if path.is_dir() {
            match depth.checked_sub(1) {
                Some(depth) => find(&path, depth, found, faults),
                None => {
                    let message = format!("the folder is more than {FOLDERS_MAX} levels deep (move it up)");
                    faults.push(fault_of(&path.display().to_string(), message));
                }
            }
        } else if is_document {
            found.push(path);
        }
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| format!("the file cannot be read: {error}"))?;
    let mut bytes = Vec::new();
    let limit = yaml::BYTES_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(|error| format!("the file cannot be read: {error}"))?;
    String::from_utf8(bytes).map_err(|_| "the file is no UTF-8 text".to_owned())
}

impl File {
    /// Takes what was read; false if that was taken before, or is seen for the first time and somebody may still be writing it.
    fn update(&mut self, name: &Arc<str>, text: Result<String, String>, is_first_look: bool) -> bool {
        let digest = match &text {
            Ok(text) => xxh3_128(text.as_bytes()),
            Err(message) => !xxh3_128(message.as_bytes()),
        };
        let is_settled = self.seen.replace(digest) == Some(digest) || is_first_look;
        if self.digest == Some(digest) || !is_settled {
            return false;
        }
        self.digest = Some(digest);
        let mut faults = Faults::new(name);
        let documents = text.map_err(|message| (Place::START, message)).and_then(|text| yaml::documents(&text));
        let mut objects = Vec::new();
        match documents {
            Err((place, message)) => faults.error(place, "", message),
            Ok(documents) => {
                // A list of objects stands for its items.
                let nodes = documents.into_iter().flat_map(|node| match node.value {
                    yaml::Value::List(items) => items,
                    _ => vec![node],
                });
                for node in nodes.filter(|node| node.value != yaml::Value::Null) {
                    shape::check(&node, &mut faults);
                    let text = |path: &[&str]| node.at(path).and_then(yaml::Node::text).unwrap_or_default().to_owned();
                    let (kind, name_of) = (text(&["kind"]), text(&["metadata", "name"]));
                    objects.push(Object { kind, name: name_of, file: Arc::clone(name), node });
                }
            }
        }
        if !faults.has_errors() {
            self.parsed = Some(objects);
        }
        self.faults = faults.finish();
        true
    }
}

fn compile(
    slos: Vec<Slo>,
    engine: &Engine,
    known: &mut HashMap<String, Arc<CompiledSli>>,
    faults: &mut Vec<Fault>,
) -> Vec<CompiledSlo> {
    let mut compiled = Vec::with_capacity(slos.len());
    let mut groups = 0;
    for slo in slos {
        if compiled.len() >= SLOS_MAX {
            let message = format!("there are more than {SLOS_MAX} SLOs (keep fewer)");
            faults.push(Fault { place: slo.place, ..fault_of(&slo.file, message) });
            continue;
        }
        groups += slo.groups_max();
        if groups > GROUPS_MAX {
            let own = slo.groups_max();
            let message = format!(
                "with its {own} groups, that of all others included, there would be {} + {own} = {groups} to watch, at most {GROUPS_MAX} \
                 are (write a lower `toolgauge/groups-max`)",
                groups - own
            );
            groups -= own;
            faults.push(Fault { place: slo.place, ..fault_of(&slo.file, message) });
            continue;
        }
        let unevaluated: Vec<Form> = slo.forms().into_iter().filter(|form| !form.is_evaluated()).collect();
        if !unevaluated.is_empty() {
            faults.extend(unevaluated.iter().map(|form| {
                let message = format!("{} is not evaluated yet (leave it out)", form.as_str());
                Fault { place: slo.place, ..fault_of(&slo.file, message) }
            }));
            continue;
        }
        let revision = slo.sli.revision();
        if let Some(sli) = known.get(&revision).filter(|known| known.sli == slo.sli) {
            compiled.push(CompiledSlo { sli: Arc::clone(sli), slo });
            continue;
        }
        let mut condition = |text: &Where| {
            let fault = |error: crate::engine::Error| Fault {
                severity: Severity::Error,
                file: text.file.to_string(),
                place: text.place,
                key: text.key.clone(),
                message: format!("the condition cannot be used: {}", error.to_string().replace('\n', " ")),
            };
            engine.condition(&text.text, &Table::Calls.schema()).map_err(fault).map_err(|fault| faults.push(fault)).ok()
        };
        let (total, judge) = (condition(&slo.sli.total), condition(&slo.sli.judge));
        if let (Some(total), Some(judge)) = (total, judge) {
            let sli = Arc::new(CompiledSli::new(slo.sli.clone(), total, judge));
            known.insert(revision, Arc::clone(&sli));
            compiled.push(CompiledSlo { slo, sli });
        }
    }
    known.retain(|_, sli| Arc::strong_count(sli) > 1);
    compiled.sort_by(|a, b| (&a.slo.service, &a.slo.name).cmp(&(&b.slo.service, &b.slo.name)));
    compiled
}
