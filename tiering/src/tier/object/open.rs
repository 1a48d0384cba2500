//! From a URL and the environment to a tier, with errors that say what to do. Credentials come
//! from the environment only; they are collected here once, so that no message passes one on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::http::Heeding;
use super::leftovers::Leftovers;
use super::single::Located;
use super::{ObjectTier, Secrets, explain};
use crate::error::{Error, Result};
use crate::tier::failure::{FailureKind, TierFailure};
use crate::tier::rooted::Rooted;
use crate::tier::{Directory, Jitter, Patience, Pauses, Retry, Tier};

const FORMS: &str = "write it as file:///path, s3://bucket/prefix, gs://bucket/prefix or \
                     az://container/prefix";

/// Whether a probe also writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Listing must work.
    Read,
    /// Storing, reading back and deleting a small object must work too.
    Write,
}

/// The tier at `url` (`file://`, `s3://`, `gs://`, `az://`, or an absolute path), with
/// credentials and endpoints from the process's environment. Nothing is asked of the store yet:
/// see [`probe_tier`].
pub fn open_tier(url: &str, patience: Patience) -> Result<Arc<dyn Tier>> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    open_tier_with(url, patience, variables)
}

/// As [`open_tier`], with these variables for an environment.
pub fn open_tier_with(
    url: &str,
    patience: Patience,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Arc<dyn Tier>> {
    let Opened { tier, pauses } = open_once_with(url, variables)?;
    Ok(Arc::new(Retry::new(tier, patience).heeding(pauses)))
}

/// A tier without patience: each call is made once. For those who put a decorator between it and
/// [`Retry`].
#[derive(Debug)]
pub struct Opened {
    /// The tier.
    pub tier: Arc<dyn Tier>,
    /// When it asks to be left alone.
    pub pauses: Arc<Pauses>,
}

/// As [`open_tier`], without patience.
pub fn open_once(url: &str) -> Result<Opened> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    open_once_with(url, variables)
}

/// As [`open_once`], with these variables for an environment.
pub fn open_once_with(
    url: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Opened> {
    let pauses = Arc::new(Pauses::default());
    let tier: Arc<dyn Tier> = match Place::parse(url)? {
        Place::Directory(path) => {
            let tier = Directory::open(&path)?;
            Arc::new(Rooted::new(Arc::new(tier), &path)?)
        }
        Place::Files(path) => open_files(&path)?,
        Place::Bucket { scheme, bucket, prefix } => {
            let env = Environment::new(variables, Arc::clone(&pauses));
            Arc::new(open_bucket(scheme, &bucket, prefix, &env)?)
        }
    };
    Ok(Opened { tier, pauses })
}

/// Creates what can be created before a tier is used for the first time: the directory of a
/// `file://` URL or path. Buckets are their owner's to make. Only for the making of a volume: at
/// a mount, a missing directory is more likely a filesystem that is not mounted.
pub fn prepare_tier(url: &str) -> Result<()> {
    let path = match Place::parse(url)? {
        Place::Directory(path) | Place::Files(path) => path,
        Place::Bucket { .. } => return Ok(()),
    };
    std::fs::create_dir_all(&path).map_err(|error| Error::Unusable {
        tier: path.display().to_string(),
        reason: format!("cannot create the directory: {error}"),
        hint: "check the permissions of the directories above it".to_owned(),
    })
}

/// Asks the store something, so that a wrong bucket, wrong credentials or a dead endpoint are
/// found before they are relied on.
pub async fn probe_tier(tier: &dyn Tier, access: Access) -> Result<()> {
    let explain = |error: Error| unusable_from(tier.describe(), error);
    tier.list("", None, 1).await.map_err(explain)?;
    if access == Access::Read {
        return Ok(());
    }
    let key = format!("probe/{:016x}", Jitter::from_process().next_u64());
    let body = Bytes::from(key.clone());
    tier.put(&key, body.clone()).await.map_err(explain)?;
    let back = tier.get(&key).await.map_err(explain)?;
    tier.delete(&key).await.map_err(explain)?;
    if back == body {
        return Ok(());
    }
    Err(Error::Unusable {
        tier: tier.describe(),
        reason: "it returned other bytes than were stored".to_owned(),
        hint: "do not use this store; check proxies in between".to_owned(),
    })
}

/// Adds what to do to the error of a first contact.
fn unusable_from(tier: String, error: Error) -> Error {
    let (reason, kind) = match (&error, TierFailure::of(&error)) {
        (Error::TimedOut(doing), _) => {
            (format!("no answer while {doing}"), FailureKind::Unavailable)
        }
        (_, Some(failure)) => (failure.message.clone(), failure.kind),
        _ => return error,
    };
    let hint = match kind {
        FailureKind::Unavailable | FailureKind::BadBody | FailureKind::Down => {
            "check that the store runs and can be reached from here (endpoint, network, proxy)"
        }
        FailureKind::Refused => "check the credentials in the environment and what they may do",
        FailureKind::NoRoot => "create the bucket or container first, or correct its name",
        FailureKind::Full => "make room in the store",
        FailureKind::NotOurs => "find out which mount uses it now",
        FailureKind::Rejected => "check the URL, the endpoint and the region",
    };
    Error::Unusable { tier, reason, hint: hint.to_owned() }
}

/// Where a URL points.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Directory(PathBuf),
    Files(PathBuf),
    Bucket { scheme: Scheme, bucket: String, prefix: StorePath },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    S3,
    Gs,
    Az,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
        }
    }
}

