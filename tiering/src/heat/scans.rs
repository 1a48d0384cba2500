//! Tells who uses items from who merely passes over them: a copy, a backup, a search, a checksum run.
//! What a scan touches does not become warm, is served all the same, and never promoted.
//!
//! *The rule*, for each client (a process, say): a *visit* is an access to an item that is not among
//! the last 32 the client touched, so that programs that read many files side by side do not count
//! each turn. A client is a scan when within a window (10 minutes) it made more than 256 first
//! visits, at most a tenth of its recent visits went to items that it had visited before, and at most
//! half of them to items that were warm already. It stops being one when three tenths of its recent
//! visits are returns, so a job that reads the same files over and over stops about 23 files into
//! its second round; or when its first visits within the window fall below half the limit.
//! *What is remembered* of a client's visits is a spatial sample of at most 512 items: all of them up
//! to 512, then half of all ids, a quarter, down to one in 64. Past some 32,000 different items it
//! starts afresh, so a round over more files than that is a scan for good; [`Scans::declare`] is for
//! who knows better.
//! *Bounds*: clients (1024 by default) are forgotten by idleness, at most 4.5 KB each. *Cost*: one lock
//! of a shard; an access to one of the last items looks no further. Nothing is stored: after a restart
//! a scan counts for up to 256 more items.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use crate::mix::{ByMix, mix, unmix};

/// Shards of the clients.
const SHARDS: usize = 16;

/// Items that a client may have in hand at a time.
const IN_HAND: usize = 32;

/// Items sampled of a client's visits.
const SAMPLE: usize = 512;

/// The sample starts afresh when it would have to be thinner than one in so many.
const THINNEST: u64 = 64;

/// Share of returns at which a client may become a scan, and at which it stops being one.
const FEW_RETURNS: f32 = 0.1;
const MANY_RETURNS: f32 = 0.3;

/// Share of visits to warm items up to which a client may become a scan.
const FEW_WARM: f32 = 0.5;

/// Weight of the newest visit in both shares; the first ones weigh more.
const NEWEST: f32 = 1.0 / 64.0;

/// What is a scan, and how much is remembered to tell.
#[derive(Clone, Debug)]
pub struct ScansConfig {
    /// First visits within the window beyond which a client is a scan.
    pub most_items: u32,
    /// The window, in milliseconds.
    pub window_ms: u64,
    /// Clients remembered at a time.
    pub most_clients: usize,
    /// A client that did nothing for so long is forgotten, in milliseconds.
    pub idle_ms: u64,
    /// Clients that never are scans.
    pub exempt: HashSet<u64>,
}

impl Default for ScansConfig {
    fn default() -> Self {
        Self {
            most_items: 256,
            window_ms: 10 * 60_000,
            most_clients: 1024,
            idle_ms: 60 * 60_000,
            exempt: HashSet::new(),
        }
    }
}

/// What an access counts as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// It is use: heat.
    Use,
    /// It is part of a scan: no heat, no promotion.
    Scan,
    /// It is part of what just turned out to be a scan. What it visited before had counted: give that
    /// to [`super::map::Map::take_back`].
    ScanBegins {
        /// Items visited before, all of them or a sample if they were many.
        items: Vec<u64>,
        /// When the client was first seen, or two windows ago, in milliseconds since 1970.
        since_ms: u64,
    },
}

impl Class {
    /// Whether the access does not count as use.
    pub fn is_scan(&self) -> bool {
        !matches!(self, Self::Use)
    }
}

/// What somebody who knows says of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// It scans: a backup, a scrub, a migration.
    Scan,
    /// It uses what it reads, however much.
    Use,
}

/// A client that scans, for status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanner {
    /// Who.
    pub client: u64,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// First visits within the window, about.
    pub items: u32,
    /// Whether somebody said so, rather than it being seen.
    pub declared: bool,
}

/// Visits in the present window and the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    begin_ms: u64,
    now: u32,
    before: u32,
}

impl Window {
    fn roll(&mut self, now_ms: u64, window_ms: u64) {
        let gone = now_ms.saturating_sub(self.begin_ms) / window_ms.max(1);
        if gone > 0 {
            self.before = if gone == 1 { self.now } else { 0 };
            self.now = 0;
            self.begin_ms += gone * window_ms.max(1);
        }
    }

