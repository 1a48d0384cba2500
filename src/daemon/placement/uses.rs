//! How files are used, as far as that says that somebody needs them: each file's past, who merely
//! passes over many files, and a log of what was opened, for traces.
//!
//! A file is an item, its directory the group. What a scan touches is logged and does not count. *Cost*:
//! an open looks up where the file belongs, a read or write locks one shard; nothing is written on
//! the way. *Crash*: the pasts since they were last stored, and the last batch of the log, are lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use firn_mount::namespace::{Inode, Namespace};
use firn_mount::types::{Caller, Ino, OpenMode};
use firn_mount::volume::Touch;
use firn_tiering::Clock;
use firn_tiering::heat::{
    AHEAD_MS, Access, AccessKind, Class, Cursor, Facts, History, Known, Map, MapStatus, Place,
    Scanner, Scans, ScansConfig,
};
use firn_tiering::replay::{AccessLog, LogConfig, Op, Request};
use parking_lot::{Mutex, RwLock};

use super::processes::Processes;
use crate::policy::settings::Recall;

/// Name of the file with the pasts, and of the directory of the log, in the volume directory.
const HEAT_FILE: &str = "heat";
const LOG_DIR: &str = "accesses";

/// How long a clock is behind what was noted before what was noted is doubted.
const CLOCK_PATIENCE: Duration = Duration::from_secs(3600);

/// Seed of the table's chance: which of a few cold files is forgotten is no secret.
const SEED: u64 = 0x6669_726e_6865_6174;

/// Files that are open and of which is remembered where they belong.
const SHARDS: usize = 16;
const PLACES: usize = 1024;

/// How files are used.
pub(super) struct Uses {
    clock: Arc<dyn Clock>,
    file: PathBuf,
    map: Map,
    said: Mutex<Said>,
    scans: RwLock<Scans>,
    processes: Processes,
    log: Option<AccessLog>,
    places: Vec<Mutex<lru::Places>>,
    /// Where samples are taken next.
    cursor: Mutex<Option<Cursor>>,
    read_only: bool,
}

/// What the clock has said.
#[derive(Debug)]
struct Said {
    /// The latest time since it was last set back.
    latest_ms: u64,
    /// When uses that lie ahead are taken for uses of now.
    settles_at: Option<Instant>,
}

/// What reading or writing part of an open file amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// It is part of a scan.
    Scan,
    /// It is part of a visit that was noted before.
    GoesOn,
    /// It begins a visit to a file that was held open.
    Visit { at_ms: u64 },
}

mod lru {
    //! Where files belong that are in use, so that a read need not look it up.

    use std::collections::HashMap;

    use firn_tiering::heat::Place;
    use firn_tiering::mix::ByMix;

    /// A bounded table; when it is full all of it is forgotten, since looking up again is cheap.
    #[derive(Default)]
    pub(super) struct Places(HashMap<u64, Place, ByMix>);

    impl Places {
        pub(super) fn get(&self, item: u64) -> Option<Place> {
            self.0.get(&item).copied()
        }

        pub(super) fn put(&mut self, place: Place) {
            if self.0.len() >= super::PLACES {
                self.0.clear();
            }
            self.0.insert(place.item, place);
        }

        pub(super) fn remove(&mut self, item: u64) {
            self.0.remove(&item);
        }
    }
}