impl Place {
    fn parse(text: &str) -> Result<Self> {
        if text.starts_with('/') {
            return Ok(Self::Directory(PathBuf::from(text)));
        }
        // What cannot be parsed may hold a password anywhere: it is not repeated.
        let bad = |tier: String, reason: String, hint: &str| Error::Unusable {
            tier,
            reason,
            hint: hint.to_owned(),
        };
        let url = Url::parse(text)
            .map_err(|error| bad("URL".to_owned(), format!("not a URL: {error}"), FORMS))?;
        let name = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        if !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            let hint = "give credentials in the environment (AWS_ACCESS_KEY_ID, ...) instead";
            let reason = "the URL holds more than a place (a user, a password or parameters)";
            return Err(bad(name, reason.to_owned(), hint));
        }
        let scheme = match url.scheme() {
            "file" => {
                return match url.to_file_path() {
                    Ok(path) => Ok(Self::Files(path)),
                    Err(()) => Err(bad(name, "not an absolute path".to_owned(), FORMS)),
                };
            }
            "s3" => Scheme::S3,
            "gs" => Scheme::Gs,
            "az" => Scheme::Az,
            other => return Err(bad(name, format!("unknown scheme {other:?}"), FORMS)),
        };
        let bucket = url.host_str().unwrap_or_default().to_owned();
        if bucket.is_empty() {
            return Err(bad(name, "the URL names no bucket".to_owned(), FORMS));
        }
        let prefix = StorePath::from_url_path(url.path().trim_matches('/'))
            .map_err(|error| bad(name, format!("not a usable prefix: {error}"), FORMS))?;
        Ok(Self::Bucket { scheme, bucket, prefix })
    }
}

fn open_files(path: &Path) -> Result<Arc<dyn Tier>> {
    // For its errors about directories that are missing, files, or not ours.
    Directory::open(path)?;
    let described = format!("file://{}", path.display());
    let store = LocalFileSystem::new_with_prefix(path)
        .map_err(|error| unusable(&described, &Secrets::default(), &error))?
        .with_fsync(true);
    // The store resolves links once, and the directory is known by where they led.
    let root = path
        .canonicalize()
        .map_err(Error::io(format!("resolve the links in {}", path.display())))?;
    let tier = ObjectTier {
        store: Arc::new(store),
        root: StorePath::default(),
        described,
        lists_in_order: false,
        creates: AtomicBool::new(true),
        leftovers: Leftovers::Files(root.clone()),
        secrets: Secrets::default(),
    };
    Ok(Arc::new(Rooted::new(Arc::new(tier), &root)?))
}

