//! Places of shards that a disk does not give back, and chunks that contradict each other.

use std::ops::Range;
use std::path::Path;

use async_trait::async_trait;

use super::super::layout::{HEADER_LEN, Layout, SUM_LEN, sum, trailer};
use super::*;
use crate::tier::{Care, Content};

const CARE: Care = Care { content: true, repair: true };

/// A store on a disk one sector of which cannot be read, until what lies there is written anew.
#[derive(Debug)]
struct Scratched {
    memory: Arc<Memory>,
    sector: parking_lot::Mutex<Option<u64>>,
}

#[async_trait]
impl Tier for Scratched {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.memory.put(key, bytes).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        self.memory.put_file(key, path).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.memory.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        match *self.sector.lock() {
            Some(at) if key == "k" && range.contains(&at) => {
                // As a local directory does.
                let error = std::io::Error::from_raw_os_error(libc::EIO);
                return Err(TierFailure::from_io("read", key, &error));
            }
            _ => {}
        }
        self.memory.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.memory.head(key).await
    }

    async fn list(&self, under: &str, after: Option<&str>, most: usize) -> Result<Vec<ObjectMeta>> {
        self.memory.list(under, after, most).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.memory.delete(key).await
    }

    async fn clean(&self) -> Result<u64> {
        self.memory.clean().await
    }

    async fn replace(&self, key: &str, content: &Content) -> Result<()> {
        self.memory.replace(key, content).await?;
        *self.sector.lock() = None;
        Ok(())
    }

    fn describe(&self) -> String {
        self.memory.describe()
    }
}

/// Where the chunk of a stripe begins in a shard of 3+2.
fn chunk_at(stripe: u64) -> u64 {
    HEADER_LEN as u64 + stripe * (65_536 + 6 * SUM_LEN as u64)
}

/// Bad sectors on these stores, each in a stripe of its own.
async fn scratched(stores: &[(usize, u64)]) -> (Set, Spread, Bytes) {
    let set = Set::new(3, 2).await;
    let content = bytes(5 << 20, 1);
    set.spread.put("k", content.clone()).await.unwrap();
    let scratched = set.memories.iter().enumerate().map(|(at, memory)| {
        let stripe = stores.iter().find(|(store, _)| *store == at);
        let sector = parking_lot::Mutex::new(stripe.map(|(_, stripe)| chunk_at(*stripe) + 100));
        Arc::new(Scratched { memory: Arc::clone(memory), sector }) as Arc<dyn Tier>
    });
    let spread = Spread::new(scratched.collect(), 2, Some("volume".to_owned())).unwrap();
    (set, spread, content)
}

/// No more than two of each stripe, although no store gives a long range.
#[tokio::test]
async fn bad_sectors_on_every_store_are_read_around_and_mended_stripe_by_stripe() {
    let (set, spread, content) = scratched(&[(0, 3), (1, 3), (2, 9), (3, 20), (4, 9)]).await;
    assert!(spread.get("k").await.unwrap() == content);
    let part = 500_000..3_000_000;
    let read = spread.get_range("k", part.start as u64..part.end as u64).await.unwrap();
    assert!(read == content.slice(part));
    let found = spread.mend("k", CARE).await.unwrap();
    assert_eq!((found.lacking.len(), found.renewed), (5, true), "{found:?}");
    assert!(spread.mend("k", CARE).await.unwrap().lacking.is_empty());
    assert!(set.reopened().spread.get("k").await.unwrap() == content);
}

/// It would have to come back if nobody looked stripe by stripe.
#[tokio::test]
async fn bad_sectors_are_read_around_while_a_store_is_away() {
    let (set, spread, content) = scratched(&[(0, 3), (1, 9), (2, 20)]).await;
    set.memories[4].lose(PLACE_KEY);
    assert!(spread.get("k").await.unwrap() == content);
    assert!(spread.stores()[4].failure.is_some());
}

#[tokio::test]
async fn more_bad_sectors_in_a_stripe_than_parity_bears_are_damage_of_that_stripe() {
    let (_, spread, content) = scratched(&[(0, 9), (2, 9), (4, 9)]).await;
    let stripe = 3 * 65_536;
    let before = spread.get_range("k", 0..9 * stripe).await.unwrap();
    assert!(before == content.slice(..9 * stripe as usize));
    for error in [
        spread.get("k").await.map(drop).unwrap_err(),
        spread.get_range("k", 0..9 * stripe + 1).await.map(drop).unwrap_err(),
        spread.mend("k", CARE).await.map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    }
}

/// A shard whose every checksum is right, and whose content is that of no object.
fn forged(memory: &Memory, shard: usize) {
    let whole = memory.peek("k").unwrap();
    let (layout, _) = Layout::parse(&whole).unwrap();
    let chunk_len = layout.shape.chunk(shard, 0);
    let chunk = vec![0x5a; chunk_len];
    let mut sums = whole[HEADER_LEN + chunk_len..whole.len() - SUM_LEN].to_vec();
    sums[shard * SUM_LEN..(shard + 1) * SUM_LEN].copy_from_slice(&sum(&[&chunk]));
    let mut bytes = layout.header(shard).to_vec();
    bytes.extend_from_slice(&chunk);
    bytes.extend_from_slice(&trailer(&layout.generation(), shard, 0, &sums));
    assert_eq!(bytes.len(), whole.len());
    memory.overwrite("k", bytes);
}

#[tokio::test]
async fn chunks_that_contradict_each_other_make_nothing() {
    let set = Set::new(3, 2).await;
    let content = bytes(10_000, 1);
    set.spread.put("k", content.clone()).await.unwrap();
    let chunk_len = Layout::parse(&set.memories[0].peek("k").unwrap()).unwrap().0.shape.chunk_len;
    forged(&set.memories[0], 0);
    let whole = set.reopened().spread.get("k").await.unwrap_err();
    assert!(whole.to_string().contains("the whole does not"), "{whole}");
    // What has to be computed with its help contradicts what it says itself.
    set.memories[1].lose("k");
    let (from, to) = (u64::from(chunk_len), u64::from(chunk_len) * 2);
    for spread in [set.reopened().spread, set.reopened().spread] {
        let part = spread.get_range("k", from..to).await.unwrap_err();
        assert!(part.to_string().contains("contradict each other"), "{part}");
    }
    let before: Vec<_> = set.memories.iter().map(|memory| memory.peek("k")).collect();
    let mended = set.reopened().spread.mend("k", CARE).await.unwrap_err();
    assert!(matches!(mended, Error::Damaged { .. }), "{mended:?}");
    let after: Vec<_> = set.memories.iter().map(|memory| memory.peek("k")).collect();
    assert!(after == before, "nothing is made of it");
    // Without it the others suffice.
    set.memories[0].lose("k");
    assert!(set.reopened().spread.get("k").await.unwrap() == content);
}
