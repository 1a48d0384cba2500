//! What was damaged in storage and what became of it, with the paths of the files: for the log, and
//! for `status`, which shows the last of it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use firn_mount::namespace::Namespace;
use firn_tiering::store::{DamageLog, DamageReport, Mended};
use firn_tiering::{BlockId, Clock};
use parking_lot::Mutex;

use crate::report::escape::escaped;
use crate::report::names;
use crate::report::status::DamageEvent;
use crate::utc;

/// Files that are named of one segment.
const MOST_FILES: usize = 16;

/// Events that `status` shows.
const MOST_EVENTS: usize = 16;

/// Knows the files that damage concerns.
pub(super) struct Damage {
    namespace: Arc<Namespace>,
    clock: Arc<dyn Clock>,
    events: Mutex<VecDeque<DamageEvent>>,
}

impl std::fmt::Debug for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Damage").field("events", &self.events.lock().len()).finish_non_exhaustive()
    }
}

impl Damage {
    pub(super) fn new(namespace: &Arc<Namespace>, clock: &Arc<dyn Clock>) -> Self {
        let (namespace, clock) = (Arc::clone(namespace), Arc::clone(clock));
        Self { namespace, clock, events: Mutex::default() }
    }

    /// What happened since the mount, as far as it is remembered, oldest first.
    pub(super) fn events(&self) -> Vec<DamageEvent> {
        self.events.lock().iter().cloned().collect()
    }

    /// Which files hold bytes of these blocks.
    fn paths(&self, blocks: &[BlockId]) -> Vec<String> {
        let mut files = BTreeSet::new();
        for block in blocks {
            match self.namespace.owners(*block, MOST_FILES) {
                Ok(owners) => files.extend(owners.into_iter().map(|owner| owner.ino)),
                Err(error) => tracing::warn!(%block, %error, "whose block it is, is not known"),
            }
            if files.len() >= MOST_FILES {
                break;
            }
        }
        let path = |ino| names::text(&self.namespace.path(ino));
        files.into_iter().take(MOST_FILES).map(path).collect()
    }
}

impl DamageLog for Damage {
    fn report(&self, damage: &DamageReport) {
        let DamageReport { segment, in_cold, what, blocks, mended } = damage;
        let (blocks, is_lost) = match mended {
            Mended::Lost(lost) => (lost, true),
            // Nobody's content was there.
            Mended::Unneeded => return,
            Mended::Sound | Mended::Whole | Mended::Displaced => (blocks, false),
        };
        let paths = self.paths(blocks);
        let shown: Vec<_> = paths.iter().map(|path| escaped(path)).collect();
        let tier = if *in_cold { "cold" } else { "hot" };
        if is_lost {
            tracing::error!(%segment, tier, what, paths = ?shown, "these files have lost content");
        } else {
            tracing::warn!(%segment, tier, what, paths = ?shown, "repaired, nothing is lost");
        }
        let event = DamageEvent {
            time: utc::rfc3339(super::automatic::secs(self.clock.now())),
            segment: segment.to_string(),
            tier: tier.to_owned(),
            what: what.clone(),
            is_lost,
            blocks: blocks.len() as u64,
            paths,
        };
        let mut events = self.events.lock();
        if events.len() >= MOST_EVENTS {
            events.pop_front();
        }
        events.push_back(event);
    }
}
