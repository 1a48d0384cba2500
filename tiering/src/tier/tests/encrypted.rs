//! Encryption as a decorator: the contract over every kind of store, what lies in the store, and
//! what is made of what does not belong there.

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::crypt::{self, CHUNK_LEN, DataKey, SEALED_CHUNK_LEN};

const CHUNK: usize = CHUNK_LEN as usize;

fn over(inner: Arc<dyn Tier>, staging: &Path) -> Encrypted {
    Encrypted::new(inner, Arc::new(DataKey::random().unwrap()), staging.to_owned())
}

/// In memory, and the memory itself.
fn scene() -> (Arc<Memory>, Encrypted) {
    let memory = Arc::new(Memory::new());
    let tier = over(Arc::clone(&memory) as Arc<dyn Tier>, &std::env::temp_dir());
    (memory, tier)
}

#[tokio::test]
async fn encrypted_tiers_conform() {
    let dir = tempfile::tempdir().unwrap();
    let staging = tempfile::tempdir().unwrap();
    conforms(&scene().1).await;
    let url = format!("file://{}", dir.path().display());
    conforms(&over(open_tier(&url, Patience::READ).unwrap(), staging.path())).await;
    assert_eq!(walk(dir.path()), Vec::<String>::new(), "no staging files stay");
    assert_eq!(walk(staging.path()), Vec::<String>::new(), "nor the ciphertexts");
}

#[tokio::test]
async fn patience_may_stand_before_encryption_and_behind() {
    let (_, tier) = scene();
    conforms(&Retry::new(Arc::new(tier), Patience::READ)).await;
    let retry = Retry::new(Arc::new(Memory::new()), Patience::READ);
    conforms(&over(Arc::new(retry), &std::env::temp_dir())).await;
}

#[tokio::test(start_paused = true)]
async fn an_encrypted_tier_conforms_over_a_bad_one() {
    let faults = [
        Fault::Error(FailureKind::Unavailable),
        Fault::Truncate,
        Fault::TimeOutBefore,
        Fault::TimeOutAfter,
    ];
    let inner = Faulty::seeded(Arc::new(Memory::new()), 3, 200, &faults[..1]);
    let patience = Patience { attempts: 40, deadline: Duration::from_secs(3600) };
    let patient = Retry::with_jitter(Arc::new(inner), patience, Jitter::seeded(3));
    conforms(&over(Arc::new(patient), &std::env::temp_dir())).await;
    let inner = Faulty::seeded(Arc::new(Memory::new()), 4, 100, &faults[2..]);
    let patient = Retry::with_jitter(Arc::new(inner), patience, Jitter::seeded(4));
    conforms(&over(Arc::new(patient), &std::env::temp_dir())).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_encrypted_is_not_stored() {
    let (memory, _) = scene();
    let tier = over(Arc::clone(&memory) as Arc<dyn Tier>, &PathBuf::from("/nonexistent"));
    let content = bytes(3 * CHUNK + 5, 1);
    let file = file_of(&content);
    let error = tier.put_file("f", file.path()).await.unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(error.to_string().contains("/nonexistent"), "{error}");
    assert_eq!(memory.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn the_store_sees_no_plaintext_but_whose_place_it_is() {
    let (memory, tier) = scene();
    let text = Bytes::from("the quick brown fox ".repeat(10_000));
    tier.put("segments/a", text.clone()).await.unwrap();
    tier.put_file("segments/b", file_of(&text).path()).await.unwrap();
    for key in ["segments/a", "segments/b"] {
        let stored = memory.peek(key).unwrap();
        assert_eq!(stored.len() as u64, crypt::sealed_len(text.len() as u64));
        assert!(!stored.windows(8).any(|window| window == b"the quic"), "{key}");
        assert_eq!(tier.get(key).await.unwrap(), text);
    }
    for key in [IDENTITY_KEY, "owner/1-x", "keys/0000000000000001"] {
        tier.put(key, text.clone()).await.unwrap();
        assert_eq!(memory.peek(key).unwrap(), text);
        assert_eq!(tier.get(key).await.unwrap(), text);
        assert_eq!(tier.get_range(key, 4..9).await.unwrap(), text.slice(4..9));
        assert_eq!(tier.head(key).await.unwrap().len, text.len() as u64);
        tier.delete(key).await.unwrap();
    }
    for near in ["volume.json.x", "owners", "keys.x/y"] {
        tier.put(near, text.clone()).await.unwrap();
        assert_ne!(memory.peek(near).unwrap(), text, "{near}");
    }
}

#[tokio::test]
async fn damage_is_damage_and_not_for_ever_asked_for() {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory) as Arc<dyn Tier>));
    let tier = over(Arc::clone(&faulty) as Arc<dyn Tier>, &std::env::temp_dir());
    let content = bytes(4 * CHUNK, 1);
    tier.put("k", content.clone()).await.unwrap();
    // A damaged answer is not a damaged object.
    faulty.fail_next(Some(Op::Get), "", Fault::Corrupt);
    faulty.fail_next(Some(Op::GetRange), "", Fault::Corrupt);
    assert!(tier.get("k").await.unwrap() == content);
    assert_eq!(tier.get_range("k", 5..9).await.unwrap(), content.slice(5..9));
    let mut stored = memory.peek("k").unwrap().to_vec();
    stored[2 * SEALED_CHUNK_LEN as usize + 1000] ^= 1;
    memory.overwrite("k", stored);
    let calls = faulty.calls(Op::GetRange);
    let chunk = 2 * CHUNK as u64;
    let error = tier.get_range("k", chunk..chunk + 1).await.unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }) && !is_retriable(&error), "{error}");
    assert_eq!(faulty.calls(Op::GetRange), calls + 2);
    assert!(matches!(tier.get("k").await, Err(Error::Damaged { .. })));
    // What does not touch it is read.
    assert!(tier.get_range("k", 0..chunk).await.unwrap() == content[..chunk as usize]);
    let rest = tier.get_range("k", chunk + CHUNK_LEN..4 * CHUNK_LEN).await.unwrap();
    assert!(rest == content[3 * CHUNK..]);
    // It is there, and it is not what is to be stored.
    assert!(matches!(tier.put("k", content.clone()).await, Err(Error::Exists(_))));
    tier.delete("k").await.unwrap();
    tier.put("k", content.clone()).await.unwrap();
    assert!(tier.get("k").await.unwrap() == content);
}

