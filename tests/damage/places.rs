//! The table of damage for segments whose parity lies elsewhere: apart from them in a sidecar, or
//! across the stores of the cold tier. Each cell ends as in [`super::table`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use firn_tiering::segment::{DATA_START, SegmentHeader, TRAILER_LEN, Trailer};

use super::overwrite;
use super::table::{
    End, Harm, Kept, Part, below, files, middle, outcome, part_of, run_side_by_side, swap, text_of,
    truncate, unreadable, write_segments,
};
use crate::harness::Volume;

/// Stores of a tier that is spread over several, and those of them that bear parity.
const STORES: usize = 5;
const BEARS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parity {
    Object,
    Stores,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// One bit of a part of the segment.
    Flip(Part),
    /// A run of one percent of it.
    Run,
    /// One shard more of one stripe than its parity bears.
    TooMuch,
    /// The sidecar alone.
    Sidecar(Harm),
    /// The sidecar is gone, and a bit of the segment is another.
    NoSidecarAndFlip,
    /// The shards of its object in so many stores.
    Shards(usize, Harm),
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    parity: Parity,
    kept: Kept,
    in_cold: bool,
    what: What,
    end: End,
}

const HARMS: [Harm; 5] = [Harm::Flip, Harm::Truncate, Harm::Delete, Harm::Swap, Harm::Duplicate];

/// Cells of segments with sidecars.
fn apart() -> Vec<Cell> {
    let copies = [(Kept::Hot, false), (Kept::Dual, false), (Kept::Dual, true), (Kept::Cold, true)];
    let mut cells = Vec::new();
    for (kept, in_cold) in copies {
        let mut add =
            |what, end| cells.push(Cell { parity: Parity::Object, kept, in_cold, what, end });
        // Where there is another copy, that makes whole what parity does not.
        let beyond = if kept == Kept::Dual { End::Whole } else { End::Named };
        add(What::Flip(Part::Frames), End::Whole);
        add(What::Flip(Part::Index), End::Whole);
        add(What::Run, End::Whole);
        add(What::TooMuch, beyond);
        add(What::NoSidecarAndFlip, beyond);
        HARMS.into_iter().for_each(|harm| add(What::Sidecar(harm), End::Whole));
    }
    cells
}

/// Cells of segments that rely on the stores of the cold tier.
fn across() -> Vec<Cell> {
    let mut cells = Vec::new();
    let parity = Parity::Stores;
    for what in [What::Flip(Part::Frames), What::Flip(Part::Index), What::Run] {
        cells.push(Cell { parity, kept: Kept::Dual, in_cold: false, what, end: End::Whole });
    }
    for kept in [Kept::Dual, Kept::Cold] {
        let mut add = |what, end| cells.push(Cell { parity, kept, in_cold: true, what, end });
        let beyond = if kept == Kept::Dual { End::Whole } else { End::Named };
        for harm in [Harm::Flip, Harm::Truncate, Harm::Delete, Harm::Swap] {
            add(What::Shards(BEARS, harm), End::Whole);
        }
        for harm in [Harm::Flip, Harm::Delete] {
            add(What::Shards(BEARS + 1, harm), beyond);
        }
    }
    cells
}

fn stores(volume: &Volume) -> Vec<PathBuf> {
    (0..STORES).map(|at| volume.scratch.path().join(format!("store{at}"))).collect()
}

/// The cold tier as `firn init` and `firn recover` want it named.
fn urls(scratch: &Path, parity: Parity) -> Vec<String> {
    let url = |name: String| format!("file://{}", scratch.join(name).display());
    match parity {
        Parity::Object => vec![url("cold".to_owned())],
        Parity::Stores => (0..STORES).map(|at| url(format!("store{at}"))).collect(),
    }
}

/// An unmounted volume with two sealed segments whose parity lies there.
fn volume(cell: Cell, files: &[(String, Vec<u8>)]) -> Volume {
    let scratch = tempfile::tempdir().unwrap();
    let mut init = Vec::new();
    if cell.kept != Kept::Hot {
        let urls = urls(scratch.path(), cell.parity);
        init.extend(urls.into_iter().flat_map(|url| ["--cold".to_owned(), url]));
    }
    if cell.parity == Parity::Stores {
        init.extend(["--cold-parity".to_owned(), BEARS.to_string()]);
    }
    let init: Vec<&str> = init.iter().map(String::as_str).collect();
    let mut volume = Volume::in_scratch(scratch, &init);
    volume.umount();
    let place = if cell.parity == Parity::Object { "object" } else { "stores" };
    let policy = format!("[[class]]\nname = \"all\"\npath = [\"/**\"]\nparity = \"{place}\"\n");
    fs::write(volume.dir.join("policy.toml"), policy).unwrap();
    volume.mount();
    write_segments(&mut volume, cell.kept, files);
    let expected = if cell.parity == Parity::Object { 2 } else { 0 };
    assert_eq!(sidecars(&volume, cell).len(), expected, "{cell:?}");
    volume
}

fn trailer(bytes: &[u8]) -> Trailer {
    let name = SegmentHeader::from_bytes(bytes).unwrap().name;
    Trailer::from_bytes(&bytes[bytes.len() - TRAILER_LEN..], &name).unwrap()
}

fn with_ending(dir: &Path, ending: &str) -> Vec<PathBuf> {
    if !dir.exists() {
        return Vec::new();
    }
    let mut found = below(dir);
    found.retain(|path| path.extension().is_some_and(|own| own == ending));
    found
}

