//! What is done to a volume while something is received into it, or waits to be continued.

use super::refused::both_have_the_first;
use super::*;
use crate::FsError;
use crate::core::Core;
use crate::namespace::{Setting, TreeError};
use crate::types::RenameMode;

/// Begins to receive `stream` and lets it be cut near its end.
fn begin(to: &World, target: &ReceiveTarget, stream: &[u8]) -> ResumeToken {
    let ends = boundaries(stream);
    token(to.receive(target, &RESUMABLE, &stream[..ends[ends.len() - 3]]).unwrap_err())
}

fn is_there(world: &World, dataset: Dataset, name: &str) -> bool {
    world.volume().names().find_snapshot(dataset, name).is_ok()
}

#[test]
fn a_base_whose_end_was_deferred_stays_until_its_receive_is_over() {
    for is_finished in [true, false] {
        let (from, mut to, dataset) = both_have_the_first();
        let expected = to.snapshot_tree(dataset, "a");
        let made = to.volume().clone_snapshot(&ROOT, (dataset, "a"), Ino::ROOT, b"clone");
        let clone = made.unwrap().0;
        drop(to.volume().destroy_snapshots(&[(dataset, "a")], true).unwrap());
        let target = ReceiveTarget::Existing(dataset);
        let token = begin(&to, &target, &from.stream(Dataset::ROOT, "b", Some("a")));
        drop(to.volume().destroy_datasets(&[clone], true).unwrap());
        to.assert_sound();
        shown::assert_same(&to.snapshot_tree(dataset, "a"), &expected, "");
        to.crash();
        shown::assert_same(&to.snapshot_tree(dataset, "a"), &expected, "");
        if is_finished {
            to.receive(&target, &PLAIN, &from.send(&SendPlan::Rest(token))).unwrap();
            let sent = from.snapshot_tree(Dataset::ROOT, "b");
            shown::assert_same(&sent, &to.snapshot_tree(dataset, "b"), "");
        } else {
            drop(to.volume().abandon_receive(dataset).unwrap());
            let root = to.volume().names().live_root(dataset).unwrap();
            shown::assert_same(&to.shown(root), &expected, "");
        }
        assert!(!is_there(&to, dataset, "a"), "nothing needs it any more");
        to.assert_sound();
        to.crash();
        to.assert_sound();
    }
}

#[test]
fn a_base_stays_when_a_send_of_it_ends_first() {
    let (from, to, dataset) = both_have_the_first();
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    let target = ReceiveTarget::Existing(dataset);
    let volume = to.volume();
    let mut begun = None;
    let mut watch = |_: &Progress| {
        begun.get_or_insert_with(|| {
            volume.hold_snapshot(dataset, "a", "h").unwrap();
            drop(volume.destroy_snapshots(&[(dataset, "a")], true).unwrap());
            drop(volume.release_snapshot(dataset, "a", "h").unwrap());
            begin(&to, &target, &changes)
        });
        true
    };
    let plan = SendPlan::Snapshot { dataset, name: "a".to_owned(), from: None };
    volume.send(&plan, &mut std::io::sink(), &mut watch).unwrap();
    assert!(is_there(&to, dataset, "a"), "the receive builds on it");
    let rest = from.send(&SendPlan::Rest(begun.unwrap()));
    to.receive(&target, &PLAIN, &rest).unwrap();
    assert!(!is_there(&to, dataset, "a"));
    shown::assert_same(
        &from.snapshot_tree(Dataset::ROOT, "b"),
        &to.snapshot_tree(dataset, "b"),
        "",
    );
    to.assert_sound();
}

#[test]
fn the_place_of_what_is_received_stays() {
    let (from, mut to, dataset) = both_have_the_first();
    let root = to.volume().names().live_root(dataset).unwrap();
    to.volume().mkdir(&ROOT, root, b"dir", 0o755, 0).unwrap();
    to.take(dataset, "later");
    drop(to.volume().destroy_snapshots(&[(dataset, "later")], false).unwrap());
    let dir = to.volume().lookup(root, b"dir").unwrap().ino;
    let target = ReceiveTarget::New { parent: dir, name: b"x".to_vec() };
    let token = begin(&to, &target, &from.stream(Dataset::ROOT, "a", None));
    to.crash();
    let volume = to.volume();
    let waiting = volume.interrupted_receives().unwrap().remove(0);
    assert_eq!((waiting.token, waiting.place), (token, Some((dir, b"x".to_vec()))));
    let refused = [
        volume.destroy_datasets(&[dataset], true).map(drop).unwrap_err(),
        volume.rollback(dataset, "a", true).map(drop).unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, TreeError::Receiving(of) if of == waiting.dataset), "{error}");
    }
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    let force = ReceiveOptions { force_rollback: true, ..PLAIN };
    let error = to.receive(&ReceiveTarget::Existing(dataset), &force, &changes).unwrap_err();
    let is_named = |of: &Dataset| *of == waiting.dataset;
    assert!(matches!(&error, ReceiveError::Tree(TreeError::Receiving(of)) if is_named(of)));
    assert!(matches!(volume.rmdir(root, b"dir"), Err(FsError::Busy)));
    volume.mkdir(&ROOT, root, b"other", 0o755, 0).unwrap();
    let over = volume.rename(root, b"other", root, b"dir", RenameMode::Replace, to.wait());
    assert!(matches!(over, Err(FsError::Busy)));
    // Its directory may have another name.
    volume.rename(root, b"dir", root, b"moved", RenameMode::Replace, to.wait()).unwrap();
    to.receive(&target, &PLAIN, &from.send(&SendPlan::Rest(token))).unwrap();
    assert!(volume.lookup(dir, b"x").is_ok());
    to.assert_sound();
}