impl Uses {
    /// What was stored in `dir`, in at most `bytes` of memory. What cannot be read is forgotten, and
    /// logged.
    pub(super) fn load(
        dir: &Path,
        clock: &Arc<dyn Clock>,
        bytes: u64,
        read_only: bool,
        recall: &Recall,
    ) -> Self {
        let file = dir.join(HEAT_FILE);
        let (map, failure) = Map::open(&file, bytes, SEED, now_ms(&**clock));
        if let Some(error) = failure {
            tracing::warn!(%error, "how files were used is not known: every file counts as cold");
        }
        let log = (!read_only).then(|| AccessLog::open(&dir.join(LOG_DIR), LogConfig::default()));
        let log = log.and_then(|log| {
            log.inspect_err(|error| tracing::warn!(%error, "accesses are not logged")).ok()
        });
        Self {
            clock: Arc::clone(clock),
            file,
            map,
            said: Mutex::new(Said {
                latest_ms: 0,
                settles_at: Some(clock.instant() + CLOCK_PATIENCE),
            }),
            scans: RwLock::new(Scans::new(scans_config(recall))),
            processes: Processes::default(),
            log,
            places: (0..SHARDS).map(|_| Mutex::default()).collect(),
            cursor: Mutex::default(),
            read_only,
        }
    }

    /// Takes uses that lie ahead for uses of now, or what was used then would pass for in use until that
    /// time has come. Only after [`CLOCK_PATIENCE`]: a clock that is behind, as after a start without one,
    /// would wipe out what is known, and once it is right again all would pass for unused.
    pub(super) fn heed_clock(&self) {
        let (now, instant) = (self.now_ms(), self.clock.instant());
        let mut said = self.said.lock();
        if said.latest_ms > now.saturating_add(AHEAD_MS) {
            *said = Said { latest_ms: now, settles_at: Some(instant + CLOCK_PATIENCE) };
        }
        said.latest_ms = said.latest_ms.max(now);
        if said.settles_at.take_if(|at| *at <= instant).is_some() {
            self.map.settle(now);
        }
    }

    /// What is a scan is told by another policy from now on; what is one now is forgotten.
    pub(super) fn set(&self, recall: &Recall) {
        *self.scans.write() = Scans::new(scans_config(recall));
    }

    fn now_ms(&self) -> u64 {
        now_ms(&*self.clock)
    }

    /// A file of `size` bytes was opened. Says how, and whether that counts as use; nothing of what
    /// vanished meanwhile.
    pub(super) fn opened(
        &self,
        names: &Namespace,
        ino: Ino,
        caller: &Caller,
        mode: OpenMode,
        size: u64,
    ) -> Option<(Request, bool)> {
        let inode = names.inode(ino).ok()?;
        let place = place_of(&inode);
        self.places_of(ino).lock().put(place);
        let now = self.now_ms();
        let op = if mode.write { Op::Write } else { Op::Read };
        let request = request_of(place, size, caller, op, now);
        self.log(&request);
        let counts = !self.is_scan(caller, place, now);
        if counts {
            let access = Access { at_ms: now, kind: AccessKind::Open, bytes: 0, sequential: false };
            self.map.note(place, &access);
        }
        Some((request, counts))
    }

    /// Bytes were read.
    pub(super) fn read(&self, names: &Namespace, touch: &Touch) -> Touched {
        self.touched(names, touch, AccessKind::Read)
    }

    /// Bytes were written.
    pub(super) fn written(&self, names: &Namespace, touch: &Touch) -> Touched {
        self.touched(names, touch, AccessKind::Write)
    }

    fn touched(&self, names: &Namespace, touch: &Touch, kind: AccessKind) -> Touched {
        let Some(place) = self.place(names, touch.ino) else { return Touched::GoesOn };
        let now = self.now_ms();
        if self.is_scan(&touch.caller, place, now) {
            return Touched::Scan;
        }
        let (bytes, sequential) = (touch.len, touch.sequential);
        match self.map.note(place, &Access { at_ms: now, kind, bytes, sequential }) {
            true => Touched::Visit { at_ms: now },
            false => Touched::GoesOn,
        }
    }

    /// Where a file that is open belongs; nowhere once it was removed.
    fn place(&self, names: &Namespace, ino: Ino) -> Option<Place> {
        if let Some(place) = self.places_of(ino).lock().get(ino.0) {
            return Some(place);
        }
        let inode = names.inode(ino).ok().filter(|inode| inode.nlink > 0)?;
        let place = place_of(&inode);
        self.places_of(ino).lock().put(place);
        Some(place)
    }

