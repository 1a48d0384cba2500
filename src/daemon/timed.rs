//! The block store as the filesystem uses it, with a watch: how long reads take that local disks
//! answer tells the throttle of the cold tier when its background work hurts, and a read that the cold
//! tier left without an answer is not waited for again at once.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use firn_tiering::encode::EncodeMemory;
use firn_tiering::mix::ByMix;
use firn_tiering::throttle::Throttle;
use firn_tiering::{
    BlockId, BlockRef, BlockStore, Blocks, Clock, Error, Intent, ReadAhead, Result, Served, Wait,
};
use parking_lot::Mutex;

use crate::cold::ColdTier;

/// How long a block is remembered that was not answered for: the kernel splits a read that fails and
/// asks for its pages again, one after the other.
const UNANSWERED_FOR: Duration = Duration::from_secs(3);

/// Blocks that are remembered.
const MOST_UNANSWERED: usize = 1024;

/// A block store under watch.
pub(super) struct Timed {
    store: Arc<dyn Blocks>,
    throttle: Arc<Throttle>,
    clock: Arc<dyn Clock>,
    /// Blocks that the cold tier did not answer for, and since when.
    unanswered: Mutex<HashMap<BlockId, Instant, ByMix>>,
}

impl Timed {
    /// `store`, under watch where there is a throttle to be told.
    pub(super) fn over(
        store: &Arc<BlockStore>,
        cold: Option<&ColdTier>,
        clock: &Arc<dyn Clock>,
    ) -> Arc<dyn Blocks> {
        match cold {
            None => Arc::clone(store) as _,
            Some(cold) => Arc::new(Self {
                store: Arc::clone(store) as _,
                throttle: Arc::clone(cold.throttle()),
                clock: Arc::clone(clock),
                unanswered: Mutex::default(),
            }),
        }
    }

    fn timed<T>(
        &self,
        block: &BlockRef,
        wait: Wait,
        read: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let start = self.clock.instant();
        if matches!(wait, Wait::No) {
            let result = read();
            // What may not wait never came from far away.
            if result.is_ok() {
                let end = self.clock.instant();
                self.throttle.note_foreground(end.saturating_duration_since(start));
            }
            return result;
        }
        if self.is_unanswered(block.id, start) {
            return Err(Error::Cold {
                action: "read",
                object: format!("block {}", block.id),
                source: "it did not answer a moment ago, and has not since".into(),
            });
        }
        let result = read();
        if let Err(Error::TimedOut(_) | Error::Cold { .. }) = &result
            && !self.has_answered_since(start)
        {
            self.note_unanswered(block.id);
        }
        result
    }

    fn has_answered_since(&self, then: Instant) -> bool {
        self.throttle.answered_at().is_some_and(|answered| answered > then)
    }

    /// Whether a read would only wait for what did not come a moment ago.
    fn is_unanswered(&self, block: BlockId, now: Instant) -> bool {
        let since = self.unanswered.lock().get(&block).copied();
        since.is_some_and(|since| {
            now.saturating_duration_since(since) < UNANSWERED_FOR && !self.has_answered_since(since)
        })
    }

    fn note_unanswered(&self, block: BlockId) {
        let now = self.clock.instant();
        let mut unanswered = self.unanswered.lock();
        unanswered.retain(|_, since| now.saturating_duration_since(*since) < UNANSWERED_FOR);
        if unanswered.len() < MOST_UNANSWERED {
            unanswered.insert(block, now);
        }
    }
}

impl Blocks for Timed {
    fn append(&self, plain: &[u8], memory: &mut EncodeMemory, wait: Wait) -> Result<BlockRef> {
        self.store.append(plain, memory, wait)
    }

    fn sync(&self) -> Result<()> {
        self.store.sync()
    }

    fn read(&self, block: &BlockRef, range: Range<u32>, wait: Wait) -> Result<Bytes> {
        self.timed(block, wait, || self.store.read(block, range, wait))
    }

    fn read_for(
        &self,
        block: &BlockRef,
        range: Range<u32>,
        intent: Intent,
        wait: Wait,
    ) -> Result<Served> {
        self.timed(block, wait, || self.store.read_for(block, range, intent, wait))
    }

    fn will_read(
        &self,
        reader: &mut ReadAhead,
        ahead: u64,
        next: &mut dyn FnMut() -> Option<BlockRef>,
    ) {
        self.store.will_read(reader, ahead, next);
    }

