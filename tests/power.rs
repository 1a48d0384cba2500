//! Power loss under load: the volume and its cold tier lie on a disk of their own, whose image is
//! copied at one instant, again and again; each copy holds what had reached the disk by then and
//! nothing of any page cache above it. Mounted afresh, it has all that was acknowledged.
//!
//! The image lies on an XFS that can copy by reference, which makes a copy one instant. Beside those
//! who write, others make, move and remove names, take and destroy snapshots, copy to cold and drop
//! from hot, and the namespace is backed up every second, so that cuts fall into all of that. What
//! moves between the tiers, and the files of one writer, have their parity apart, so that cuts fall
//! between segments and their sidecars too. As a control, a file that nobody syncs is written right before each cut: the copies must have lost it.

mod actors;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::disk::Disk;
use crate::harness::{Volume, shell, succeed};
use crate::load::{Acknowledged, Load, verify};
use actors::{Actors, Seen};

/// How often the power is cut; `FIRN_POWER_CUTS` says otherwise.
const CUTS: u64 = 32;

/// Of so many copies, one is read as a whole, and not only what was acknowledged and the structure.
const READ_WHOLE: u64 = 4;

/// Bytes of the file that is not synced before a cut.
const UNSYNCED: usize = 300_000;

/// Where parity lies: apart for the names that move between the tiers, and for one writer.
const POLICY: &str = "[[class]]\nname = \"apart\"\npath = [\"/names/**\", \"/w1-*\"]\n\
                      parity = \"object\"\n";

/// What had been acknowledged before a cut, and what had been undone after it.
struct Cut {
    number: u64,
    files: Acknowledged,
    seen: Seen,
}

/// Lets a copy find itself: another path, another start of the machine, the same cold tier.
fn move_in(dir: &Path, cold: &Path) {
    let script = "sed -i 's/\"boot_id\":\"[^\"]*\"/\"boot_id\":\"an earlier one\"/' \
                      \"$1/catalog/marker.json\"; \
                  sed -i \"s|^cold = .*|cold = \\\"file://$2\\\"|\" \"$1/firn.toml\"";
    shell(script, &[dir, cold]);
}

/// What a copy of the disk had.
struct Found {
    /// The file that was not synced, as a whole.
    unsynced: bool,
    /// Sidecars in either tier.
    sidecars: usize,
}

fn sidecars(dirs: &[PathBuf]) -> usize {
    let entries = dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "par")).count()
}

/// Brings one copy of the disk up and compares; the copy is gone afterwards.
fn restart_and_verify(pool: &Disk, image: &Path, cut: &Cut) -> Found {
    let disk = Disk::mount(image, pool.path(&format!("restarted-{}", cut.number)));
    let dir = disk.path("volume");
    let sidecars = sidecars(&[dir.join("hot/segments"), disk.path("cold/parity")]);
    move_in(&dir, &disk.path("cold"));
    let mut volume = Volume::existing(dir.clone());
    verify(&volume.mountpoint, &cut.files, cut.number as u32);
    cut.seen.verify(&volume, cut.number);
    let unsynced = std::fs::read(volume.path(&unsynced_name(cut.number)));
    let unsynced = unsynced.is_ok_and(|bytes| bytes == vec![cut.number as u8; UNSYNCED]);
    volume.umount();
    let mut check = volume.firn();
    check.arg("check").arg(&dir);
    if cut.number.is_multiple_of(READ_WHOLE) {
        check.arg("--data");
    }
    let checked = succeed(&mut check);
    drop((volume, disk));
    std::fs::remove_file(image).unwrap();
    assert!(!checked.is_empty());
    Found { unsynced, sidecars }
}

fn unsynced_name(cut: u64) -> String {
    format!("unsynced-{cut}")
}

/// A volume on a disk of its own, with a small hot tier and a backup every second.
fn make(disk: &Disk) -> Volume {
    let (dir, cold) = (disk.path("volume"), disk.path("cold"));
    let url = format!("file://{}", cold.display());
    let mut init = std::process::Command::new(crate::harness::FIRN);
    init.arg("init").arg(&dir).args(["--cold", &url, "--hot-capacity", "256MiB"]);
    succeed(&mut init);
    let script = "sed -i 's/^backup_interval = .*/backup_interval = \"1s\"/' \"$1/firn.toml\"";
    shell(script, &[&dir]);
    std::fs::write(dir.join("policy.toml"), POLICY).unwrap();
    Volume::existing(dir)
}

/// A number that the environment may choose.
fn chosen(name: &str, otherwise: u64) -> u64 {
    let number = std::env::var(name).ok().and_then(|text| text.parse().ok());
    let number = number.unwrap_or(otherwise);
    eprintln!("{name}={number}");
    number
}

#[test]
fn acknowledged_writes_survive_power_loss() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOTE: making disks needs root: nothing is tested");
        return;
    }
    let scratch: TempDir = tempfile::Builder::new().prefix("firn-power-").tempdir().unwrap();
    let image = scratch.path().join("pool.img");
    let pool = Disk::make(&image, "24G", "mkfs.xfs -q -m reflink=1", scratch.path().join("pool"));
    let platter = pool.path("disk.img");
    let disk = Disk::make(&platter, "8G", "mkfs.ext4 -q", scratch.path().join("disk"));
    let mut volume = make(&disk);
    // The same instants in every run; another seed explores others.
    let (seed, cuts) = (chosen("FIRN_POWER_SEED", 20_261_120), chosen("FIRN_POWER_CUTS", CUTS));
    let mut files = Acknowledged::default();
    let mut actors = Actors::new(&volume);
    let (mut kept, mut unflushed, mut apart) = (0, 0, 0);
    for number in 0..cuts {
        let load = Load::start(&volume.mountpoint, &files);
        actors.start(&volume, number);
        let wait = firn_tiering::mix(seed ^ number) % 900;
        std::thread::sleep(Duration::from_millis(100 + wait));
        unflushed += u64::from(volume.dirty_files() > 0);
        let before = actors.seen();
        let acknowledged = load.acknowledged();
        let unsynced = volume.path(&unsynced_name(number));
        std::fs::write(unsynced, vec![number as u8; UNSYNCED]).unwrap();
        let copy = pool.path(&format!("cut-{number}.img"));
        shell("cp --reflink=always \"$1\" \"$2\"", &[&platter, &copy]);
        let seen = before.still_so(&actors.seen());
        files = load.stop();
        actors.stop();
        let cut = Cut { number, files: acknowledged, seen };
        let found = restart_and_verify(&pool, &copy, &cut);
        kept += u64::from(found.unsynced);
        apart += u64::from(found.sidecars > 0);
    }
    verify(&volume.mountpoint, &files, cuts as u32);
    actors.seen().verify(&volume, cuts);
    volume.umount();
    drop((volume, disk, pool));
    assert!(!files.is_empty(), "nothing was ever acknowledged");
    assert!(unflushed >= cuts / 2, "only {unflushed} cuts met unflushed work");
    assert!(apart >= cuts / 4, "only {apart} cuts met parity that lies apart");
    actors.assert_all_acted();
    // Without this the copies would show what a page cache holds, and the test nothing at all.
    assert!(kept <= cuts / 2, "{kept} of {cuts} copies have what nobody had synced");
}