    /// Visits within the window that ends now, as if those of the one before had been even.
    fn visits(&self, now_ms: u64, window_ms: u64) -> f32 {
        let gone = now_ms.saturating_sub(self.begin_ms) as f32 / window_ms.max(1) as f32;
        self.now as f32 + self.before as f32 * (1.0 - gone.min(1.0))
    }
}

#[derive(Debug)]
struct Client {
    declared: Option<Declared>,
    first_ms: u64,
    last_ms: u64,
    scans_since_ms: Option<u64>,
    window: Window,
    /// Mixed ids of what it has in hand, the last one first.
    in_hand: [u64; IN_HAND],
    in_hand_len: usize,
    /// Mixed ids visited, up to `limit`, in order: the smallest part of a mixed order is a sample.
    sample: Vec<u64>,
    limit: u64,
    visits: u32,
    sampled: u32,
    returns: f32,
    warm: f32,
}

impl Client {
    fn new(now_ms: u64) -> Self {
        Self {
            declared: None,
            first_ms: now_ms,
            last_ms: now_ms,
            scans_since_ms: None,
            window: Window { begin_ms: now_ms, ..Window::default() },
            in_hand: [0; IN_HAND],
            in_hand_len: 0,
            sample: Vec::new(),
            limit: u64::MAX,
            visits: 0,
            sampled: 0,
            returns: 0.0,
            warm: 0.0,
        }
    }

    /// Whether it is something else than it had in hand.
    fn takes(&mut self, mixed: u64) -> bool {
        let held = self.in_hand[..self.in_hand_len].iter().position(|&other| other == mixed);
        let end = match held {
            Some(at) => at,
            None => {
                self.in_hand_len = (self.in_hand_len + 1).min(IN_HAND);
                self.in_hand_len - 1
            }
        };
        self.in_hand.copy_within(..end, 1);
        self.in_hand[0] = mixed;
        held.is_none()
    }

    fn visit(&mut self, mixed: u64, warm: bool, config: &ScansConfig) {
        self.window.roll(self.last_ms, config.window_ms);
        self.window.now = self.window.now.saturating_add(1);
        self.visits = self.visits.saturating_add(1);
        blend(&mut self.warm, warm, self.visits);
        if mixed > self.limit {
            return;
        }
        self.sampled = self.sampled.saturating_add(1);
        match self.sample.binary_search(&mixed) {
            Ok(_) => blend(&mut self.returns, true, self.sampled),
            Err(at) => {
                blend(&mut self.returns, false, self.sampled);
                self.remember(at, mixed);
            }
        }
    }

    fn remember(&mut self, at: usize, mixed: u64) {
        if self.sample.len() == SAMPLE {
            self.limit /= 2;
            if self.limit < u64::MAX / THINNEST {
                self.limit = u64::MAX;
                self.sample.clear();
            }
            let kept = self.sample.partition_point(|&other| other <= self.limit);
            self.sample.truncate(kept);
        }
        if mixed <= self.limit {
            self.sample.insert(at.min(self.sample.len()), mixed);
        }
    }

    fn first_visits(&self, now_ms: u64, config: &ScansConfig) -> f32 {
        self.window.visits(now_ms, config.window_ms) * (1.0 - self.returns)
    }

    fn judge(&mut self, config: &ScansConfig) -> Class {
        if let Some(declared) = self.declared {
            return if declared == Declared::Scan { Class::Scan } else { Class::Use };
        }
        let (first, most) = (self.first_visits(self.last_ms, config), config.most_items as f32);
        if self.scans_since_ms.is_some() {
            if self.returns < MANY_RETURNS && first >= most / 2.0 {
                return Class::Scan;
            }
            self.scans_since_ms = None;
        } else if first > most && self.returns <= FEW_RETURNS && self.warm <= FEW_WARM {
            self.scans_since_ms = Some(self.last_ms);
            let items = self.sample.iter().map(|&mixed| unmix(mixed)).collect();
            let recently_ms = self.last_ms.saturating_sub(config.window_ms.saturating_mul(2));
            return Class::ScanBegins { items, since_ms: self.first_ms.max(recently_ms) };
        }
        Class::Use
    }

