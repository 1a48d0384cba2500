//! What is refused, what is not, and what a send keeps others from.

use super::*;
use crate::core::Core;
use crate::error::FsError;
use crate::namespace::{Setting, TreeError};
use firn_tiering::Error as TieringError;

/// A volume with two snapshots, and another that has the first.
pub(super) fn both_have_the_first() -> (World, World, Dataset) {
    let (from, to) = pair();
    let mut grower = Grower::new(Ino::ROOT, 2);
    for name in ["a", "b"] {
        grower.grow(&from, 30);
        from.take(Dataset::ROOT, name);
    }
    let dataset = to.receive_new("copy", &from.stream(Dataset::ROOT, "a", None));
    (from, to, dataset)
}

#[test]
fn a_stream_without_its_base_is_refused_by_name() {
    let (from, to, dataset) = both_have_the_first();
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    let before = to.state();
    for target in [new("x"), ReceiveTarget::Existing(Dataset::ROOT)] {
        let error = to.receive(&target, &PLAIN, &changes).unwrap_err();
        let guid = from.volume().names().find_snapshot(Dataset::ROOT, "a").unwrap().guid;
        match error {
            ReceiveError::BaseMissing { guid: found, name } => {
                assert_eq!((found, &name[..]), (guid, "a"));
            }
            other => panic!("{other}"),
        }
    }
    let whole = from.stream(Dataset::ROOT, "b", None);
    for target in [new("copy"), ReceiveTarget::Existing(dataset)] {
        let error = to.receive(&target, &PLAIN, &whole).unwrap_err();
        assert!(matches!(error, ReceiveError::TargetExists), "{error}");
    }
    assert_eq!(to.state(), before);
    to.assert_sound();
}

#[test]
fn nothing_is_received_below_a_read_only_dataset() {
    let (from, to, _) = both_have_the_first();
    let whole = from.stream(Dataset::ROOT, "b", None);
    let set = |on| to.volume().set_properties(Dataset::ROOT, &[Setting::ReadOnly(on)]).unwrap();
    let _ = set(true);
    let before = to.state();
    let error = to.receive(&new("x"), &PLAIN, &whole).unwrap_err();
    assert!(
        matches!(error, ReceiveError::Tree(TreeError::Fs(FsError::ReadOnlyDataset))),
        "{error}"
    );
    assert_eq!(to.state(), before);
    let _ = set(false);
    to.receive_new("x", &whole);
}

#[test]
fn a_base_that_changed_is_given_up_only_when_asked() {
    let (from, to, dataset) = both_have_the_first();
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    let root = to.volume().names().live_root(dataset).unwrap();
    to.volume().mkdir(&ROOT, root, b"mine", 0o755, 0).unwrap();
    let before = to.state();
    let target = ReceiveTarget::Existing(dataset);
    let error = to.receive(&target, &PLAIN, &changes).unwrap_err();
    assert!(matches!(&error, ReceiveError::BaseModified { base } if base == "a"), "{error}");
    assert!(error.hint().unwrap().contains("-F"));
    assert_eq!(to.state(), before);
    let force = ReceiveOptions { force_rollback: true, ..PLAIN };
    to.receive(&target, &force, &changes).unwrap();
    shown::assert_same(
        &from.snapshot_tree(Dataset::ROOT, "b"),
        &to.snapshot_tree(dataset, "b"),
        "",
    );
    to.assert_sound();
    // What is newer than the base is nobody's to give up.
    let error = to.receive(&target, &force, &changes).unwrap_err();
    assert!(matches!(&error, ReceiveError::NewerSnapshots(names) if names == &["b"]), "{error}");
}

/// Brings what the kernel held, as soon as it is asked to.
struct Late<'a>(&'a World, Ino, u32);