fn open_bucket(
    scheme: Scheme,
    bucket: &str,
    root: StorePath,
    env: &Environment,
) -> Result<ObjectTier> {
    let described = match root.as_ref() {
        "" => format!("{}://{bucket}", scheme.name()),
        prefix => format!("{}://{bucket}/{prefix}", scheme.name()),
    };
    env.check_credentials(scheme, &described)?;
    let secrets = env.secrets();
    let failed = |error: object_store::Error| unusable(&described, &secrets, &error);
    let mut leftovers = Leftovers::None;
    let store: Arc<dyn ObjectStore> = match scheme {
        Scheme::S3 => {
            let store = Arc::new(env.s3(bucket).build().map_err(failed)?);
            let options = client_options().with_allow_http(env.allows_http());
            leftovers =
                Leftovers::s3(Arc::clone(&store), &options, &env.connector()).map_err(failed)?;
            store
        }
        Scheme::Gs => Arc::new(env.gs(bucket).build().map_err(failed)?),
        Scheme::Az => Arc::new(env.az(bucket).build().map_err(failed)?),
    };
    Ok(ObjectTier {
        store,
        root,
        described,
        lists_in_order: true,
        creates: AtomicBool::new(true),
        leftovers,
        secrets,
    })
}

/// One object at a URL that names it, in a store that is more patient than a tier's: nobody repeats
/// what it gives up.
pub(super) fn locate(
    url: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Located> {
    let missing = |tier: &str| Error::Unusable {
        tier: tier.to_owned(),
        reason: "the URL names no object".to_owned(),
        hint: "add a name: s3://bucket/name, file:///dir/name".to_owned(),
    };
    let (scheme, bucket, path) = match Place::parse(url)? {
        Place::Directory(path) | Place::Files(path) => return locate_file(&path),
        Place::Bucket { scheme, bucket, prefix } => (scheme, bucket, prefix),
    };
    let described = format!("{}://{bucket}/{path}", scheme.name());
    if path.as_ref().is_empty() || url.ends_with('/') {
        return Err(missing(&described));
    }
    let env = Environment::new(variables, Arc::default());
    env.check_credentials(scheme, &described)?;
    let secrets = env.secrets();
    let failed = |error: object_store::Error| unusable(&described, &secrets, &error);
    let store: Arc<dyn ObjectStore> = match scheme {
        Scheme::S3 => {
            Arc::new(env.s3(&bucket).with_retry(patient_retries()).build().map_err(failed)?)
        }
        Scheme::Gs => {
            Arc::new(env.gs(&bucket).with_retry(patient_retries()).build().map_err(failed)?)
        }
        Scheme::Az => {
            Arc::new(env.az(&bucket).with_retry(patient_retries()).build().map_err(failed)?)
        }
    };
    Ok(Located { store, path, described, secrets })
}

fn locate_file(path: &Path) -> Result<Located> {
    let described = format!("file://{}", path.display());
    let unusable = |reason: String| Error::Unusable {
        tier: described.clone(),
        reason,
        hint: "name a file in a directory that exists: file:///dir/name".to_owned(),
    };
    let name = path.file_name().ok_or_else(|| unusable("it names no file".to_owned()))?;
    let dir = path.parent().unwrap_or(path);
    // The store resolves links once, and would make directories that are missing.
    let dir = dir.canonicalize().map_err(|error| unusable(error.to_string()))?;
    let location = StorePath::from_absolute_path(dir.join(name))
        .map_err(|error| unusable(error.to_string()))?;
    let store = Arc::new(LocalFileSystem::new().with_fsync(true));
    Ok(Located { store, path: location, described, secrets: Secrets::default() })
}

fn unusable(described: &str, secrets: &Secrets, error: &object_store::Error) -> Error {
    match TierFailure::of(&explain(secrets, "open", described, error)) {
        Some(failure) => Error::Unusable {
            tier: described.to_owned(),
            reason: failure.message.clone(),
            hint: "check the URL and the variables of the environment".to_owned(),
        },
        None => Error::NotFound(described.to_owned()),
    }
}

/// Requests have no total time-out, since a part may be slow and is bounded by [`Retry`]'s
/// deadline; a connection on which nothing moves is given up.
fn client_options() -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(5))
        .with_read_timeout(Duration::from_secs(30))
}

/// Two quick attempts more inside the store, so that one bad part does not repeat a whole
/// upload; patience proper is [`Retry`]'s.
fn quick_retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
        max_retries: 2,
        retry_timeout: Duration::from_secs(30),
    }
}

