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
                Err(Error::NotFound(_) | Error::Cold { .. }) => prop_assert!(count > parity),
                Err(other) => prop_assert!(false, "{other:?}"),
            }
            if count <= parity {
                let listed = set.spread.list("", None, 10).await.unwrap();
                prop_assert_eq!(listed, [ObjectMeta { key: "k".to_owned(), len: len as u64 }]);
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

#[tokio::test]
async fn damage_all_over_is_read_around_stripe_by_stripe() {
    let set = Set::new(3, 2).await;
    let content = bytes(5 << 20, 1);
    set.spread.put("k", content.clone()).await.unwrap();
    // Every store has two damaged chunks, no stripe more than two.
    for (at, memory) in set.memories.iter().enumerate() {
        let mut shard = memory.peek("k").unwrap().to_vec();
        for stripe in [at * 2, at * 2 + 1] {
            shard[200 + stripe * (65_536 + 96)] ^= 1;
        }
        memory.overwrite("k", shard);
    }
    assert_eq!(set.spread.get("k").await.unwrap(), content);
    let care = Care { content: true, repair: true };
    let refused = set.spread.mend("k", care).await.unwrap_err();
    assert!(matches!(refused, Error::Cold { .. }), "{refused:?}");
    assert_eq!(set.spread.get("k").await.unwrap(), content, "nothing was thrown away");
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
