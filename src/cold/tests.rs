#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::units::Size;

fn volume(place: &std::path::Path) -> Config {
    let mut config = Config::new(Uuid::new_v4(), Size(1 << 30));
    config.cold = Some(format!("file://{}", place.display()).parse().unwrap());
    config
}

fn terms(may_claim: bool) -> Terms {
    Terms { may_claim, is_used: false }
}

#[test]
fn a_place_that_says_nothing_is_not_one_that_was_used() {
    let place = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let used = Terms { may_claim: true, is_used: true };
    let refused = open(&volume(place.path()), used, &runtime).unwrap_err();
    assert!(format!("{refused:#}").contains("backups were made"), "{refused:#}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "nothing was claimed");
}

#[test]
fn an_unused_place_becomes_the_first_volumes_and_stays_its_own() {
    let place = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let (first, second) = (volume(place.path()), volume(place.path()));
    let owner = || {
        let url = first.cold.as_ref().unwrap();
        let tier = probe(url, Access::Read, &runtime).unwrap();
        identity(url, tier.as_ref(), &runtime).unwrap().map(|identity| identity.uuid)
    };
    open(&second, terms(false), &runtime).unwrap();
    assert_eq!(owner(), None, "looking claims nothing");
    open(&first, terms(true), &runtime).unwrap();
    assert_eq!(owner(), Some(first.uuid));
    let refused = open(&second, terms(true), &runtime).unwrap_err();
    assert!(format!("{refused:#}").contains("belongs to volume"), "{refused:#}");
    open(&first, terms(true), &runtime).unwrap();
}

#[test]
fn a_place_with_segments_of_another_volume_is_refused_also_unclaimed() {
    use firn_tiering::encode::{Effort, EncodeMemory, encode_block};
    use firn_tiering::segment::{Frame, SegmentId, SegmentName, SegmentWriter, hash_block};
    let place = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let (first, second) = (volume(place.path()), volume(place.path()));
    let name = SegmentName { volume: VolumeId(*first.uuid.as_bytes()), id: SegmentId::from_raw(1) };
    let dir = place.path().join("segments");
    std::fs::create_dir(&dir).unwrap();
    let mut writer = SegmentWriter::create(&dir, name).unwrap();
    let encoded = encode_block(b"snow", &mut EncodeMemory::default(), Effort::Normal);
    let id = firn_tiering::BlockId::from_raw(1);
    writer.append(&mut Frame::build(id, &hash_block(b"snow"), &encoded)).unwrap();
    writer.seal().unwrap();
    let refused = open(&second, terms(true), &runtime).unwrap_err();
    assert!(format!("{refused:#}").contains("belongs to volume"), "{refused:#}");
    open(&first, terms(true), &runtime).unwrap();
    assert!(place.path().join(IDENTITY_KEY).is_file());
}
