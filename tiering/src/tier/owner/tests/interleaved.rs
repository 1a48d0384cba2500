//! Every order of the steps of several claims: each call of the store is one step, and between any
//! two of one mount those of the others may come.

use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use futures::FutureExt;

use super::*;
use crate::tier::ObjectMeta;

/// A tier that lets others go first before each call.
#[derive(Debug)]
struct Stepped(Arc<Memory>);

#[async_trait]
impl Tier for Stepped {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        futures::pending!();
        self.0.put(key, bytes).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        futures::pending!();
        self.0.put_file(key, path).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        futures::pending!();
        self.0.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        futures::pending!();
        self.0.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        futures::pending!();
        self.0.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        futures::pending!();
        self.0.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        futures::pending!();
        self.0.delete(key).await
    }

    async fn clean(&self) -> Result<u64> {
        Ok(0)
    }

    fn describe(&self) -> String {
        "stepped".to_owned()
    }
}

/// Who takes part: an instance, whether it takes over, and how often it tries.
type Part = (&'static str, bool, u32);

async fn claim(mount: &Ownership, tier: &Stepped, takes_over: bool, attempts: u32) -> Verdict {
    let mut verdict = Verdict::Contended;
    for _ in 0..attempts {
        verdict = mount.claim_once(tier, takes_over).await.unwrap();
        if verdict != Verdict::Contended {
            break;
        }
    }
    if let Verdict::Won(won) = &verdict {
        // As after the wait: what was taken counts if it is still the highest.
        let _ = mount.take_place(tier, won.clone()).await;
    }
    verdict
}

struct World {
    memory: Arc<Memory>,
    mounts: Vec<Ownership>,
    first: Option<Ownership>,
}

/// Runs the parts in the order that `choose` says of a step and the number of those that may go;
/// returns what was chosen of how many at each step, and who won.
fn run(
    choose: &dyn Fn(usize, usize) -> usize,
    parts: &[Part],
    owned_before: bool,
) -> (Vec<(usize, usize)>, Vec<bool>, World) {
    let memory = Arc::new(Memory::new());
    let (clock, ids) = (Arc::new(ManualClock::new()), ids());
    let first = owned_before.then(|| {
        let first = mount("first", &clock, &ids);
        first.claim(&*memory, false).now_or_never().unwrap().unwrap();
        first
    });
    let world = World {
        mounts: parts.iter().map(|(instance, ..)| mount(instance, &clock, &ids)).collect(),
        memory,
        first,
    };
    let tier = Stepped(Arc::clone(&world.memory));
    let mut won = vec![false; parts.len()];
    let mut taken = Vec::new();
    {
        type Running<'a> = Pin<Box<dyn Future<Output = Verdict> + 'a>>;
        let mut running: Vec<Option<Running<'_>>> = parts
            .iter()
            .zip(&world.mounts)
            .map(|((_, takes_over, attempts), mount)| {
                Some(claim(mount, &tier, *takes_over, *attempts).boxed_local())
            })
            .collect();
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let alive: Vec<usize> = (0..parts.len()).filter(|n| running[*n].is_some()).collect();
            if alive.is_empty() {
                break;
            }
            let choice = choose(taken.len(), alive.len());
            taken.push((choice, alive.len()));
            let who = alive[choice];
            let future = running[who].as_mut().unwrap();
            if let Poll::Ready(verdict) = future.as_mut().poll(&mut context) {
                won[who] = matches!(verdict, Verdict::Won(_));
                running[who] = None;
            }
        }
    }
    (taken, won, world)
}

/// So many orders, as chance has them.
fn some_orders(parts: &[Part], count: u64, mut check: impl FnMut(&[bool], &World)) {
    let mut chance = crate::tier::Jitter::seeded(1);
    for _ in 0..count {
        let random: Vec<u64> = (0..64).map(|_| chance.next_u64()).collect();
        let (_, won, world) = run(&|step, of| random[step % 64] as usize % of, parts, true);
        check(&won, &world);
    }
}

/// Every order; `check` sees each outcome. Returns how many there were.
fn all_orders(parts: &[Part], owned_before: bool, mut check: impl FnMut(&[bool], &World)) -> usize {
    let mut choices: Vec<usize> = Vec::new();
    let mut count = 0;
    loop {
        let (taken, won, world) =
            run(&|step, _| choices.get(step).copied().unwrap_or(0), parts, owned_before);
        check(&won, &world);
        count += 1;
        // The next order: the last choice that can be another.
        let Some(last) = taken.iter().rposition(|(choice, of)| choice + 1 < *of) else {
            return count;
        };
        choices = taken[..last].iter().map(|(choice, _)| *choice).collect();
        choices.push(taken[last].0 + 1);
    }
}

