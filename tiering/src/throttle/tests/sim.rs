//! A store behind one bottleneck, in simulated time: a queue without bounds (as a bad router has)
//! that sends what came first at the rate of the moment, competitors that send whatever the queue,
//! and clients that each keep one request running.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::clock::{Clock, ManualClock};
use crate::throttle::core::Core;
use crate::throttle::{Kind, Outcome, Priority, ThrottleConfig};
use crate::tier::Jitter;

/// Bytes that competitors send at a time.
const COMPETING_PIECE: f64 = 64.0 * 1024.0;

/// A link and a store at its end.
pub(super) struct Link {
    /// Bytes per second at a time since the beginning.
    pub(super) rate: fn(f64) -> f64,
    /// Bytes per second that others send at a time since the beginning.
    pub(super) others: fn(f64) -> f64,
    /// Seconds for the way there and back, and the store's own time.
    pub(super) base: f64,
    /// The store's own time varies by up to this factor.
    pub(super) noise: f64,
}

/// Clients that keep requests of one kind running.
#[derive(Clone, Copy)]
pub(super) struct Clients {
    pub(super) count: usize,
    pub(super) priority: Priority,
    pub(super) kind: Kind,
    pub(super) bytes: u64,
}

enum Event {
    /// A request reaches the link.
    Arrive(u64),
    /// A request is over.
    Finish(u64),
    /// Others send something.
    Compete,
    /// Nothing but a look at the time.
    Look,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Seconds of delay beside what an idle link takes, for each answer after the warm-up.
    pub(super) delays: Vec<f64>,
    /// Bytes by priority after the warm-up.
    pub(super) bytes: BTreeMap<Priority, u64>,
    /// Bytes that the link had free for us after the warm-up.
    pub(super) free: f64,
    /// When each answer came, and how long it was.
    pub(super) answers: Vec<(f64, u64)>,
}

impl Run {
    pub(super) fn used(&self) -> f64 {
        self.bytes.values().sum::<u64>() as f64 / self.free
    }

    pub(super) fn mean_delay(&self) -> f64 {
        self.delays.iter().sum::<f64>() / self.delays.len() as f64
    }

    pub(super) fn p95_delay(&self) -> f64 {
        let mut sorted = self.delays.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() * 95 / 100]
    }
}

struct World<'a> {
    link: &'a Link,
    core: Core,
    zero: Instant,
    /// By nanoseconds since the beginning.
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    /// Requests under way: whose, when sent, when the link is done with it.
    running: BTreeMap<u64, (usize, f64)>,
    asked: BTreeMap<u64, usize>,
    free_at: f64,
    look_at: f64,
    chance: Jitter,
}

impl World<'_> {
    fn push(&mut self, at: f64, event: Event) {
        self.serial += 1;
        self.events.insert(((at * 1e9) as u64, self.serial), event);
    }

    /// Sends bytes over the link, behind what waits there; returns when the last has passed.
    fn send(&mut self, now: f64, bytes: f64) -> f64 {
        let mut at = self.free_at.max(now);
        let mut left = bytes;
        while left > 0.0 {
            // The rate holds for a hundredth of a second.
            let rate = (self.link.rate)(at);
            let step = (((at * 100.0).floor() + 1.0) / 100.0 - at).max(1e-4);
            if rate * step >= left {
                at += left / rate;
                break;
            }
            left -= rate * step;
            at += step;
        }
        self.free_at = at;
        at
    }

    fn instant(&self, at: f64) -> Instant {
        self.zero + Duration::from_secs_f64(at)
    }
}

/// Runs `clients` against `link` for `seconds`; what happens in the first `warm_up` does not count.
pub(super) fn run(
    link: &Link,
    config: ThrottleConfig,
    clients: &[Clients],
    seconds: f64,
    warm_up: f64,
) -> Run {
    let zero = ManualClock::new().instant();
    let cap = config.timetable.clone();
    let mut world = World {
        link,
        core: Core::new(config, zero),
        zero,
        events: BTreeMap::new(),
        serial: 0,
        running: BTreeMap::new(),
        asked: BTreeMap::new(),
        free_at: 0.0,
        look_at: -1.0,
        chance: Jitter::seeded(1),
    };
    let mut run = Run::default();
    let mut idle: VecDeque<usize> =
        clients.iter().enumerate().flat_map(|(c, group)| vec![c; group.count]).collect();
    world.push(0.0, Event::Look);
    world.push(0.0, Event::Compete);
    let mut competing = 0.0;
    while let Some(((nanos, _), event)) = world.events.pop_first() {
        let now = nanos as f64 / 1e9;
        if now > seconds {
            break;
        }
        match event {
            Event::Look => {}
            Event::Compete => {
                let rate = (link.others)(now);
                if rate > 0.0 {
                    world.send(now, COMPETING_PIECE);
                    if now >= warm_up {
                        competing += COMPETING_PIECE;
                    }
                    world.push(now + COMPETING_PIECE / rate, Event::Compete);
                } else {
                    world.push(now + 0.01, Event::Compete);
                }
            }
            Event::Arrive(id) => {
                let group = &clients[world.running[&id].0];
                let done = world.send(now, group.bytes as f64 + 500.0);
                let unit = (world.chance.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
                let own = link.base * (1.0 + (link.noise - 1.0) * unit * unit);
                world.push(done + own, Event::Finish(id));
            }
            Event::Finish(id) => {
                let (client, sent) = world.running.remove(&id).unwrap();
                let group = &clients[client];
                world.core.finish(world.instant(now), id, Outcome::Done);
                if now >= warm_up {
                    let alone = link.base + group.bytes as f64 / (link.rate)(now);
                    run.delays.push(now - sent - alone);
                    *run.bytes.entry(group.priority).or_default() += group.bytes;
                    run.answers.push((now, group.bytes));
                }
                idle.push_back(client);
            }
        }
        while let Some(client) = idle.pop_front() {
            let group = &clients[client];
            let id = world.core.ask(group.priority, group.kind, group.bytes);
            world.asked.insert(id, client);
        }
        let at = world.instant(now);
        if world.core.is_due(at) {
            world.core.judge(at, None);
        }
        for id in world.core.grant(at, cap.cap_at(now as u32)) {
            let client = world.asked.remove(&id).unwrap();
            world.running.insert(id, (client, now));
            world.push(now, Event::Arrive(id));
        }
        if let Some(wake) = world.core.wake_at() {
            let later = wake.saturating_duration_since(zero).as_secs_f64().max(now + 1e-4);
            if world.look_at <= now || later < world.look_at {
                world.look_at = later;
                world.push(later, Event::Look);
            }
        }
    }
    let steps = ((seconds - warm_up) * 100.0) as u64;
    let capacity: f64 =
        (0..steps).map(|step| (link.rate)(warm_up + step as f64 / 100.0) / 100.0).sum();
    run.free = capacity - competing;
    run
}
