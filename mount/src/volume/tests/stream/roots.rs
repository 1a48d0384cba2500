//! Roots in streams: what arrives is compared with what was sent.

use blake3::Hash;

use super::hostile::{forged, sound};
use super::*;
use crate::core::Core;
use crate::namespace::{FlawKind, Snapshot};
use crate::stream::{Agreement, Forged, forge};

const BASE_ROOT: u16 = 1 << 3;
const ENDS_WITH_ROOT: u16 = 1 << 4;

/// A stream taken apart.
#[derive(Clone)]
struct Parts {
    flags: u16,
    header: Vec<u8>,
    records: Vec<(u8, Vec<u8>)>,
}

impl Parts {
    fn of(stream: &[u8]) -> Self {
        let ends = boundaries(stream);
        let record = |pair: &[usize]| (stream[pair[0]], stream[pair[0] + 5..pair[1] - 16].to_vec());
        Self {
            flags: u16::from_le_bytes([stream[10], stream[11]]),
            header: stream[16..ends[0] - 16].to_vec(),
            records: ends.windows(2).map(record).collect(),
        }
    }

    /// With right checks.
    fn whole(&self) -> Vec<u8> {
        let len = |body: &[u8]| (body.len() as u32).to_le_bytes();
        let mut out = b"\xf1Snaps\r\n\x01\x00".to_vec();
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&len(&self.header));
        out.extend_from_slice(&self.header);
        let mut state = *blake3::hash(&out).as_bytes();
        out.extend_from_slice(&state[..16]);
        for (kind, body) in &self.records {
            let record = [&[*kind][..], &len(body), body].concat();
            state = *blake3::hash(&[&state[..], &record].concat()).as_bytes();
            out.extend_from_slice(&record);
            out.extend_from_slice(&state[..16]);
        }
        out
    }

    fn end(&mut self) -> &mut Vec<u8> {
        &mut self.records.last_mut().unwrap().1
    }

    /// As a program that knew no roots made it.
    fn older(mut self) -> Self {
        if self.flags & BASE_ROOT != 0 {
            self.header.truncate(self.header.len() - 32);
        }
        self.flags &= !(BASE_ROOT | ENDS_WITH_ROOT);
        let end = self.end();
        end.truncate(end.len() - 32);
        self
    }

    /// With another root in the end.
    fn with_wrong_root(mut self) -> Self {
        *self.end().last_mut().unwrap() ^= 1;
        self
    }
}

impl World {
    fn seal_all(&self) {
        while self.volume().digester.seal_snapshots().unwrap() > 0 {}
    }

    fn found(&self, dataset: Dataset, name: &str) -> Snapshot {
        self.volume().names().find_snapshot(dataset, name).unwrap()
    }

    fn root_of(&self, dataset: Dataset, name: &str) -> Option<Hash> {
        self.found(dataset, name).seal.map(|seal| seal.root)
    }
}

/// Two volumes, of which the first has two snapshots with digests.
fn sealed_pair(seed: u64) -> (World, World) {
    let (from, to) = pair();
    let mut grower = Grower::new(Ino::ROOT, seed);
    grower.grow(&from, 50);
    from.take(Dataset::ROOT, "a");
    grower.grow(&from, 30);
    from.take(Dataset::ROOT, "b");
    from.seal_all();
    (from, to)
}

#[test]
fn what_arrives_is_compared_and_has_its_digest_at_once() {
    for seed in 0..6 {
        let (from, mut to) = sealed_pair(seed);
        let received = to.receive(&new("copy"), &PLAIN, &from.stream(Dataset::ROOT, "a", None));
        let received = received.unwrap();
        assert_eq!(received.agreement, Agreement::Equal, "{seed}");
        let dataset = received.dataset;
        let changes = from.stream(Dataset::ROOT, "b", Some("a"));
        assert_eq!(Parts::of(&changes).flags, 1 | BASE_ROOT | ENDS_WITH_ROOT);
        let received = to.receive(&ReceiveTarget::Existing(dataset), &PLAIN, &changes).unwrap();
        assert_eq!(received.agreement, Agreement::Equal, "{seed}");
        assert_eq!(received.sent_root, from.root_of(Dataset::ROOT, "b"));
        for crashes in [false, true] {
            if crashes {
                // The digest is not waited for; it is made of the sum that is there.
                to.lose_power();
                to.seal_all();
            }
            for name in ["a", "b"] {
                let (sent, here) = (from.found(Dataset::ROOT, name), to.found(dataset, name));
                assert!(sent.seal.is_some() && sent.seal == here.seal, "{seed} {name}");
                assert_eq!(here.sent_root, sent.seal.map(|seal| seal.root));
                assert_eq!(to.volume().names().is_as_sent(here.node), Some(true));
                to.assert_verified(dataset, name);
            }
        }
        assert_eq!(to.volume().names().not_as_sent(), []);
        to.assert_sound();
    }
}