impl ReceiveWatch for Late<'_> {
    fn progress(&mut self, _: &Progress) -> bool {
        true
    }

    fn drain(&mut self) -> FsResult<()> {
        self.2 += 1;
        let name = format!("late {}", self.2).into_bytes();
        self.0.volume().mkdir(&ROOT, self.1, &name, 0o755, 0).map(drop)
    }

    fn forget(&mut self, _: Forget) {}
}

#[test]
fn what_is_written_while_the_sender_takes_its_time_is_seen() {
    let (from, to, dataset) = both_have_the_first();
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    let root = to.volume().names().live_root(dataset).unwrap();
    let target = ReceiveTarget::Existing(dataset);
    let mut watch = Late(&to, root, 0);
    let mut header: &[u8] = &changes[..20];
    to.volume().receive(&ROOT, &target, &PLAIN, &mut header, &mut watch).map(drop).unwrap_err();
    assert_eq!(watch.2, 0, "too early");
    let received = to.volume().receive(&ROOT, &target, &PLAIN, &mut &changes[..], &mut watch);
    let error = received.unwrap_err();
    assert!(matches!(error, ReceiveError::BaseModified { .. }), "{error}");
    to.volume().lookup(root, b"late 1").unwrap();
    // What comes after a rollback was not given up.
    let force = ReceiveOptions { force_rollback: true, ..PLAIN };
    let mut watch = Late(&to, root, 1);
    let received = to.volume().receive(&ROOT, &target, &force, &mut &changes[..], &mut watch);
    let error = received.unwrap_err();
    assert_eq!(watch.2, 3, "{error}");
    to.assert_sound();
}

#[test]
fn what_cannot_be_received_costs_no_changes() {
    let (from, to, dataset) = both_have_the_first();
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    let root = to.volume().names().live_root(dataset).unwrap();
    to.volume().mkdir(&ROOT, root, b"mine", 0o755, 0).unwrap();
    let before = to.state();
    let target = ReceiveTarget::Existing(dataset);
    let taken = Some("a".to_owned());
    let force = ReceiveOptions { force_rollback: true, snapshot_name: taken, ..PLAIN };
    let error = to.receive(&target, &force, &changes).unwrap_err();
    assert!(matches!(&error, ReceiveError::Tree(TreeError::Exists(name)) if name == "a"));
    assert_eq!(to.state(), before);
}

#[test]
fn a_snapshot_that_is_sent_stays_until_it_was() {
    let (from, to, _) = both_have_the_first();
    let volume = from.volume();
    let plan = SendPlan::Snapshot {
        dataset: Dataset::ROOT,
        name: "b".to_owned(),
        from: Some((Dataset::ROOT, "a".to_owned())),
    };
    let mut stream = Vec::new();
    let mut grower = Grower::new(Ino::ROOT, 77);
    let mut asked = 0;
    let mut watch = |_: &Progress| {
        if asked % 10 == 0 {
            for name in ["a", "b"] {
                for deferred in [false, true] {
                    let refused = volume.destroy_snapshots(&[(Dataset::ROOT, name)], deferred);
                    let error = refused.map(drop).unwrap_err();
                    assert!(matches!(&error, TreeError::Sending(sent) if sent == name));
                }
            }
            let error = volume.rollback(Dataset::ROOT, "a", true).map(drop).unwrap_err();
            assert!(matches!(error, TreeError::Sending(_)), "{error}");
            grower.grow(&from, 5);
        }
        asked += 1;
        true
    };
    volume.send(&plan, &mut stream, &mut watch).unwrap();
    assert!(asked > 10, "{asked}");
    let dataset = to.volume().names().datasets()[1].dataset;
    to.receive(&ReceiveTarget::Existing(dataset), &PLAIN, &stream).unwrap();
    shown::assert_same(
        &from.snapshot_tree(Dataset::ROOT, "b"),
        &to.snapshot_tree(dataset, "b"),
        "",
    );
    // Nothing is held any more, also after a send that failed.
    let stopped = volume.send(&plan, &mut std::io::sink(), &mut |_| false).unwrap_err();
    assert!(matches!(stopped, crate::stream::SendError::Stopped), "{stopped}");
    drop(volume.destroy_snapshots(&[(Dataset::ROOT, "a"), (Dataset::ROOT, "b")], false).unwrap());
}

