//! What is sent arrives.

use super::*;

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
        }
        let live = to.volume().names().live_root(dataset).unwrap();
        shown::assert_same(&to.shown(live), &to.snapshot_tree(dataset, "s3"), "");
    }
}