#[test]
fn what_is_not_what_was_sent_leaves_no_trace() {
    let (from, to) = sealed_pair(11);
    let whole = from.stream(Dataset::ROOT, "a", None);
    let dataset = to.receive_new("kept", &whole);
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    let (before, blocks) = (to.state(), to.blocks.len());
    for (target, stream) in [(new("x"), &whole), (ReceiveTarget::Existing(dataset), &changes)] {
        let wrong = Parts::of(stream).with_wrong_root().whole();
        // So is a right root of other content: here one attribute is left out.
        let mut other = Parts::of(stream);
        let count = other.records.len() as u64 - 1;
        let at = other.records.iter().position(|(kind, _)| *kind == 4).unwrap();
        other.records.remove(at);
        let mut end = Vec::new();
        crate::namespace::put_varint(&mut end, count - 1);
        let root_at = other.end().len() - 32;
        let root = other.end().split_off(root_at);
        *other.end() = [end, root].concat();
        for stream in [wrong, other.whole()] {
            for options in [&PLAIN, &RESUMABLE] {
                let error = to.receive(&target, options, &stream).unwrap_err();
                assert!(matches!(error, ReceiveError::ContentDiffers { .. }), "{error}");
                assert!(error.hint().is_some());
                assert!(to.volume().interrupted_receives().unwrap().is_empty());
                assert_eq!(to.state(), before);
            }
        }
    }
    to.assert_blocks(blocks);
    to.assert_sound();
    to.receive(&ReceiveTarget::Existing(dataset), &PLAIN, &changes).unwrap();
}

#[test]
fn a_base_of_other_content_is_refused_before_anything_is_written() {
    let (from, to) = sealed_pair(12);
    let steps = sound();
    let guid = from.found(Dataset::ROOT, "a").guid;
    let dataset = to.receive_new("copy", &forge(&Forged { to: guid, ..forged(&steps) }));
    let target = ReceiveTarget::Existing(dataset);
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    to.seal_all();
    let root = to.volume().names().live_root(dataset).unwrap();
    to.volume().mkdir(&ROOT, root, b"since", 0o755, 0).unwrap();
    let before = to.state();
    let forced = ReceiveOptions { force_rollback: true, ..PLAIN };
    for options in [&PLAIN, &RESUMABLE, &forced] {
        let error = to.receive(&target, options, &changes).unwrap_err();
        let ReceiveError::BaseDiffers { name, here, sent } = &error else { panic!("{error}") };
        assert_eq!(name, "forged");
        assert_eq!(Some(*here), to.root_of(dataset, "forged"));
        assert_eq!(Some(*sent), from.root_of(Dataset::ROOT, "a"));
        assert!(error.to_string().contains("the base @forged is not what the sender has"));
        assert!(error.hint().is_some());
        // Nor was it rolled back.
        assert_eq!(to.state(), before);
        assert!(to.volume().interrupted_receives().unwrap().is_empty());
    }
    to.assert_sound();
}