/// The files or objects of segments, the largest first.
fn segments(volume: &Volume, cell: Cell) -> Vec<PathBuf> {
    match (cell.in_cold, cell.parity) {
        (false, _) => with_ending(&volume.dir.join("hot/segments"), "seg"),
        (true, Parity::Object) => with_ending(&volume.scratch.path().join("cold/segments"), "seg"),
        (true, Parity::Stores) => with_ending(&stores(volume)[0].join("segments"), "seg"),
    }
}

/// Those of their sidecars.
fn sidecars(volume: &Volume, cell: Cell) -> Vec<PathBuf> {
    match cell.in_cold {
        false => with_ending(&volume.dir.join("hot/segments"), "par"),
        true => with_ending(&volume.scratch.path().join("cold/parity"), "par"),
    }
}

fn flip(path: &Path) {
    overwrite(path, path.metadata().unwrap().len() / 2, 1);
}

/// Does it to one of several files, or between two.
fn harm_file(victim: &Path, other: &Path, harm: Harm) {
    match harm {
        Harm::Flip => flip(victim),
        Harm::Truncate => truncate(victim),
        Harm::Delete => fs::remove_file(victim).unwrap(),
        Harm::Swap => swap(victim, other),
        // Under a name that nobody uses.
        Harm::Duplicate => {
            fs::copy(victim, victim.with_file_name("0001000000009999.par")).unwrap();
        }
    }
}

fn exceed_parity(segment: &Path) {
    let geometry = trailer(&fs::read(segment).unwrap()).geometry.unwrap();
    for member in 0..=u64::from(geometry.parity_per_stripe) {
        let number = member * u64::from(geometry.stripes);
        assert!(number < u64::from(geometry.data_shards));
        overwrite(segment, DATA_START + number * u64::from(geometry.shard_len) + 9, 1);
    }
}

/// Does it to so many shards of one object, each in its store.
fn harm_shards(volume: &Volume, segment: &Path, count: usize, harm: Harm) {
    let name = segment.file_name().unwrap();
    let shards: Vec<_> =
        stores(volume).iter().map(|store| store.join("segments").join(name)).collect();
    match harm {
        // Between two stores, so that both have another's.
        Harm::Swap => swap(&shards[0], &shards[STORES - 1]),
        // At one place in all, which is in one stripe of them.
        Harm::Flip => shards[..count].iter().for_each(|shard| overwrite(shard, 1_000_000, 1)),
        _ => shards[..count].iter().for_each(|shard| harm_file(shard, shard, harm)),
    }
}

fn apply(volume: &Volume, cell: Cell) {
    let segment = &segments(volume, cell)[0];
    let sidecars = sidecars(volume, cell);
    let (own, others): (Vec<&PathBuf>, Vec<&PathBuf>) =
        sidecars.iter().partition(|path| path.file_stem() == segment.file_stem());
    match cell.what {
        What::Flip(part) => overwrite(segment, middle(&part_of(segment, part)), 1),
        What::Run => {
            let len = segment.metadata().unwrap().len();
            overwrite(segment, len / 2, len as usize / 100);
        }
        What::TooMuch => exceed_parity(segment),
        What::Sidecar(harm) => harm_file(own[0], others[0], harm),
        What::NoSidecarAndFlip => {
            fs::remove_file(own[0]).unwrap();
            overwrite(segment, middle(&part_of(segment, Part::Frames)), 1);
        }
        What::Shards(count, harm) => harm_shards(volume, segment, count, harm),
    }
}

/// What a volume lacks that is made of the cold tier alone; each loss is named at once, or when it
/// is met.
fn recover(volume: &Volume, cell: Cell, files: &[(String, Vec<u8>)]) -> BTreeSet<String> {
    let place = volume.scratch.path().join("recovered");
    let mut command = volume.firn();
    command.arg("recover").args(urls(volume.scratch.path(), cell.parity)).arg(&place);
    if cell.parity == Parity::Stores {
        command.args(["--cold-parity", &BEARS.to_string()]);
    }
    let text = text_of(&command.output().unwrap());
    let mut recovered = Volume::existing(place);
    let lost = unreadable(&recovered, files, "recovered");
    let said = text + &recovered.log();
    for name in &lost {
        assert!(said.contains(&format!("/{name}")), "{name} is not named: {said}");
    }
    recovered.umount();
    lost
}

fn run(cell: Cell) {
    let files = files();
    let mut volume = volume(cell, &files);
    apply(&volume, cell);
    volume.mount();
    let lost = outcome(&mut volume, &files, cell.end);
    assert_eq!(lost.is_empty(), cell.end == End::Whole, "{lost:?}");
    if cell.kept == Kept::Cold {
        let gone = recover(&volume, cell, &files);
        assert!(gone == lost || !lost.is_empty() && gone.is_superset(&lost), "{gone:?}: {lost:?}");
    }
}

fn run_all(cells: Vec<Cell>) {
    run_side_by_side(cells.into_iter().map(|cell| (format!("{cell:?}"), move || run(cell))));
}

#[test]
fn damage_of_files_with_parity_apart_ends_in_the_right_bytes_or_in_a_name() {
    run_all(apart().into_iter().filter(|cell| !cell.in_cold).collect());
}

#[test]
fn damage_of_objects_with_parity_apart_ends_in_the_right_bytes_or_in_a_name() {
    run_all(apart().into_iter().filter(|cell| cell.in_cold).collect());
}

#[test]
fn damage_of_what_relies_on_stores_ends_in_the_right_bytes_or_in_a_name() {
    run_all(across());
}
