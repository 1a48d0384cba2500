//! The layer in front of the store that lets things go wrong as [`Faults`] say. It is a service of
//! hyper's over another; bodies pass through a small channel, where they are paced, held up, cut or
//! spoiled.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, HeaderValue, RANGE, RETRY_AFTER};
use hyper::service::Service;
use hyper::{HeaderMap, Request, StatusCode};
use s3s::service::S3Service;
use s3s::{Body, HttpError, HttpResponse};
use tokio::sync::mpsc;

use crate::faults::{Fate, Faults, Visit};
use crate::socket::Cut;

/// What S3 says when it is asked too often.
const SLOW_DOWN: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>SlowDown</Code>\
                         <Message>Please reduce your request rate.</Message></Error>";

/// The layer on one connection.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) service: S3Service,
    pub(crate) faults: Faults,
    pub(crate) cut: Cut,
}

type Answer = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send>>;

impl Service<Request<Incoming>> for Layer {
    type Response = HttpResponse;
    type Error = HttpError;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let layer = self.clone();
        Box::pin(async move { layer.answer(request).await })
    }
}

impl Layer {
    async fn answer(&self, request: Request<Incoming>) -> Result<HttpResponse, HttpError> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let range = request.headers().get(RANGE).and_then(|range| range.to_str().ok());
        let (target, range) = (target.to_owned(), range.map(ToOwned::to_owned));
        let visit = Arc::new(self.faults.begin(request.method().as_str(), target, range));
        self.faults.unstalled().await;
        tokio::time::sleep(Duration::from_millis(self.faults.plan().latency_ms)).await;
        match visit.fate() {
            Fate::SlowDown => return self.slow_down(request, &visit).await,
            Fate::ResetBefore => return Err(self.reset()),
            _ => {}
        }
        let request = request.map(|body| receive(body, Arc::clone(&visit)));
        let response = self.service.call(request).await?;
        self.faults.unstalled().await;
        if visit.fate() == Fate::ResetAfter {
            return Err(self.reset());
        }
        visit.answered(response.status().as_u16());
        let (parts, body) = response.into_parts();
        let body = send(body, &parts.headers, visit);
        Ok(HttpResponse::from_parts(parts, body))
    }

    fn reset(&self) -> HttpError {
        self.cut.reset();
        HttpError::new("a reset was asked for".into())
    }

    /// `503`, after the whole request was heard: a client in the middle of its body would see a
    /// broken connection instead of the answer.
    async fn slow_down(
        &self,
        request: Request<Incoming>,
        visit: &Visit,
    ) -> Result<HttpResponse, HttpError> {
        let mut body = request.into_body();
        while let Some(frame) = next(&mut body).await {
            let Ok(frame) = frame else { break };
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            visit.faults().pace(bytes).await;
            visit.received(bytes);
        }
        let mut response = HttpResponse::new(Body::from(SLOW_DOWN.to_owned()));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        if let Some(seconds) = self.faults.plan().retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        visit.answered(503);
        visit.sent(SLOW_DOWN.len());
        Ok(response)
    }
}

/// The body of a request on its way to the store.
fn receive(body: Incoming, visit: Arc<Visit>) -> Body {
    if body.is_end_stream() {
        return Body::from(body);
    }
    let (sender, piped) = Piped::new(body.size_hint());
    tokio::spawn(async move {
        let mut body = body;
        while let Some(frame) = next(&mut body).await {
            let frame = frame.map_err(io::Error::other);
            let bytes =
                frame.as_ref().ok().and_then(|frame| frame.data_ref()).map_or(0, Bytes::len);
            visit.faults().pace(bytes).await;
            visit.received(bytes);
            if sender.send(frame).await.is_err() {
                break;
            }
        }
    });
    Body::http_body_unsync(piped)
}

/// The body of an answer on its way to the client.
fn send(body: Body, headers: &HeaderMap, visit: Arc<Visit>) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let said = headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
    let len: u64 = said.or(body.size_hint().exact()).unwrap_or(0);
    let place = |share: f64| (share * len as f64) as u64;
    let (cut, wrong) = match visit.fate() {
        Fate::Truncate(at) => (Some(place(at)), None),
        Fate::Corrupt(at) => (None, Some(place(at))),
        _ => (None, None),
    };
    let (sender, piped) = Piped::new(body.size_hint());
    tokio::spawn(async move {
        let mut body = body;
        let mut at = 0;
        while let Some(frame) = next(&mut body).await {
            let frame = frame.map_err(io::Error::other);
            let frame = frame.map(|frame| match frame.into_data() {
                Ok(bytes) => Frame::data(spoil(bytes, at, wrong)),
                Err(other) => other,
            });
            let bytes =
                frame.as_ref().ok().and_then(|frame| frame.data_ref()).map_or(0, Bytes::len);
            visit.faults().pace(bytes).await;
            let keep = cut.map(|cut| cut.saturating_sub(at)).filter(|keep| *keep < bytes as u64);
            if let Some(keep) = keep {
                truncate(&sender, frame, keep as usize, &visit).await;
                break;
            }
            at += bytes as u64;
            visit.sent(bytes);
            if sender.send(frame).await.is_err() {
                break;
            }
        }
    });
    Body::http_body_unsync(piped)
}

/// `bytes`, which begin at `at` of a body, with the byte at `wrong` turned over.
fn spoil(bytes: Bytes, at: u64, wrong: Option<u64>) -> Bytes {
    let index = wrong.and_then(|wrong| wrong.checked_sub(at)).map(|index| index as usize);
    match index.filter(|index| *index < bytes.len()) {
        Some(index) => {
            let mut spoilt = BytesMut::from(&bytes[..]);
            spoilt[index] ^= 0x5a;
            spoilt.freeze()
        }
        None => bytes,
    }
}

type Frames = mpsc::Sender<io::Result<Frame<Bytes>>>;

/// Lets the first bytes of a frame go, and then nothing any more.
async fn truncate(sender: &Frames, frame: io::Result<Frame<Bytes>>, keep: usize, visit: &Visit) {
    if let Some(bytes) = frame.ok().and_then(|frame| frame.into_data().ok())
        && keep > 0
    {
        visit.sent(keep);
        let _ = sender.send(Ok(Frame::data(bytes.slice(..keep)))).await;
    }
    let _ = sender.send(Err(io::Error::other("a short body was asked for"))).await;
}

/// The next frame of a body.
async fn next<B: HttpBody + Unpin>(body: &mut B) -> Option<Result<Frame<B::Data>, B::Error>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// A body that somebody else fills.
struct Piped {
    frames: mpsc::Receiver<io::Result<Frame<Bytes>>>,
    hint: SizeHint,
}

impl Piped {
    fn new(hint: SizeHint) -> (Frames, Self) {
        let (sender, frames) = mpsc::channel(2);
        (sender, Self { frames, hint })
    }
}

impl HttpBody for Piped {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.frames.poll_recv(cx)
    }

    /// Of the whole body: it is asked for once, before the first frame.
    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