    fn class(&self) -> Class {
        match self.declared {
            Some(Declared::Scan) => Class::Scan,
            Some(Declared::Use) => Class::Use,
            None if self.scans_since_ms.is_some() => Class::Scan,
            None => Class::Use,
        }
    }
}

fn blend(share: &mut f32, new: bool, count: u32) {
    let new = f32::from(u8::from(new));
    *share += (new - *share) * NEWEST.max(1.0 / count.max(1) as f32);
}

type Clients = HashMap<u64, Box<Client>, ByMix>;

/// The clients and what they do.
#[derive(Debug)]
pub struct Scans {
    config: ScansConfig,
    shards: [Mutex<Clients>; SHARDS],
}

impl Scans {
    /// Nobody is known.
    pub fn new(config: ScansConfig) -> Self {
        Self { config, shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// What an access counts as. `warm`, which is only asked at a visit of another item: it is known as
    /// used again and again, for instance its heat is above 1.5; what was only written counts as cold.
    pub fn classify(
        &self,
        client: u64,
        item: u64,
        warm: impl FnOnce() -> bool,
        now_ms: u64,
    ) -> Class {
        if self.config.exempt.contains(&client) {
            return Class::Use;
        }
        let mut shard = self.shard(client).lock();
        let state = self.client(&mut shard, client, now_ms);
        let mixed = mix(item);
        if !state.takes(mixed) {
            return state.class();
        }
        state.visit(mixed, warm(), &self.config);
        state.judge(&self.config)
    }

    /// Says of a client what it is, until `None` is said or the client is idle for long.
    pub fn declare(&self, client: u64, declared: Option<Declared>, now_ms: u64) {
        let mut shard = self.shard(client).lock();
        self.client(&mut shard, client, now_ms).declared = declared;
    }

    /// The client ended. Its number may come again as somebody else.
    pub fn ended(&self, client: u64) {
        self.shard(client).lock().remove(&client);
    }

    /// Who scans now, by number.
    pub fn scanners(&self, now_ms: u64) -> Vec<Scanner> {
        let mut scanners = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let active = |state: &Client| !self.is_gone(state, now_ms) && state.class().is_scan();
            scanners.extend(shard.iter().filter(|(_, state)| active(state)).map(
                |(&client, state)| Scanner {
                    client,
                    since_ms: state.scans_since_ms.unwrap_or(state.first_ms),
                    items: state.first_visits(now_ms, &self.config) as u32,
                    declared: state.declared.is_some(),
                },
            ));
        }
        scanners.sort_unstable_by_key(|scanner| scanner.client);
        scanners
    }

    /// Clients remembered.
    pub fn clients(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, client: u64) -> &Mutex<Clients> {
        &self.shards[(mix(client) >> 32) as usize % SHARDS]
    }

    fn is_gone(&self, state: &Client, now_ms: u64) -> bool {
        now_ms.saturating_sub(state.last_ms) > self.config.idle_ms
    }

    fn client<'a>(&self, shard: &'a mut Clients, client: u64, now_ms: u64) -> &'a mut Client {
        if shard.get(&client).is_none_or(|state| self.is_gone(state, now_ms)) {
            shard.remove(&client);
            let most = (self.config.most_clients / SHARDS).max(1);
            if shard.len() >= most {
                shard.retain(|_, state| !self.is_gone(state, now_ms));
            }
            if shard.len() >= most {
                // What was declared goes last.
                let idle = |state: &Client| (state.declared.is_some(), state.last_ms);
                let oldest = shard.iter().min_by_key(|(_, state)| idle(state)).map(|(id, _)| *id);
                oldest.and_then(|oldest| shard.remove(&oldest));
            }
        }
        let state = shard.entry(client).or_insert_with(|| Box::new(Client::new(now_ms)));
        state.last_ms = now_ms.max(state.last_ms);
        state
    }
}

#[cfg(test)]
mod tests;
