//! Disks that take nothing: without room, read-only, somebody else's. Where this process may not mount any, the test runs again in a
//! namespace where it may; the crash tests have a simulated disk everywhere.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::process::{Process, run, without_settings};
use crate::sandbox::{LIMIT, Raw, TRACES, framed, now_ns, until};
use crate::traffic::{ROWS_PER_TRACE, trace};

/// Exports that are refused one after the other before the disk counts as full.
const REFUSED: u64 = 50;
/// What is left for the log and the tables to race for, each time that the disk is filled.
const ROOMS_BYTES: [u64; 4] = [16 << 10, 48 << 10, 96 << 10, 192 << 10];

/// The first segment of the log.
const SEGMENT: &str = "wal/00000000000000000001.wal";
/// Set where this process was started anew to be allowed to mount.
const MAY_MOUNT: &str = "TOOLGAUGE_TEST_MAY_MOUNT";
const UNSHARE: [&str; 2] = ["--map-root-user", "--mount"];

/// A small file system; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// `None` if the test of this name has run somewhere else, because it is not allowed here. In CI it has to run.
    async fn mount(at: &Path, test: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        assert!(std::env::var_os(MAY_MOUNT).is_none(), "mounting is not allowed in a namespace of one's own");
        let may = Command::new("unshare").args(UNSHARE).arg("true").output();
        if may.is_ok_and(|output| output.status.success()) {
            let mut again = Command::new("unshare");
            again.args(UNSHARE).arg(std::env::current_exe().unwrap()).args(["--exact", test]).env(MAY_MOUNT, "1");
            let (code, stdout, stderr) = run(again).await;
            assert!(code == 0 && stdout.contains("1 passed"), "{stdout}{stderr}");
            return None;
        }
        assert!(
            std::env::var_os("CI").is_none(),
            "no disk can be mounted, nor a namespace made for it: {test} cannot run"
        );
        let mut stderr = std::io::stderr();
        writeln!(stderr, "no disk can be mounted here; {test} was not tried").unwrap();
        None
    }

    fn read_only(&self) {
        let output = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).output().unwrap();
        assert!(output.status.success(), "{output:?}");
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
    let test = "full_disk::a_full_disk_refuses_for_later_loses_nothing_and_goes_on_when_there_is_room";
    let Some(disk) = Disk::mount(&folder.path().join("disk"), test).await else { return };
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

/// What a start says that cannot be: the line of standard error with the fault.
async fn refused_start(command: Command) -> String {
    let (code, _, stderr) = run(command).await;
    assert_eq!(code, 1, "{stderr}");
    let line = stderr.lines().find(|line| line.starts_with("toolgauge: "));
    line.unwrap_or_else(|| panic!("{stderr}")).to_owned()
}

/// Scenario: a start on a disk without room, on a fresh folder and on one that is used; then there is room. Guarantees: the one says what
/// found no room, the other serves what is there and asks exporters to come back; with room, both serve everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_says_so_or_serves_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let test = "full_disk::a_start_on_a_full_disk_says_so_or_serves_what_is_there";
    let Some(disk) = Disk::mount(&folder.path().join("disk"), test).await else { return };
    let fresh = disk.0.join("fresh");
    let ballast = disk.fill(0);
    let said = refused_start(Process::command(&fresh, &[])).await;
    assert_eq!(
        said,
        format!(
            "toolgauge: start the collector: open the log: write \"{}\": No space left on device (os error 28)",
            fresh.join(SEGMENT).display()
        )
    );
    std::fs::remove_file(ballast).unwrap();

    let used = disk.0.join("used");
    let (mut process, doors) = Process::start(Process::command(&used, &[])).await;
    let mut client = Raw::connect(doors.otlp).await;
    for number in 0..5 {
        client.export(TRACES, &trace(0, number, now_ns()).encode_to_vec()).await;
    }
    process.kill();
    // The log is there already, and takes nothing more for the moment.
    let ballast = disk.fill(0);
    let (mut process, doors) = Process::start(Process::command(&used, &[])).await;
    doors.api.until_visible().await;
    assert_eq!(doors.api.row("SELECT count(*) FROM calls").await, [5 * ROWS_PER_TRACE]);
    let mut client = Raw::connect(doors.otlp).await;
    // What the log has room for already is taken.
    let (mut number, base_ns) = (5, now_ns());
    let refused = until(LIMIT, "an export is refused", async || {
        let answer = client.call(TRACES, None, framed(0, &trace(0, number, base_ns).encode_to_vec())).await;
        number += u64::from(answer.status.code() == Code::Ok);
        (answer.status.code() != Code::Ok).then_some(answer)
    })
    .await;
    assert_eq!(refused.status.code(), Code::Unavailable, "{refused:?}");
    assert!(refused.status.get_error_details().retry_info().is_some(), "{refused:?}");
    process.kill();
    std::fs::remove_file(ballast).unwrap();
    for data in [&fresh, &used] {
        let (_process, doors) = Process::start(Process::command(data, &[])).await;
        doors.api.until_visible().await;
        let rows = if data == &used { number * ROWS_PER_TRACE } else { 0 };
        assert_eq!(doors.api.row("SELECT count(*), count(DISTINCT row_id) FROM calls").await, [rows; 2]);
    }
}

/// Scenario: a start on a disk that is mounted read-only, on a folder that is to be made and on one that is used. Guarantees: each
/// ends with the name of what cannot be written, and why.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_read_only_disk_says_what_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let test = "full_disk::a_start_on_a_read_only_disk_says_what_cannot_be_written";
    let Some(disk) = Disk::mount(&folder.path().join("disk"), test).await else { return };
    let used = disk.0.join("used");
    let (mut process, _) = Process::start(Process::command(&used, &[])).await;
    process.terminate();
    process.until_ended().await;
    disk.read_only();
    let fresh = disk.0.join("fresh");
    let said = refused_start(Process::command(&fresh, &[])).await;
    assert_eq!(
        said,
        format!("toolgauge: use the data folder \"{}\": Read-only file system (os error 30)", fresh.display())
    );
    let said = refused_start(Process::command(&used, &[])).await;
    assert_eq!(
        said,
        format!(
            "toolgauge: start the collector: open the log: open \"{}\": Read-only file system (os error 30)",
            used.join(SEGMENT).display()
        )
    );
}

/// Scenario: a start on a folder that may not be written. Guarantees: as above.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_folder_without_permission_says_what_may_not_be_written() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    let data = folder.path().join("data");
    let mut command = Process::command(&data, &[]);
    if rustix::process::geteuid().is_root() {
        // Root may write anything, unless it gives that up; another user might not reach the program.
        let program = command;
        command = without_settings(Command::new("setpriv"));
        command.arg("--bounding-set=-dac_override,-dac_read_search");
        command.arg(program.get_program()).args(program.get_args());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    }
    let said = refused_start(command).await;
    assert_eq!(said, format!("toolgauge: use the data folder \"{}\": Permission denied (os error 13)", data.display()));
}
