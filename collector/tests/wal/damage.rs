//! A torn tail is cut off, damage is an error.

use std::path::PathBuf;
use std::sync::Arc;

use toolgauge_collector::fs::Fs;
use toolgauge_collector::fs::sim::{SimFs, Survival};
use toolgauge_collector::wal::{WalError, WalSettings};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::UnixMicros;

use crate::{contents, dir, export, open};

/// Group commits of two exports each.
fn log_of(groups: u8, segment_bytes: u64) -> Arc<SimFs> {
    let fs = SimFs::new(3);
    let (mut wal, _) = open(&fs, &WalSettings { segment_bytes, ..WalSettings::default() }).unwrap();
    for group in 0..groups {
        for half in 0..2 {
            wal.append(&export(vec![group, half, 1, 2, 3]), UnixMicros(i64::from(group))).map(drop).unwrap();
        }
        wal.sync().unwrap();
    }
    fs
}

fn segments(fs: &SimFs) -> Vec<PathBuf> {
    let entries = fs.list_dir(dir()).unwrap().into_iter();
    entries.filter(|entry| entry.name.ends_with(".wal")).map(|entry| dir().join(entry.name)).collect()
}

const FRAME: usize = 64 + "default".len() + 5;

#[test]
fn a_tail_torn_at_any_byte_is_cut_to_whole_frames() {
    let len = log_of(3, u64::MAX).metadata(&segments(&log_of(3, u64::MAX))[0]).unwrap().len as usize;
    assert_eq!(len, 64 + 6 * FRAME);
    for cut in 1..=2 * FRAME {
        let fs = log_of(3, u64::MAX).restart(0, Survival::None);
        let path = segments(&fs).remove(0);
        fs.open_append(&path).unwrap().set_len((len - cut) as u64).unwrap();
        let (wal, recovery) = open(&fs, &WalSettings::default()).unwrap();
        let frames = 6 - cut.div_ceil(FRAME);
        assert_eq!(recovery.last, WalPosition(frames as u64), "cut {cut}");
        assert_eq!(recovery.torn_bytes as usize, (len - cut - 64) % FRAME);
        assert_eq!(contents(&wal).len(), frames);
        let fs = fs.restart(0, Survival::None);
        let (_, recovery) = open(&fs, &WalSettings::default()).unwrap();
        assert_eq!(recovery.torn_bytes, 0, "the cut was durable");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    for segment_bytes in [u64::MAX, 300] {
        let original = log_of(4, segment_bytes);
        let paths = segments(&original);
        let lens: Vec<_> = paths.iter().map(|path| original.metadata(path).unwrap().len as usize).collect();
        let before_last_group =
            |segment: usize, byte: usize| segment + 1 < paths.len() || byte < lens[segment] - 2 * FRAME;
        for (segment, path) in paths.iter().enumerate() {
            for byte in 0..lens[segment] {
                let fs = original.restart(0, Survival::None);
                fs.flip_bit(path, byte, (byte % 8) as u8).unwrap();
                let opened = open(&fs, &WalSettings::default());
                let found = opened.map(|(wal, recovery)| {
                    let replayed: Result<Vec<_>, _> = wal.replay(WalPosition(0)).collect();
                    (recovery, replayed)
                });
                match found {
                    Err(WalError::Corrupt { file, offset, .. })
                    | Ok((_, Err(WalError::Corrupt { file, offset, .. }))) => {
                        assert_eq!(&file, path, "byte {byte}");
                        assert!(offset as usize <= byte, "{offset} {byte}");
                    }
                    // The one exception: within the last group commit it cannot be told from a tear.
                    Ok((recovery, Ok(_))) => {
                        assert!(recovery.torn_bytes > 0, "segment {segment} byte {byte} went unnoticed");
                        assert!(!before_last_group(segment, byte), "segment {segment} byte {byte} lost silently");
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let count = segments(&log_of(6, 300)).len();
    assert!(count >= 3);
    for missing in 1..count - 1 {
        let fs = log_of(6, 300).restart(0, Survival::None);
        fs.remove_file(&segments(&fs)[missing]).unwrap();
        let error = open(&fs, &WalSettings::default()).unwrap_err();
        assert!(matches!(error, WalError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_missing_or_damaged_writer_id_is_damage() {
    let fs = log_of(1, u64::MAX);
    let fs = fs.restart(0, Survival::None);
    fs.flip_bit(&dir().join("WRITER"), 3, 0).unwrap();
    assert!(matches!(open(&fs, &WalSettings::default()), Err(WalError::Corrupt { .. })));
    fs.remove_file(&dir().join("WRITER")).unwrap();
    assert!(matches!(open(&fs, &WalSettings::default()), Err(WalError::Corrupt { .. })));
}

#[test]
fn a_body_that_holds_a_copy_of_the_log_proves_nothing() {
    // Another log's frames in a torn body do not have this log's marker.
    let forged = log_of(3, u64::MAX);
    let forged = forged.read(&segments(&forged)[0]).unwrap();
    let fs = SimFs::new(99);
    let (mut wal, _) = open(&fs, &WalSettings::default()).unwrap();
    wal.append(&export(forged), UnixMicros(1)).map(drop).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let fs = fs.restart(0, Survival::None);
    let path = segments(&fs).remove(0);
    fs.flip_bit(&path, 64, 0).unwrap();
    let (_, recovery) = open(&fs, &WalSettings::default()).unwrap();
    assert!(recovery.torn_bytes > 0);
}

#[test]
fn a_folder_in_use_is_refused() {
    let fs = log_of(1, u64::MAX);
    let _held = open(&fs, &WalSettings::default()).unwrap();
    let error = open(&fs, &WalSettings::default()).unwrap_err();
    assert!(matches!(error, WalError::InUse { .. }));
    assert_eq!(
        error.to_string(),
        r#"log folder "/data/wal" is in use; stop the other process or choose another data folder"#
    );
}
