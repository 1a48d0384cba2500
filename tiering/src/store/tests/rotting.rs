//! A local file that changes while it is copied, between the look at it and the copy.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::error::Result;
use crate::segment::FileKind;
use crate::store::testing::{Volume, damage, eventually, noise, soon};
use crate::tier::{Content, Faulty, Memory, ObjectMeta, Op, Tier};

/// Takes a segment, and has the local file rot the moment before.
#[derive(Debug, Default)]
struct Rotting {
    memory: Memory,
    is_sound: AtomicBool,
}

#[async_trait::async_trait]
impl Tier for Rotting {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.memory.put(key, bytes).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        if key.starts_with("segments/") && !self.is_sound.swap(true, Ordering::SeqCst) {
            damage(path, 5_000, 64);
        }
        self.memory.put_file(key, path).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.memory.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.memory.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.memory.head(key).await
    }

    async fn list(&self, under: &str, after: Option<&str>, most: usize) -> Result<Vec<ObjectMeta>> {
        self.memory.list(under, after, most).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.memory.delete(key).await
    }

    async fn clean(&self) -> Result<u64> {
        self.memory.clean().await
    }

    async fn replace(&self, key: &str, content: &Content) -> Result<()> {
        self.memory.replace(key, content).await
    }

    fn describe(&self) -> String {
        "rotting".to_owned()
    }
}

#[test]
fn what_rots_between_the_look_and_the_copy_does_not_count_as_copied() {
    let tier = Arc::new(Rotting::default());
    let volume = Volume::with_cold(Arc::clone(&tier) as Arc<dyn Tier>);
    let block = volume.append(&noise(1, 60_000));
    volume.seal();
    let (id, path) = volume.files(FileKind::Sealed).remove(0);
    let sealed = std::fs::read(&path).unwrap();
    volume.store().archive(&[block.id], soon(), &mut |_, _| ()).unwrap();
    assert!(tier.is_sound.load(Ordering::SeqCst), "it did rot");
    let copy = tier.memory.peek(&id.object_key()).unwrap();
    assert!(copy[..] == sealed[..], "what was copied is what was sealed");
    assert!(std::fs::read(&path).unwrap() == sealed, "and the local file was made whole");
}

/// Its own parity may be all that is left when the local file goes in that moment.
#[test]
fn a_damaged_object_stays_until_another_has_its_place() {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    let volume = Volume::with_cold(Arc::clone(&faulty) as Arc<dyn Tier>);
    let block = volume.append(&noise(1, 60_000));
    volume.seal();
    let (id, path) = volume.files(FileKind::Sealed).remove(0);
    let sealed = std::fs::read(path).unwrap();
    volume.store().archive(&[block.id], soon(), &mut |_, _| ()).unwrap();
    let mut object = sealed.clone();
    object[5_000] ^= 1;
    memory.overwrite(&id.object_key(), object);
    let listing = volume.store().cold_listing().unwrap();
    volume.store().scrub_segment(id, listing.as_ref(), true).unwrap().unwrap();
    let is_whole = || memory.peek(&id.object_key()).unwrap()[..] == sealed[..];
    eventually("it is copied again", is_whole);
    assert_eq!((faulty.calls(Op::Replace), faulty.calls(Op::Delete)), (1, 0));
}
