//! Which files and directories are pinned. A pin is the attribute `user.firn.pin` of the file or
//! directory itself, and holds for all below that have none of their own; here is an index of them,
//! so that one question costs a look at the directories above a file and not at their attributes.
//!
//! *Truth*: the attributes. The index lies in a file that is replaced as a whole within a second of a
//! change; where it is lost, or the mount before did not end in order, all files are walked over soon,
//! and where a pin came some other way (a receive, a rollback), [`Pins::note`] puts it right when its
//! file is walked over next. *Failure*: what could not be written is written again. *Bounds*:
//! [`MOST_PINS`]; later ones hold for the policy, which reads attributes as it walks, and not for what
//! is decided in between.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use firn_mount::FsResult;
use firn_mount::namespace::Namespace;
use firn_mount::types::{Ino, Pin, PinTier};
use parking_lot::RwLock;

/// The attribute.
pub(in crate::daemon) const NAME: &[u8] = b"user.firn.pin";

/// Name of the index in the volume directory.
const FILE_NAME: &str = "pins";

/// Its first line.
const HEADER: &str = "firn-pins 1";

/// Pins in the index.
pub(super) const MOST_PINS: usize = 1 << 20;

/// Longest index that is read, in bytes.
const MAX_LEN: u64 = 64 << 20;

/// The index.
#[derive(Debug)]
pub(super) struct Pins {
    file: PathBuf,
    pins: RwLock<HashMap<Ino, Pin>>,
    /// It changed since it was stored.
    is_changed: AtomicBool,
    /// It could not be stored, which was logged.
    has_failed: AtomicBool,
    /// It changed since whoever goes by it was told.
    has_news: AtomicBool,
    /// Not all pins may be known: files are to be walked over once.
    is_lost: AtomicBool,
}

/// A pin that holds for a file, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) pin: Pin,
    /// The file itself, or the directory above that has it.
    pub(super) on: Ino,
}

impl Pins {
    /// What the index in `dir` says; nothing when there is none, or one that makes no sense. Whether
    /// the mount before `ended_in_order` says whether that is all.
    pub(super) fn load(dir: &std::path::Path, ended_in_order: bool) -> Self {
        let file = dir.join(FILE_NAME);
        let read = read(&file);
        if let Err(error) = &read {
            tracing::warn!(%error, "{} is made again as files are walked over", file.display());
        }
        let is_lost = AtomicBool::new(read.is_err() || !ended_in_order);
        let pins = RwLock::new(read.unwrap_or_default());
        let [is_changed, has_failed, has_news] = Default::default();
        Self { file, pins, is_changed, has_failed, has_news, is_lost }
    }

    /// Takes in the pin that a file or directory has now.
    pub(super) fn note(&self, ino: Ino, pin: Option<Pin>) {
        if self.pins.read().get(&ino).copied() == pin {
            return;
        }
        let mut pins = self.pins.write();
        match pin {
            Some(pin) if pins.len() < MOST_PINS || pins.contains_key(&ino) => {
                pins.insert(ino, pin);
            }
            Some(_) => return,
            None => {
                pins.remove(&ino);
            }
        }
        self.is_changed.store(true, Ordering::Release);
        self.has_news.store(true, Ordering::Release);
    }

    /// Calls `tell` if something changed since it was called last.
    pub(super) fn tell_news(&self, tell: impl FnOnce()) {
        if self.has_news.swap(false, Ordering::AcqRel) {
            tell();
        }
    }

    /// Stores what changed; nobody who notes a pin waits for that. Whether the index is as it should
    /// be: where it is not, the next call tries again.
    pub(super) fn store(&self) -> bool {
        if !self.is_changed.swap(false, Ordering::AcqRel) {
            return true;
        }
        let mut text = format!("{HEADER}\n");
        for (ino, pin) in self.pins.read().iter() {
            text.push_str(&format!("{} {pin}\n", ino.0));
        }
        let written = super::replace(&self.file, text.as_bytes());
        let failed_before = self.has_failed.swap(written.is_err(), Ordering::AcqRel);
        if let Err(error) = &written {
            self.is_changed.store(true, Ordering::Release);
            if !failed_before {
                tracing::warn!(%error, "writing {}; it is tried again", self.file.display());
            }
        }
        written.is_ok()
    }

    /// Whether files are to be walked over because not all pins may be known.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// All files were walked over.
    pub(super) fn found_again(&self) {
        self.is_lost.store(false, Ordering::Release);
    }

    /// Whether nothing is pinned.
    pub(super) fn is_empty(&self) -> bool {
        self.pins.read().is_empty()
    }

