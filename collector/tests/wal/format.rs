//! The bytes on the disk are those of the specification, for ever.

use std::sync::Arc;

use toolgauge_collector::export::{Export, ExportEncoding, ExportSignal};
use toolgauge_collector::fs::sim::SimFs;
use toolgauge_collector::fs::{Fs, create_dir_all_synced};
use toolgauge_collector::wal::{Appended, FrameContent, WalSettings};
use toolgauge_proto::id::WalPosition;
use toolgauge_proto::time::UnixMicros;

use crate::{dir, export, open};

const WRITER: &[u8] = include_bytes!("../golden/wal/WRITER");
const FIRST: &[u8] = include_bytes!("../golden/wal/00000000000000000001.wal");
const SECOND: &[u8] = include_bytes!("../golden/wal/00000000000000000004.wal");
const FILES: [(&str, &[u8]); 3] =
    [("WRITER", WRITER), ("00000000000000000001.wal", FIRST), ("00000000000000000004.wal", SECOND)];

fn settings() -> WalSettings {
    WalSettings { segment_bytes: 250, ..WalSettings::default() }
}

fn logs() -> Export {
    Export {
        tenant: Arc::from("größe"),
        signal: ExportSignal::Logs,
        encoding: ExportEncoding::Protobuf,
        body: vec![0xff; 3].into(),
    }
}

#[test]
fn the_golden_log_is_written_byte_for_byte() {
    let fs = SimFs::new(42);
    let (mut wal, _) = open(&fs, &settings()).unwrap();
    wal.append(&export("spans"), UnixMicros(1_767_225_600_000_000)).map(drop).unwrap();
    wal.append(&logs(), UnixMicros(1_767_225_600_000_001)).map(drop).unwrap();
    wal.sync().unwrap();
    wal.append(&export(""), UnixMicros(5)).map(drop).unwrap();
    wal.sync().unwrap();
    wal.tick(UnixMicros(1_767_225_605_000_000)).unwrap();
    wal.sync().unwrap();
    for (name, golden) in FILES {
        let written = fs.read(&dir().join(name)).unwrap();
        if std::env::var_os("TOOLGAUGE_BLESS").is_some() {
            std::fs::write(format!("{}/tests/golden/wal/{name}", env!("CARGO_MANIFEST_DIR")), &written).unwrap();
        } else {
            assert_eq!(written, golden, "{name}");
        }
    }
}

#[test]
fn the_golden_log_is_read() {
    let fs = SimFs::new(1);
    create_dir_all_synced(&*fs, dir()).unwrap();
    for (name, golden) in FILES {
        fs.create_new(&dir().join(name)).unwrap().write_all(golden).unwrap();
    }
    let (mut wal, recovery) = open(&fs, &settings()).unwrap();
    assert_eq!((recovery.first, recovery.last, recovery.torn_bytes), (WalPosition(1), WalPosition(4), 0));
    let frames: Vec<_> = wal.replay(WalPosition(1)).map(Result::unwrap).collect();
    let times: Vec<_> = frames.iter().map(|frame| frame.receive_time.0 - 1_767_225_600_000_000).collect();
    assert_eq!(times, [0, 1, 1, 5_000_000]);
    let FrameContent::Export(second) = &frames[1].content else { panic!("{frames:?}") };
    assert_eq!((&*second.tenant, second.signal, &second.body[..]), ("größe", ExportSignal::Logs, &[0xff; 3][..]));
    assert!(matches!(frames[3].content, FrameContent::Tick));
    for (again, position) in [(export("spans"), 1), (logs(), 2), (export(""), 3)] {
        assert_eq!(wal.append(&again, UnixMicros(0)), Ok(Appended::Resend(WalPosition(position))));
    }
}

#[test]
fn the_golden_bytes_stand_where_the_specification_puts_them() {
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(&FIRST[..8], b"tgwal\r\n\0");
    assert_eq!(u32_at(FIRST, 8), 1);
    assert_eq!(FIRST[16..32], WRITER[..16]);
    assert_eq!(u32_at(WRITER, 16), crc32c::crc32c(&WRITER[..16]));
    assert_eq!((u64_at(FIRST, 32), u64_at(SECOND, 32)), (1, 4));
    assert_eq!(u64_at(FIRST, 40) as i64, i64::MIN);
    assert_eq!(u64_at(SECOND, 40), 1_767_225_600_000_001);
    assert_eq!(u32_at(FIRST, 60), crc32c::crc32c(&FIRST[..60]));
    let frame = &FIRST[64..64 + 64 + 7 + 5];
    assert_eq!(u64_at(frame, 0), u64_at(FIRST, 48));
    assert_eq!(u32_at(frame, 8), crc32c::crc32c(b"defaultspans"));
    assert_eq!(u32_at(frame, 12), 5);
    assert_eq!((u64_at(frame, 16), u64_at(frame, 24)), (1, 0));
    assert_eq!(u64_at(frame, 32), 1_767_225_600_000_000);
    let digest = xxhash_rust::xxh3::xxh3_128(b"\x07\x00default\x01\x01spans");
    assert_eq!(frame[40..56], digest.to_le_bytes());
    assert_eq!(frame[56..60], [1, 1, 7, 0]);
    assert_eq!(u32_at(frame, 60), crc32c::crc32c(&frame[..60]));
    assert_eq!(&frame[64..], b"defaultspans");
    // The third frame was written when the first two were synced.
    assert_eq!(u64_at(&FIRST[64 + frame.len() + 64 + "größe".len() + 3..], 24), 2);
}
