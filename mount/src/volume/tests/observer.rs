//! What an observer is told of, and what not.

use std::sync::Arc;
use std::time::Duration;

use firn_tiering::Wait;
use parking_lot::Mutex;

use super::fake::{READ_WRITE, ROOT, World};
use crate::core::Core;
use crate::error::{FsError, FsResult};
use crate::types::{Caller, Ino, OpenMode, Pin, PinTier, XattrMode};
use crate::volume::{Admission, Observer, Told, Touch};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Opened { ino: Ino, uid: u32, size: u64 },
    Read { offset: u64, len: u64, sequential: bool, waited: bool },
    Written { offset: u64, len: u64, sequential: bool },
    Admitted(u64),
    Removed(Ino),
    Pin(Ino),
}

#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<Heard>>,
    refuses: Mutex<bool>,
}

impl Ear {
    fn hear(&self, what: Heard) {
        self.heard.lock().push(what);
    }

    fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut *self.heard.lock())
    }
}

impl Observer for Ear {
    fn opened(&self, ino: Ino, caller: &Caller, _: OpenMode, size: u64) {
        self.hear(Heard::Opened { ino, uid: caller.uid, size });
    }

    fn read(&self, touch: &Touch, waited: bool) {
        let Touch { offset, len, sequential, .. } = *touch;
        self.hear(Heard::Read { offset, len, sequential, waited });
    }

    fn written(&self, touch: &Touch) {
        let Touch { offset, len, sequential, .. } = *touch;
        self.hear(Heard::Written { offset, len, sequential });
    }

    fn admit(&self, touch: &Touch, _: Wait) -> FsResult<Admission> {
        if *self.refuses.lock() {
            return Err(FsError::Busy);
        }
        self.hear(Heard::Admitted(touch.len));
        Ok(None)
    }

    fn removed(&self, ino: Ino) {
        self.hear(Heard::Removed(ino));
    }

    fn pin_changed(&self, ino: Ino) {
        self.hear(Heard::Pin(ino));
    }

    fn tell(&self, _: Ino, what: Told) -> Option<String> {
        (what == Told::Heat).then(|| "3.5".to_owned())
    }
}

fn observed() -> (World, Arc<Ear>) {
    let mut world = World::new();
    let ear = Arc::new(Ear::default());
    world.observe(Arc::clone(&ear) as _);
    (world, ear)
}

#[test]
fn uses_are_told_with_their_opener_and_their_order() {
    let (world, ear) = observed();
    let (ino, handle) = world.create("a");
    let volume = world.volume();
    assert_eq!(ear.take(), [Heard::Opened { ino, uid: 0, size: 0 }]);
    world.write((ino, handle), 0, b"0123456789");
    world.write((ino, handle), 10, b"abc");
    let written = |offset, len, sequential| Heard::Written { offset, len, sequential };
    assert_eq!(ear.take(), [written(0, 10, true), written(10, 3, true)]);
    let other = Caller { uid: 5, gid: 5, pid: 1 };
    let again = volume.open(&other, ino, READ_WRITE, world.wait()).unwrap();
    let read = |offset, len| volume.read(ino, again, offset, len, Wait::No).unwrap();
    read(0, 4);
    read(4, 4);
    // Behind the end there are fewer bytes than asked for.
    read(9, 100);
    let told = |offset, len, sequential| Heard::Read { offset, len, sequential, waited: false };
    let reads = [told(0, 4, true), told(4, 4, true), told(9, 4, false)];
    // Nothing of it is committed yet; it is as long as programs see it all the same.
    let opened = Heard::Opened { ino, uid: 5, size: 13 };
    assert_eq!(ear.take(), [&[opened][..], &reads].concat());
    volume.unlink(Ino::ROOT, b"a").unwrap();
    assert_eq!(ear.take(), [Heard::Removed(ino)]);
}

#[test]
fn what_has_to_wait_asks_first() {
    let (world, ear) = observed();
    let (ino, handle) = world.create("a");
    world.write((ino, handle), 0, &[7; 200_000]);
    world.fsync((ino, handle)).unwrap();
    world.blocks.set_cold(true);
    ear.take();
    let volume = world.volume();
    let refused = volume.read(ino, handle, 0, 10, Wait::No).unwrap_err();
    assert!(matches!(refused, FsError::WouldWait), "{refused:?}");
    assert_eq!(ear.take(), []);
    let patience = Wait::Progress(Duration::from_secs(1));
    volume.read(ino, handle, 0, 10, patience).unwrap();
    let read = Heard::Read { offset: 0, len: 10, sequential: false, waited: true };
    assert_eq!(ear.take(), [Heard::Admitted(10), read]);
    *ear.refuses.lock() = true;
    let refused = volume.read(ino, handle, 0, 10, patience).unwrap_err();
    assert!(matches!(refused, FsError::Busy), "{refused:?}");
    assert_eq!(ear.take(), []);
}

#[test]
fn snapshots_are_not_observed() {
    let (world, ear) = observed();
    let file = world.create("a");
    world.write(file, 0, b"then");
    let root = world.snapshot("one");
    let volume = world.volume();
    ear.take();
    let ino = volume.lookup(root, b"a").unwrap().ino;
    let mode = OpenMode { read: true, ..OpenMode::default() };
    let handle = volume.open(&ROOT, ino, mode, world.wait()).unwrap();
    assert_eq!(volume.read(ino, handle, 0, 9, world.wait()).unwrap(), "then");
    assert_eq!(ear.take(), []);
}

#[test]
fn a_pin_is_an_attribute_with_few_values() {
    let (world, ear) = observed();
    let (ino, _) = world.create("a");
    let volume = world.volume();
    ear.take();
    let set = |value: &[u8]| volume.setxattr(&ROOT, ino, b"user.firn.pin", value, XattrMode::Set);
    for wrong in ["", "warm", "hot ", "hot until", "hot until soon", "cold until -1"] {
        let refused = set(wrong.as_bytes()).unwrap_err();
        assert!(matches!(refused, FsError::Invalid(_)), "{wrong}: {refused:?}");
    }
    assert_eq!(ear.take(), []);
    set(b"hot until 100").unwrap();
    let pin = Pin { tier: PinTier::Hot, until: Some(100) };
    assert_eq!(volume.pin(ino).unwrap(), Some(pin));
    assert_eq!(pin.to_string(), "hot until 100");
    assert!(pin.holds(99) && !pin.holds(100));
    volume.removexattr(&ROOT, ino, b"user.firn.pin").unwrap();
    assert_eq!(volume.pin(ino).unwrap(), None);
    assert_eq!(ear.take(), [Heard::Pin(ino), Heard::Pin(ino)]);
    let refused = volume.setxattr(&ROOT, ino, b"user.firn.heat", b"1", XattrMode::Set);
    assert!(matches!(refused, Err(FsError::NotSupported(_))));
    assert_eq!(volume.getxattr(ino, b"user.firn.heat").unwrap(), b"3.5");
    assert!(matches!(volume.getxattr(ino, b"user.firn.policy"), Err(FsError::NoAttribute)));
}
