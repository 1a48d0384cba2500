//! The table of damage: what is done x where, and how it ends when files are read, storage is looked
//! over, the volume is mounted again, checked, and recovered from its cold tier alone. Each cell ends
//! in the right bytes or in an error that names the file, and never in other bytes.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Output;

use firn_tiering::segment::{DATA_START, SegmentHeader, TRAILER_LEN, Trailer};
use parking_lot::Mutex;

use super::{overwrite, read, scrub};
use crate::harness::{Volume, noise, now, shell};

/// Cells at a time: most of their time they wait for daemons and for claims of the cold tier.
const SIDE_BY_SIDE: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Hot,
    Dual,
    Cold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A part of a segment's file in the hot tier.
    File(Part),
    /// A part of its object in the cold tier.
    Object(Part),
    Catalog,
    Namespace,
    Backup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Frames,
    Index,
    Parity,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    Flip,
    Truncate,
    Delete,
    Swap,
    Duplicate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Everything is there, and whole again afterwards.
    Whole,
    /// What cannot be read is named.
    Named,
    /// Everything is there, and what nobody may make good is told.
    Told,
    /// The same; a check alone tells it.
    Stray,
    /// Mounting is refused with a reason, or everything is there.
    Refused,
}

const HARMS: [Harm; 5] = [Harm::Flip, Harm::Truncate, Harm::Delete, Harm::Swap, Harm::Duplicate];

/// Every cell: where the volume keeps its segments, what is damaged in which way, and the end.
fn cells() -> Vec<(Kept, Place, Harm, End)> {
    let mut cells = Vec::new();
    let copies = [(Kept::Hot, false), (Kept::Dual, false), (Kept::Dual, true), (Kept::Cold, true)];
    for (kept, in_cold) in copies {
        let place = |part| if in_cold { Place::Object(part) } else { Place::File(part) };
        for part in [Part::Frames, Part::Index, Part::Parity] {
            cells.push((kept, place(part), Harm::Flip, End::Whole));
        }
        for harm in [Harm::Truncate, Harm::Delete, Harm::Swap, Harm::Duplicate] {
            let place = place(Part::All);
            let end = match (kept, place, harm) {
                // A file under a name that nobody gave is told, and nobody's to remove.
                (_, Place::File(_), Harm::Duplicate) => End::Stray,
                (_, _, Harm::Duplicate) => End::Whole,
                // An object that another segment claims is replaced by nobody.
                (Kept::Dual, Place::Object(_), Harm::Swap) => End::Told,
                (Kept::Dual, ..) => End::Whole,
                _ => End::Named,
            };
            cells.push((kept, place, harm, end));
        }
    }
    for harm in HARMS {
        cells.push((Kept::Dual, Place::Catalog, harm, End::Whole));
        cells.push((Kept::Dual, Place::Namespace, harm, End::Refused));
        cells.push((Kept::Dual, Place::Backup, harm, End::Whole));
    }
    cells
}

pub(super) fn files() -> Vec<(String, Vec<u8>)> {
    let large = (0..2).map(|n| (format!("large{n}"), noise(90 + n, 3 << 20)));
    let small = (0..4).map(|n| (format!("small{n}"), noise(n, 3000)));
    large.chain(small).collect()
}

/// An unmounted volume with two sealed segments.
fn volume(kept: Kept, files: &[(String, Vec<u8>)]) -> Volume {
    let mut volume = if kept == Kept::Hot { Volume::with(&[], &[]) } else { Volume::mounted() };
    write_segments(&mut volume, kept, files);
    volume
}

/// Writes files to a mounted volume as two segments, and unmounts it.
pub(super) fn write_segments(volume: &mut Volume, kept: Kept, files: &[(String, Vec<u8>)]) {
    for half in files.chunks(files.len() / 2) {
        for (name, content) in half {
            fs::write(volume.path(name), content).unwrap();
        }
        volume.umount();
        volume.mount();
    }
    if kept == Kept::Cold {
        let root = volume.mountpoint.to_str().unwrap().to_owned();
        volume.run(&["tier", "release", "-r", &root]);
    }
    volume.umount();
}

/// All files below a directory, the largest first.
pub(super) fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { found.push(path) }
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
    found
}

