//! How files are used. (Being connected.)

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use firn_mount::namespace::Namespace;
use firn_mount::types::{Attr, Caller, Ino, OpenMode};
use firn_mount::volume::Touch;
use firn_tiering::Clock;
use firn_tiering::heat::history::{Access, AccessKind, History};
use parking_lot::Mutex;

use crate::policy::Policy;
use crate::policy::rules::Verdict;

/// What is known of the use of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Use {
    pub(super) idle: Option<Duration>,
    pub(super) heat: f32,
    pub(super) p_reuse: Option<f32>,
    pub(super) verdict: Verdict,
}

pub(super) struct Uses {
    clock: Arc<dyn Clock>,
    map: Mutex<HashMap<u64, History>>,
}

impl Uses {
    pub(super) fn load(
        _dir: &Path,
        clock: &Arc<dyn Clock>,
        _bytes: u64,
        _read_only: bool,
        _policy: &Policy,
    ) -> Self {
        Self { clock: Arc::clone(clock), map: Mutex::default() }
    }

    fn now_ms(&self) -> u64 {
        let since = self.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&self, ino: Ino, kind: AccessKind, bytes: u64, sequential: bool) {
        let at_ms = self.now_ms();
        let mut map = self.map.lock();
        let history = map.entry(ino.0).or_insert_with(|| History::new(at_ms));
        history.note(&Access { at_ms, kind, bytes, sequential });
    }

    pub(super) fn opened(&self, _: &Namespace, ino: Ino, _: &Caller, _: OpenMode) {
        self.note(ino, AccessKind::Open, 0, false);
    }

    pub(super) fn read(&self, touch: &Touch) -> bool {
        self.note(touch.ino, AccessKind::Read, touch.len, touch.sequential);
        false
    }

    pub(super) fn written(&self, touch: &Touch) {
        self.note(touch.ino, AccessKind::Write, touch.len, touch.sequential);
    }

    pub(super) fn removed(&self, ino: Ino) {
        self.map.lock().remove(&ino.0);
    }

    pub(super) fn heat(&self, ino: Ino) -> f32 {
        self.map.lock().get(&ino.0).map_or(0.0, |history| history.heat(self.now_ms()))
    }

    pub(super) fn last_ms(&self, ino: Ino) -> Option<u64> {
        self.map.lock().get(&ino.0).map(History::last_ms)
    }

    pub(super) fn of(&self, attr: &Attr, _path: &[u8]) -> Use {
        let now = self.now_ms();
        match self.map.lock().get(&attr.ino.0) {
            None => Use::default(),
            Some(history) => Use {
                idle: Some(Duration::from_millis(history.idle_ms(now))),
                heat: history.heat(now),
                ..Use::default()
            },
        }
    }

    pub(super) fn tick(&self, _policy: &Policy) {}

    pub(super) fn store(&self) {}
}
