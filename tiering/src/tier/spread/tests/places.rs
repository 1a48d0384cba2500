//! Which store stands where.

use super::*;
use crate::tier::Care;

#[tokio::test]
async fn stores_in_the_wrong_order_or_of_another_volume_are_refused() {
    let set = Set::new(3, 2).await;
    let mut swapped = set.memories.clone();
    swapped.swap(1, 4);
    let swapped = Set::over(swapped, 2);
    let survey = swapped.spread.survey().await;
    let said: Vec<_> = survey
        .iter()
        .filter_map(|b| if let Belonging::Foreign(why) = b { Some(why.clone()) } else { None })
        .collect();
    assert_eq!(
        said,
        [
            "it is store 5 of 3+2, and stands as store 2 of 3+2",
            "it is store 2 of 3+2, and stands as store 5 of 3+2"
        ]
    );
    assert!(swapped.spread.found().await.is_err());
    let other = Set::over(set.memories.clone(), 1);
    assert!(
        matches!(&other.spread.survey().await[0], Belonging::Foreign(why) if why.contains("4+1"))
    );
    let stores = set.memories.iter().map(|memory| Arc::clone(memory) as Arc<dyn Tier>).collect();
    let stranger = Spread::new(stores, 2, Some("another".to_owned())).unwrap();
    assert!(matches!(&stranger.survey().await[0], Belonging::Foreign(why)
        if why == "it belongs to volume volume, not to another"));
    assert!(stranger.put("k", Bytes::new()).await.is_err());
    assert_eq!(set.shards("k"), 0);
}

#[tokio::test]
async fn who_does_not_know_the_volume_learns_it_from_the_stores() {
    let set = Set::new(3, 2).await;
    set.spread.put("k", bytes(1000, 1)).await.unwrap();
    let stores: Vec<_> =
        set.memories.iter().map(|memory| Arc::clone(memory) as Arc<dyn Tier>).collect();
    let spread = Spread::new(stores, 2, None).unwrap();
    assert_eq!(spread.get("k").await.unwrap(), bytes(1000, 1));
    assert!(spread.survey().await.iter().all(|belonging| *belonging == Belonging::Member));
}

/// As after the loss of a disk: an empty one in its place is not believed before it is founded.
#[tokio::test(start_paused = true)]
async fn an_empty_store_counts_as_absent_until_it_is_founded_and_is_filled_again() {
    let set = Set::new(3, 2).await;
    let contents: Vec<_> = (0..4).map(|seed| bytes(200_000 * seed as usize, seed)).collect();
    for (at, content) in contents.iter().enumerate() {
        set.spread.put(&format!("k{at}"), content.clone()).await.unwrap();
    }
    let mut memories = set.memories.clone();
    memories[1] = Arc::new(Memory::new());
    memories[3] = Arc::new(Memory::new());
    let after = Set::over(memories, 2);
    assert_eq!(after.spread.list("", None, 9).await.unwrap().len(), 4);
    assert!(after.spread.put("new", bytes(10, 1)).await.is_err());
    assert!(after.memories[1].keys().is_empty(), "nothing lands below a mountpoint");
    let failure = after.spread.stores()[1].failure.clone().unwrap();
    assert!(failure.contains("firn check --repair --refill 2"), "{failure}");
    assert_eq!(after.spread.found().await.unwrap(), 2);
    assert_eq!(after.spread.clean().await.unwrap(), 0);
    let place = |at: usize| String::from_utf8(after.memories[at].peek(PLACE_KEY).unwrap().to_vec());
    assert!(place(1).unwrap().contains("filling"), "it lacks shards");
    for (at, content) in contents.iter().enumerate() {
        let key = format!("k{at}");
        let found = after.spread.mend(&key, Care { content: false, repair: false }).await.unwrap();
        assert_eq!((found.lacking.len(), found.renewed), (2, false), "{found:?}");
        let found = after.spread.mend(&key, Care { content: false, repair: true }).await.unwrap();
        assert!(found.renewed);
        assert_eq!(after.spread.get(&key).await.unwrap(), *content);
        assert_eq!(after.memories[1].peek(&key), set.memories[1].peek(&key), "the same shard");
    }
    after.spread.clean().await.unwrap();
    assert!(!place(1).unwrap().contains("filling") && !place(3).unwrap().contains("filling"));
    after.faulties[0].cut_off();
    after.faulties[2].cut_off();
    assert_eq!(after.spread.list("", None, 9).await.unwrap().len(), 4);
    for (at, content) in contents.iter().enumerate() {
        assert_eq!(after.spread.get(&format!("k{at}")).await.unwrap(), *content);
    }
}

