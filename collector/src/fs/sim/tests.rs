//! What the simulated disk forgets, and what it keeps.

use super::*;
use crate::fs::create_dir_all_synced;

fn folder() -> Arc<SimFs> {
    let fs = SimFs::new(1);
    create_dir_all_synced(&*fs, Path::new("/d/e")).unwrap();
    fs
}

fn write(fs: &SimFs, path: &str, bytes: &[u8]) -> Box<dyn File> {
    let mut file = fs.create_new(Path::new(path)).unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn a_synced_file_without_a_synced_name_is_lost() {
    let fs = folder();
    write(&fs, "/d/e/a", b"abc").sync_all().unwrap();
    write(&fs, "/d/e/b", b"abc").sync_all().unwrap();
    let lost = fs.restart(1, Survival::None);
    assert_eq!(lost.list_dir(Path::new("/d/e")).unwrap(), []);
    let kept = fs.restart(1, Survival::All);
    assert_eq!(kept.read(Path::new("/d/e/a")).unwrap(), "abc");
}

#[test]
fn a_synced_name_without_a_synced_content_is_an_empty_file() {
    let fs = folder();
    let _file = write(&fs, "/d/e/a", b"abc");
    fs.sync_dir(Path::new("/d/e")).unwrap();
    assert_eq!(fs.restart(1, Survival::None).read(Path::new("/d/e/a")).unwrap(), "");
}

#[test]
fn bytes_of_a_failed_sync_can_be_read_until_the_power_is_cut() {
    let fs = folder();
    let mut file = write(&fs, "/d/e/a", b"abc");
    fs.sync_dir(Path::new("/d/e")).unwrap();
    fs.fail_sync("/d/e/a", 1);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    let fs = fs.restart(1, Survival::ProcessKill);
    assert_eq!(fs.read(Path::new("/d/e/a")).unwrap(), "abc");
    assert_eq!(fs.restart(1, Survival::All).read(Path::new("/d/e/a")).unwrap(), "");
}

#[test]
fn a_rename_between_folders_leaves_the_file_in_one_of_them() {
    for seed in 0..100 {
        let fs = folder();
        write(&fs, "/d/a", b"abc").sync_all().unwrap();
        fs.sync_dir(Path::new("/d")).unwrap();
        fs.rename(Path::new("/d/a"), Path::new("/d/e/b")).unwrap();
        let fs = fs.restart(seed, Survival::Random);
        let found = [fs.read(Path::new("/d/a")), fs.read(Path::new("/d/e/b"))].into_iter().flatten().count();
        assert_eq!(found, 1, "seed {seed}");
    }
}

#[test]
fn after_the_crash_everything_fails_for_ever() {
    let fs = folder();
    let mut file = write(&fs, "/d/e/a", b"abc");
    fs.crash_at(fs.operations() + 1);
    assert!(is_crash(&file.write_all(b"d").unwrap_err()));
    assert!(is_crash(&file.sync_all().unwrap_err()));
    assert!(is_crash(&fs.read(Path::new("/d/e/a")).unwrap_err()));
    assert_eq!(fs.restart(0, Survival::All).read(Path::new("/d/e/a")).unwrap(), "abcd");
    assert!(is_crash(&file.sync_all().unwrap_err()));
}

#[test]
fn a_full_disk_takes_a_part_of_a_write() {
    let fs = folder();
    fs.capacity(Some(5));
    let mut file = write(&fs, "/d/e/a", b"abc");
    assert_eq!(file.write_all(b"defg").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs.read(Path::new("/d/e/a")).unwrap(), "abcde");
    assert_eq!(fs.available_bytes(Path::new("/d")).unwrap(), 0);
}

#[test]
fn the_same_seed_leaves_the_same_bytes() {
    let survivors = |seed| {
        let fs = folder();
        let mut file = write(&fs, "/d/e/a", b"abcdefgh");
        file.write_all(&[7; 100]).unwrap();
        fs.sync_dir(Path::new("/d/e")).unwrap();
        fs.restart(seed, Survival::Random).read(Path::new("/d/e/a")).unwrap()
    };
    assert!((0..50).all(|seed| survivors(seed) == survivors(seed)));
    assert!((0..50).any(|seed| survivors(seed) != survivors(seed + 1)));
}

#[test]
fn one_holder_has_the_lock_until_it_gives_it_back() {
    let fs = folder();
    let held = fs.lock(Path::new("/d")).unwrap();
    assert_eq!(fs.lock(Path::new("/d")).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(held);
    fs.lock(Path::new("/d")).unwrap();
}
