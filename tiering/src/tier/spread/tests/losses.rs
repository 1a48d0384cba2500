//! Random losses: any `m` stores in any way, and never a wrong byte with more.

use proptest::prelude::*;

use super::*;
use crate::tier::Care;

/// What happens to one store's shard.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Dead,
    Missing,
    Flipped(u32),
    Truncated(u32),
    Stale,
}

fn loss() -> impl Strategy<Value = Loss> {
    prop_oneof![
        Just(Loss::Dead),
        Just(Loss::Missing),
        any::<u32>().prop_map(Loss::Flipped),
        any::<u32>().prop_map(Loss::Truncated),
        Just(Loss::Stale),
    ]
}

impl Set {
    /// `stale` has the same key with other bytes of the same length.
    fn lose(&self, at: usize, loss: Loss, stale: &Set) {
        let memory = &self.memories[at];
        let shard = memory.peek("k").unwrap();
        match loss {
            Loss::Dead => self.faulties[at].cut_off(),
            Loss::Missing => drop(memory.lose("k")),
            Loss::Flipped(place) => {
                let mut wrong = shard.to_vec();
                let place = place as usize % (wrong.len() * 8);
                wrong[place / 8] ^= 1 << (place % 8);
                memory.overwrite("k", wrong);
            }
            Loss::Truncated(len) => {
                memory.overwrite("k", shard.slice(..len as usize % shard.len()));
            }
            Loss::Stale => drop(memory.overwrite("k", stale.memories[at].peek("k").unwrap())),
        }
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn up_to_m_losses_lose_nothing_and_more_are_an_error(
        data in 1_usize..6,
        parity in 1_usize..4,
        len in prop_oneof![0_usize..3000, 0_usize..1_500_000],
        order in any::<u64>(),
        losses in prop::collection::vec(loss(), 1..8),
        ranges in prop::collection::vec(any::<(u32, u32)>(), 1..5),
        is_reopened in any::<bool>(),
    ) {
        run(async {
            let set = Set::new(data, parity).await;
            let content = bytes(len, order);
            set.spread.put("k", content.clone()).await.unwrap();
            let stale = Set::new(data, parity).await;
            stale.spread.put("k", bytes(len, order + 1)).await.unwrap();
            let set = if is_reopened { set.reopened() } else { set };
            let mut stores: Vec<usize> = (0..data + parity).collect();
            stores.sort_by_key(|at| blake3::hash(&[&order.to_le_bytes()[..], &[*at as u8]].concat()).to_hex());
            let count = losses.len().min(stores.len());
            // A delete is done only when fewer shards are left than an object needs.
            let mut stale_left = data - 1;
            for (at, loss) in stores.iter().zip(&losses) {
                let is_stale = matches!(loss, Loss::Stale);
                let loss = if is_stale && stale_left == 0 { Loss::Missing } else { *loss };
                stale_left -= usize::from(matches!(loss, Loss::Stale));
                set.lose(*at, loss, &stale);
            }
            for (a, b) in ranges {
                let (a, b) = (a as usize % (len + 1), b as usize % (len + 1));
                let range = a.min(b)..a.max(b);
                let read = set.spread.get_range("k", range.start as u64..range.end as u64).await;
                match read {
                    Ok(part) => prop_assert_eq!(part, content.slice(range)),
                    Err(error) => prop_assert!(count > parity, "{error:?}"),
                }
            }
            match set.spread.get("k").await {
                Ok(whole) => prop_assert!(whole == content),
                Err(Error::NotFound(_) | Error::Cold { .. } | Error::Damaged { .. }) => {
                    prop_assert!(count > parity);
                }
                Err(other) => prop_assert!(false, "{other:?}"),
            }
            if count <= parity {
                let listed = set.spread.list("", None, 10).await.unwrap();
                let is_cut = losses.iter().any(|loss| matches!(loss, Loss::Truncated(_)));
                prop_assert_eq!(listed.len(), 1);
                prop_assert!(listed[0].len == len as u64 || is_cut && listed[0].len < len as u64);
                prop_assert_eq!(set.spread.head("k").await.unwrap().len, len as u64);
                set.faulties.iter().for_each(|faulty| faulty.reconnect());
                let care = Care { content: true, repair: true };
                let found = set.spread.mend("k", care).await.unwrap();
                prop_assert!(found.away.is_empty());
                let fresh = set.reopened();
                let again = fresh.spread.mend("k", care).await.unwrap();
                prop_assert!(again.lacking.is_empty() && !again.renewed, "{again:?}");
                // Any other m may go now.
                stores.iter().rev().take(parity).for_each(|at| fresh.faulties[*at].cut_off());
                prop_assert!(fresh.spread.get("k").await.unwrap() == content);
            }
            Ok(())
        })?;
    }
}

/// Damages the chunks of these stripes in one shard of `k`.
fn damage(memory: &Memory, stripes: &[usize]) {
    let mut shard = memory.peek("k").unwrap().to_vec();
    stripes.iter().for_each(|stripe| shard[200 + stripe * (65_536 + 96)] ^= 1);
    memory.overwrite("k", shard);
}

const ALL: Care = Care { content: true, repair: true };

/// Two damaged chunks on every store, and as many in each stripe as there is parity.
async fn damaged_all_over() -> (Set, Bytes) {
    let set = Set::new(3, 2).await;
    let content = bytes(5 << 20, 1);
    set.spread.put("k", content.clone()).await.unwrap();
    for (at, memory) in set.memories.iter().enumerate() {
        damage(memory, &[at, (at + 1) % 5]);
    }
    (set, content)
}

#[tokio::test]
async fn damage_all_over_is_read_around_and_mended_stripe_by_stripe() {
    let (set, content) = damaged_all_over().await;
    assert_eq!(set.spread.get("k").await.unwrap(), content);
    let found = set.spread.mend("k", ALL).await.unwrap();
    assert_eq!((found.lacking.len(), found.renewed), (5, true), "{found:?}");
    let fresh = set.reopened();
    fresh.faulties[1..3].iter().for_each(|faulty| faulty.cut_off());
    assert_eq!(fresh.spread.get("k").await.unwrap(), content);
}

#[tokio::test(start_paused = true)]
async fn a_mend_that_dies_anywhere_leaves_what_it_was_made_of() {
    for writes in 0..5 {
        let (set, content) = damaged_all_over().await;
        // One replacement on each store.
        set.faulties[writes..].iter().for_each(|faulty| faulty.cut_off_after(0));
        let found = set.spread.mend("k", ALL).await.unwrap();
        assert_eq!((found.failed.len(), found.renewed), (5 - writes, false), "{found:?}");
        let after = set.reopened();
        assert_eq!(after.spread.get("k").await.unwrap(), content);
        assert!(after.spread.mend("k", ALL).await.unwrap().renewed);
        assert_eq!(set.reopened().spread.mend("k", ALL).await.unwrap().lacking.len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn more_damage_than_parity_bears_is_damage_unless_a_store_that_is_away_may_help() {
    let set = Set::new(3, 2).await;
    let content = bytes(5 << 20, 1);
    set.spread.put("k", content.clone()).await.unwrap();
    set.memories[..3].iter().for_each(|memory| damage(memory, &[2]));
    for read in [set.spread.get("k").await, set.spread.get_range("k", 400_000..600_000).await] {
        assert!(matches!(read, Err(Error::Damaged { .. })), "{read:?}");
    }
    assert!(matches!(set.spread.mend("k", ALL).await, Err(Error::Damaged { .. })));
    // The stripes before it are sound.
    assert_eq!(set.spread.get_range("k", 0..1000).await.unwrap(), content.slice(..1000));
    set.faulties[4].cut_off();
    let read = set.spread.get("k").await.unwrap_err();
    assert!(matches!(read, Error::Damaged { .. }), "nothing that comes back helps: {read:?}");
    let healed = Set::over(set.memories.clone(), 2);
    damage(&healed.memories[0], &[2]);
    healed.spread.get("k").await.unwrap();
    healed.faulties[4].cut_off();
    let read = healed.spread.get("k").await.unwrap_err();
    assert!(crate::tier::is_retriable(&read), "{read:?}");
}

#[tokio::test]
async fn headers_that_are_all_damaged_are_damage_and_stay_listed() {
    let set = Set::new(3, 2).await;
    set.spread.put("k", bytes(1000, 1)).await.unwrap();
    for memory in &set.memories {
        let mut shard = memory.peek("k").unwrap().to_vec();
        shard[8] ^= 1;
        memory.overwrite("k", shard);
    }
    let after = set.reopened();
    for error in [
        after.spread.get("k").await.map(drop).unwrap_err(),
        after.spread.head("k").await.map(drop).unwrap_err(),
        after.spread.mend("k", ALL).await.map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    }
    assert_eq!(after.spread.list("", None, 9).await.unwrap().len(), 1);
    after.spread.put("k", bytes(1000, 1)).await.unwrap();
    assert_eq!(set.reopened().spread.get("k").await.unwrap(), bytes(1000, 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_nothing_is_told_and_the_others_are_mended() {
    let set = Set::new(3, 2).await.frugal();
    set.spread.put("k", bytes(1000, 1)).await.unwrap();
    set.memories[1].lose("k");
    set.memories[3].lose("k");
    set.faulties[1].fail_next(Some(crate::tier::Op::Replace), "k", Fault::Error(FailureKind::Full));
    let found = set.spread.mend("k", ALL).await.unwrap();
    assert_eq!((found.lacking.len(), found.failed.len(), found.renewed), (2, 1, false));
    assert!(found.failed[0].contains("store 2"), "{found:?}");
    assert!(found.is_enough, "four of the three that are wanted");
    assert_eq!(set.shards("k"), 4);
}

#[tokio::test(start_paused = true)]
async fn one_store_too_many_is_a_named_error_that_may_pass() {
    let set = Set::new(3, 2).await;
    set.spread.put("k", bytes(100_000, 1)).await.unwrap();
    set.faulties[..3].iter().for_each(|faulty| faulty.cut_off());
    for set in [&set, &set.reopened()] {
        if set.faulties[0].calls(crate::tier::Op::Put) == 0 {
            set.faulties[..3].iter().for_each(|faulty| faulty.cut_off());
        }
        for error in [
            set.spread.get("k").await.unwrap_err(),
            set.spread.head("absent").await.unwrap_err(),
            set.spread.list("", None, 10).await.unwrap_err(),
            set.spread.put("other", bytes(10, 1)).await.unwrap_err(),
            set.spread.delete("k").await.unwrap_err(),
        ] {
            assert!(crate::tier::is_retriable(&error), "{error:?}");
            assert!(TierFailure::of(&error).unwrap().message.contains("store 1"), "{error:?}");
        }
    }
}

/// As when a token has run out: the stores answer, and answer nothing.
#[tokio::test(start_paused = true)]
async fn stores_that_refuse_everything_are_away_and_damage_nothing() {
    let set = Set::new(3, 2).await;
    set.spread.put("k", bytes(300_000, 1)).await.unwrap();
    for set in [&set, &set.reopened()] {
        set.spread.head("k").await.unwrap();
        let refuses = [Fault::Error(FailureKind::Rejected)];
        set.faulties[..3].iter().for_each(|faulty| faulty.reseed(1, 1000, &refuses));
        for error in [
            set.spread.get("k").await.map(drop).unwrap_err(),
            set.spread.mend("k", ALL).await.map(drop).unwrap_err(),
        ] {
            assert!(crate::tier::is_retriable(&error), "{error:?}");
        }
    }
}