/// Mounts that, when they look, find the place theirs.
fn owners(world: &World) -> usize {
    let everybody = world.mounts.iter().chain(&world.first);
    let owns = |mount: &&Ownership| {
        let look = mount.look(&*world.memory, Duration::ZERO);
        look.now_or_never().unwrap().is_ok()
    };
    everybody.filter(owns).count()
}

#[test]
fn of_two_or_three_in_an_unclaimed_place_at_most_one_wins() {
    let mut outcomes = [0; 2];
    let parts: [&[Part]; 2] =
        [&[("a", false, 2), ("b", false, 2)], &[("a", false, 1), ("b", false, 1), ("c", false, 1)]];
    for parts in parts {
        let count = all_orders(parts, false, |won, world| {
            let winners = won.iter().filter(|won| **won).count();
            assert!(winners <= 1, "{won:?}");
            assert_eq!(owners(world), winners);
            outcomes[winners] += 1;
        });
        assert!(count > 50, "{count} orders");
    }
    assert!(outcomes[1] > outcomes[0] / 4 && outcomes[0] > 0, "{outcomes:?}");
}

#[test]
fn of_several_that_take_over_at_most_one_is_left_and_the_old_owner_never() {
    let mut won_at_all = 0;
    let mut check = |won: &[bool], world: &World| {
        assert!(owners(world) <= 1, "{won:?}");
        let has_won = won.iter().any(|won| *won);
        won_at_all += u64::from(has_won);
        let first = world.first.as_ref().unwrap();
        let look = first.look(&*world.memory, Duration::ZERO).now_or_never().unwrap();
        assert!(!(has_won && look.is_ok()), "the old owner has lost: {won:?}");
    };
    // The second: the old directory is mounted again at the same time.
    for other in [("b", true, 1), ("first", false, 1)] {
        all_orders(&[("a", true, 1), other], true, &mut check);
    }
    let parts = [("a", true, 2), ("b", true, 2), ("first", false, 2)];
    some_orders(&parts, 20_000, &mut check);
    assert!(won_at_all > 5_000, "{won_at_all}");
}

#[test]
fn whoever_dies_at_any_step_is_in_nobodys_way_but_another_instances() {
    for steps in 0..12 {
        let memory = Arc::new(Memory::new());
        let (clock, ids) = (Arc::new(ManualClock::new()), ids());
        let tier = Stepped(Arc::clone(&memory));
        let dying = mount("a", &clock, &ids);
        let mut future = claim(&dying, &tier, false, 1).boxed_local();
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..steps {
            if future.as_mut().poll(&mut context).is_ready() {
                break;
            }
        }
        drop(future);
        let again = mount("a", &clock, &ids);
        let claimed = again.claim(&*memory, false).now_or_never();
        assert!(claimed.unwrap().is_ok(), "after {steps} steps");
        let other = mount("b", &clock, &ids).claim_once(&*memory, false).now_or_never();
        assert!(matches!(other.unwrap().unwrap(), Verdict::Held(Some(_))), "after {steps} steps");
        assert_eq!(memory.keys().len(), 1);
    }
}

/// A takeover that dies at any step, and what the same instance finds then without taking over.
#[tokio::test(start_paused = true)]
async fn whoever_dies_while_it_takes_over_leaves_that_the_next_mount_waits_as_well() {
    let mut waited = 0;
    for steps in 0..12 {
        let memory = Arc::new(Memory::new());
        let (clock, ids) = (Arc::new(ManualClock::new()), ids());
        let old = mount("old", &clock, &ids);
        old.claim(&*memory, false).await.unwrap();
        let tier = Stepped(Arc::clone(&memory));
        let dying = mount("new", &clock, &ids);
        // It dies before the wait is over.
        let mut future = dying.claim_once(&tier, true).boxed_local();
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..steps {
            if future.as_mut().poll(&mut context).is_ready() {
                break;
            }
        }
        drop(future);
        let start = tokio::time::Instant::now();
        match mount("new", &clock, &ids).claim(&*memory, false).await {
            Ok(_) => {
                assert!(start.elapsed() >= DELETE_LEAVE + DELETE_TIME, "after {steps} steps");
                assert_eq!(memory.keys().len(), 1);
                waited += 1;
            }
            Err(error) => assert!(matches!(error, Error::Unusable { .. }), "{error:?}"),
        }
    }
    assert!(waited > 5, "{waited}");
}