#[tokio::test]
async fn a_store_that_holds_something_else_is_not_founded() {
    let set = Set::new(3, 2).await;
    set.spread.put("k", bytes(10, 1)).await.unwrap();
    // It lost its name only.
    set.memories[0].lose(PLACE_KEY);
    assert_eq!(set.reopened().spread.found().await.unwrap(), 1);
    set.memories[0].lose(PLACE_KEY);
    set.memories[0].overwrite("a", bytes(1000, 1));
    let refused = set.reopened().spread.found().await.unwrap_err();
    assert!(matches!(refused, Error::Unusable { .. }), "{refused:?}");
}

/// With no more data than parity, an empty store and the absence of the others would hide all.
#[tokio::test(start_paused = true)]
async fn a_listing_does_not_believe_a_store_that_is_being_filled() {
    let set = Set::new(1, 2).await;
    set.spread.put("k", bytes(1000, 1)).await.unwrap();
    let mut memories = set.memories.clone();
    memories[2] = Arc::new(Memory::new());
    let begun = Set::over(memories.clone(), 2);
    assert_eq!(begun.spread.found().await.unwrap(), 1);
    for after in [begun, Set::over(memories, 2)] {
        assert_eq!(after.spread.list("", None, 9).await.unwrap().len(), 1);
        after.faulties[..2].iter().for_each(|faulty| faulty.cut_off());
        let error = after.spread.list("", None, 9).await.unwrap_err();
        assert!(crate::tier::is_retriable(&error), "{error:?}");
        assert!(TierFailure::of(&error).unwrap().message.contains("filled"), "{error:?}");
    }
}

/// What is missing on a store that took the place of a lost one proves no delete: the lost one may
/// have been unmounted only.
#[tokio::test]
async fn nothing_is_cleaned_away_while_a_store_is_being_filled() {
    let set = Set::new(3, 2).await;
    set.spread.put("k", bytes(1000, 1)).await.unwrap();
    set.spread.put("whole", bytes(1000, 2)).await.unwrap();
    set.memories[4].lose("k");
    let mut memories = set.memories.clone();
    memories[0] = Arc::new(Memory::new());
    memories[1] = Arc::new(Memory::new());
    let after = Set::over(memories, 2);
    assert_eq!(after.spread.found().await.unwrap(), 2);
    assert_eq!(after.spread.clean().await.unwrap(), 0);
    after.spread.mend("whole", Care { content: true, repair: true }).await.unwrap();
    // One that is gone for good keeps no store from being full.
    assert_eq!(after.spread.clean().await.unwrap(), 0);
    assert!(after.spread.stores().iter().all(|store| store.failure.is_none()));
    assert_eq!(after.shards("k"), 2);
    assert_eq!(set.reopened().spread.get("k").await.unwrap(), bytes(1000, 1), "they are back");
}

#[tokio::test]
async fn a_store_whose_place_cannot_be_read_is_one_that_is_away() {
    let set = Set::new(3, 2).await;
    set.spread.put("k", bytes(1000, 1)).await.unwrap();
    set.memories[1].overwrite(PLACE_KEY, "{nonsense");
    let after = set.reopened();
    let survey = after.spread.survey().await;
    assert!(matches!(&survey[1], Belonging::Away(why) if why.contains("firn check --repair")));
    assert_eq!(after.spread.get("k").await.unwrap(), bytes(1000, 1));
    assert_eq!(after.spread.found().await.unwrap(), 0, "and nobody takes its place");
}

