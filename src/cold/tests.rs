#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::units::Size;

fn volume(place: &std::path::Path) -> Config {
    let mut config = Config::new(Uuid::new_v4(), Size(1 << 30));
    config.cold = Some(format!("file://{}", place.display()).parse().unwrap());
    config
}

fn terms(may_claim: bool) -> Terms {
    Terms {
        may_claim,
        is_used: false,
        may_be_away: false,
        takes_over: false,
        fails_fast: false,
        refills: Vec::new(),
        staging: None,
        claimant: claimant("here".to_owned()),
        seal: None,
    }
}

#[test]
fn a_place_that_says_nothing_is_not_one_that_was_used() {
    let place = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let used = Terms { is_used: true, ..terms(true) };
    let refused = open(&volume(place.path()), &used, &runtime).unwrap_err();
    assert!(format!("{refused:#}").contains("backups were made"), "{refused:#}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "nothing was claimed");
}

#[test]
fn an_unused_place_becomes_the_first_volumes_and_stays_its_own() {
    let place = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let (first, second) = (volume(place.path()), volume(place.path()));
    let owner = || {
        let set = ColdSet::of(&first).unwrap();
        let tier = probe(&set, Access::Read, &runtime).unwrap();
        identity(&set, tier.as_ref(), &runtime).unwrap().map(|identity| identity.uuid)
    };
    open(&second, &terms(false), &runtime).unwrap();
    assert_eq!(owner(), None, "looking claims nothing");
    open(&first, &terms(true), &runtime).unwrap();
    assert_eq!(owner(), Some(first.uuid));
    let refused = open(&second, &terms(true), &runtime).unwrap_err();
    assert!(format!("{refused:#}").contains("belongs to volume"), "{refused:#}");
    open(&first, &terms(true), &runtime).unwrap();
}

#[test]
fn a_place_with_segments_of_another_volume_is_refused_also_unclaimed() {
    use firn_tiering::encode::{Effort, EncodeMemory, encode_block};
    use firn_tiering::segment::{
        Frame, ParityPlace, SegmentId, SegmentName, SegmentWriter, hash_block,
    };
    let place = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let (first, second) = (volume(place.path()), volume(place.path()));
    let name = SegmentName { volume: VolumeId(*first.uuid.as_bytes()), id: SegmentId::from_raw(1) };
    let dir = place.path().join("segments");
    std::fs::create_dir(&dir).unwrap();
    let mut writer = SegmentWriter::create(&dir, name, ParityPlace::Inside).unwrap();
    let encoded = encode_block(b"snow", &mut EncodeMemory::default(), Effort::Normal);
    let id = firn_tiering::BlockId::from_raw(1);
    writer.append(&mut Frame::build(id, &hash_block(b"snow"), &encoded)).unwrap();
    writer.seal().unwrap();
    let refused = open(&second, &terms(true), &runtime).unwrap_err();
    assert!(format!("{refused:#}").contains("belongs to volume"), "{refused:#}");
    open(&first, &terms(true), &runtime).unwrap();
    assert!(place.path().join(IDENTITY_KEY).is_file());
}

#[test]
fn a_place_is_one_instances_at_a_time() {
    let place = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let config = volume(place.path());
    let there = Terms { claimant: claimant("there".to_owned()), ..terms(true) };
    let first = open(&config, &terms(true), &runtime).unwrap().unwrap();
    let refused = open(&config, &there, &runtime).unwrap_err();
    assert!(format!("{refused:#}").contains("another instance"), "{refused:#}");
    let hint = crate::failure::Failure::new(&refused).hint.unwrap();
    assert!(hint.contains("-o takeover"), "{hint}");
    // Who only reads is in nobody's way, and changes nothing.
    let reader = open(&config, &terms(false), &runtime).unwrap().unwrap();
    let put = |cold: &ColdTier, key: &str| {
        runtime.block_on(cold.at(Priority::WriteBack).put(key, Bytes::new()))
    };
    put(&reader, "segments/x").unwrap_err();
    put(&first, "segments/x").unwrap();
    let second = open(&config, &Terms { takes_over: true, ..there }, &runtime).unwrap().unwrap();
    put(&second, "segments/y").unwrap();
    let delete =
        |cold: &ColdTier| runtime.block_on(cold.at(Priority::Reencode).delete("segments/x"));
    delete(&first).unwrap_err();
    delete(&second).unwrap();
}

#[test]
fn a_store_that_is_away_is_waited_for_only_where_it_was_used_before() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let away = crate::cold::contact::Absence::sort(Error::TimedOut("asking"));
    assert!(contact::is_absence(&away.context("cold tier")));
    assert!(!contact::is_absence(&anyhow!("belongs to another")));
    let refused = contact::Absence::sort(Error::NotFound("bucket".to_owned()));
    assert!(!contact::is_absence(&refused));
    // A directory that is gone is no store that does not answer.
    let config = volume(&dir.path().join("missing"));
    open(&config, &Terms { may_be_away: true, ..terms(true) }, &runtime).unwrap_err();
}