#[test]
fn properties_and_holds_change_while_something_is_received() {
    let (from, to, dataset) = both_have_the_first();
    let names = to.volume().names();
    let target = ReceiveTarget::Existing(dataset);
    names.set(dataset, &[Setting::Quota(Some(names.space_used(dataset) + 1))]).unwrap();
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    let error = to.receive(&target, &RESUMABLE, &changes).unwrap_err();
    let token = token(error);
    let rest = from.send(&SendPlan::Rest(token));
    names.set(dataset, &[Setting::Quota(None)]).unwrap();
    to.volume().hold_snapshot(dataset, "a", "h").unwrap();
    drop(to.volume().release_snapshot(dataset, "a", "h").unwrap());
    assert!(is_there(&to, dataset, "a"));
    to.receive(&target, &RESUMABLE, &rest).unwrap();
    shown::assert_same(
        &from.snapshot_tree(Dataset::ROOT, "b"),
        &to.snapshot_tree(dataset, "b"),
        "",
    );
    to.assert_sound();
}

#[test]
fn a_quota_counts_all_that_is_being_received() {
    let (from, to, _) = both_have_the_first();
    let names = to.volume().names();
    let whole = from.stream(Dataset::ROOT, "a", None);
    let used = names.space_used(Dataset::ROOT);
    begin(&to, &new("x"), &whole);
    let one = names.space_used(Dataset::ROOT) - used;
    assert!(one > 0);
    names.set(Dataset::ROOT, &[Setting::Quota(Some(used + one + one / 2))]).unwrap();
    let error = to.receive(&new("y"), &PLAIN, &whole).unwrap_err();
    assert!(matches!(error, ReceiveError::Tree(TreeError::Fs(FsError::QuotaExceeded))), "{error}");
    assert_eq!(names.space_used(Dataset::ROOT), used + one, "the other one goes on");
    let waiting = to.volume().interrupted_receives().unwrap().remove(0);
    drop(to.volume().abandon_receive(waiting.dataset).unwrap());
    to.assert_sound();
    assert_eq!(names.space_used(Dataset::ROOT), used);
    to.receive_new("y", &whole);
    to.assert_sound();
}

#[test]
fn a_token_finds_the_copies_that_belong_together() {
    let (from, to, dataset) = both_have_the_first();
    let whole = from.stream(Dataset::ROOT, "a", None);
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    // The oldest copy of `b` and the oldest one of `a` are to be of two datasets.
    let one = from.receive_new("one", &whole);
    let two = from.receive_new("two", &whole);
    from.receive(&ReceiveTarget::Existing(two), &PLAIN, &changes).unwrap();
    let target = ReceiveTarget::Existing(dataset);
    let token = begin(&to, &target, &changes);
    for name in ["a", "b"] {
        drop(from.volume().destroy_snapshots(&[(Dataset::ROOT, name)], false).unwrap());
    }
    assert!(is_there(&from, one, "a") && !is_there(&from, one, "b"));
    to.receive(&target, &PLAIN, &from.send(&SendPlan::Rest(token))).unwrap();
    let sent = from.snapshot_tree(two, "b");
    shown::assert_same(&sent, &to.snapshot_tree(dataset, "b"), "");
    to.assert_sound();
    // Without a pair that belongs together there is nothing to go on with.
    let token = ResumeToken { to: token.from.unwrap(), from: Some(token.to), ..token };
    let mut out = Vec::new();
    let refused = from.volume().send(&SendPlan::Rest(token), &mut out, &mut |_| true);
    assert!(matches!(refused, Err(SendError::NotABase)) && out.is_empty());
}
