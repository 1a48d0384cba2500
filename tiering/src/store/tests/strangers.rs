//! Objects in cold that are not what their key says, and answers that say nothing: neither is
//! taken for a copy, and neither is deleted.

use std::sync::Arc;

use crate::block::BlockRef;
use crate::error::Error;
use crate::segment::VolumeId;
use crate::store::testing::{Volume, noise, soon};
use crate::store::{BackupProof, CheckOptions, Residence};
use crate::tier::{FailureKind, Fault, Faulty, Memory, Op, Tier};

fn sharing(tier: Arc<dyn Tier>, volume: u8) -> Volume {
    Volume::with(|config| {
        config.cold = Some(tier);
        config.copy_ahead = false;
        config.volume = VolumeId([volume; 16]);
    })
}

fn archive(volume: &Volume, block: BlockRef) -> Result<(), Error> {
    volume.store().archive(&[block.id], soon(), &mut |_, _| ()).map(drop)
}

fn all_objects(memory: &Memory) -> Vec<(String, bytes::Bytes)> {
    let objects = memory.keys().into_iter().map(|key| {
        let bytes = memory.lose(&key).unwrap();
        memory.overwrite(&key, bytes.clone());
        (key, bytes)
    });
    objects.collect()
}

#[test]
fn a_sound_object_with_other_content_is_neither_a_copy_nor_replaced() {
    for second in [7, 8] {
        let memory = Arc::new(Memory::new());
        let first = sharing(Arc::clone(&memory) as Arc<dyn Tier>, 7);
        let theirs = first.append(&noise(1, 100_000));
        archive(&first, theirs).unwrap();
        let before = all_objects(&memory);
        // The same volume recovered elsewhere, and another one in the same place.
        let other = sharing(Arc::clone(&memory) as Arc<dyn Tier>, second);
        let ours = other.append(&noise(2, 100_000));
        let refused = archive(&other, ours);
        assert!(matches!(refused, Err(Error::Cold { .. })), "{refused:?}");
        assert_eq!(other.store().residence(&[ours.id]), [Residence::Hot]);
        let proof = BackupProof::of_blocks([ours.id]);
        assert_eq!(other.store().release(&[ours.id], &proof, soon()).unwrap().blocks, 0);
        assert_eq!(all_objects(&memory), before, "volume {second} touched what is not its own");
        assert_eq!(other.read(&ours).unwrap(), noise(2, 100_000));
    }
}

#[test]
fn an_object_that_could_not_be_read_is_not_replaced() {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    let volume = sharing(Arc::clone(&faulty) as Arc<dyn Tier>, 7);
    let block = volume.append(&noise(1, 100_000));
    // Read back wrongly twice, then an outage while the object's own checksums are looked at.
    for fault in [Fault::Corrupt; 2] {
        faulty.fail_next(Some(Op::GetRange), "segments/", fault);
    }
    for _ in 0..2 {
        let gone = Fault::Error(FailureKind::Unavailable);
        faulty.fail_next(Some(Op::GetRange), "segments/", gone);
    }
    archive(&volume, block).unwrap();
    assert_eq!(faulty.calls(Op::Delete), 0);
    assert_eq!(volume.store().residence(&[block.id]), [Residence::Dual]);
}

#[test]
fn a_check_of_a_tier_that_does_not_answer_finds_nothing_lost() {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    let volume = sharing(Arc::clone(&faulty) as Arc<dyn Tier>, 7);
    let block = volume.append(&noise(1, 100_000));
    archive(&volume, block).unwrap();
    let proof = BackupProof::of_blocks([block.id]);
    assert_eq!(volume.store().release(&[block.id], &proof, soon()).unwrap().blocks, 1);
    let options = CheckOptions { data: true, cold_data: true };
    let check = || volume.store().check(options, &mut |_, _| ()).unwrap();
    faulty.fail_next(Some(Op::GetRange), "", Fault::Error(FailureKind::Unavailable));
    let during = check();
    assert_eq!((during.findings.len(), during.lost.len()), (1, 0), "{during:?}");
    assert!(check().is_clean());
    for key in memory.keys() {
        memory.lose(&key);
    }
    assert_eq!(check().lost.len(), 1, "an object that is gone is gone");
}