pub(super) fn part_of(path: &Path, part: Part) -> Range<u64> {
    let bytes = fs::read(path).unwrap();
    let name = SegmentHeader::from_bytes(&bytes).unwrap().name;
    let trailer = Trailer::from_bytes(&bytes[bytes.len() - TRAILER_LEN..], &name).unwrap();
    match part {
        Part::Frames => DATA_START..trailer.frames_end,
        Part::Index => trailer.index_a,
        Part::Parity => trailer.parity,
        Part::All => 0..bytes.len() as u64,
    }
}

pub(super) fn middle(range: &Range<u64>) -> u64 {
    range.start + (range.end - range.start) / 2
}

pub(super) fn truncate(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(path.metadata().unwrap().len() / 2).unwrap();
}

pub(super) fn swap(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside).unwrap();
    fs::rename(other, one).unwrap();
    fs::rename(aside, other).unwrap();
}

/// Does it to one of several segments, or between two.
fn harm_segment(segments: &[PathBuf], part: Part, harm: Harm) {
    let victim = &segments[0];
    match harm {
        Harm::Flip => overwrite(victim, middle(&part_of(victim, part)), 1),
        Harm::Truncate => truncate(victim),
        Harm::Delete => fs::remove_file(victim).unwrap(),
        Harm::Swap => swap(victim, &segments[1]),
        // Under a name that nobody uses.
        Harm::Duplicate => {
            fs::copy(victim, victim.with_file_name("0001000000009999.seg")).unwrap();
        }
    }
}

/// Does it to every file of a database, or between its two largest.
fn harm_files(dir: &Path, harm: Harm) {
    let files = below(dir);
    match harm {
        Harm::Flip => {
            for file in files.iter().filter(|file| file.metadata().unwrap().len() > 0) {
                overwrite(file, file.metadata().unwrap().len() / 2, 1);
            }
        }
        Harm::Truncate => files.iter().for_each(|file| truncate(file)),
        Harm::Delete => files.iter().for_each(|file| fs::remove_file(file).unwrap()),
        Harm::Swap => swap(&files[0], &files[1]),
        Harm::Duplicate => {
            fs::copy(&files[0], &files[1]).unwrap();
        }
    }
}

fn apply(volume: &Volume, place: Place, harm: Harm) {
    let cold = volume.scratch.path().join("cold");
    match place {
        Place::File(part) => harm_segment(&below(&volume.dir.join("hot/segments")), part, harm),
        Place::Object(part) => harm_segment(&below(&cold.join("segments")), part, harm),
        Place::Catalog => harm_files(&volume.dir.join("catalog"), harm),
        Place::Namespace => harm_files(&volume.dir.join("namespace"), harm),
        Place::Backup => harm_files(&cold.join("namespace"), harm),
    }
}

/// Reads everything; names what cannot be read.
pub(super) fn unreadable(
    volume: &Volume,
    files: &[(String, Vec<u8>)],
    when: &str,
) -> BTreeSet<String> {
    let mut lost = BTreeSet::new();
    for (name, content) in files {
        match read(volume, name) {
            Ok(found) => assert!(found == *content, "{when}: wrong bytes of {name}"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO), "{when}: {name}: {error}");
                lost.insert(name.clone());
            }
        }
    }
    lost
}

fn check(volume: &Volume) -> (i32, String) {
    let output = volume.firn().args(["check", "--data"]).arg(&volume.dir).output().unwrap();
    (output.status.code().unwrap(), text_of(&output))
}

