//! Streams that end too early, and crashes while one is received.

use std::io::Read;
use std::sync::Arc;

use super::*;
use crate::core::Core;
use crate::namespace::MemoryStore;

/// A source with two snapshots, whose streams are small.
fn source(seed: u64) -> World {
    let from = World::seeded(1 << 30, quiet(), 1);
    let mut grower = Grower::new(Ino::ROOT, seed);
    grower.grow(&from, 40);
    from.take(Dataset::ROOT, "a");
    grower.grow(&from, 25);
    from.take(Dataset::ROOT, "b");
    from
}

/// Every end of a record, and a place in the middle of each.
fn cuts(stream: &[u8]) -> Vec<usize> {
    let ends = boundaries(stream);
    let mut cuts = vec![0, 1, 15];
    for pair in ends.windows(2) {
        cuts.extend([pair[0], pair[0] + 3, (pair[0] + pair[1]) / 2, pair[1] - 1]);
    }
    cuts.retain(|cut| *cut < stream.len());
    cuts
}

#[test]
fn a_cut_stream_leaves_no_trace() {
    let (from, to) = (source(3), World::seeded(1 << 30, quiet(), 2));
    let whole = from.stream(Dataset::ROOT, "a", None);
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    let dataset = to.receive_new("kept", &whole);
    let (before, blocks) = (to.state(), to.blocks.len());
    for (target, stream) in [(new("x"), &whole), (ReceiveTarget::Existing(dataset), &changes)] {
        let cuts = cuts(stream);
        assert!(cuts.len() > 100, "{}", cuts.len());
        for cut in cuts {
            let error = to.receive(&target, &PLAIN, &stream[..cut]).unwrap_err();
            assert!(matches!(error, ReceiveError::Torn { .. }), "{cut}: {error}");
            assert_eq!(to.state(), before, "cut at {cut}");
            assert!(to.volume().interrupted_receives().unwrap().is_empty());
        }
        to.assert_blocks(blocks);
        to.assert_sound();
    }
    to.receive(&ReceiveTarget::Existing(dataset), &PLAIN, &changes).unwrap();
    shown::assert_same(
        &from.snapshot_tree(Dataset::ROOT, "b"),
        &to.snapshot_tree(dataset, "b"),
        "",
    );
}

#[test]
fn a_cut_stream_goes_on_wherever_it_was_cut() {
    let from = source(5);
    let whole = from.stream(Dataset::ROOT, "a", None);
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    let ends = |stream: &[u8]| boundaries(stream).into_iter().step_by(3).collect::<Vec<_>>();
    for (at, cut) in ends(&whole).into_iter().enumerate() {
        let mut to = World::seeded(1 << 30, quiet(), 2);
        if cut >= whole.len() {
            continue;
        }
        let before = to.state();
        let error = to.receive(&new("x"), &RESUMABLE, &whole[..cut]).unwrap_err();
        let token = token(error);
        assert_eq!(to.state(), before, "nothing shows yet");
        to.assert_sound();
        match at % 3 {
            0 => to.crash(),
            1 => to.lose_power(),
            _ => {}
        }
        assert_eq!(to.volume().interrupted_receives().unwrap()[0].token, token, "cut at {cut}");
        let again = to.receive(&new("x"), &RESUMABLE, &whole).unwrap_err();
        assert!(matches!(again, ReceiveError::Pending(pending) if *pending == token));
        let rest = from.send(&SendPlan::Rest(token));
        let dataset = to.receive(&new("x"), &PLAIN, &rest).unwrap().dataset;
        shown::assert_same(
            &from.snapshot_tree(Dataset::ROOT, "a"),
            &to.snapshot_tree(dataset, "a"),
            "",
        );
        to.assert_sound();
        // The same again with changes.
        let cuts = ends(&changes);
        let cut = cuts[at * 7 % (cuts.len() - 1)];
        let target = ReceiveTarget::Existing(dataset);
        let error = to.receive(&target, &RESUMABLE, &changes[..cut]).unwrap_err();
        let token = super::token(error);
        let live = to.volume().names().live_root(dataset).unwrap();
        shown::assert_same(&to.shown(live), &to.snapshot_tree(dataset, "a"), "");
        if at % 2 == 0 {
            to.crash();
        }
        let rest = from.send(&SendPlan::Rest(token));
        to.receive(&target, &PLAIN, &rest).unwrap_or_else(|error| panic!("{cut}: {error}"));
        shown::assert_same(
            &from.snapshot_tree(Dataset::ROOT, "b"),
            &to.snapshot_tree(dataset, "b"),
            "",
        );
        to.assert_sound();
    }
}

#[test]
fn a_stream_that_is_cut_again_and_again_arrives() {
    let (from, to) = (source(8), World::seeded(1 << 30, quiet(), 2));
    let mut stream = from.stream(Dataset::ROOT, "a", None);
    let mut rounds = 0;
    let dataset = loop {
        let ends = boundaries(&stream);
        let cut = ends[ends.len().min(7) - 1];
        match to.receive(&new("x"), &RESUMABLE, &stream[..cut]) {
            Ok(received) => break received.dataset,
            Err(error) => stream = from.send(&SendPlan::Rest(token(error))),
        }
        rounds += 1;
        assert!(rounds < 1000, "it makes no progress");
    };
    assert!(rounds > 5, "{rounds}");
    shown::assert_same(
        &from.snapshot_tree(Dataset::ROOT, "a"),
        &to.snapshot_tree(dataset, "a"),
        "",
    );
    to.assert_sound();
}

