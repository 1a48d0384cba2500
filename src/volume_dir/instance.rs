//! Which volume directory this is: an id that no copy of it shares, so that a copy that is mounted
//! elsewhere is told from the original.
//!
//! *Rule*: the id in the file `instance` is this directory's as long as the file is the very one that
//! it was written to (its inode, and its time of birth where the file system knows that) on the
//! machine that wrote it (`/etc/machine-id`). A copy, a restored backup and a directory that moved to
//! another file system are other instances, and so is one on shared storage that another machine
//! opens. Device numbers do not count: they change when a machine starts. A clone of a whole disk
//! with its machine id cannot be told apart by this; it is by its claim (see
//! [`firn_tiering::tier::owner`]). *Crash*: the file is written aside and renamed; one that is lost,
//! torn or damaged makes a new instance, which is refused until somebody says who is to have the cold
//! tier.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::VolumeDir;
use crate::config::ColdUrls;
use crate::mounts;

/// Name of the file.
const FILE_NAME: &str = "instance";

/// Name of the file with the place that the volume was used with.
const PLACE_FILE: &str = "cold-used";

const VERSION: u32 = 1;

/// Longest file that is believed.
const MAX_LEN: u64 = 4096;

/// What the file says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    id: Uuid,
    machine: String,
    inode: u64,
    /// Nanoseconds since 1970; absent where the file system does not know.
    born_ns: Option<i64>,
}

/// The id of a volume directory; made now when there is none or it is another's.
pub fn id_of(volume: &VolumeDir) -> anyhow::Result<String> {
    id_in(volume.root(), &machine_id())
}

fn id_in(dir: &Path, machine: &str) -> anyhow::Result<String> {
    let path = dir.join(FILE_NAME);
    if let Some(record) = read(&path)
        && record.version == VERSION
        && record.machine == machine
        && birth_of(&path).is_ok_and(|birth| birth == (record.inode, record.born_ns))
    {
        return Ok(text_of(record.id));
    }
    let id = Uuid::new_v4();
    write(&path, id, machine).with_context(|| format!("writing {}", mounts::shown(&path)))?;
    tracing::info!(%id, "this volume directory is an instance of its own");
    Ok(text_of(id))
}

/// 32 hexadecimal digits.
fn text_of(id: Uuid) -> String {
    id.simple().to_string()
}

/// A file that is missing or makes no sense says nothing.
fn read(path: &Path) -> Option<Record> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_LEN).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn write(path: &Path, id: Uuid, machine: &str) -> io::Result<()> {
    let aside = path.with_extension("new");
    // A file of its own, whatever lies there.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(&aside)?;
    let (inode, born_ns) = birth_of(&aside)?;
    let record = Record { version: VERSION, id, machine: machine.to_owned(), inode, born_ns };
    let text = serde_json::to_string(&record).map_err(io::Error::other)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Inode and time of birth.
fn birth_of(path: &Path) -> io::Result<(u64, Option<i64>)> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
    let born = (stat.stx_mask & StatxFlags::BTIME.bits() != 0)
        .then(|| stat.stx_btime.tv_sec * 1_000_000_000 + i64::from(stat.stx_btime.tv_nsec));
    Ok((stat.stx_ino, born))
}

/// The machine's id; empty where it has none.
fn machine_id() -> String {
    let read = |path| fs::read_to_string(path).ok().filter(|text| text.len() <= 64);
    let found = read("/etc/machine-id").or_else(|| read("/var/lib/dbus/machine-id"));
    found.unwrap_or_default().trim().to_owned()
}

fn place_file(volume: &VolumeDir) -> PathBuf {
    volume.root().join(PLACE_FILE)
}

/// Whether the volume was used with this place before.
pub fn has_used(volume: &VolumeDir, place: &ColdUrls) -> bool {
    let file = File::open(place_file(volume)).map(|file| file.take(MAX_LEN));
    let mut text = String::new();
    file.is_ok_and(|mut file| file.read_to_string(&mut text).is_ok())
        && text.strip_suffix('\n') == Some(&place.to_string())
}

/// Notes that the volume was used with this place.
pub fn note_used(volume: &VolumeDir, place: &ColdUrls) {
    if has_used(volume, place) {
        return;
    }
    let (file, text) = (place_file(volume), format!("{place}\n"));
    let aside = file.with_extension("new");
    let written = fs::write(&aside, text).and_then(|()| fs::rename(&aside, &file));
    if let Err(error) = written {
        // The next mount then wants to see the store.
        tracing::warn!(%error, "writing {}", mounts::shown(&file));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_directory_keeps_its_id_and_a_copy_has_another() {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = id_in(dir.path(), "m1").unwrap();
        assert_eq!(id.len(), 32);
        assert_eq!(id_in(dir.path(), "m1").unwrap(), id);
        let moved = copy.path().join("moved");
        fs::rename(dir.path(), &moved).unwrap();
        assert_eq!(id_in(&moved, "m1").unwrap(), id, "another name is not another directory");
        let copied = copy.path().join("copied");
        let status = std::process::Command::new("cp").arg("-a").args([&moved, &copied]).status();
        assert!(status.unwrap().success());
        assert_ne!(id_in(&copied, "m1").unwrap(), id);
        assert_eq!(id_in(&moved, "m1").unwrap(), id);
        assert_ne!(id_in(&moved, "m2").unwrap(), id, "another machine");
    }

    #[test]
    fn what_is_torn_or_newer_makes_a_new_instance() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let id = id_in(dir.path(), "m").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [String::new(), text[..20].to_owned(), text.replace(":1,", ":2,")] {
            fs::write(&path, damaged).unwrap();
            assert_ne!(id_in(dir.path(), "m").unwrap(), id);
        }
    }

    #[test]
    fn the_place_that_was_used_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let volume = VolumeDir::unchecked(dir.path().to_owned());
        let url = |text: &str| text.parse::<ColdUrls>().unwrap();
        assert!(!has_used(&volume, &url("s3://bucket/a")));
        note_used(&volume, &url("s3://bucket/a"));
        assert!(has_used(&volume, &url("s3://bucket/a")));
        assert!(!has_used(&volume, &url("s3://bucket/b")));
    }
}