/// It has no digest yet when the receive begins.
#[test]
fn a_base_that_turns_out_to_be_of_other_content_is_refused_when_a_receive_goes_on() {
    let (from, to) = sealed_pair(17);
    let steps = sound();
    let guid = from.found(Dataset::ROOT, "a").guid;
    let dataset = to.receive_new("copy", &forge(&Forged { to: guid, ..forged(&steps) }));
    let target = ReceiveTarget::Existing(dataset);
    let changes = from.stream(Dataset::ROOT, "b", Some("a"));
    let cut = boundaries(&changes)[1];
    let error = to.receive(&target, &RESUMABLE, &changes[..cut]).unwrap_err();
    let rest = from.send(&SendPlan::Rest(super::token(error)));
    to.seal_all();
    let before = to.state();
    for options in [&PLAIN, &RESUMABLE] {
        let error = to.receive(&target, options, &rest).unwrap_err();
        let ReceiveError::BaseDiffers { name, here, sent } = &error else { panic!("{error}") };
        assert_eq!(name, "a");
        assert_eq!(Some(*here), to.root_of(dataset, "forged"));
        assert_eq!(Some(*sent), from.root_of(Dataset::ROOT, "a"));
        assert_eq!(to.state(), before);
    }
    let pending = to.volume().interrupted_receives().unwrap().remove(0);
    drop(to.volume().abandon_receive(pending.dataset).unwrap());
    to.assert_sound();
}

#[test]
fn a_clone_needs_the_content_of_its_origin() {
    let (from, to) = sealed_pair(16);
    let made = from.volume().clone_snapshot(&ROOT, (Dataset::ROOT, "a"), Ino::ROOT, b"clone");
    let clone = made.unwrap().0;
    let root = from.volume().names().live_root(clone).unwrap();
    from.volume().mkdir(&ROOT, root, b"more", 0o755, 0).unwrap();
    from.take(clone, "c");
    from.seal_all();
    let plan = SendPlan::Snapshot {
        dataset: clone,
        name: "c".to_owned(),
        from: Some((Dataset::ROOT, "a".to_owned())),
    };
    let stream = from.send(&plan);
    let guid = from.found(Dataset::ROOT, "a").guid;
    let steps = sound();
    let other = to.receive_new("other", &forge(&Forged { to: guid, ..forged(&steps) }));
    to.seal_all();
    let error = to.receive(&new("clone"), &PLAIN, &stream).unwrap_err();
    assert!(matches!(error, ReceiveError::BaseDiffers { .. }), "{error}");
    drop(to.volume().destroy_datasets(&[other], true).unwrap());
    to.receive_new("copy", &from.stream(Dataset::ROOT, "a", None));
    let received = to.receive(&new("clone"), &PLAIN, &stream).unwrap();
    assert_eq!(received.agreement, Agreement::Equal);
    to.assert_sound();
}

#[test]
fn an_older_stream_and_one_without_a_root_are_received() {
    let (from, to) = sealed_pair(13);
    let older = |stream: &[u8]| Parts::of(stream).older().whole();
    let whole = older(&from.stream(Dataset::ROOT, "a", None));
    let received = to.receive(&new("copy"), &PLAIN, &whole).unwrap();
    assert_eq!((received.agreement, received.sent_root), (Agreement::NotSaid, None));
    let dataset = received.dataset;
    let changes = older(&from.stream(Dataset::ROOT, "b", Some("a")));
    to.receive(&ReceiveTarget::Existing(dataset), &PLAIN, &changes).unwrap();
    let node = to.found(dataset, "b").node;
    assert_eq!(to.volume().names().is_as_sent(node), None);
    to.seal_all();
    assert!(to.root_of(dataset, "b").is_some());
    assert_eq!(to.root_of(dataset, "b"), from.root_of(Dataset::ROOT, "b"));
    assert_eq!(to.volume().names().is_as_sent(node), None);
    // A root where the header says that there is none is too much.
    let mut odd = Parts::of(&from.stream(Dataset::ROOT, "a", None));
    odd.flags &= !ENDS_WITH_ROOT;
    let error = to.receive(&new("x"), &PLAIN, &odd.whole()).unwrap_err();
    assert!(matches!(error, ReceiveError::Invalid { .. }), "{error}");
    // One that has no digest yet.
    Grower::new(Ino::ROOT, 5).grow(&from, 10);
    from.take(Dataset::ROOT, "new");
    let unsealed = from.stream(Dataset::ROOT, "new", None);
    let received = to.receive(&new("unsealed"), &PLAIN, &unsealed).unwrap();
    assert_eq!((received.agreement, received.sent_root), (Agreement::NotSaid, None));
}

