//! Shards on their way to the stores: on the disk, and in memory where that is full.

use super::super::stripe::tests::FULL;
use super::*;
use crate::tier::{Care, Op};

const CARE: Care = Care { content: true, repair: true };

async fn on_a_full_disk() -> Set {
    let mut set = Set::new(3, 2).await;
    set.spread = set.spread.with_staging(FULL);
    set
}

#[tokio::test]
async fn a_full_disk_holds_up_neither_puts_nor_mends() {
    let set = on_a_full_disk().await;
    let content = bytes(5 << 20, 1);
    let file = crate::tier::tests::file_of(&content);
    set.spread.put_file("k", file.path()).await.unwrap();
    let whole: Vec<_> = set.memories.iter().map(|memory| memory.peek("k").unwrap()).collect();
    set.memories[1].lose("k");
    set.memories[4].lose("k");
    assert!(set.spread.mend("k", CARE).await.unwrap().renewed);
    for (memory, whole) in set.memories.iter().zip(&whole) {
        assert!(memory.peek("k").unwrap() == *whole);
    }
    assert!(set.reopened().spread.get("k").await.unwrap() == content);
}

/// Nothing counts that memory.
#[tokio::test(start_paused = true)]
async fn shards_of_one_object_at_a_time_lie_in_memory() {
    let set = on_a_full_disk().await;
    set.faulties.iter().for_each(|faulty| {
        faulty.fail_next(Some(Op::PutFile), "a", Fault::Delay(Duration::from_secs(10)));
    });
    let start = tokio::time::Instant::now();
    let first = set.spread.put("a", bytes(5 << 20, 1));
    let second = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(set.spread.in_memory.try_lock().is_err(), "the first one's are there");
        set.spread.put("b", bytes(5 << 20, 2)).await
    };
    let (first, second) = tokio::join!(first, second);
    first.and(second).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(set.spread.in_memory.try_lock().is_ok());
    // On a disk with room nobody waits.
    let roomy = set.reopened();
    let _turn = roomy.spread.in_memory.lock().await;
    roomy.spread.put("c", bytes(5 << 20, 3)).await.unwrap();
}
