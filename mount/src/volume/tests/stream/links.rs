//! Hard links arrive with a link record for each name, which no stream has.

use super::*;
use crate::core::Core;
use crate::namespace::Version;
use crate::namespace::key::{self, Kind};
use crate::namespace::store::Space;
use crate::types::RenameMode;

/// Link records of a file in the live state of a dataset.
fn records(world: &World, dataset: Dataset, file: Ino) -> usize {
    let from = key::head(dataset, file, Kind::Link);
    let to = key::head_end(dataset, file, Kind::Link);
    let names = world.volume().names();
    let page = names.store().page(Space::Head, &from, Some(&to), 100).unwrap();
    page.items.iter().filter(|(_, value)| !Version::split(value).unwrap().0.whiteout).count()
}

#[test]
fn a_name_arrives_with_its_record_and_goes_with_it() {
    let (from, to) = pair();
    let volume = from.volume();
    let dir = volume.mkdir(&ROOT, Ino::ROOT, b"d", 0o755, 0).unwrap().ino;
    let mut files = Vec::new();
    for file in ["a", "b", "c"] {
        let (ino, handle) = from.create(file);
        volume.release(ino, handle);
        for name in 0..3 {
            volume.link(ino, dir, format!("{file}{name}").as_bytes()).unwrap();
        }
        files.push(ino);
    }
    from.take(Dataset::ROOT, "1");
    let dataset = to.receive_new("copy", &from.stream(Dataset::ROOT, "1", None));
    to.assert_sound();
    for &file in &files {
        assert_eq!(records(&to, dataset, file), 4);
    }
    // Down to one name and up again; all names new; one name that stays.
    for (parent, name) in [(Ino::ROOT, "a"), (dir, "a0"), (dir, "a1")] {
        volume.unlink(parent, name.as_bytes()).unwrap();
    }
    for (parent, name) in [(Ino::ROOT, "b"), (dir, "b0"), (dir, "b1"), (dir, "b2")] {
        let new = format!("new-{name}");
        let (name, new, mode) = (name.as_bytes(), new.as_bytes(), RenameMode::Replace);
        volume.rename(parent, name, Ino::ROOT, new, mode, from.wait()).unwrap();
    }
    for name in ["c0", "c1", "c2"] {
        volume.unlink(dir, name.as_bytes()).unwrap();
    }
    volume.link(files[0], Ino::ROOT, b"again").unwrap();
    from.take(Dataset::ROOT, "2");
    let target = ReceiveTarget::Existing(dataset);
    to.receive(&target, &PLAIN, &from.stream(Dataset::ROOT, "2", Some("1"))).unwrap();
    to.assert_sound();
    let found: Vec<_> = files.iter().map(|&file| records(&to, dataset, file)).collect();
    assert_eq!(found, [2, 4, 0]);
    shown::assert_same(
        &from.snapshot_tree(Dataset::ROOT, "2"),
        &to.snapshot_tree(dataset, "2"),
        "",
    );
}