    /// The pin that holds for a file: its own, or that of the nearest directory above. `now` is in
    /// seconds after 1970.
    pub(super) fn holding(
        &self,
        names: &Namespace,
        ino: Ino,
        now: u64,
    ) -> FsResult<Option<Holding>> {
        if self.is_empty() {
            return Ok(None);
        }
        if let Some(own) = self.own(ino, now) {
            return Ok(Some(own));
        }
        let above = names.directories_above(ino)?;
        Ok(above.into_iter().find_map(|dir| self.own(dir, now)))
    }

    /// The pin of a file or directory itself, if it still holds.
    fn own(&self, ino: Ino, now: u64) -> Option<Holding> {
        let pin = self.pins.read().get(&ino).copied().filter(|pin| pin.holds(now))?;
        Some(Holding { pin, on: ino })
    }

    /// The files and directories that are pinned to hot themselves.
    pub(super) fn hot(&self, now: u64) -> Vec<Ino> {
        let pins = self.pins.read();
        let hot = pins.iter().filter(|(_, pin)| pin.tier == PinTier::Hot && pin.holds(now));
        hot.map(|(ino, _)| *ino).collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.pins.read().len()
    }
}

fn read(file: &std::path::Path) -> io::Result<HashMap<Ino, Pin>> {
    let mut text = String::new();
    match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        file => file?.take(MAX_LEN).read_to_string(&mut text)?,
    };
    parse(&text)
}

/// The pins in the text of such a file.
pub(super) fn parse(text: &str) -> io::Result<HashMap<Ino, Pin>> {
    let wrong = |line: usize| {
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} makes no sense"))
    };
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(wrong(1));
    }
    let mut pins = HashMap::new();
    for (number, line) in (2..).zip(lines) {
        let (ino, pin) = line.split_once(' ').ok_or_else(|| wrong(number))?;
        let ino: u64 = ino.parse().map_err(|_| wrong(number))?;
        let pin = Pin::parse(pin.as_bytes()).ok_or_else(|| wrong(number))?;
        if pins.len() < MOST_PINS {
            pins.insert(Ino(ino), pin);
        }
    }
    Ok(pins)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_index_is_remembered_and_damage_empties_it() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::load(dir.path(), true);
        let (hot, cold) =
            (Pin { tier: PinTier::Hot, until: Some(77) }, Pin { tier: PinTier::Cold, until: None });
        pins.note(Ino(5), Some(hot));
        pins.note(Ino(6), Some(cold));
        pins.note(Ino(7), Some(cold));
        pins.note(Ino(7), None);
        pins.store();
        let expected = [(Ino(5), hot), (Ino(6), cold)];
        for pins in [pins, Pins::load(dir.path(), true)] {
            assert_eq!(pins.len(), 2);
            assert!(expected.iter().all(|(ino, pin)| pins.pins.read()[ino] == *pin));
        }
        for damaged in ["", "firn-pins 2\n", "firn-pins 1\n5\n", "firn-pins 1\n5 warm\n"] {
            std::fs::write(dir.path().join(FILE_NAME), damaged).unwrap();
            let pins = Pins::load(dir.path(), true);
            assert!(pins.is_empty() && pins.is_lost(), "{damaged}");
            pins.found_again();
            assert!(!pins.is_lost());
        }
    }
    #[test]
    fn what_could_not_be_written_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::load(dir.path(), true);
        assert!(pins.store(), "nothing is to be stored");
        let in_the_way = dir.path().join(FILE_NAME).with_extension("new");
        std::fs::create_dir(&in_the_way).unwrap();
        pins.note(Ino(5), Some(Pin { tier: PinTier::Hot, until: None }));
        assert!(!pins.store() && !pins.store());
        std::fs::remove_dir(&in_the_way).unwrap();
        assert!(pins.store());
        assert_eq!(Pins::load(dir.path(), true).len(), 1);
    }

    #[test]
    fn an_index_is_not_the_whole_truth_where_the_mount_did_not_end_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::load(dir.path(), true);
        pins.note(Ino(5), Some(Pin { tier: PinTier::Hot, until: None }));
        pins.store();
        let pins = Pins::load(dir.path(), false);
        assert!(pins.is_lost());
        assert_eq!(pins.len(), 1, "what is known holds meanwhile");
        assert!(!Pins::load(dir.path(), true).is_lost());
    }

    #[test]
    fn a_change_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::load(dir.path(), true);
        let told = |pins: &Pins| {
            let mut told = false;
            pins.tell_news(|| told = true);
            told
        };
        assert!(!told(&pins));
        let pin = Some(Pin { tier: PinTier::Hot, until: None });
        pins.note(Ino(5), pin);
        assert!(told(&pins) && !told(&pins));
        pins.note(Ino(5), pin);
        assert!(!told(&pins), "it is as it was");
        pins.note(Ino(5), None);
        assert!(told(&pins));
    }
}