#[test]
fn an_abandoned_receive_leaves_no_trace() {
    let (from, to) = (source(4), World::seeded(1 << 30, quiet(), 2));
    let whole = from.stream(Dataset::ROOT, "a", None);
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    let dataset = to.receive_new("kept", &whole);
    let (before, blocks) = (to.state(), to.blocks.len());
    for (target, stream) in [(new("x"), &whole), (ReceiveTarget::Existing(dataset), &changes)] {
        let cut = boundaries(stream);
        let cut = cut[cut.len() - 3];
        let error = to.receive(&target, &RESUMABLE, &stream[..cut]).unwrap_err();
        let rest = from.send(&SendPlan::Rest(token(error)));
        let pending = to.volume().interrupted_receives().unwrap().remove(0);
        drop(to.volume().abandon_receive(pending.dataset).unwrap());
        assert_eq!(to.state(), before);
        to.assert_blocks(blocks);
        to.assert_sound();
        let error = to.receive(&target, &PLAIN, &rest).unwrap_err();
        assert!(matches!(error, ReceiveError::NotPending), "{error}");
    }
}

/// Notes what a crash at one byte would leave, and ends there.
struct CrashAt<'a> {
    left: &'a [u8],
    store: Arc<MemoryStore>,
    found: Option<(MemoryStore, MemoryStore)>,
}

impl Read for CrashAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left.is_empty() && self.found.is_none() {
            self.found = Some((self.store.reopened(), self.store.reopened_after_power_loss()));
        }
        self.left.read(buffer)
    }
}

#[test]
fn a_crash_leaves_no_trace_of_what_is_not_resumable() {
    let from = source(6);
    let whole = from.stream(Dataset::ROOT, "a", None);
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    for (is_whole, power) in [(true, false), (true, true), (false, false), (false, true)] {
        let stream = if is_whole { &whole } else { &changes };
        for cut in boundaries(stream).into_iter().step_by(9) {
            let mut to = World::seeded(1 << 30, quiet(), 2);
            let dataset = to.receive_new("kept", &whole);
            let target = if is_whole { new("x") } else { ReceiveTarget::Existing(dataset) };
            let (before, blocks) = (to.state(), to.blocks.len());
            let store = Arc::clone(&to.store);
            let mut input = CrashAt { left: &stream[..cut], store, found: None };
            let volume = to.volume();
            let received = volume.receive(&ROOT, &target, &PLAIN, &mut input, &mut Quiet);
            if let Some((killed, unpowered)) = input.found {
                received.unwrap_err();
                to.reopen(if power { unpowered } else { killed });
                assert_eq!(to.state(), before, "cut at {cut}");
                assert!(to.volume().interrupted_receives().unwrap().is_empty());
                to.assert_blocks(blocks);
            }
            to.assert_sound();
        }
    }
}

#[test]
fn what_waits_to_be_continued_keeps_its_dataset_as_it_was() {
    let (from, to) = (source(9), World::seeded(1 << 30, quiet(), 2));
    let whole = from.stream(Dataset::ROOT, "a", None);
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    let dataset = to.receive_new("kept", &whole);
    let target = ReceiveTarget::Existing(dataset);
    let cut = boundaries(&changes)[8];
    token(to.receive(&target, &RESUMABLE, &changes[..cut]).unwrap_err());
    let volume = to.volume();
    let root = volume.names().live_root(dataset).unwrap();
    let refused = [
        volume.snapshot(&[dataset], "c", "").map(drop).unwrap_err(),
        volume.rollback(dataset, "a", true).map(drop).unwrap_err(),
        volume.destroy_datasets(&[dataset], true).map(drop).unwrap_err(),
        volume.destroy_snapshots(&[(dataset, "a")], false).map(drop).unwrap_err(),
        volume.rename_dataset(dataset, Ino::ROOT, b"other").map(drop).unwrap_err(),
        volume.promote(dataset).map(drop).unwrap_err(),
    ];
    for error in refused {
        assert!(
            matches!(error, crate::namespace::TreeError::Receiving(of) if of == dataset),
            "{error}"
        );
    }
    let made = volume.mkdir(&ROOT, root, b"no", 0o755, 0).unwrap_err();
    assert!(matches!(made, crate::FsError::Receiving), "{made}");
    // Nothing can be changed, but all of it gives way to what is received: no copy is made of it.
    assert!(!volume.names().is_in_snapshot(root));
    let snapshot = volume.names().snapshot_root(dataset, "a").unwrap();
    assert!(volume.names().is_in_snapshot(snapshot));
    shown::assert_same(&to.shown(root), &to.snapshot_tree(dataset, "a"), "");
    to.take(Dataset::ROOT, "of another dataset");
    to.assert_sound();
}