#[tokio::test]
async fn objects_that_were_swapped_or_cut_are_damaged() {
    let (memory, tier) = scene();
    let content = bytes(2 * CHUNK, 1);
    tier.put("a", content.clone()).await.unwrap();
    tier.put("b", bytes(2 * CHUNK, 2)).await.unwrap();
    let (a, b) = (memory.peek("a").unwrap(), memory.peek("b").unwrap());
    memory.overwrite("a", b);
    assert!(matches!(tier.get("a").await, Err(Error::Damaged { .. })));
    assert!(matches!(tier.get_range("a", 0..1).await, Err(Error::Damaged { .. })));
    memory.overwrite("a", a.slice(..SEALED_CHUNK_LEN as usize));
    assert!(matches!(tier.get("a").await, Err(Error::Damaged { .. })));
    assert_eq!(tier.head("a").await.unwrap().len, CHUNK_LEN, "as the stored length has it");
    assert!(tier.get_range("a", CHUNK_LEN..CHUNK_LEN + 1).await.is_err());
    assert!(tier.get_range("a", CHUNK_LEN - 1..CHUNK_LEN + 1).await.is_err());
    // Plaintext that somebody put there, or another volume's.
    memory.overwrite("a", content);
    assert!(matches!(tier.get("a").await, Err(Error::Damaged { .. })));
    let other = over(Arc::clone(&memory) as Arc<dyn Tier>, &std::env::temp_dir());
    let error = other.get("b").await.unwrap_err().to_string();
    assert!(error.contains("another key"), "{error}");
}

#[tokio::test]
async fn a_read_within_whole_chunks_is_one_request() {
    let memory = Arc::new(Memory::new());
    let faulty = Arc::new(Faulty::new(memory as Arc<dyn Tier>));
    let tier = over(Arc::clone(&faulty) as Arc<dyn Tier>, &std::env::temp_dir());
    tier.put("k", bytes(5 * CHUNK + 100, 1)).await.unwrap();
    let requests = || faulty.calls(Op::GetRange) + faulty.calls(Op::Head);
    let before = requests();
    tier.get_range("k", 3 * CHUNK_LEN + 10..3 * CHUNK_LEN + 4106).await.unwrap();
    assert_eq!(requests(), before + 1);
    tier.get_range("k", 5 * CHUNK_LEN..5 * CHUNK_LEN + 100).await.unwrap();
    assert_eq!(requests(), before + 4, "the end is looked for");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn ranges_are_those_of_the_plaintext(
        len in prop_oneof![0..3 * CHUNK + 10, Just(CHUNK), Just(2 * CHUNK)],
        ranges in proptest::collection::vec((0.0..1.2f64, 0.0..1.2f64), 8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_, tier) = scene();
            let content = bytes(len, len as u64);
            tier.put("k", content.clone()).await.unwrap();
            for (one, other) in ranges {
                let at = |part: f64| (part * len as f64) as usize;
                let (start, end) = (at(one).min(at(other)), at(one).max(at(other)));
                let read = tier.get_range("k", start as u64..end as u64).await;
                if end <= len {
                    assert!(read.unwrap() == content[start..end], "{start}..{end} of {len}");
                } else if start < end {
                    assert!(read.is_err(), "{start}..{end} of {len}");
                }
            }
        });
    }
}