/// A claim is stored on few stores, so that the loss of one and the absence of others hide it.
#[tokio::test(start_paused = true)]
async fn a_store_is_not_full_while_it_lacks_the_shard_of_a_claim() {
    let set = Set::new(1, 2).await;
    let key = "owner/1-x";
    set.spread.put(key, bytes(300, 1)).await.unwrap();
    let mut memories = set.memories.clone();
    memories[2] = Arc::new(Memory::new());
    let after = Set::over(memories.clone(), 2);
    assert_eq!(after.spread.found().await.unwrap(), 1);
    assert_eq!(after.spread.clean().await.unwrap(), 0);
    after.faulties[..2].iter().for_each(|faulty| faulty.cut_off());
    for seen in [&after.spread, &after.reopened_with(&after.faulties)] {
        let claims = seen.list("owner/", None, 9).await;
        assert!(claims.as_ref().is_err_and(crate::tier::is_retriable), "{claims:?}");
    }
    after.faulties.iter().for_each(|faulty| faulty.reconnect());
    assert!(after.spread.mend(key, Care { content: true, repair: true }).await.unwrap().renewed);
    after.spread.clean().await.unwrap();
    after.faulties[..2].iter().for_each(|faulty| faulty.cut_off());
    assert_eq!(after.spread.list("owner/", None, 9).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_claim_keeps_no_store_from_being_full() {
    let set = Set::new(3, 2).await;
    set.spread.put("owner/1-x", bytes(300, 1)).await.unwrap();
    set.spread.put("owner/2-y", bytes(300, 2)).await.unwrap();
    set.memories[2..4].iter().for_each(|memory| drop(memory.lose("owner/1-x")));
    let mut memories = set.memories.clone();
    memories[0] = Arc::new(Memory::new());
    let after = Set::over(memories, 2);
    assert_eq!(after.spread.found().await.unwrap(), 1);
    after.spread.mend("owner/2-y", Care { content: true, repair: true }).await.unwrap();
    assert_eq!(after.spread.clean().await.unwrap(), 0);
    let place = after.memories[0].peek(PLACE_KEY).unwrap();
    assert!(!String::from_utf8(place.to_vec()).unwrap().contains("filling"));
    assert_eq!(after.shards("owner/1-x"), 2, "it may be on its way");
}

/// A directory whose filesystem is not mounted looks like an empty store.
#[tokio::test]
async fn only_the_store_that_is_named_is_filled_again() {
    let set = Set::new(3, 2).await;
    set.spread.put("k", bytes(1000, 1)).await.unwrap();
    let mut memories = set.memories.clone();
    memories[1] = Arc::new(Memory::new());
    memories[3] = Arc::new(Memory::new());
    let after = Set::over(memories, 2);
    let refused = after.spread.refill(&[5]).await.unwrap_err();
    assert!(refused.to_string().contains("no store 6"), "{refused}");
    assert_eq!(after.spread.refill(&[]).await.unwrap(), 0);
    assert_eq!(after.spread.refill(&[3]).await.unwrap(), 1);
    assert_eq!(after.spread.refill(&[0, 3]).await.unwrap(), 0, "they are there");
    after.spread.mend("k", Care { content: false, repair: true }).await.unwrap();
    assert_eq!(after.memories[1].keys(), [] as [String; 0]);
    assert_eq!(after.shards("k"), 4);
    after.faulties[1].cut_off();
    let away = after.spread.refill(&[1]).await.unwrap_err();
    assert!(matches!(away, Error::Unusable { .. }), "{away:?}");
}

#[tokio::test]
async fn what_another_volume_wrote_is_not_taken_back() {
    let other = Set::new(3, 2).await;
    other.spread.put("k", bytes(1000, 1)).await.unwrap();
    let mut memories: Vec<_> = (0..5).map(|_| Arc::new(Memory::new())).collect();
    memories[2] = Arc::clone(&other.memories[2]);
    let stores = memories.iter().map(|memory| Arc::clone(memory) as Arc<dyn Tier>).collect();
    let spread = Spread::new(stores, 2, Some("another".to_owned())).unwrap();
    let refused = spread.found().await.unwrap_err();
    assert!(matches!(refused, Error::Unusable { .. }), "{refused:?}");
    assert!(memories[0].peek(PLACE_KEY).is_some(), "those before it were begun");
    spread.unfound().await;
    for (at, memory) in memories.iter().enumerate() {
        assert_eq!(memory.peek(PLACE_KEY).is_some(), at == 2, "store {at}");
    }
    assert_eq!(other.reopened().spread.get("k").await.unwrap(), bytes(1000, 1));
}
