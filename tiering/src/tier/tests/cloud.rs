//! The suite against any store that is reachable from here, for a person to run:
//!
//! ```text
//! azurite-blob --inMemoryPersistence --skipApiVersionCheck &   # and make the container
//! AZURE_STORAGE_USE_EMULATOR=true FIRN_TEST_TIERS=az://container/prefix \
//!     cargo nextest run --workspace -E 'test(stores_named_in_the_environment_conform)'
//! ```
//!
//! `FIRN_TEST_TIERS` holds URLs separated by commas, each of an empty place; credentials and
//! endpoints come from the environment as they do for a mount. Unset, there is nothing to do.
//! `gs://` needs a server with the XML interface, which `object_store` speaks (`GOOGLE_BASE_URL`,
//! `GOOGLE_ALLOW_HTTP`, `GOOGLE_SKIP_SIGNATURE`); emulators with the JSON one alone answer 501.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn stores_named_in_the_environment_conform() {
    let urls = std::env::var("FIRN_TEST_TIERS").unwrap_or_default();
    for url in urls.split(',').filter(|url| !url.is_empty()) {
        let tier = open_tier(url, Patience::READ).unwrap();
        probe_tier(&*tier, Access::Write).await.unwrap();
        conforms(&*tier).await;
    }
}