    fn export(&self, block: &BlockRef, wait: Wait) -> Result<Bytes> {
        self.store.export(block, wait)
    }

    fn import(&self, stored: &[u8], wait: Wait) -> Result<BlockRef> {
        self.store.import(stored, wait)
    }

    fn free(&self, blocks: &[BlockId]) {
        self.store.free(blocks);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use firn_tiering::throttle::{Inputs, Kind, Outcome, Priority, ThrottleConfig};
    use firn_tiering::{BlockDigest, Epoch, ManualClock, Source};

    use super::*;

    /// How long a read waits.
    const DEADLINE: Duration = Duration::from_secs(60);

    /// A store whose cold tier is away, and how often it was waited for.
    struct Away {
        clock: Arc<ManualClock>,
        waits: Mutex<u32>,
    }

    impl Blocks for Away {
        fn append(&self, _: &[u8], _: &mut EncodeMemory, _: Wait) -> Result<BlockRef> {
            Err(Error::NoSpace)
        }

        fn sync(&self) -> Result<()> {
            Ok(())
        }

        fn read(&self, _: &BlockRef, _: Range<u32>, wait: Wait) -> Result<Bytes> {
            if matches!(wait, Wait::No) {
                return Err(Error::WouldWait);
            }
            *self.waits.lock() += 1;
            self.clock.advance(DEADLINE);
            Err(Error::TimedOut("reading from the cold tier"))
        }

        fn read_for(
            &self,
            block: &BlockRef,
            range: Range<u32>,
            _: Intent,
            wait: Wait,
        ) -> Result<Served> {
            let bytes = self.read(block, range, wait)?;
            Ok(Served { bytes, source: Source::Cold })
        }

        fn will_read(&self, _: &mut ReadAhead, _: u64, _: &mut dyn FnMut() -> Option<BlockRef>) {}

        fn export(&self, _: &BlockRef, _: Wait) -> Result<Bytes> {
            Err(Error::WouldWait)
        }

        fn import(&self, _: &[u8], _: Wait) -> Result<BlockRef> {
            Err(Error::NoSpace)
        }

        fn free(&self, _: &[BlockId]) {}
    }

    #[test]
    fn what_the_cold_tier_does_not_answer_for_is_waited_for_once() {
        let clock = Arc::new(ManualClock::new());
        let away = Arc::new(Away { clock: Arc::clone(&clock), waits: Mutex::new(0) });
        let throttle = Throttle::new(
            ThrottleConfig::default(),
            Inputs::of_clock(Arc::clone(&clock) as _),
            Arc::default(),
        );
        let throttle = Arc::new(throttle.unwrap());
        let timed = Timed {
            store: Arc::clone(&away) as _,
            throttle: Arc::clone(&throttle),
            clock: Arc::clone(&clock) as _,
            unanswered: Mutex::default(),
        };
        let block = |counter| BlockRef {
            id: BlockId::new(Epoch(1), counter).unwrap(),
            digest: BlockDigest([0; 16]),
            len: 100,
        };
        let waits_of = |counter| {
            let before = *away.waits.lock();
            let wait = Wait::Until(clock.instant() + DEADLINE);
            assert!(timed.read_for(&block(counter), 0..100, Intent::Part, wait).is_err());
            *away.waits.lock() - before
        };
        let answer = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let permit = runtime.unwrap().block_on(throttle.admit(Priority::Stage, Kind::Small, 0));
            permit.unwrap().finish(Outcome::Done);
        };
        assert_eq!([waits_of(1), waits_of(1), waits_of(1)], [1, 0, 0]);
        assert_eq!(waits_of(2), 1, "another one may be somewhere else");
        // It took so long that the first is forgotten.
        assert_eq!([waits_of(1), waits_of(1)], [1, 0]);
        clock.advance(Duration::from_millis(1));
        answer();
        assert_eq!(waits_of(1), 1, "it is there again");
        clock.advance(UNANSWERED_FOR);
        assert_eq!(waits_of(1), 1);
        for counter in 0..2 * MOST_UNANSWERED as u64 {
            timed.note_unanswered(block(counter + 10).id);
        }
        assert_eq!(timed.unanswered.lock().len(), MOST_UNANSWERED);
    }
}
