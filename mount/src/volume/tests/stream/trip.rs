//! What is sent arrives.

use super::*;
use crate::core::Core;

#[test]
fn every_snapshot_of_a_chain_arrives() {
    for seed in 0..12 {
        let (from, to) = pair();
        let mut grower = Grower::new(Ino::ROOT, seed);
        let mut dataset = None;
        let mut before: Option<String> = None;
        for round in 0..4 {
            grower.grow(&from, 60);
            let name = format!("s{round}");
            from.take(Dataset::ROOT, &name);
            let stream = from.stream(Dataset::ROOT, &name, before.as_deref());
            dataset = Some(match dataset {
                None => to.receive_new("copy", &stream),
                Some(dataset) => {
                    let target = ReceiveTarget::Existing(dataset);
                    let received = to.receive(&target, &PLAIN, &stream);
                    let received = received.unwrap_or_else(|e| panic!("{seed} {round}: {e}"));
                    assert_eq!((received.dataset, &received.snapshot), (dataset, &name));
                    dataset
                }
            });
            to.assert_sound();
            before = Some(name);
        }
        let dataset = dataset.unwrap();
        for world in [&from, &to] {
            while world.volume().digester.seal_snapshots().unwrap() > 0 {}
        }
        for round in 0..4 {
            let name = format!("s{round}");
            let sent = from.snapshot_tree(Dataset::ROOT, &name);
            assert!(sent.len() > 5, "{}", sent.len());
            shown::assert_same(&sent, &to.snapshot_tree(dataset, &name), "");
            let (one, other) = (
                from.volume().names().find_snapshot(Dataset::ROOT, &name).unwrap(),
                to.volume().names().find_snapshot(dataset, &name).unwrap(),
            );
            assert_eq!(
                (one.guid, one.created, &one.message),
                (other.guid, other.created, &other.message)
            );
            // What it shows, and all that was before it.
            assert_eq!(one.seal.expect("sealed"), other.seal.expect("sealed"), "{seed} {round}");
            to.assert_verified(dataset, &name);
        }
        let live = to.volume().names().live_root(dataset).unwrap();
        shown::assert_same(&to.shown(live), &to.snapshot_tree(dataset, "s3"), "");
    }
}

#[test]
fn a_tree_deeper_than_any_path_arrives() {
    let (from, to) = pair();
    let mut dir = Ino::ROOT;
    let depth = 70_000;
    for _ in 0..depth {
        dir = from.volume().mkdir(&ROOT, dir, b"d", 0o755, 0).unwrap().ino;
    }
    from.take(Dataset::ROOT, "deep");
    to.receive_new("copy", &from.stream(Dataset::ROOT, "deep", None));
    let mut dir = to.volume().lookup(Ino::ROOT, b"copy").unwrap().ino;
    for _ in 0..depth {
        dir = to.volume().lookup(dir, b"d").unwrap().ino;
    }
}

/// Wants a receive to end when it was asked so often.
struct Impatient(usize);

impl ReceiveWatch for Impatient {
    fn progress(&mut self, _: &Progress) -> bool {
        self.0 -= 1;
        self.0 > 0
    }

    fn drain(&mut self) -> FsResult<()> {
        Ok(())
    }

    fn forget(&mut self, _: Forget) {}
}

#[test]
fn the_last_look_can_be_stopped() {
    let (from, to) = pair();
    for n in 0..600 {
        from.volume().mkdir(&ROOT, Ino::ROOT, format!("d{n}").as_bytes(), 0o755, 0).unwrap();
    }
    from.take(Dataset::ROOT, "s");
    let stream = from.stream(Dataset::ROOT, "s", None);
    let before = to.state();
    // Every record but the last is asked about, and then some of what was received.
    let records = boundaries(&stream).len() - 2;
    let receive = |patience| {
        let mut watch = Impatient(patience);
        let received = to.volume().receive(&ROOT, &new("x"), &PLAIN, &mut &stream[..], &mut watch);
        (received, watch.0)
    };
    let (stopped, left) = receive(records + 2);
    assert!(matches!(stopped, Err(ReceiveError::Stopped)) && left == 0);
    assert_eq!(to.state(), before);
    to.assert_sound();
    assert!(receive(usize::MAX).0.is_ok());
}
