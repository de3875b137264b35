//! A disk without room, where this machine lets us make one; the crash tests have a simulated one everywhere.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::process::Process;
use crate::sandbox::{LIMIT, Raw, TRACES, framed, now_ns, until};
use crate::traffic::{ROWS_PER_TRACE, trace};

/// Exports that are refused one after the other before the disk counts as full.
const REFUSED: u64 = 50;
/// What is left for the log and the tables to race for, each time that the disk is filled.
const ROOMS_BYTES: [u64; 4] = [16 << 10, 48 << 10, 96 << 10, 192 << 10];

/// A small file system; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// `None` where it is not allowed.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }

    /// Fills it up to the last so many bytes.
    fn fill(&self, room: u64) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut bytes = 0;
        while file.write_all(&[1; 4096]).is_ok() {
            bytes += 4096;
        }
        file.set_len(bytes - room).unwrap();
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).output());
    }
}

/// Scenario: the disk fills up while exports come in and commits happen; later there is room again. Guarantees: exports
/// are refused as overload and asked for again; what was acknowledged is answered all the time; with room, everything
/// goes on without a restart, and every export is there once, also after one.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_for_later_loses_nothing_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("disk")) else {
        writeln!(std::io::stderr(), "no disk can be mounted here; a full one was not tried").unwrap();
        return;
    };
    let data = disk.0.join("data");
    let settings = [
        ("TOOLGAUGE_SETTLE_AFTER", "200ms"),
        ("TOOLGAUGE_LAKE_COMMIT_INTERVAL", "20ms"),
        ("TOOLGAUGE_WAL_SEGMENT", "256KiB"),
    ];
    let (mut process, doors) = Process::start(Process::command(&data, &settings)).await;
    let mut client = Raw::connect(doors.otlp).await;
    let (base_ns, mut number) = (now_ns(), 0);
    let rows = "SELECT count(*), count(DISTINCT row_id) FROM calls";
    for room in ROOMS_BYTES {
        let ballast = disk.fill(room);
        let mut refused = 0;
        while refused < REFUSED {
            let answer = client.call(TRACES, None, framed(0, &trace(0, number, base_ns).encode_to_vec())).await;
            if answer.status.code() == Code::Ok {
                (number, refused) = (number + 1, 0);
                continue;
            }
            refused += 1;
            assert_eq!(answer.status.code(), Code::Unavailable, "{answer:?}");
            assert!(answer.status.get_error_details().retry_info().is_some(), "{answer:?}");
            assert!(number < 10_000, "the disk never gets full");
        }
        doors.api.until_visible().await;
        assert_eq!(doors.api.row(rows).await, [number * ROWS_PER_TRACE; 2]);
        assert_eq!(doors.api.get("/readyz").await.status, 200, "it waits for room");

        std::fs::remove_file(ballast).unwrap();
        let full_at = number;
        until(LIMIT, "exports are taken again", async || {
            let answer = client.call(TRACES, None, framed(0, &trace(0, number, base_ns).encode_to_vec())).await;
            number += u64::from(answer.status.code() == Code::Ok);
            (number >= full_at + 20).then_some(())
        })
        .await;
        doors.api.until_visible().await;
        assert_eq!(doors.api.row(rows).await, [number * ROWS_PER_TRACE; 2]);
    }
    let settled = doors.api.status().await.ingest.wal_settled;
    until(LIMIT, "commits go on", async || (doors.api.status().await.ingest.wal_committed >= settled).then_some(()))
        .await;
    process.terminate();
    let status = process.until_ended().await;
    let stderr = process.stderr();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let (_process, doors) = Process::start(Process::command(&data, &settings)).await;
    assert_eq!(doors.api.row(rows).await, [number * ROWS_PER_TRACE; 2]);
}
