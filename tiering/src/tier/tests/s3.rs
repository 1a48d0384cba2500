//! The same suite over real HTTP with real signatures, and what goes wrong there.

use firn_tests::{ACCESS_KEY, BUCKET, SECRET_KEY, Server};

use super::*;

struct Bucket {
    server: Server,
    dir: tempfile::TempDir,
}

impl Bucket {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { server: Server::start(dir.path()).unwrap(), dir }
    }

    fn tier(&self, url: &str) -> Arc<dyn Tier> {
        open_tier_with(url, Patience::READ, self.server.variables()).unwrap()
    }

    /// With one variable changed.
    fn tier_with(&self, url: &str, name: &str, value: &str) -> Arc<dyn Tier> {
        let variables = self.server.variables().into_iter();
        let changed =
            variables.map(|(n, v)| if n == name { (n, value.to_owned()) } else { (n, v) });
        open_tier_with(url, Patience::PROBE, changed).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    let bucket = Bucket::start();
    conforms(&*bucket.tier(&format!("s3://{BUCKET}/deep/prefix"))).await;
    conforms(&*bucket.tier(&format!("s3://{BUCKET}"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_a_world_of_its_own() {
    let bucket = Bucket::start();
    let one = bucket.tier(&format!("s3://{BUCKET}/one"));
    let two = bucket.tier(&format!("s3://{BUCKET}/two/"));
    one.put("k", Bytes::from_static(b"1")).await.unwrap();
    two.put("k", Bytes::from_static(b"2")).await.unwrap();
    assert_eq!(one.get("k").await.unwrap(), Bytes::from_static(b"1"));
    assert_eq!(two.list("", None, 9).await.unwrap().len(), 1);
    assert!(bucket.dir.path().join(BUCKET).join("one/k").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_objects_than_a_page_are_listed() {
    let bucket = Bucket::start();
    let tier = bucket.tier(&format!("s3://{BUCKET}/many"));
    let dir = bucket.dir.path().join(BUCKET).join("many");
    std::fs::create_dir(&dir).unwrap();
    for n in 0..1005 {
        std::fs::write(dir.join(format!("{n:05}.seg")), b"x").unwrap();
    }
    assert_eq!(tier.list("", None, 5000).await.unwrap().len(), 1005);
    let page = tier.list("", Some("01000.seg"), 3).await.unwrap();
    let keys: Vec<_> = page.iter().map(|meta| meta.key.as_str()).collect();
    assert_eq!(keys, ["01001.seg", "01002.seg", "01003.seg"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_finds_what_is_wrong_and_tells_no_secret() {
    let bucket = Bucket::start();
    let url = format!("s3://{BUCKET}/v");
    probe_tier(&*bucket.tier(&url), Access::Write).await.unwrap();
    assert_eq!(bucket.tier(&url).list("", None, 9).await.unwrap(), [], "nothing is left behind");

    let wrong_secret = "wrong-secret-0815";
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let cases = [
        (bucket.tier_with(&url, "AWS_SECRET_ACCESS_KEY", wrong_secret), "credentials"),
        (bucket.tier_with(&url, "AWS_ACCESS_KEY_ID", "nobody-we-know"), "credentials"),
        (bucket.tier_with("s3://no-such-bucket", "", ""), "create the bucket"),
        (bucket.tier_with(&url, "AWS_ENDPOINT", &nobody), "reached"),
    ];
    for (tier, expected) in cases {
        let error = probe_tier(&*tier, Access::Write).await.unwrap_err();
        let hint = error.hint().unwrap_or_default().to_owned();
        assert!(hint.contains(expected), "{error:?}");
        let everything = format!("{error} {error:?} {hint} {tier:?} {}", tier.describe());
        for secret in [ACCESS_KEY, SECRET_KEY, wrong_secret, "nobody-we-know"] {
            assert!(!everything.contains(secret), "{everything}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_answering_is_given_up_at_the_deadline() {
    // Accepts connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let patience = Patience { attempts: 3, deadline: std::time::Duration::from_millis(300) };
    let tier = open_tier_with("s3://ice", patience, firn_tests::variables(address)).unwrap();
    assert!(matches!(tier.get("k").await, Err(Error::TimedOut(_))));
    assert!(matches!(tier.put("k", Bytes::new()).await, Err(Error::TimedOut(_))));
    let error = probe_tier(&*tier, Access::Read).await.unwrap_err();
    assert!(error.hint().unwrap().contains("reached"), "{error}");
}
