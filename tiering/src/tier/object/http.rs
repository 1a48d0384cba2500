//! Notes and heeds what a store says in the head of an answer: the errors of `object_store` carry no
//! headers, and its own quick retries ignore `Retry-After`. Every request passes here: one that is
//! made during a pause waits for its end, for which its caller's deadline is the bound, and an
//! answer that asks for a pause begins one.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use crate::clock::{Clock, SystemClock};
use crate::tier::Pauses;
use crate::tier::pauses::parse_retry_after;

/// Makes clients that heed pauses.
#[derive(Clone, Debug)]
pub(super) struct Heeding {
    pauses: Arc<Pauses>,
}

impl Heeding {
    pub(super) fn new(pauses: Arc<Pauses>) -> Self {
        Self { pauses }
    }
}

impl HttpConnector for Heeding {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Service { inner, pauses: Arc::clone(&self.pauses) }))
    }
}

#[derive(Debug)]
struct Service {
    inner: HttpClient,
    pauses: Arc<Pauses>,
}

impl Service {
    fn note(&self, answer: &HttpResponse) {
        // Too many requests, unavailable.
        if !matches!(answer.status().as_u16(), 429 | 503) {
            return;
        }
        let header = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
        if let Some(pause) = header.and_then(|text| parse_retry_after(text, SystemClock.now())) {
            tracing::debug!(?pause, "the store asks for a pause");
            self.pauses.ask(SystemClock.instant(), pause);
        }
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        loop {
            let left = self.pauses.left(SystemClock.instant());
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left).await;
        }
        let answer = self.inner.execute(request).await?;
        self.note(&answer);
        Ok(answer)
    }
}