#[test]
fn a_stream_that_goes_on_brings_the_root_in_its_end() {
    let (from, _) = sealed_pair(14);
    let whole = from.stream(Dataset::ROOT, "a", None);
    let ends = boundaries(&whole);
    for cut in ends[..ends.len() - 1].iter().step_by(ends.len() / 8) {
        let to = World::seeded(1 << 30, quiet(), 2);
        let before = to.state();
        let token = token(to.receive(&new("x"), &RESUMABLE, &whole[..*cut]).unwrap_err());
        let rest = from.send(&SendPlan::Rest(token));
        let received = to.receive(&new("x"), &RESUMABLE, &rest).unwrap();
        assert_eq!(received.agreement, Agreement::Equal, "{cut}");
        drop(to.volume().destroy_datasets(&[received.dataset], true).unwrap());
        // With another root what was kept goes, too.
        to.receive(&new("x"), &RESUMABLE, &whole[..*cut]).unwrap_err();
        let wrong = Parts::of(&rest).with_wrong_root().whole();
        let error = to.receive(&new("x"), &RESUMABLE, &wrong).unwrap_err();
        assert!(matches!(error, ReceiveError::ContentDiffers { .. }), "{error}");
        assert!(to.volume().interrupted_receives().unwrap().is_empty());
        assert_eq!(to.state(), before);
        to.assert_sound();
    }
}

#[test]
fn what_is_not_at_hand_is_compared_when_it_has_its_digest() {
    let (from, to) = sealed_pair(15);
    let right = from.stream(Dataset::ROOT, "a", None);
    let wrong = Parts::of(&right).with_wrong_root().whole();
    for (name, stream, is_as_sent) in [("right", right, true), ("wrong", wrong, false)] {
        to.blocks.set_cold(true);
        let received = to.receive(&new(name), &PLAIN, &stream).unwrap();
        assert!(matches!(received.agreement, Agreement::Lacks(1..)), "{:?}", received.agreement);
        let snapshot = to.found(received.dataset, "a");
        assert_eq!((snapshot.seal, snapshot.sent_root), (None, received.sent_root));
        to.blocks.set_cold(false);
        to.seal_all();
        let names = to.volume().names();
        assert_eq!(names.is_as_sent(snapshot.node), Some(is_as_sent), "{name}");
        let proof = names.prove((received.dataset, "a"), None, &mut |_| true).unwrap();
        let kinds: Vec<FlawKind> = proof.flaws.iter().map(|flaw| flaw.kind).collect();
        match is_as_sent {
            true => assert_eq!(kinds, []),
            false => {
                assert_eq!(kinds, [FlawKind::Sent]);
                assert_eq!(names.not_as_sent(), [(received.dataset, "a".to_owned())]);
            }
        }
    }
    to.assert_sound();
}

/// A stream as it was written once.
fn fixture(name: &str) -> Vec<u8> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/volume/tests/stream/fixtures");
    std::fs::read(format!("{dir}/{name}.stream")).unwrap()
}

#[test]
fn streams_of_every_form_are_golden() {
    let steps = sound();
    let to = World::seeded(1 << 30, quiet(), 2);
    let bare = forge(&forged(&steps));
    assert!(bare == fixture("v1-bare"), "without roots, as of old");
    let dataset = to.receive_new("bare", &fixture("v1-bare"));
    to.seal_all();
    let sent_root = to.root_of(dataset, "forged");
    let rooted = forge(&Forged { sent_root, ..forged(&steps) });
    assert!(rooted == fixture("v1-rooted"), "with a root");
    let received = to.receive(&new("rooted"), &PLAIN, &fixture("v1-rooted"));
    assert_eq!(received.unwrap().agreement, Agreement::Equal);
    let more = [hostile::object(1, crate::types::FileKind::Directory)];
    let to_guid = crate::types::Guid([8; 16]);
    let from = Some(forged(&steps).to);
    let changes = Forged { to: to_guid, from, base_root: sent_root, sent_root, ..forged(&more) };
    let changes = forge(&changes);
    assert!(changes == fixture("v1-base-root"), "with the root of a base");
    let options = ReceiveOptions { snapshot_name: Some("same".to_owned()), ..PLAIN };
    let target = ReceiveTarget::Existing(dataset);
    let received = to.receive(&target, &options, &fixture("v1-base-root")).unwrap();
    assert_eq!(received.agreement, Agreement::Equal);
}
