//! Reads the one message of a request from its HTTP body.
//!
//! In OTLP/HTTP the body is the message ([`MessageReader::whole`]). In unary gRPC it is `flag (1 byte), length (4 bytes, big endian), body`. [`MessageReader::prefix`] reads the first five bytes and
//! stops, so that the caller can refuse or reserve before anything else is read; [`MessageReader::body`] reads the rest.
//! A body that came in one frame is handed on as it is; one in several frames is gathered in one buffer, which never is
//! larger than twice what has arrived or 1 MiB, whatever the length in the prefix says.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::Body;
use tokio::time::{Instant, Sleep, sleep_until};

use super::admission::Grant;
use super::status::Fault;

const PREFIX_BYTES: usize = 5;
/// Room that is made at once for a body in several frames: more than exporters usually send.
const RESERVE_BYTES: usize = 1 << 20;
/// Smaller bodies are copied out of their frame: a frame lies in the connection's read buffer, and must not keep all of it.
const COPY_BYTES_MAX: usize = 4 << 10;

/// The first five bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) compressed: bool,
    pub(super) bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct MessageReader<B> {
    body: B,
    chunk: Bytes,
    read_timeout: Duration,
    deadline: Instant,
    progress: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<B: Body<Data = Bytes> + Unpin> MessageReader<B> {
    pub(super) fn new(body: B, read_timeout: Duration, body_timeout: Duration) -> Self {
        let now = Instant::now();
        Self { body, chunk: Bytes::new(), read_timeout, deadline: now + body_timeout, progress: now, alarm: None }
    }

    /// The prefix, or `Framing` if there is no message at all.
    pub(super) async fn prefix(&mut self) -> Result<Prefix, Fault> {
        let mut prefix = [0; PREFIX_BYTES];
        let mut have = 0;
        while have < PREFIX_BYTES {
            if !self.next_chunk().await? {
                return Err(Fault::Framing { detail: "the request ends before its message begins" });
            }
            let take = self.chunk.len().min(PREFIX_BYTES - have);
            self.chunk.copy_to_slice(&mut prefix[have..have + take]);
            have += take;
        }
        let [flag, length @ ..] = prefix;
        let compressed = match flag {
            0 => false,
            1 => true,
            _ => return Err(Fault::Framing { detail: "the message's compression flag must be 0 or 1" }),
        };
        Ok(Prefix { compressed, bytes: u32::from_be_bytes(length) as usize })
    }

    /// The message's body, up to the end of the request.
    pub(super) async fn body(mut self, prefix: Prefix) -> Result<Bytes, Fault> {
        // Waiting for admission was no fault of the client's.
        self.progress = Instant::now();
        let body = self.gather(prefix.bytes).await?;
        if self.next_chunk().await? {
            return Err(SECOND);
        }
        Ok(body)
    }

    /// All of a body that is the message itself, of so many bytes if they were declared. What it takes is held first: all that
    /// is declared, or twice as much whenever the buffer is full.
    pub(super) async fn whole(
        &mut self,
        declared: Option<usize>,
        bytes_max: usize,
        grant: &mut Grant,
    ) -> Result<Bytes, Fault> {
        if declared.is_some_and(|bytes| bytes > bytes_max) {
            return Err(Fault::TooLarge { bytes_max });
        }
        grant.hold(declared.unwrap_or_default()).await?;
        // Waiting for admission was no fault of the client's.
        self.progress = Instant::now();
        if let Some(bytes) = declared {
            let body = self.gather(bytes).await?;
            return if self.next_chunk().await? { Err(SECOND) } else { Ok(body) };
        }
        let mut gathered = Vec::new();
        while self.next_chunk().await? {
            let chunk = std::mem::take(&mut self.chunk);
            let len = gathered.len() + chunk.len();
            if len > bytes_max {
                return Err(Fault::TooLarge { bytes_max });
            }
            if len > gathered.capacity() {
                let room = (2 * gathered.capacity()).max(len).max(COPY_BYTES_MAX).min(bytes_max);
                grant.hold(gathered.capacity() + room).await?;
                self.progress = Instant::now();
                gathered.reserve_exact(room - gathered.len());
            }
            gathered.extend_from_slice(&chunk);
        }
        grant.keep(gathered.capacity());
        Ok(Bytes::from(gathered))
    }

    /// Reads what is left of the body, at most so many bytes, and forgets it. An HTTP/1 client that still sends would not read
    /// its answer otherwise, but see a broken connection, and send again.
    pub(super) async fn discard(&mut self, mut bytes: usize) {
        self.chunk.clear();
        while let Ok(true) = self.next_chunk().await {
            let Some(left) = bytes.checked_sub(self.chunk.len()) else { return };
            bytes = left;
            self.chunk.clear();
        }
    }

    async fn gather(&mut self, bytes: usize) -> Result<Bytes, Fault> {
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        self.more().await?;
        if self.chunk.len() > bytes {
            return Err(SECOND);
        }
        if self.chunk.len() == bytes {
            let body = std::mem::take(&mut self.chunk);
            return Ok(if bytes <= COPY_BYTES_MAX { Bytes::copy_from_slice(&body) } else { body });
        }
        let mut gathered = Vec::with_capacity(bytes.min(RESERVE_BYTES));
        loop {
            let chunk = std::mem::take(&mut self.chunk);
            let len = gathered.len() + chunk.len();
            if len > bytes {
                return Err(SECOND);
            }
            if len > gathered.capacity() {
                gathered.reserve_exact((2 * gathered.capacity()).max(len).min(bytes) - gathered.len());
            }
            gathered.extend_from_slice(&chunk);
            if len == bytes {
                return Ok(Bytes::from(gathered));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), Fault> {
        if self.next_chunk().await? {
            return Ok(());
        }
        Err(Fault::Framing { detail: "the request ends within its message" })
    }

    /// Makes sure that `chunk` is not empty; false at the end of the request.
    async fn next_chunk(&mut self) -> Result<bool, Fault> {
        while self.chunk.is_empty() {
            if self.body.is_end_stream() {
                return Ok(false);
            }
            match self.frame().await? {
                Some(frame) => self.chunk = frame.into_data().unwrap_or_default(),
                None => return Ok(false),
            }
        }
        // Empty frames are no progress.
        self.progress = Instant::now();
        Ok(true)
    }

    async fn frame(&mut self) -> Result<Option<http_body::Frame<Bytes>>, Fault> {
        let Self { body, alarm, read_timeout, deadline, progress, .. } = self;
        poll_fn(|context| {
            if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
                return Poll::Ready(frame.transpose().map_err(|_| Fault::Gone));
            }
            // A timer is only made when there is something to wait for, and only moved when it goes off: usually all is there.
            let due = (*progress + *read_timeout).min(*deadline);
            let alarm = alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
            while alarm.as_mut().poll(context).is_ready() {
                if Instant::now() >= due {
                    let detail = if due == *deadline { TOO_SLOW } else { SILENT };
                    return Poll::Ready(Err(Fault::Stalled { detail }));
                }
                alarm.as_mut().reset(due);
            }
            Poll::Pending
        })
        .await
    }
}

const SILENT: &str = "no byte came within read_timeout";
const TOO_SLOW: &str = "it did not end within body_timeout";
const SECOND: Fault = Fault::Framing { detail: "more bytes follow the message" };

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Context;

    use http_body::Frame;

    use super::*;

    /// Frames, then the end; `None` stands for a frame that never comes.
    struct Frames(VecDeque<Option<Bytes>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            match self.0.front() {
                Some(None) => Poll::Pending,
                Some(Some(_)) => Poll::Ready(self.0.pop_front().flatten().map(|bytes| Ok(Frame::data(bytes)))),
                None => Poll::Ready(None),
            }
        }
    }

    const READ_TIMEOUT: Duration = Duration::from_millis(50);

    async fn read(frames: Vec<Option<Bytes>>) -> Result<(Prefix, Bytes), Fault> {
        let mut reader = MessageReader::new(Frames(frames.into()), READ_TIMEOUT, Duration::from_secs(60));
        let prefix = reader.prefix().await?;
        Ok((prefix, reader.body(prefix).await?))
    }

    fn message(bytes: usize) -> Vec<u8> {
        let body = (0..bytes).map(|n| (n % 251) as u8);
        [0].into_iter().chain((bytes as u32).to_be_bytes()).chain(body).collect()
    }

    #[tokio::test]
    async fn a_message_is_read_however_it_is_cut_into_frames() {
        for bytes in [0, 1, 100, 5000, RESERVE_BYTES + 70_000] {
            let whole = message(bytes);
            for step in [1, 2, 3, 7, 4096, 16384, 1_000_000, whole.len()] {
                if whole.len() / step > 20_000 {
                    continue;
                }
                let mut frames = vec![Some(Bytes::new())];
                frames.extend(whole.chunks(step).map(|part| Some(Bytes::copy_from_slice(part))));
                frames.push(Some(Bytes::new()));
                let (prefix, body) = read(frames).await.expect("reads");
                assert_eq!(prefix, Prefix { compressed: false, bytes });
                assert_eq!(body, whole[PREFIX_BYTES..], "{bytes} in {step}");
            }
        }
    }

    #[tokio::test]
    async fn a_body_in_one_frame_is_not_copied() {
        let whole = Bytes::from(message(100_000));
        let (_, body) = read(vec![Some(whole.clone())]).await.expect("reads");
        assert_eq!(body.as_ptr(), whole[PREFIX_BYTES..].as_ptr());
        let (_, body) = read(vec![Some(whole.slice(..5)), Some(whole.slice(5..))]).await.expect("reads");
        assert_eq!(body.as_ptr(), whole[PREFIX_BYTES..].as_ptr());
    }

    #[tokio::test]
    async fn cut_off_and_overlong_requests_are_framing_faults() {
        let whole = Bytes::from(message(10_000));
        let mut second = message(10);
        second.extend(message(10));
        for frames in [
            vec![],
            vec![Some(whole.slice(..3))],
            vec![Some(whole.slice(..5))],
            vec![Some(whole.slice(..9000))],
            vec![Some(whole.slice(..2000)), Some(whole.slice(2000..9000))],
            vec![Some(second.into())],
            vec![Some(whole.clone()), Some(Bytes::from_static(b"x"))],
            vec![Some(whole.slice(..8000)), Some(whole.slice(7000..))],
            vec![Some(Bytes::from_static(&[2, 0, 0, 0, 0]))],
        ] {
            let fault = read(frames.clone()).await.expect_err("refused");
            assert!(matches!(fault, Fault::Framing { .. }), "{fault} for {frames:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_brings_nothing_is_given_up_after_the_read_timeout() {
        let began = Instant::now();
        let fault = read(vec![Some(message(10).into_iter().take(8).collect()), Some(Bytes::new()), None]).await;
        assert_eq!(fault, Err(Fault::Stalled { detail: SILENT }));
        assert!(began.elapsed() >= READ_TIMEOUT);
    }
}