pub(super) fn text_of(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

/// From the cold tier alone: everything, what is lost being named, or a named error.
fn recover(
    volume: &Volume,
    cold: &Path,
    files: &[(String, Vec<u8>)],
    when: &str,
) -> Option<BTreeSet<String>> {
    let place = volume.scratch.path().join(when);
    let url = format!("file://{}", cold.display());
    let output = volume.firn().args(["recover", &url]).arg(&place).output().unwrap();
    let text = text_of(&output);
    if output.status.code() == Some(1) {
        assert!(text.contains("backup"), "{when}: {text}");
        return None;
    }
    let mut recovered = Volume::existing(place);
    let lost = unreadable(&recovered, files, when);
    names_all(&text, &lost, when);
    recovered.umount();
    Some(lost)
}

/// Reads, looks over, mounts again and checks a mounted volume, which ends unmounted and as is
/// said; the files that cannot be read.
pub(super) fn outcome(
    volume: &mut Volume,
    files: &[(String, Vec<u8>)],
    end: End,
) -> BTreeSet<String> {
    let mut lost = unreadable(volume, files, "at once");
    let (code, report) = scrub(volume, &["start", "--wait", "--cold-data"]);
    lost.extend(unreadable(volume, files, "after a scrub"));
    volume.umount();
    volume.mount();
    lost.extend(unreadable(volume, files, "mounted again"));
    volume.umount();
    let (checked, text) = check(volume);
    if lost.is_empty() {
        let expected = match end {
            // Afterwards it counts as a segment that is in hot only, and is that.
            End::Told => (3, 0),
            End::Stray => (0, 3),
            _ => (0, 0),
        };
        assert_eq!((code, checked), expected, "{report}: {text}");
    } else {
        assert_eq!((end, code, checked), (End::Named, 3, 3), "{lost:?}: {report}: {text}");
    }
    names_all(&text, &lost, "checked");
    lost
}

/// What is lost is named in what was said.
fn names_all(text: &str, lost: &BTreeSet<String>, when: &str) {
    for name in lost {
        assert!(text.contains(&format!("\n    /{name}\n")), "{when}: {name} is not named: {text}");
    }
}

fn run(kept: Kept, place: Place, harm: Harm, end: End) {
    let files = files();
    let mut volume = volume(kept, &files);
    apply(&volume, place, harm);
    let cold = volume.scratch.path().join("cold");
    if place == Place::Backup {
        // Before a mount makes it good; of a copy, since whoever recovers owns the tier.
        let copy = volume.scratch.path().join("copy");
        shell("cp -a \"$1\" \"$2\"", &[&cold, &copy]);
        recover(&volume, &copy, &files, "as-it-is");
    }
    if let Err(status) = volume.try_mount(&[]) {
        assert_eq!((end, status.code()), (End::Refused, Some(1)), "{}", volume.log());
        assert!(volume.log().contains("namespace"), "{}", volume.log());
        assert_eq!(recover(&volume, &cold, &files, "instead"), Some(BTreeSet::new()));
        return;
    }
    let lost = outcome(&mut volume, &files, end);
    if matches!(place, Place::Object(Part::All) | Place::Backup) && end != End::Told {
        let gone = recover(&volume, &cold, &files, "in-the-end").unwrap();
        // Of a damaged object, the index that was kept here tells where more of it is.
        assert!(gone == lost || !lost.is_empty() && gone.is_superset(&lost), "{gone:?}: {lost:?}");
    }
}

/// Runs cells, some at a time, and names each that does not end as it is to.
pub(super) fn run_side_by_side<F: FnOnce() + Send>(cells: impl Iterator<Item = (String, F)>) {
    let left = Mutex::new(cells.collect::<Vec<_>>());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let Some((cell, run)) = left.lock().pop() else { break };
                    let start = now();
                    if std::panic::catch_unwind(AssertUnwindSafe(run)).is_err() {
                        failed.lock().push(cell.clone());
                    }
                    eprintln!("{cell}: {:.1?}", start.elapsed());
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "cells with another end: {failed:#?}");
}

/// Runs those of the cells.
fn run_all(which: impl Fn(Kept, Place) -> bool) {
    let chosen = cells().into_iter().filter(|(kept, place, ..)| which(*kept, *place));
    run_side_by_side(chosen.map(|(kept, place, harm, end)| {
        let cell = format!("{kept:?}: {harm:?} {place:?}, which is to end {end:?}");
        (cell, move || run(kept, place, harm, end))
    }));
}

#[test]
fn damage_of_files_ends_in_the_right_bytes_or_in_a_name() {
    run_all(|_, place| matches!(place, Place::File(_)));
}

#[test]
fn damage_of_objects_that_have_a_file_ends_in_the_right_bytes() {
    run_all(|kept, place| matches!((kept, place), (Kept::Dual, Place::Object(_))));
}

#[test]
fn damage_of_objects_that_have_no_file_ends_in_the_right_bytes_or_in_a_name() {
    run_all(|kept, place| matches!((kept, place), (Kept::Cold, Place::Object(_))));
}

#[test]
fn damage_of_databases_ends_in_the_right_bytes_or_in_a_reason() {
    run_all(|_, place| matches!(place, Place::Catalog | Place::Namespace));
}

#[test]
fn damage_of_backups_ends_in_the_right_bytes_or_in_a_reason() {
    run_all(|_, place| place == Place::Backup);
}