#[test]
fn a_snapshot_whose_end_was_deferred_ends_with_its_send() {
    let (from, ..) = both_have_the_first();
    let volume = from.volume();
    volume.hold_snapshot(Dataset::ROOT, "a", "h").unwrap();
    drop(volume.destroy_snapshots(&[(Dataset::ROOT, "a")], true).unwrap());
    let plan = SendPlan::Snapshot { dataset: Dataset::ROOT, name: "a".to_owned(), from: None };
    let mut is_released = false;
    let mut watch = |_: &Progress| {
        if !std::mem::replace(&mut is_released, true) {
            drop(volume.release_snapshot(Dataset::ROOT, "a", "h").unwrap());
        }
        true
    };
    volume.send(&plan, &mut std::io::sink(), &mut watch).unwrap();
    let gone = volume.names().find_snapshot(Dataset::ROOT, "a").unwrap_err();
    assert!(matches!(gone, TreeError::NoSnapshot(_)), "{gone}");
}

#[test]
fn a_full_tier_leaves_no_trace() {
    let (from, to, dataset) = both_have_the_first();
    let before = to.state();
    to.blocks.fail_appends(Some(|| TieringError::NoSpace));
    let streams = [
        (new("x"), from.stream(Dataset::ROOT, "b", None)),
        (ReceiveTarget::Existing(dataset), from.stream(Dataset::ROOT, "b", Some("a"))),
    ];
    for (target, stream) in &streams {
        let error = to.receive(target, &PLAIN, stream).unwrap_err();
        let is_full = matches!(error, ReceiveError::Tree(TreeError::Fs(crate::FsError::NoSpace)));
        assert!(is_full, "{error}");
        assert_eq!(to.state(), before);
        to.assert_sound();
    }
    to.blocks.fail_appends(None);
    for (target, stream) in &streams {
        to.receive(target, &PLAIN, stream).unwrap();
    }
    to.assert_sound();
}

#[test]
fn what_exceeds_a_quota_leaves_no_trace() {
    let (from, to, dataset) = both_have_the_first();
    let before = to.state();
    let names = to.volume().names();
    let streams = [
        (new("x"), Dataset::ROOT, from.stream(Dataset::ROOT, "b", None)),
        (ReceiveTarget::Existing(dataset), dataset, from.stream(Dataset::ROOT, "b", Some("a"))),
    ];
    for (target, whose, stream) in &streams {
        let quota = |bytes| names.set(*whose, &[Setting::Quota(bytes)]).unwrap();
        quota(Some(names.space_used(*whose) + 1));
        let error = to.receive(target, &PLAIN, stream).unwrap_err();
        let is_full =
            matches!(error, ReceiveError::Tree(TreeError::Fs(crate::FsError::QuotaExceeded)));
        assert!(is_full, "{error}");
        assert_eq!(to.state(), before);
        quota(None);
        to.assert_sound();
    }
    for (target, _, stream) in &streams {
        to.receive(target, &PLAIN, stream).unwrap();
    }
    to.assert_sound();
}

