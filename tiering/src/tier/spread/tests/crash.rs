//! Deaths in the middle of a put and of a delete, and stores that missed something.

use super::*;
use crate::crypt::DataKey;
use crate::tier::{Encrypted, Patience, Retry};

/// After every number of writes that reached the stores.
#[tokio::test(start_paused = true)]
async fn a_put_that_died_anywhere_is_completed_or_replaced() {
    for (data, parity) in KINDS {
        let (old, new) = (bytes(300_000, 1), bytes(200_000, 2));
        for written in 0..=data + parity {
            for same in [true, false] {
                let set = Set::new(data, parity).await;
                set.faulties[written..].iter().for_each(|faulty| faulty.cut_off_after(0));
                let put = set.spread.put("k", old.clone()).await;
                assert_eq!(put.is_ok(), written == data + parity);
                let after = set.reopened();
                let seen = after.spread.get("k").await;
                assert_eq!(seen.is_ok(), written >= data, "visible with {written}");
                if let Ok(seen) = &seen {
                    assert_eq!(*seen, old);
                }
                let listed = after.spread.list("", None, 9).await.unwrap();
                assert_eq!(listed.len(), usize::from(written >= data));
                let content = if same { &old } else { &new };
                let again = after.spread.put("k", content.clone()).await;
                if same || written < data {
                    again.unwrap();
                    assert_eq!(after.spread.get("k").await.unwrap(), *content);
                    assert_eq!(after.shards("k"), data + parity);
                    assert_eq!(set.reopened().spread.get("k").await.unwrap(), *content);
                } else {
                    assert!(matches!(again, Err(Error::Exists(_))), "{again:?}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_died_anywhere_leaves_all_or_nothing_and_is_repeated() {
    for (data, parity) in KINDS {
        let content = bytes(300_000, 1);
        for deleted in 0..=data + parity {
            let set = Set::new(data, parity).await;
            set.spread.put("k", content.clone()).await.unwrap();
            set.faulties[deleted..].iter().for_each(|faulty| faulty.cut_off_after(0));
            let done = set.spread.delete("k").await;
            assert_eq!(done.is_ok(), deleted > parity, "{data}+{parity}, {deleted}: {done:?}");
            let after = set.reopened();
            let is_left = data + parity - deleted >= data;
            assert_eq!(after.spread.get("k").await.is_ok(), is_left);
            assert!(done.is_err() || !is_left, "what was deleted does not come back");
            if is_left {
                after.spread.delete("k").await.unwrap();
            } else {
                let strays = set.shards("k") as u64;
                assert_eq!(after.spread.clean().await.unwrap(), strays);
            }
            assert_eq!(set.shards("k"), 0);
        }
    }
}

/// A store that was away during a delete still has its shard when the key is used again.
#[tokio::test(start_paused = true)]
async fn a_shard_that_missed_a_delete_is_never_mixed_with_another_write() {
    let set = Set::new(3, 2).await;
    set.spread.put("k", bytes(300_000, 1)).await.unwrap();
    set.faulties[0].cut_off();
    set.faulties[4].cut_off();
    set.spread.delete("k").await.unwrap();
    assert!(matches!(set.spread.get("k").await, Err(Error::NotFound(_))));
    set.faulties.iter().for_each(|faulty| faulty.reconnect());
    let after = set.reopened();
    assert_eq!(after.spread.list("", None, 9).await.unwrap(), []);
    let content = bytes(300_000, 2);
    after.spread.put("k", content.clone()).await.unwrap();
    assert_eq!(after.spread.get("k").await.unwrap(), content);
    assert_eq!(set.reopened().spread.get("k").await.unwrap(), content);
}

#[tokio::test(start_paused = true)]
async fn an_object_of_which_nobody_can_tell_is_listed_and_is_no_missing_one() {
    let set = Set::new(3, 2).await;
    set.spread.put("k", bytes(1000, 1)).await.unwrap();
    set.memories[0].lose("k");
    set.faulties[1].cut_off();
    set.faulties[2].cut_off();
    let listed = set.spread.list("", None, 9).await.unwrap();
    assert_eq!(listed, [ObjectMeta { key: "k".to_owned(), len: 1000 }]);
    let error = set.reopened_with(&set.faulties).get("k").await.unwrap_err();
    assert!(crate::tier::is_retriable(&error), "{error:?}");
    set.memories[3].lose("k");
    set.faulties.iter().for_each(|faulty| faulty.reconnect());
    assert_eq!(set.spread.get("k").await.unwrap(), bytes(1000, 1));
}

#[tokio::test(start_paused = true)]
async fn a_put_that_too_few_stores_took_is_an_error_and_is_completed_later() {
    let set = Set::new(3, 2).await;
    set.faulties[2].cut_off();
    let error = set.spread.put("k", bytes(1000, 1)).await.unwrap_err();
    assert!(crate::tier::is_retriable(&error));
    assert_eq!(set.shards("k"), 0, "nothing is begun that cannot be ended");
    // Claims are found by whoever may read at all.
    set.spread.put("owner/1-a", bytes(300, 1)).await.unwrap();
    set.faulties[2].reconnect();
    set.faulties[0].cut_off();
    set.faulties[1].cut_off();
    let claims = set.spread.list("owner/", None, 9).await.unwrap();
    assert_eq!(claims.len(), 1);
    set.faulties.iter().for_each(|faulty| faulty.reconnect());
    set.spread.put("k", bytes(1000, 1)).await.unwrap();
    assert_eq!(set.shards("k"), 5);
}

#[tokio::test]
async fn strays_go_and_objects_and_claims_stay() {
    let set = Set::new(3, 2).await;
    for key in ["a", "b", "owner/1-x", "z"] {
        set.spread.put(key, bytes(1000, 1)).await.unwrap();
    }
    for at in 0..3 {
        set.memories[at].lose("b");
        set.memories[at].lose("owner/1-x");
    }
    set.memories[4].lose("a");
    set.faulties[0].cut_off();
    assert_eq!(set.spread.clean().await.unwrap(), 0, "not while a store is away");
    set.faulties[0].reconnect();
    let after = set.reopened();
    assert_eq!(after.spread.clean().await.unwrap(), 2);
    assert_eq!(
        [set.shards("a"), set.shards("b"), set.shards("owner/1-x"), set.shards("z")],
        [4, 0, 2, 5]
    );
}

/// What can be read is not yet as durable as it should be.
#[tokio::test(start_paused = true)]
async fn patience_calls_nothing_stored_that_too_few_stores_took() {
    for heals in [false, true] {
        let set = Set::new(2, 1).await;
        set.faulties[2].cut_off_after(0);
        let retry = Retry::new(
            Arc::new(set.reopened_with(&set.faulties)),
            Patience { attempts: 2, deadline: Duration::from_secs(60) },
        );
        let put = tokio::join!(retry.put("k", bytes(1000, 1)), async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            if heals {
                set.faulties[2].reconnect();
            }
        });
        assert_eq!(put.0.is_ok(), set.shards("k") == 3, "{:?}", put.0);
        assert_eq!(set.reopened().spread.get("k").await.unwrap(), bytes(1000, 1));
    }
}

/// Ciphertexts of the same are never the same, so nothing is stored again: the one is completed.
#[tokio::test(start_paused = true)]
async fn an_encrypted_put_that_died_is_completed() {
    let key = Arc::new(DataKey::random().unwrap());
    let over =
        |spread: Spread| Encrypted::new(Arc::new(spread), Arc::clone(&key), std::env::temp_dir());
    for written in 3..5 {
        let set = Set::new(3, 2).await;
        set.faulties[written..].iter().for_each(|faulty| faulty.cut_off_after(0));
        let dying = over(set.reopened_with(&set.faulties));
        assert!(dying.put("k", bytes(300_000, 1)).await.is_err());
        assert_eq!(set.shards("k"), written);
        let still = dying.put("k", bytes(300_000, 1)).await;
        assert!(still.is_err(), "{still:?}");
        let after = over(set.reopened().spread);
        after.put("k", bytes(300_000, 1)).await.unwrap();
        assert_eq!(set.shards("k"), 5);
        assert_eq!(after.get("k").await.unwrap(), bytes(300_000, 1));
    }
}

/// More than one page of objects, with strays on both.
#[tokio::test(start_paused = true)]
async fn a_cleaning_that_is_cut_off_goes_on_where_it_was() {
    let set = Set::new(2, 1).await;
    let key = |at: usize| format!("k{at:04}");
    for at in 0..1500 {
        set.spread.put(&key(at), Bytes::from_static(b"x")).await.unwrap();
    }
    let stray = |at: usize| set.memories[..2].iter().for_each(|memory| drop(memory.lose(&key(at))));
    (0..10).chain(1400..1410).for_each(stray);
    let strays = || (0..1500).filter(|at| set.shards(&key(*at)) == 1).count();
    let after = set.reopened();
    // The store's own cleaning, the ten of the first page and three of the second.
    after.faulties[2].cut_off_after(1 + 13);
    let cut_off = after.spread.clean().await.unwrap_err();
    assert!(crate::tier::is_retriable(&cut_off), "{cut_off:?}");
    assert_eq!(strays(), 7);
    after.faulties[2].reconnect();
    stray(20);
    assert_eq!(after.spread.clean().await.unwrap(), 7);
    assert_eq!(strays(), 1, "the first page was done");
    assert_eq!(after.spread.clean().await.unwrap(), 1, "and is looked at again");
}

/// What the first part of it saw of a store that is being filled still counts.
#[tokio::test(start_paused = true)]
async fn a_cleaning_that_was_cut_off_does_not_forget_which_store_lacks_a_shard() {
    let set = Set::new(2, 1).await;
    for at in 0..1500 {
        set.spread.put(&format!("k{at:04}"), Bytes::from_static(b"x")).await.unwrap();
    }
    set.memories[1].lose("k0003");
    let place = set.memories[1].peek(PLACE_KEY).unwrap();
    let text = String::from_utf8(place.to_vec()).unwrap();
    set.memories[1].overwrite(PLACE_KEY, text.replace('}', ",\"filling\":true}"));
    set.memories[..2].iter().for_each(|memory| drop(memory.lose("k1400")));
    let is_filling = || {
        let place = set.memories[1].peek(PLACE_KEY).unwrap();
        String::from_utf8(place.to_vec()).unwrap().contains("filling")
    };
    let after = set.reopened();
    after.faulties[2].fail_next(Some(crate::tier::Op::GetRange), "k1400", Fault::Hang);
    let cut_off = tokio::time::timeout(Duration::from_millis(1), after.spread.clean()).await;
    assert!(cut_off.is_err(), "its time is over");
    assert_eq!(after.spread.clean().await.unwrap(), 0);
    assert!(is_filling(), "it lacks one of the first page");
    let care = crate::tier::Care { content: true, repair: true };
    assert!(after.spread.mend("k0003", care).await.unwrap().renewed);
    assert_eq!(after.spread.clean().await.unwrap(), 0);
    assert!(!is_filling());
}