    fn is_scan(&self, caller: &Caller, place: Place, now_ms: u64) -> bool {
        // The kernel reads ahead and writes back on behalf of whoever opened the file.
        if caller.pid == 0 {
            return false;
        }
        let is_warm = || self.map.get(place.item).is_some_and(|history| history.visits() > 1);
        let process = self.processes.of(caller.pid, now_ms);
        let class = self.scans.read().classify(process.into(), place.item, is_warm, now_ms);
        if let Class::ScanBegins { items, since_ms } = &class {
            let forgotten = self.map.take_back(items, *since_ms);
            tracing::info!(process, uid = caller.uid, forgotten, "a scan begins");
        }
        class.is_scan()
    }

    fn log(&self, request: &Request) {
        if let Some(log) = &self.log {
            // A full batch waits for the thread that writes it; what comes meanwhile is counted.
            log.note(request);
        }
    }

    /// The file is gone.
    pub(super) fn removed(&self, ino: Ino) {
        self.map.forget(ino.0);
        self.places_of(ino).lock().remove(ino.0);
    }

    fn places_of(&self, ino: Ino) -> &Mutex<lru::Places> {
        &self.places[ino.0 as usize % SHARDS]
    }

    /// How warm a file is.
    pub(super) fn heat(&self, ino: Ino) -> f32 {
        self.map.heat(ino.0, self.now_ms())
    }

    /// When it was last used, in milliseconds after 1970; `None` when that is not known.
    pub(super) fn last_ms(&self, ino: Ino) -> Option<u64> {
        self.map.get(ino.0).map(|history| history.last_ms())
    }

    /// The past of a file, where that is known.
    pub(super) fn history(&self, ino: Ino) -> Option<History> {
        self.map.get(ino.0)
    }

    /// What the classifier is told of a file besides its past.
    pub(super) fn facts(&self, inode: &Inode, path: &[u8]) -> Facts {
        let created = SystemTime::from(inode.crtime);
        let created = created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Facts {
            size: inode.size,
            created_ms: u64::try_from(created.as_millis()).unwrap_or(u64::MAX),
            kind: kind_of(path),
            group: self.map.group(inode.parent.0),
            owner: self.map.owner(inode.uid),
        }
    }

    /// Up to `count` files that are known, others each time.
    pub(super) fn some(&self, count: usize) -> Vec<Known> {
        let mut cursor = self.cursor.lock();
        let mut page = Vec::new();
        while page.len() < count {
            *cursor = self.map.page(cursor.unwrap_or_default(), &mut page);
            if cursor.is_none() {
                break;
            }
        }
        // Spread over the page, so that not only its beginning is looked at.
        let step = (page.len() / count.max(1)).max(1);
        page.into_iter().step_by(step).take(count).collect()
    }

    /// The log of accesses, where there is one.
    pub(super) fn accesses(&self) -> Option<&AccessLog> {
        self.log.as_ref()
    }

    /// Numbers for `status`, and who scans now.
    pub(super) fn status(&self) -> (MapStatus, Vec<Scanner>) {
        (self.map.status(), self.scans.read().scanners(self.now_ms()))
    }

    /// Writes what waits to be written of the log.
    pub(super) fn flush(&self) {
        if let Some(log) = &self.log
            && let Err(error) = log.flush()
        {
            tracing::warn!(%error, "writing the log of accesses");
        }
    }

    /// Stores the pasts.
    pub(super) fn store(&self) {
        self.flush();
        if self.read_only {
            return;
        }
        if let Err(error) = self.map.save(&self.file) {
            tracing::warn!(%error, "storing how files are used");
        }
    }
}