/// For uploads of which no part can be repeated from outside.
fn patient_retries() -> RetryConfig {
    RetryConfig { max_retries: 12, retry_timeout: Duration::from_secs(300), ..quick_retries() }
}

/// The variables that concern object stores.
struct Environment {
    variables: Vec<(String, String)>,
    /// Where the pauses are noted that a store asks for.
    pauses: Arc<Pauses>,
}

impl Environment {
    fn new(variables: impl IntoIterator<Item = (String, String)>, pauses: Arc<Pauses>) -> Self {
        Self { variables: variables.into_iter().collect(), pauses }
    }

    fn connector(&self) -> Heeding {
        Heeding::new(Arc::clone(&self.pauses))
    }

    /// The value of the first of `names` that is set and not empty.
    fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| {
            let (_, value) = self.variables.iter().find(|(key, _)| key == name)?;
            (!value.is_empty()).then_some(value.as_str())
        })
    }

    fn is_true(&self, name: &str) -> bool {
        self.first(&[name])
            .is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
    }

    fn allows_http(&self) -> bool {
        self.is_true("AWS_ALLOW_HTTP")
    }

    /// The `(key, value)` pairs that a builder understands.
    fn settings<K: std::str::FromStr>(&self, prefix: &str) -> Vec<(K, String)> {
        let ours = self
            .variables
            .iter()
            .filter(|(name, value)| name.starts_with(prefix) && !value.is_empty());
        ours.filter_map(|(name, value)| {
            Some((name.to_ascii_lowercase().parse().ok()?, value.clone()))
        })
        .collect()
    }

    /// Values that no message may contain. Paths and flags are no secrets.
    fn secrets(&self) -> Secrets {
        const MARKS: [&str; 7] =
            ["SECRET", "TOKEN", "KEY", "PASSWORD", "SAS", "SIGNATURE", "SERVICE_ACCOUNT"];
        let is_secret = |name: &str, value: &str| {
            ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix))
                && MARKS.iter().any(|mark| name.contains(mark))
                && value.len() >= 6
                && !value.starts_with('/')
        };
        let found = self.variables.iter().filter(|(name, value)| is_secret(name, value));
        Secrets(found.map(|(_, value)| value.clone()).collect())
    }

    fn s3(&self, bucket: &str) -> AmazonS3Builder {
        let builder = AmazonS3Builder::new()
            .with_client_options(client_options())
            .with_http_connector(self.connector())
            .with_retry(quick_retries());
        self.settings::<AmazonS3ConfigKey>("AWS_")
            .into_iter()
            .fold(builder, |builder, (key, value)| builder.with_config(key, value))
            .with_bucket_name(bucket)
            .with_checksum_algorithm(Checksum::SHA256)
            // One object at a time is deleted here, which every server knows.
            .with_disable_bulk_delete(true)
    }

    fn gs(&self, bucket: &str) -> GoogleCloudStorageBuilder {
        let builder = GoogleCloudStorageBuilder::new()
            .with_client_options(client_options())
            .with_http_connector(self.connector())
            .with_retry(quick_retries());
        let builder = match self.first(&["SERVICE_ACCOUNT"]) {
            Some(path) => builder.with_service_account_path(path),
            None => builder,
        };
        self.settings::<GoogleConfigKey>("GOOGLE_")
            .into_iter()
            .fold(builder, |builder, (key, value)| builder.with_config(key, value))
            .with_bucket_name(bucket)
    }

    fn az(&self, container: &str) -> MicrosoftAzureBuilder {
        let builder = MicrosoftAzureBuilder::new()
            .with_client_options(client_options())
            .with_http_connector(self.connector())
            .with_retry(quick_retries());
        self.settings::<AzureConfigKey>("AZURE_")
            .into_iter()
            .fold(builder, |builder, (key, value)| builder.with_config(key, value))
            .with_container_name(container)
    }

    /// Missing credentials are found here rather than by waiting for a metadata service that
    /// this machine does not have.
    fn check_credentials(&self, scheme: Scheme, described: &str) -> Result<()> {
        let missing = |reason: &str, hint: &str| {
            Err(Error::Unusable {
                tier: described.to_owned(),
                reason: reason.to_owned(),
                hint: hint.to_owned(),
            })
        };
        match scheme {
            Scheme::S3 => self.check_s3(missing),
            Scheme::Gs if self.has_gs() => Ok(()),
            Scheme::Gs => missing(
                "no credentials",
                "set GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT to a key file",
            ),
            Scheme::Az => self.check_az(missing),
        }
    }

    fn check_s3(&self, missing: impl Fn(&str, &str) -> Result<()>) -> Result<()> {
        let id = self.first(&["AWS_ACCESS_KEY_ID"]);
        let secret = self.first(&["AWS_SECRET_ACCESS_KEY"]);
        let others = [
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_METADATA_ENDPOINT",
            "AWS_ENDPOINT_URL_STS",
        ];
        let otherwise = self.first(&others).is_some()
            || self.is_true("AWS_SKIP_SIGNATURE")
            || machine_is_from("Amazon");
        match (id, secret) {
            (Some(_), None) => {
                return missing("AWS_SECRET_ACCESS_KEY is not set", "set it beside the key id");
            }
            (None, Some(_)) => {
                return missing("AWS_ACCESS_KEY_ID is not set", "set it beside the secret key");
            }
            (None, None) if !otherwise => {
                return missing(
                    "no credentials",
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT for a \
                     server that is not Amazon's)",
                );
            }
            _ => {}
        }
        let endpoint = self.first(&["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"]);
        match endpoint {
            Some(url) if url.starts_with("http://") && !self.allows_http() => missing(
                "the endpoint is plain http",
                "set AWS_ALLOW_HTTP=true if that is meant, or use an https endpoint",
            ),
            Some(url) if Url::parse(url).is_err() => {
                missing("AWS_ENDPOINT is not a URL", "write it as https://host or http://host:port")
            }
            _ => Ok(()),
        }
    }

    fn has_gs(&self) -> bool {
        let names = [
            "GOOGLE_APPLICATION_CREDENTIALS",
            "GOOGLE_SERVICE_ACCOUNT",
            "GOOGLE_SERVICE_ACCOUNT_PATH",
            "GOOGLE_SERVICE_ACCOUNT_KEY",
            "SERVICE_ACCOUNT",
        ];
        let file = "/.config/gcloud/application_default_credentials.json";
        self.first(&names).is_some()
            || self.is_true("GOOGLE_SKIP_SIGNATURE")
            || self
                .first(&["HOME"])
                .is_some_and(|home| Path::new(&(home.to_owned() + file)).exists())
            || machine_is_from("Google")
    }

    fn check_az(&self, missing: impl Fn(&str, &str) -> Result<()>) -> Result<()> {
        if self.is_true("AZURE_STORAGE_USE_EMULATOR") {
            return Ok(());
        }
        if self.first(&["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_ACCOUNT_NAME"]).is_none() {
            return missing("no storage account", "set AZURE_STORAGE_ACCOUNT_NAME");
        }
        let names = [
            "AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_ACCESS_KEY",
            "AZURE_STORAGE_SAS_KEY",
            "AZURE_STORAGE_SAS_TOKEN",
            "AZURE_STORAGE_TOKEN",
            "AZURE_STORAGE_CLIENT_SECRET",
            "AZURE_CLIENT_SECRET",
            "AZURE_FEDERATED_TOKEN_FILE",
            "AZURE_MSI_ENDPOINT",
            "AZURE_USE_AZURE_CLI",
        ];
        let has_one = self.first(&names).is_some()
            || self.is_true("AZURE_SKIP_SIGNATURE")
            || machine_is_from("Microsoft");
        if has_one {
            return Ok(());
        }
        missing("no credentials", "set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_KEY")
    }
}

/// Whether this machine is that cloud's, whose metadata service then knows credentials.
fn machine_is_from(vendor: &str) -> bool {
    let read = |name| std::fs::read_to_string(format!("/sys/class/dmi/id/{name}"));
    ["sys_vendor", "product_name"].iter().any(|name| read(name).is_ok_and(|v| v.contains(vendor)))
}

#[cfg(test)]
mod tests;