#[test]
fn a_clone_travels_whole_or_as_what_it_changed() {
    let (from, to, dataset) = both_have_the_first();
    let names = from.volume().names();
    let made = from.volume().clone_snapshot(&ROOT, (Dataset::ROOT, "a"), Ino::ROOT, b"clone");
    let clone = made.unwrap().0;
    Grower::new(names.live_root(clone).unwrap(), 5).grow(&from, 30);
    from.take(clone, "c");
    let plan = SendPlan::Snapshot {
        dataset: clone,
        name: "c".to_owned(),
        from: Some((Dataset::ROOT, "a".to_owned())),
    };
    let whole = to.receive_new("whole", &from.stream(clone, "c", None));
    let changed = to.receive_new("changed", &from.send(&plan));
    let expected = from.snapshot_tree(clone, "c");
    shown::assert_same(&expected, &to.snapshot_tree(whole, "c"), "");
    shown::assert_same(&expected, &to.snapshot_tree(changed, "c"), "");
    let infos = to.volume().names().datasets();
    let origin = infos.iter().find(|info| info.dataset == changed).unwrap().origin.clone();
    assert_eq!(origin, Some((dataset, "a".to_owned())));
    to.assert_sound();
    // And on from there.
    Grower::new(names.live_root(clone).unwrap(), 6).grow(&from, 20);
    from.take(clone, "d");
    let more = from.stream(clone, "d", Some("c"));
    for dataset in [whole, changed] {
        to.receive(&ReceiveTarget::Existing(dataset), &PLAIN, &more).unwrap();
        shown::assert_same(&from.snapshot_tree(clone, "d"), &to.snapshot_tree(dataset, "d"), "");
    }
    to.assert_sound();
}

#[test]
fn a_root_dataset_goes_back_where_it_came_from() {
    let (from, to, dataset) = both_have_the_first();
    // The copy goes on, and the original gets what changed.
    drop(from.volume().rollback(Dataset::ROOT, "a", true).unwrap());
    Grower::new(to.volume().names().live_root(dataset).unwrap(), 9).grow(&to, 40);
    to.take(dataset, "c");
    let changes = to.stream(dataset, "c", Some("a"));
    from.receive(&ReceiveTarget::Existing(Dataset::ROOT), &PLAIN, &changes).unwrap();
    shown::assert_same(
        &to.snapshot_tree(dataset, "c"),
        &from.snapshot_tree(Dataset::ROOT, "c"),
        "",
    );
    shown::assert_same(&from.shown(Ino::ROOT), &from.snapshot_tree(Dataset::ROOT, "c"), "");
    from.assert_sound();
    // What is made afterwards has numbers of its own.
    Grower::new(Ino::ROOT, 3).grow(&from, 40);
    from.assert_sound();
}

#[test]
fn both_ends_forget_the_same_blocks() {
    let (from, to) = pair();
    Grower::new(Ino::ROOT, 21).grow(&from, 120);
    from.take(Dataset::ROOT, "a");
    let expected = from.snapshot_tree(Dataset::ROOT, "a");
    for window in [1, 2, 5] {
        let source = from.volume().names().begin_send((Dataset::ROOT, "a"), None).unwrap();
        let sender = crate::stream::Sender::new(&from.volume().files, &source, None);
        let mut stream = Vec::new();
        sender.with_window(window).send(&|| None, &mut stream, &mut |_| true).unwrap();
        let dataset = to.receive_new(&format!("w{window}"), &stream);
        shown::assert_same(&to.snapshot_tree(dataset, "a"), &expected, "");
        to.assert_sound();
    }
}

#[test]
fn a_second_stream_behind_the_first_is_not_lost_in_silence() {
    let (from, to, dataset) = both_have_the_first();
    let whole = from.stream(Dataset::ROOT, "a", None);
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    let before = to.state();
    for options in [&PLAIN, &RESUMABLE] {
        for (target, first) in [(new("x"), &whole), (ReceiveTarget::Existing(dataset), &changes)] {
            for behind in [&changes[..], &[0]] {
                let both = [&first[..], behind].concat();
                let error = to.receive(&target, options, &both).unwrap_err();
                let at = first.len() as u64;
                assert!(matches!(error, ReceiveError::MoreFollows { at: found } if found == at));
                assert!(error.hint().is_some());
                assert!(to.volume().interrupted_receives().unwrap().is_empty());
            }
        }
    }
    assert_eq!(to.state(), before);
    to.assert_sound();
    to.receive(&ReceiveTarget::Existing(dataset), &PLAIN, &changes).unwrap();
}