/// Milliseconds after 1970; a clock before that counts as 1970.
pub(super) fn now_ms(clock: &dyn Clock) -> u64 {
    let since = clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn place_of(inode: &Inode) -> Place {
    Place { item: inode.ino.0, group: inode.parent.0, owner: inode.uid }
}

fn request_of(place: Place, size: u64, caller: &Caller, op: Op, at_ms: u64) -> Request {
    Request {
        at_ms,
        item: place.item,
        op,
        bytes: size,
        size,
        client: u64::from(caller.pid),
        group: place.group,
        owner: place.owner,
        kind: 0,
    }
}

fn scans_config(recall: &Recall) -> ScansConfig {
    ScansConfig {
        most_items: recall.scan_files.max(1),
        window_ms: u64::try_from(recall.scan_window.0.as_millis()).unwrap_or(u64::MAX),
        ..ScansConfig::default()
    }
}

/// A number for the type of a file: that of its extension, the same for the same.
pub(super) fn kind_of(name: &[u8]) -> u32 {
    let extension = name.rsplit(|byte| *byte == b'.').next().filter(|e| e.len() < name.len());
    let Some(extension) = extension else { return 0 };
    // FNV-1a, Fowler, Noll, Vo.
    let step = |hash: u32, byte: &u8| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    };
    extension.iter().fold(0x811c_9dc5, step)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::{Duration, Instant};

    use super::*;

    /// A clock that may be set.
    #[derive(Debug)]
    struct SetClock(Mutex<SystemTime>, Mutex<Instant>);

    impl Clock for SetClock {
        fn now(&self) -> SystemTime {
            *self.0.lock()
        }

        fn instant(&self) -> Instant {
            *self.1.lock()
        }

        fn sleep(&self, _duration: Duration) {}
    }

    impl Uses {
        /// Forgets where open files belong, as when there are many.
        pub(in crate::daemon::placement) fn forget_places(&self) {
            self.places.iter().for_each(|places| *places.lock() = lru::Places::default());
        }
    }

    #[test]
    fn a_clock_that_is_set_back_leaves_no_use_ahead() {
        let dir = tempfile::tempdir().unwrap();
        let real = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let ahead = real + Duration::from_secs(30 * 86_400);
        let instant = firn_tiering::SystemClock.instant();
        let clock = Arc::new(SetClock(Mutex::new(ahead), Mutex::new(instant)));
        let shared = Arc::clone(&clock) as Arc<dyn Clock>;
        let uses = Uses::load(dir.path(), &shared, 1 << 20, true, &Recall::default());
        let place = Place { item: 7, group: 1, owner: 0 };
        let at_ms = uses.now_ms();
        uses.map
            .note(place, &Access { at_ms, kind: AccessKind::Open, bytes: 0, sequential: false });
        uses.heed_clock();
        *clock.0.lock() = ahead - Duration::from_secs(60);
        uses.heed_clock();
        assert_eq!(uses.last_ms(Ino(7)), Some(at_ms), "a little is nothing");
        *clock.0.lock() = real;
        uses.heed_clock();
        assert_eq!(uses.last_ms(Ino(7)), Some(at_ms), "it may be wrong now, and not before");
        assert_eq!(uses.history(Ino(7)).unwrap().idle_ms(uses.now_ms()), 0);
        *clock.1.lock() += CLOCK_PATIENCE;
        uses.heed_clock();
        assert_eq!(uses.last_ms(Ino(7)), Some(uses.now_ms()));
        *clock.0.lock() = real + Duration::from_secs(86_400);
        uses.heed_clock();
        assert_eq!(uses.history(Ino(7)).unwrap().idle_ms(uses.now_ms()), 86_400_000);
    }

    #[test]
    fn types_go_by_extension_whatever_its_case() {
        assert_eq!(kind_of(b"a.FITS"), kind_of(b"/x/b.c.fits"));
        assert_ne!(kind_of(b"a.fits"), kind_of(b"a.nc"));
        assert_eq!(kind_of(b"Makefile"), 0);
    }
}
